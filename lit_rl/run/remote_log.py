"""Weights & Biases beside a run: its server may be out of reach and its service may die; the run goes on.

W&B's own way is to wait for minutes for a server that is not there, to raise whatever a broken connection raises into
the training, and to wait at the end for ever until all is uploaded.
"""

import contextlib
import os
import sys
import threading
import urllib.error
import urllib.request
import warnings
from collections.abc import Callable

from lightning.pytorch.loggers import WandbLogger

CALLS = ("log_metrics", "log_hyperparams", "log_graph", "save", "after_save_checkpoint", "finalize")  # the trainer's
PATIENCE = 60  # seconds at a run's end for what is not uploaded yet; it stays on the disk
_opened: list[WandbLogger] = []


def open_remote_log(logger: WandbLogger) -> None:
    """Open the W&B run now; where the server does not answer in five seconds, log to disk instead of dying of it."""
    import wandb

    os.environ.setdefault("WANDB_FINISH_TIMEOUT", str(PATIENCE))
    _opened.append(logger)
    _outlive(logger)
    if logger._offline:
        return
    try:
        with contextlib.suppress(urllib.error.HTTPError):  # an answer, if a refusal
            urllib.request.urlopen(
                wandb.setup().settings.base_url, timeout=5
            ).close()  # wandb itself would try for minutes
        _ = logger.experiment
    except (OSError, wandb.errors.Error) as error:
        logger._wandb_init["mode"] = "offline"
        warnings.warn(f"W&B cannot be reached ({error}); logging offline, wandb sync uploads it later", stacklevel=2)


def close_remote_logs() -> None:
    """Wait for what is not uploaded yet, if a log was opened, but not for ever: a service may hang."""
    if not _opened:
        return
    import wandb

    _opened.clear()
    patience = float(os.environ["WANDB_FINISH_TIMEOUT"]) or threading.TIMEOUT_MAX  # 0: the user will wait
    end = threading.Thread(target=wandb.teardown, daemon=True)
    end.start()
    end.join(min(patience + 5, threading.TIMEOUT_MAX))
    if end.is_alive():
        print("W&B does not end; what it has not uploaded stays in its folder, wandb sync", file=sys.stderr)


def _outlive(logger: WandbLogger) -> None:
    """From the first error on that a call of the trainer's raises, the logger is left alone."""
    dead = False

    def guarded(call: Callable) -> Callable:
        def called(*args, **kwargs):
            nonlocal dead
            if dead:
                return
            try:
                call(*args, **kwargs)
            except Exception as error:
                dead = True
                _bury(logger, error)

        return called

    for name in CALLS:
        setattr(logger, name, guarded(getattr(logger, name)))


def _bury(logger: WandbLogger, error: Exception) -> None:
    """Say so, and let nothing wait for the service at the run's end."""
    import wandb

    warnings.warn(
        f"W&B has died ({type(error).__name__}: {error}); the run goes on without it, metrics.csv has everything",
        stacklevel=3,
    )
    for end in (logger.experiment.finish, wandb.teardown):
        with contextlib.suppress(Exception):  # both talk to the service first, and let go of it all the same
            end(exit_code=1)
