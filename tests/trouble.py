"""Callbacks that make trouble in runs that are processes of their own: on one of two ranks, or to what is beside."""

import os
import signal
import urllib.request
from pathlib import Path

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


class Misfortune(L.Callback):
    """In the third iteration sends W&B's service a signal ($STRIKE), or asks for a page ($ASK)."""

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch != 2:
            return
        if "ASK" in os.environ:
            urllib.request.urlopen(os.environ["ASK"], timeout=5).close()
        for pid in services() if "STRIKE" in os.environ else ():
            print(f"struck {pid}", flush=True)
            os.kill(pid, signal.Signals[os.environ["STRIKE"]])


def services() -> list[int]:
    """Processes of W&B's that this one has started."""
    mine = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
    return [int(pid) for pid in mine if b"wandb-core" in Path(f"/proc/{pid}/cmdline").read_bytes()]
