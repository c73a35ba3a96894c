"""When to log: `self.log` costs a third of a millisecond per metric, so not every iteration."""

import lightning as L
import torch
from torch import Tensor


def is_log_iteration(trainer: L.Trainer) -> bool:
    """True every `trainer.log_every_n_steps` iterations and at the last of max_epochs; asked at an iteration's end."""
    iteration = trainer.current_epoch
    return iteration % max(trainer.log_every_n_steps, 1) == 0 or iteration + 1 == trainer.max_epochs


def minibatch_means(metrics: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """train/<name>: each metric's mean over those minibatches of an iteration that have it."""
    names = dict.fromkeys(name for each in metrics for name in each)
    return {f"train/{name}": torch.stack([m[name] for m in metrics if name in m]).mean() for name in names}
