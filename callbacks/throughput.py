"""How fast the run is and where the time goes."""

import time

import lightning as L

from lit_rl.algorithm import is_log_iteration


class Throughput(L.Callback):
    """Log perf/decisions_per_second (all ranks, whole iterations) and perf/collect_share (the rest is updating).

    Both are over the time since the last logged iteration, validation included.
    """

    def __init__(self) -> None:
        self._since, self._decisions, self._collecting, self._epoch_start = 0.0, 0, 0.0, 0.0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._restart(pl_module)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._epoch_start = time.perf_counter()

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, batch, batch_idx: int) -> None:
        if batch_idx == 0:  # the sized loader collects when its first batch is asked for
            self._collecting += time.perf_counter() - self._epoch_start

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if is_log_iteration(trainer):
            seconds = time.perf_counter() - self._since
            self.log(
                "perf/decisions_per_second", (int(pl_module.decisions) - self._decisions) / seconds, rank_zero_only=True
            )
            self.log("perf/collect_share", self._collecting / seconds, rank_zero_only=True)
            self._restart(pl_module)

    def _restart(self, pl_module: L.LightningModule) -> None:
        self._since, self._decisions, self._collecting = time.perf_counter(), int(pl_module.decisions), 0.0
