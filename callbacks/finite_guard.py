"""Stops a run at the first NaN or infinity, before it reaches the weights."""

import contextlib
import warnings
from pathlib import Path
from typing import Literal

import lightning as L
import torch
from jsonargparse.typing import PositiveInt
from torch import Tensor
from torch.nn.utils import get_total_norm

from lit_rl.algorithm import rollout_of
from lit_rl.run.saved_values import saved_dict, saved_int


class FiniteGuard(L.Callback):
    """Check rollout, loss terms and gradients; raise FloatingPointError that names tensor, iteration and batch.

    The offending minibatch is saved to <run>/crash/ and loads with torch.load(weights_only=True). Gradients that
    overflow under a gradient scaler (16-mixed) are the scaler's business: it skips that step by itself; a scale that
    fell below 1 is an error, since then they overflow even unscaled.

    Args:
        on_nonfinite: raise, or skip the optimizer step of such a minibatch (a rollout not finite always raises).
        max_skips: raise after so many skipped steps in one run.
    """

    def __init__(self, on_nonfinite: Literal["raise", "skip"] = "raise", max_skips: PositiveInt = 10) -> None:
        self.on_nonfinite, self.max_skips = on_nonfinite, int(max_skips)
        self._batch, self._log_dir = None, None
        self._skips = 0

    def state_dict(self) -> dict:
        return {"skips": self._skips}

    def load_state_dict(self, state_dict: dict) -> None:
        self._skips = saved_int(saved_dict(state_dict, "FiniteGuard", ("skips",))["skips"], "FiniteGuard.skips")

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._log_dir = trainer.log_dir  # now, on every rank: Lightning broadcasts it, and a NaN may meet one rank only

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, batch, batch_idx: int) -> None:
        self._batch = batch
        rollout = rollout_of(trainer)
        if batch_idx == 0 and rollout is not None:
            try:
                rollout.check_finite()
            except FloatingPointError as error:
                raise self._stop(trainer, str(error)) from None
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        if batch_idx == 0 and scaler is not None and scaler.get_scale() < 1.0:
            raise self._stop(
                trainer, f"gradient scale fell to {scaler.get_scale():.3g}, use trainer.precision=bf16-mixed"
            )

    def on_before_backward(self, trainer: L.Trainer, pl_module: L.LightningModule, loss: Tensor) -> None:
        if self.on_nonfinite == "raise" and not bool(torch.isfinite(loss)):
            meter = getattr(pl_module, "meter", None)
            terms = ({} if meter is None else meter.terms) | {"loss": loss}
            name = next(name for name, term in terms.items() if not bool(torch.isfinite(term)))
            raise self._stop(trainer, f"loss term {name}={terms[name].item()}")

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer) -> None:
        if getattr(trainer.precision_plugin, "scaler", None) is not None:
            return
        grads = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        if not bool(torch.isfinite(get_total_norm(grads))):
            graded = [(name, p.grad) for name, p in pl_module.named_parameters() if p.grad is not None]
            bad = [name for name, grad in graded if not torch.isfinite(grad).all()]
            what = f"gradient of {', '.join(bad[:5]) or 'all parameters together'} is not finite"
            self._skips += 1
            if self.on_nonfinite == "raise" or self._skips > self.max_skips:
                raise self._stop(trainer, what)
            optimizer.zero_grad(set_to_none=True)  # parameters without a gradient are left alone, moments included
            warnings.warn(f"{what}; optimizer step {trainer.global_step} skipped", stacklevel=2)

    def _stop(self, trainer: L.Trainer, what: str) -> FloatingPointError:
        step = f"iteration {trainer.current_epoch}, optimizer step {trainer.global_step}"
        saved = ""
        if self._log_dir is not None and self._batch is not None:
            path = Path(self._log_dir) / "crash" / f"batch-rank{trainer.global_rank}-step{trainer.global_step}.pt"
            with contextlib.suppress(OSError):  # what happened matters more than a full disk
                path.parent.mkdir(parents=True, exist_ok=True)
                torch.save(plain(self._batch), path)
                saved = f"; batch saved to {path}"
        return FloatingPointError(
            f"{what} at {step}; weights untouched since the last good step{saved}; "
            "lower the learning rate or set trainer.gradient_clip_val"
        )


def plain(batch):
    """Named tuples as dictionaries, so that what is saved loads with weights_only=True."""
    if not hasattr(batch, "_asdict"):
        return batch
    return {name: plain(part) for name, part in batch._asdict().items()}
