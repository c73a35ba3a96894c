"""A callback that makes trouble on one of two ranks, in runs that are processes of their own."""

import os
import signal

import lightning as L
import torch


class Trouble(L.Callback):
    """Stops rank 0 ($STOP, by the signal $STOP_WITH), kills a rank and its parent ($DIE) or puts a NaN before rank 1
    ($POISON), at that optimizer step; saves what both end with."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        where = (trainer.global_rank, str(trainer.global_step))
        if where == (0, os.environ.get("STOP")):
            os.kill(os.getpid(), signal.Signals[os.environ.get("STOP_WITH", "SIGTERM")])
        if " ".join(map(str, where)) == os.environ.get("DIE"):  # as "1 21"
            os.kill(os.getppid(), signal.SIGKILL)
            os.kill(os.getpid(), signal.SIGKILL)
        if where == (1, os.environ.get("POISON")):
            batch.returns[0] = torch.nan

    def on_train_end(self, trainer, pl_module):
        weights = torch.cat([p.detach().flatten() for p in pl_module.policy.parameters()])
        torch.save({"weights": weights, "obs": trainer.train_dataloader.rollout.obs}, f"rank{trainer.global_rank}.pt")
