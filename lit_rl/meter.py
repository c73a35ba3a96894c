"""What an algorithm measures of each minibatch, logged once per iteration: `self.log` costs 0.35 ms a metric."""

import lightning as L
import torch
from torch import Tensor


class Meter:
    """The metrics of an iteration's minibatches. An algorithm holds one as `self.meter`, and checkpoints keep it.

    Attributes:
        terms: the loss terms of the last minibatch; `callbacks.FiniteGuard` names the one that is not finite.
        minibatches: the metrics of this iteration so far, one dictionary of scalar tensors each.
    """

    def __init__(self) -> None:
        self.terms: dict[str, Tensor] = {}
        self.minibatches: list[dict[str, Tensor]] = []

    def add(self, terms: dict[str, Tensor], **more: Tensor) -> None:
        """The loss terms of one minibatch, and whatever else is measured of it."""
        self.terms = terms
        self.minibatches.append({name: value.detach() for name, value in (terms | more).items()})

    def log(self, module: L.LightningModule, **more: float | Tensor) -> None:
        """An algorithm's `on_train_epoch_end`: log train/<name>, each metric's mean over those minibatches that have
        it, and `decisions`; then begin anew."""
        if self.minibatches and is_log_iteration(module.trainer):
            means = minibatch_means(self.minibatches) | {"decisions": module.decisions.float()} | more
            module.log_dict(means, sync_dist=module.trainer.world_size > 1)
        self.minibatches.clear()


def is_log_iteration(trainer: L.Trainer) -> bool:
    """True every `trainer.log_every_n_steps` iterations and at the last of max_epochs; asked at an iteration's end."""
    iteration = trainer.current_epoch
    return iteration % max(trainer.log_every_n_steps, 1) == 0 or iteration + 1 == trainer.max_epochs


def minibatch_means(metrics: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """train/<name>: each metric's mean over those minibatches of an iteration that have it."""
    names = dict.fromkeys(name for each in metrics for name in each)
    return {f"train/{name}": torch.stack([m[name] for m in metrics if name in m]).mean() for name in names}
