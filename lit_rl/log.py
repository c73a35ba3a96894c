"""When to log: `self.log` costs a third of a millisecond per metric, so not every iteration."""

import lightning as L


def is_log_iteration(trainer: L.Trainer) -> bool:
    """True every `trainer.log_every_n_steps` iterations and at the last of max_epochs; asked at an iteration's end."""
    iteration = trainer.current_epoch
    return iteration % max(trainer.log_every_n_steps, 1) == 0 or iteration + 1 == trainer.max_epochs
