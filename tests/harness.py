"""Runs of the command in forked processes that can be killed at any instant, and the digest of what they leave.

Forked from a process that has imported and compiled everything, a run starts in a tenth of a second, so that hundreds
of kills fit into minutes. Algorithms join by adding a line to RUNS.
"""

import contextlib
import csv
import hashlib
import json
import os
import random
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import traceback
from pathlib import Path

import torch

ROOT = Path(__file__).parent.parent

# name -> arguments of a short run that uses what the config has: schedules, averages, validation, logging
QUICK = ("kuhn_ppo", "leduc_neurd", "kuhn_armac", "leduc_league")  # of them, those that are killed by default
RUNS = {
    "kuhn_ppo": [
        "--config", "configs/kuhn_ppo.yaml", "--data.num_envs", "32", "--model.target_kl", "0.002",
        "--trainer.callbacks+=Replay", "--trainer.callbacks.every", "7",
    ],
    "leduc_ppo": ["--config", "configs/leduc_ppo.yaml", "--data.num_envs", "32", "--data.num_steps", "8"],
    "kuhn_rnad": ["--config", "configs/kuhn_rnad.yaml", "--data.num_envs", "16"],
    "leduc_league": [  # its own past and a heuristic in the other seats
        "--config", "configs/leduc_ppo.yaml", "--data", "LeagueDataModule", "--data.num_envs", "32",
        "--data.num_steps", "8", "--data.opponents", "[random]", "--data.refresh_every", "4",
        "--trainer.callbacks+=Snapshot", "--trainer.callbacks.every", "7", "--trainer.callbacks.recent", "2",
        "--trainer.callbacks.spaced", "1", "--trainer.callbacks+=Arena", "--trainer.callbacks.every", "15",
        "--trainer.callbacks.games", "200",
    ],
    "leduc_neurd": ["--config", "configs/leduc_rnad.yaml", "--data.num_envs", "16", "--model.form", "neurd"],
    "last_card_ppo": [  # a memory, with all that chunks can have
        "--config", "configs/last_card_ppo.yaml", "--data.num_envs", "16", "--data.num_steps", "8",
        "--model.network.memory", "16", "--model.minibatches.num_minibatches", "2",
        "--model.minibatches.chunk_length", "2", "--model.minibatches.burn_in", "1",
        "--model.minibatches.refresh", "true",
    ],
    "last_card_neurd": [  # learner, target and reference, each with a memory
        "--config", "configs/leduc_rnad_published.yaml", "--data.game", "envs.leduc_poker_last_card",
        "--data.num_envs", "16", "--model.network", "Recurrent", "--model.network.cell", "lstm",
        "--model.network.memory", "16", "--model.reference.every", "3",
    ],
    "kuhn_armac": [
        "--config", "configs/kuhn_armac.yaml", "--data.num_envs", "16", "--model.use_scheduler", "true",
        "--model.state_keys", "lit_rl.armac.state_keys.TieredKeys",
        "--model.state_keys.facts", "envs.kuhn_poker.betting",
        "--model.utility", "lit_rl.armac.mix_utility.Hybrid",
        "--trainer.callbacks+=Replay", "--trainer.callbacks.every", "7",
    ],
    "kuhn_armac_past": [
        "--config", "configs/kuhn_armac.yaml", "--data", "RetrospectiveDataModule", "--data.num_envs", "16",
        "--data.past_policies", "8", "--data.seated", "3",
    ],
    "leduc_armac": [
        "--config", "configs/leduc_armac.yaml", "--data.num_envs", "16", "--model.mix_lambda", "0.5",
        "--model.memory", "lit_rl.armac.memory.ReservoirMemory", "--model.memory.capacity", "500",
        "--model.memory.batch_size", "64",
    ],
}  # fmt: skip
SHORT = [
    "--trainer.max_epochs", "60", "--trainer.check_val_every_n_epoch", "9", "--trainer.log_every_n_steps", "4",
    "--trainer.enable_progress_bar", "false", "--trainer.callbacks+=LastCheckpoint",
    "--trainer.callbacks.every_seconds", "0.1",
]  # fmt: skip

SMALL = [  # a run of a second
    "--config", str(ROOT / "configs" / "kuhn_ppo.yaml"), "--trainer.accelerator", "cpu", "--data.num_envs", "32",
    "--data.num_steps", "8", "--trainer.max_epochs", "4", "--trainer.check_val_every_n_epoch", "2",
    "--trainer.enable_progress_bar", "false",
]  # fmt: skip


def fit_arguments(name: str, root: Path) -> list[str]:
    return ["fit", *RUNS[name], *SHORT, "--trainer.default_root_dir", str(root)]


def resume_arguments(folder: Path) -> list[str]:
    return ["fit", "--config", str(folder / "config.yaml"), "--ckpt_path", "last"]


class Zygote:
    """A process with one torch thread that has imported and compiled what it was asked to, and forks runs."""

    def __init__(self, root: Path):
        env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "WANDB_MODE": "disabled"}
        command = [sys.executable, "-W", "ignore", __file__, str(root)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)
        self.warm("kuhn_ppo")
        self.warm("leduc_ppo")

    def warm(self, name: str) -> None:
        """Import and compile all that this run needs, so that its forks start in a tenth of a second."""
        print(json.dumps(name), file=self.process.stdin, flush=True)
        assert self._hear() == "ready"

    def litrl(
        self,
        args: list[str],
        log: Path,
        when: float | Path | None = None,
        signum: int = signal.SIGKILL,
        sabotage: tuple = (),
    ) -> int:
        """Run the command; its exit code, or minus the signal that ended it.

        when: `signum` is sent after so many seconds, or once this file exists. sabotage: (name in SABOTAGE, *its
        arguments), done in the run first.
        """
        print(json.dumps([args, str(log), sabotage]), file=self.process.stdin, flush=True)
        pid = self._hear()
        if when is not None:
            if isinstance(when, Path):
                wait_for(when)
            else:
                time.sleep(when)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signum)
        return self._hear()

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()

    def _hear(self):
        line = self.process.stdout.readline()
        assert line, "the zygote has died"
        return json.loads(line)


def wait_for(path: Path) -> None:
    """Return once the file exists. Raises TimeoutError: it does not within two minutes."""
    give_up = time.monotonic() + 120
    while not path.exists():
        if time.monotonic() > give_up:
            raise TimeoutError(f"{path} does not appear")
        time.sleep(0.01)


def fork_run(args: list[str], log: Path, sabotage: tuple = ()) -> int:
    """Run the command in a fork of this process; its pid."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        os.chdir(ROOT)
        with open(log, "a") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
        from lit_rl.cli import main

        if sabotage:
            SABOTAGE[sabotage[0]](*sabotage[1:])
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


def exit_status(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def serve(root: Path) -> None:
    """The zygote's life: fork what stdin asks for, or, asked by a name alone, train an iteration of that run itself."""
    import io

    from lit_rl.cli import main

    torch.set_num_threads(1)
    os.chdir(ROOT)
    for line in sys.stdin:
        asked = json.loads(line)
        if isinstance(asked, str):
            with contextlib.redirect_stdout(io.StringIO()):
                main([*fit_arguments(asked, root), "--trainer.max_epochs", "1"])
            print(json.dumps("ready"), flush=True)
            continue
        args, log, sabotage = asked
        pid = fork_run(args, log, sabotage)
        print(json.dumps(pid), flush=True)
        print(json.dumps(exit_status(pid)), flush=True)


def last_line(log: Path) -> str:
    return log.read_text().splitlines()[-1]


def disturb(litrl, name: str, seconds: float, root: Path, kills: int, signals: list[int], rng) -> dict[int, int]:
    """Run `name` to its end through `kills` signals at random instants: how often each exit code came."""
    folder, log, codes = root / "version_0", root / "log", {}
    root.mkdir()
    for _ in range(10 * kills + 10):
        begun = (folder / "config.yaml").exists()
        if not begun:
            shutil.rmtree(folder, ignore_errors=True)
        args = resume_arguments(folder) if begun else fit_arguments(name, root)
        left = kills - sum(codes.values())
        # late enough to get somewhere, early enough to leave something for those still to come
        after = rng.uniform(0.1, max(0.5, 1.5 * seconds / kills + 0.5)) if left > 0 else None
        code = litrl(args, log, after, rng.choice(signals))
        codes[code] = codes.get(code, 0) + 1
        if code == 0:
            return codes
        assert code in (-signal.SIGKILL, -signal.SIGTERM, 130, 143), log.read_text()[-3000:]
    raise AssertionError(f"did not end: {codes}")


# What can be made to go wrong inside a run, by name, since only names can be told to the zygote.


def before_batch(trouble) -> None:
    """Call trouble(trainer, pl_module, batch) when each minibatch begins."""
    from callbacks.throughput import Throughput

    hook = Throughput.on_train_batch_start

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        trouble(trainer, module, batch)
        hook(self, trainer, module, batch, batch_idx)

    Throughput.on_train_batch_start = on_train_batch_start


def stop_after_batch(number: int) -> None:
    """SIGTERM to oneself when minibatch `number` of the whole run begins: it stops right after."""

    def trouble(trainer, module, batch):
        if trainer.fit_loop.epoch_loop.total_batch_idx == number:
            os.kill(os.getpid(), signal.SIGTERM)

    before_batch(trouble)


def hang(signals: int) -> None:
    """In iteration 2 get so many SIGTERMs, then take for ever; the patience of one signal is a tenth of a second."""
    import lit_rl.run.signals

    lit_rl.run.signals.GRACE = 0.1

    def trouble(trainer, module, batch):
        if trainer.current_epoch == 2:
            for _ in range(signals):
                os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(120)
            raise AssertionError("nothing has ended this batch")

    before_batch(trouble)


def second_run(folder: str, log: str) -> None:
    """In iteration 20 start another run in the same folder, which must exit with 2; then die."""

    def trouble(trainer, module, batch):
        if trainer.current_epoch == 20:
            assert exit_status(fork_run(resume_arguments(Path(folder)), log)) == 2, Path(log).read_text()
            os.kill(os.getpid(), signal.SIGKILL)

    before_batch(trouble)


def full_disk(size: int) -> None:
    """No file may grow beyond `size` bytes."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def bug(iteration: int) -> None:
    """An exception between two parts of an update."""
    from lit_rl.ppo import PPO

    step = PPO.optimizer_step

    def optimizer_step(self, epoch, batch_idx, *args):
        if self.trainer.current_epoch == iteration:
            raise RuntimeError("something broke")
        step(self, epoch, batch_idx, *args)

    PPO.optimizer_step = optimizer_step


def poison(iteration: int) -> None:
    def trouble(trainer, module, batch):
        if trainer.current_epoch == iteration:
            batch.returns[0] = torch.nan

    before_batch(trouble)


def elsewhere(folder: str) -> None:
    """Another working directory, other global random states."""
    os.chdir(folder)
    torch.manual_seed(999)
    random.seed(999)


def die_after_the_end() -> None:
    """Killed when everything is saved and nothing is summed up yet."""
    from callbacks.run_summary import RunSummary

    RunSummary.on_fit_end = lambda self, trainer, module: os.kill(os.getpid(), signal.SIGKILL)


def die_at_start() -> None:
    """Killed in the first minibatch."""
    before_batch(lambda trainer, module, batch: os.kill(os.getpid(), signal.SIGKILL))


def die_in_first_save(step: str) -> None:
    """Killed when the first checkpoint has got so far: `stage_checkpoint`, it lies on the disk; `add_to_manifest`, it
    is known, too; `sync_folder`, it has its name."""
    from lit_rl.run import checkpoint_io

    done = getattr(checkpoint_io, step)

    def last(*args):
        done(*args)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(checkpoint_io, step, last)


TROUBLES = (
    stop_after_batch, hang, second_run, full_disk, bug, poison, elsewhere, die_after_the_end, die_at_start,
    die_in_first_save,
)  # fmt: skip
SABOTAGE = {f.__name__: f for f in TROUBLES}


def digest(folder: Path) -> str:
    """SHA-256 of what a run is: weights, moments, games, random streams, rollout, schedules, metrics, replay, league.

    Left out: clock times and paths.
    """
    checkpoint = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    hasher = hashlib.sha256()
    feed(hasher, {key: checkpoint[key] for key in ("state_dict", "optimizer_states", "lr_schedulers", "global_step")})
    feed(hasher, {key: value for key, value in checkpoint.items() if key.endswith("DataModule")})
    with (folder / "metrics.csv").open() as file:
        rows = [{k: v for k, v in row.items() if not k.startswith("perf/")} for row in csv.DictReader(file)]
    feed(hasher, [sorted(row.items()) for row in rows])
    if (folder / "replay.jsonl").exists():
        hasher.update((folder / "replay.jsonl").read_bytes())
    if (folder / "league").exists():
        with contextlib.closing(sqlite3.connect(folder / "league" / "league.sqlite")) as connection:
            for query in (
                "SELECT name, state, sha256, rating FROM members",
                "SELECT * FROM results",
                "SELECT * FROM rosters",
            ):
                feed(hasher, [list(row) for row in connection.execute(query)])
    return hasher.hexdigest()


def feed(hasher, value) -> None:
    if isinstance(value, torch.Tensor):
        hasher.update(f"{value.dtype}{tuple(value.shape)}".encode())
        hasher.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    elif isinstance(value, dict):
        for key in value:
            hasher.update(repr(key).encode())
            feed(hasher, value[key])
    elif isinstance(value, list | tuple):
        hasher.update(f"{len(value)}[".encode())
        for item in value:
            feed(hasher, item)
    else:
        hasher.update(repr(value).encode())


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
