"""Runs of the command in forked processes that can be killed at any instant, and the digest of what they leave.

Forked from a process that has imported and compiled everything, a run starts in a tenth of a second, so that hundreds
of kills fit into minutes. Algorithms join by adding a line to RUNS.
"""

import csv
import hashlib
import os
import signal
import sys
import time
import traceback
from pathlib import Path

import torch

ROOT = Path(__file__).parent.parent

# name -> arguments of a short run that uses what the config has: schedules, averages, validation, logging
RUNS = {
    "kuhn_ppo": ["--config", "configs/kuhn_ppo.yaml", "--data.num_envs", "32", "--model.target_kl", "0.002"],
    "leduc_ppo": ["--config", "configs/leduc_ppo.yaml", "--data.num_envs", "32", "--data.num_steps", "8"],
}
SHORT = [
    "--trainer.max_epochs", "60", "--trainer.check_val_every_n_epoch", "9", "--trainer.log_every_n_steps", "4",
    "--trainer.enable_progress_bar", "false", "--trainer.callbacks+=LastCheckpoint",
    "--trainer.callbacks.every_seconds", "0.1",
]  # fmt: skip


def fit_arguments(name: str, root: Path) -> list[str]:
    return ["fit", *RUNS[name], *SHORT, "--trainer.default_root_dir", str(root)]


def resume_arguments(folder: Path) -> list[str]:
    return ["fit", "--config", str(folder / "config.yaml"), "--ckpt_path", "last"]


def litrl(
    args: list[str], log: Path, kill_after: float | None = None, signum: int = signal.SIGKILL, prepare=None
) -> int:
    """Run the command in a fork of this process; its exit code, or minus the signal that ended it.

    kill_after: seconds until `signum` is sent. prepare(): called in the child first, to break something there.
    """
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.chdir(ROOT)
            with log.open("a") as file:
                os.dup2(file.fileno(), 1)
                os.dup2(file.fileno(), 2)
            sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
            from lit_rl.cli import main

            if prepare is not None:
                prepare()
            main(args)
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(pid, signum)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


def digest(folder: Path) -> str:
    """SHA-256 of what a run is: weights, moments, games, random streams, rollout, schedules, curve and metrics.

    Left out: clock times and paths.
    """
    checkpoint = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    hasher = hashlib.sha256()
    _feed(hasher, {key: checkpoint[key] for key in ("state_dict", "optimizer_states", "lr_schedulers", "global_step")})
    _feed(hasher, {key: value for key, value in checkpoint.items() if key.endswith("DataModule")})
    with (folder / "metrics.csv").open() as file:
        rows = [{k: v for k, v in row.items() if not k.startswith("perf/")} for row in csv.DictReader(file)]
    _feed(hasher, [sorted(row.items()) for row in rows])
    return hasher.hexdigest()


def _feed(hasher, value) -> None:
    if isinstance(value, torch.Tensor):
        hasher.update(f"{value.dtype}{tuple(value.shape)}".encode())
        hasher.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    elif isinstance(value, dict):
        for key in value:
            hasher.update(repr(key).encode())
            _feed(hasher, value[key])
    elif isinstance(value, list | tuple):
        hasher.update(f"{len(value)}[".encode())
        for item in value:
            _feed(hasher, item)
    else:
        hasher.update(repr(value).encode())
