"""Gradient norms before and after clipping, measured where they are, logged once per iteration."""

import lightning as L
import torch
from torch import Tensor
from torch.nn.utils import get_total_norm

from lit_rl.algorithm import is_log_iteration
from lit_rl.run.saved_values import need, saved_dict, saved_list


class GradNorm(L.Callback):
    """Log train/grad_norm (before clipping), train/grad_norm_clipped (what the optimizer saw) and train/clipped_share.

    Norms are L2, of unscaled gradients under AMP, averaged over the iteration's optimizer steps; steps that the
    gradient scaler or target_kl skipped do not count.

    Args:
        per_group: also log train/grad_norm/<name> for each parameter group, before clipping.
    """

    def __init__(self, per_group: bool = False):
        self.per_group = per_group
        self._before: list[Tensor] = []
        self._steps: list[tuple[list[Tensor], Tensor]] = []
        self._hook = None

    def state_dict(self) -> dict:
        return {"steps": self._steps}

    def load_state_dict(self, state_dict: dict) -> None:
        steps = saved_list(saved_dict(state_dict, "GradNorm", ("steps",))["steps"], "GradNorm.steps")
        for step in steps:
            need(isinstance(step, tuple) and len(step) == 2 and isinstance(step[0], list), "GradNorm.steps is damaged")
            for norm in (*step[0], step[1]):
                need(isinstance(norm, Tensor) and norm.ndim == 0, "GradNorm.steps has what is no scalar tensor")
        self._steps = list(steps)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        (optimizer,) = trainer.optimizers
        self._hook = optimizer.register_step_post_hook(self._after_step)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._hook is not None:
            self._hook.remove()

    def on_before_optimizer_step(self, trainer, pl_module, optimizer) -> None:
        groups = optimizer.param_groups if self.per_group else []
        self._before = [_norm(optimizer.param_groups)] + [_norm([group]) for group in groups]

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._steps and is_log_iteration(trainer):
            before = torch.stack([torch.stack(norms) for norms, _ in self._steps])
            after = torch.stack([norm for _, norm in self._steps])
            self.log("train/grad_norm", before[:, 0].mean())
            self.log("train/grad_norm_clipped", after.mean())
            self.log("train/clipped_share", (after < before[:, 0] * (1 - 1e-5)).float().mean())
            if self.per_group:
                for i, group in enumerate(trainer.optimizers[0].param_groups):
                    self.log(f"train/grad_norm/{group.get('name', i)}", before[:, i + 1].mean())
        self._steps.clear()

    def _after_step(self, optimizer, args, kwargs) -> None:
        self._steps.append((self._before, _norm(optimizer.param_groups)))


def _norm(groups: list[dict]) -> Tensor:
    return get_total_norm([p.grad for group in groups for p in group["params"] if p.grad is not None])
