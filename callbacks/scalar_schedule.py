"""Any scalar of the module or the datamodule as a function of the iteration."""

import difflib
import math

import lightning as L

from lit_rl.errors import ConfigError
from lit_rl.log import is_log_iteration
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
        if stage != "fit":
            return
        owner = self._owner(trainer, pl_module)
        known = sorted(k for k, v in vars(owner).items() if _is_number(v) and not k.startswith("_"))
        if self.name not in known:
            close = difflib.get_close_matches(self.name, known, n=1)
            hint = f"did you mean {self.scope}.{close[0]}?" if close else f"numbers there: {', '.join(known)}"
            raise ConfigError(f"target={self.target!r}: {type(owner).__name__} has no such number; {hint}")
        if not trainer.max_epochs or trainer.max_epochs < 1:
            raise ConfigError(f"schedule of {self.target} needs a run of known length: set trainer.max_epochs")

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        owner = self._owner(trainer, pl_module)
        value = self.schedule(trainer.current_epoch, trainer.max_epochs)
        if not math.isfinite(value):
            raise ValueError(f"schedule of {self.target} gave {value} at iteration {trainer.current_epoch}")
        setattr(owner, self.name, round(value) if isinstance(getattr(owner, self.name), int) else value)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if is_log_iteration(trainer):
            self.log(f"schedule/{self.name}", float(getattr(self._owner(trainer, pl_module), self.name)))

    def _owner(self, trainer: L.Trainer, pl_module: L.LightningModule):
        return pl_module if self.scope == "model" else trainer.datamodule


def _is_number(value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
