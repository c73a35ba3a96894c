"""Every run ends validated and has a picture of ten points; slow evaluations keep to their share of the time."""

import time
from pathlib import Path
from typing import Any

import lightning as L
from jsonargparse.typing import PositiveInt
from lightning.pytorch.callbacks import ModelCheckpoint

from callbacks.last_checkpoint import LastCheckpoint
from callbacks.measurement import Measurement
from datamodules.self_play import SelfPlayDataModule
from lit_rl.evaluation import evaluation_step
from lit_rl.run.checkpoint_io import VerifiedCheckpointIO
from lit_rl.run.errors import ConfigError, check_ranges

MEASURED = "measured.ckpt"  # the run as it was when the running measurement began


class Validations(L.Callback):
    """Validate in the last iteration, and at least so often as to have `least` points in a run of known length.

    trainer.check_val_every_n_epoch counts where it asks for more; trainer.limit_val_batches=0 switches all off.

    Where an evaluation is slow, all of them are done beside training: in a thread of their own, on a copy of the
    exported policy, and only so often that they take `share` of the time. What was measured is logged, and drawn, at
    the decisions where it was measured (eval/decisions), by the first validation after it is known; ModelCheckpoint's
    best file is the whole run as it was there. Weights do not depend on any of it. A stopped run gives up what is
    being measured. The last iteration's validation, and all in runs on several devices, with a validation_step of
    their own, with checkpoints that another plugin writes, or steered by what is measured (EarlyStopping, a learning
    rate with a monitor), are Lightning's own, for which training waits.

    Args:
        least: validations in a run; in a shorter one every iteration has its own.
        share: of the wall clock, at most, that slow evaluations take; null: training waits for them, too.
    """

    def __init__(self, least: PositiveInt = 10, share: float | None = 0.05):
        check_ranges(Validations.__init__, locals())
        if share is not None and not 0.0 < share <= 1.0:
            raise ConfigError(f"Validations: share={share}: needs more than 0 and at most 1, or null")
        self.least, self.share = int(least), share
        self._asked: int | None = None  # check_val_every_n_epoch as the user has it
        self._every = 1
        self._beside = False  # slow evaluations are done beside training
        self._running: Measurement | None = None
        self._began, self._pause = 0.0, 0.0  # of the last measurement, and how long until the next; seconds

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self._asked = trainer.check_val_every_n_epoch
        length = trainer.max_epochs or -1
        if stage != "fit" or self._asked is None or not trainer.limit_val_batches:
            return
        self._every = min(self._asked, max(1, length // self.least)) if length > 0 else self._asked
        if self._every < self._asked and trainer.is_global_zero:
            print(
                f"validating every {self._every} of {length} iterations, not every {self._asked}: {self.least} at least"
            )
        trainer.check_val_every_n_epoch = self._every

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._running, self._pause = None, 0.0
        self._beside = self._asked is not None and self.share is not None and _can_be_beside(trainer)
        if self._beside:
            print(f"validating beside training, for at most {100 * self.share:g} % of the time")
        self._time_the_loop(trainer)  # a run resumed in mid-iteration begins no new one

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._beside:
            self._collect(trainer)
            self._begin(trainer, pl_module)
        self._time_the_loop(trainer)

    def _time_the_loop(self, trainer: L.Trainer) -> None:
        """Lightning's loop runs where check_val_every_n_epoch divides the number of the iteration."""
        number = trainer.current_epoch + 1
        if self._asked is not None and number == trainer.max_epochs:
            trainer.check_val_every_n_epoch = number
        elif self._beside:
            trainer.check_val_every_n_epoch = number if trainer.datamodule.answers else number + 1

    def _collect(self, trainer: L.Trainer) -> None:
        """Let Lightning's loop log what was measured. The last iteration has an own: the one before it waits."""
        last_chance = trainer.current_epoch + 2 == trainer.max_epochs
        if self._running is not None and (self._running.done or last_chance):
            running, self._running = self._running, None
            trainer.datamodule.answers = running.answers()
            self._pause = (time.monotonic() - self._began) / self.share
            writer, source = trainer.strategy.checkpoint_io, LastCheckpoint.of(trainer)
            if source is not None and _kept_by_metric(trainer):
                writer.instead = _Measured(trainer, writer, source.path(MEASURED))

    def _begin(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        done, data = trainer.current_epoch, trainer.datamodule
        early = done % self._every or time.monotonic() < self._began + self._pause
        if done == 0 or early or self._running is not None or data.answers or _nears_end(trainer):
            return
        source = LastCheckpoint.of(trainer)
        if source is not None and _kept_by_metric(trainer):
            source.save(trainer, MEASURED)
            if trainer.strategy.checkpoint_io.failures:  # a full disk, say: then the file is not this run's state
                return
        self._began = time.monotonic()
        self._running = Measurement(data.evaluation, pl_module.export_policy(), int(pl_module.decisions))

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._forget_answers(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """A run that ends sooner than it knew gives up what is being measured: its end is measured anyway."""
        self._give_up(trainer)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self._give_up(trainer)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        trainer.check_val_every_n_epoch = self._asked

    def _give_up(self, trainer: L.Trainer) -> None:
        if self._running is not None:
            self._running.give_up()
            self._running = None
        if self._beside:
            self._forget_answers(trainer)
            if (source := LastCheckpoint.of(trainer)) is not None:
                trainer.strategy.checkpoint_io.remove_checkpoint(source.path(MEASURED))

    def _forget_answers(self, trainer: L.Trainer) -> None:
        if self._beside and trainer.datamodule.answers:
            trainer.datamodule.answers = []
            if isinstance(writer := trainer.strategy.checkpoint_io, VerifiedCheckpointIO):
                writer.instead = lambda checkpoint, path: checkpoint


class _Measured:
    """What is written for a metric's best file: the run as it was where the metric was measured."""

    def __init__(self, trainer: L.Trainer, writer: VerifiedCheckpointIO, path: Path):
        self.trainer, self.writer, self.path = trainer, writer, path

    def __call__(self, checkpoint: dict[str, Any], path: Path) -> dict[str, Any]:
        keepers = _kept_by_metric(self.trainer)
        if not any(str(path) in keeper.best_k_models for keeper in keepers):
            return checkpoint
        found = self.writer.load_checkpoint(self.path, map_location="cpu")
        known = {keeper.state_key: checkpoint["callbacks"][keeper.state_key] for keeper in keepers}
        changed = {"callbacks": found["callbacks"] | known, "quiescent": False}  # last.ckpt is newer, written before
        return found | changed


def _kept_by_metric(trainer: L.Trainer) -> list[ModelCheckpoint]:
    return [each for each in trainer.checkpoint_callbacks if isinstance(each, ModelCheckpoint) and each.monitor]


def _nears_end(trainer: L.Trainer) -> bool:
    """The next iteration but one is validated anyway."""
    return (trainer.max_epochs or -1) > 0 and trainer.current_epoch + 2 >= trainer.max_epochs


def _can_be_beside(trainer: L.Trainer) -> bool:
    data = trainer.datamodule
    steering = [each for each in trainer.callbacks if not isinstance(each, ModelCheckpoint)]
    monitors = [getattr(each, "monitor", None) for each in steering]
    monitors += [each.monitor for each in trainer.lr_scheduler_configs if each.reduce_on_plateau]
    whole = isinstance(trainer.strategy.checkpoint_io, VerifiedCheckpointIO) and LastCheckpoint.of(trainer) is not None
    return (
        isinstance(data, SelfPlayDataModule)
        and any(job.slow for job in data.evaluation)
        and bool(trainer.limit_val_batches)
        and trainer.world_size == 1
        and not any(monitors)
        and type(trainer.lightning_module).validation_step is evaluation_step
        and (whole or not _kept_by_metric(trainer))
    )
