"""Any scalar of the module or the datamodule as a function of the iteration."""

import difflib
from typing import get_type_hints

import lightning as L

from lit_rl.algorithm import is_log_iteration
from lit_rl.run.errors import ConfigError, check_ranges
from lit_rl.schedules import Schedule


class ScalarSchedule(L.Callback):
    """Set one number of the model or the data at the start of each iteration, before its rollout is collected.

    A pure function of the iteration: nothing to save, nothing lost on resume. Logged as schedule/<name>.

    Args:
        target: what to set, such as model.entropy_coef, model.sampling_temperature, model.clip or data.num_steps.
        schedule: its value over the run; a target that is a whole number is set to the nearest one.
    """

    def __init__(self, target: str, schedule: Schedule):
        scope, _, name = target.partition(".")
        if scope not in ("model", "data") or not name:
            raise ValueError(f"target={target!r}: needs model.<attribute> or data.<attribute>")
        self.target, self.scope, self.name, self.schedule = target, scope, name, schedule

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if stage == "fit":
            self.check_start(trainer, pl_module)

    def check_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Called by the datamodule before anything is compiled.

        Raises:
            ConfigError: no such target, one that cannot move, or values that it cannot have.
        """
        owner = self._owner(trainer, pl_module)
        known = sorted(k for k, v in vars(owner).items() if _is_number(v) and not k.startswith("_"))
        if self.name not in known:
            close = difflib.get_close_matches(self.name, known, n=1)
            hint = f"did you mean {self.scope}.{close[0]}?" if close else f"numbers there: {', '.join(known)}"
            raise ConfigError(f"target={self.target!r}: {type(owner).__name__} has no such number; {hint}")
        if self.name in getattr(owner, "fixed_during_fit", ()):
            raise ConfigError(f"target={self.target!r} is fixed once the run has begun; it cannot follow a schedule")
        if not trainer.max_epochs or trainer.max_epochs < 1:
            raise ConfigError(f"schedule of {self.target} needs a run of known length: set trainer.max_epochs")
        values = [self.schedule(i, trainer.max_epochs) for i in range(trainer.max_epochs)]
        for extreme in (min(values), max(values)):
            check_ranges(type(owner).__init__, {self.name: self._typed(owner, extreme)})

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        owner = self._owner(trainer, pl_module)
        setattr(owner, self.name, self._typed(owner, self.schedule(trainer.current_epoch, trainer.max_epochs)))

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.on_train_epoch_start(trainer, pl_module)  # a run resumed in mid-iteration begins no new one
        if trainer.ckpt_path is not None and trainer.is_global_zero:
            value = getattr(self._owner(trainer, pl_module), self.name)
            print(f"  {self.target} goes on at {value:.6g}, iteration {trainer.current_epoch} of {trainer.max_epochs}")

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if is_log_iteration(trainer):
            self.log(f"schedule/{self.name}", float(getattr(self._owner(trainer, pl_module), self.name)))

    def _typed(self, owner, value: float) -> float:
        """Rounded where the owner's constructor asks for a whole number."""
        hint = get_type_hints(type(owner).__init__).get(self.name)
        return round(value) if isinstance(hint, type) and issubclass(hint, int) else value

    def _owner(self, trainer: L.Trainer, pl_module: L.LightningModule):
        return pl_module if self.scope == "model" else trainer.datamodule


def _is_number(value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
