"""No run ends without having been validated, and no picture has fewer than ten points."""

import lightning as L
from jsonargparse.typing import PositiveInt

from lit_rl.run.errors import check_ranges


class Validations(L.Callback):
    """Validate in the last iteration, and at least so often as to have `least` points in a run of known length.

    trainer.check_val_every_n_epoch counts where it asks for more; trainer.limit_val_batches=0 switches all off.

    Args:
        least: validations in a run; in a shorter one every iteration has its own.
    """

    def __init__(self, least: PositiveInt = 10):
        check_ranges(Validations.__init__, locals())
        self.least = int(least)
        self._asked: int | None = None  # check_val_every_n_epoch as the user has it

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self._asked = trainer.check_val_every_n_epoch
        length = trainer.max_epochs or -1
        if stage != "fit" or self._asked is None or length < 1 or not trainer.limit_val_batches:
            return
        every = min(self._asked, max(1, length // self.least))
        if every < self._asked and trainer.is_global_zero:
            print(f"validating every {every} of {length} iterations, not every {self._asked}: {self.least} at least")
        trainer.check_val_every_n_epoch = every

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._asked is not None and trainer.current_epoch + 1 == trainer.max_epochs:
            trainer.check_val_every_n_epoch = trainer.max_epochs  # which divides the number of iterations, as 1 does

    on_train_start = on_train_epoch_start  # a run resumed in mid-iteration begins no new one

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        trainer.check_val_every_n_epoch = self._asked
