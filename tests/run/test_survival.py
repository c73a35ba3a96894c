"""Runs that are killed, stopped, moved, starved of disk space or given damaged files, and what must hold afterwards.

The tests marked `slow` are the same with the numbers that prove something (pytest -m slow tests/run/test_survival.py -s
prints the tallies); the default suite takes a sample of each.
"""

import gc
import hashlib
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from harness import QUICK, ROOT, RUNS, Zygote, digest, exit_status, feed, fit_arguments, resume_arguments

from lit_rl.run.checkpoint_io import VerifiedCheckpointIO, _Sink, newest_verified, verify
from lit_rl.run.errors import ArtefactError, StorageError
from lit_rl.run.signals import Stopped

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # fork of a process with threads
]


@pytest.fixture(scope="session")
def zygote(tmp_path_factory):
    zygote = Zygote(tmp_path_factory.mktemp("zygote"))
    yield zygote
    zygote.close()


@pytest.fixture(scope="session")
def litrl(zygote):
    return zygote.litrl


@pytest.fixture(scope="session")
def undisturbed(zygote, tmp_path_factory):
    """name -> (digest, seconds, run folder) of a run that nobody touched, made when first asked for."""

    class Runs(dict):
        def __missing__(self, name: str) -> tuple[str, float, Path]:
            zygote.warm(name)
            root, began = tmp_path_factory.mktemp(name), time.perf_counter()
            assert zygote.litrl(fit_arguments(name, root), root / "log") == 0, (root / "log").read_text()[-2000:]
            self[name] = (digest(root / "version_0"), time.perf_counter() - began, root / "version_0")
            return self[name]

    return Runs()


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


@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in RUNS])
def test_a_killed_run_ends_with_the_same_bits(litrl, undisturbed, tmp_path, name):
    reference, seconds, _ = undisturbed[name]
    disturb(litrl, name, seconds, tmp_path / "a", 3, [signal.SIGKILL], random.Random(1))
    assert digest(tmp_path / "a" / "version_0") == reference


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_many_killed_runs_end_with_the_same_bits(litrl, undisturbed, tmp_path, name):
    reference, seconds, _ = undisturbed[name]
    rng, tally, runs = random.Random(2), {}, 0
    while tally.get(-signal.SIGKILL, 0) < 20:
        codes = disturb(litrl, name, seconds, tmp_path / str(runs), rng.randint(4, 8), [signal.SIGKILL], rng)
        assert digest(tmp_path / str(runs) / "version_0") == reference
        tally = {code: tally.get(code, 0) + codes.get(code, 0) for code in tally.keys() | codes.keys()}
        runs += 1
    print(f"\n{name}: {tally[-signal.SIGKILL]} kill -9 over {runs} runs, all digests equal to the undisturbed run's")


def stop_by(litrl, signum: int, name: str, after: float, root: Path) -> tuple[int, float]:
    """(exit code, seconds from signal to exit) of a fresh run that gets `signum`."""
    began = time.perf_counter()
    code = litrl(
        fit_arguments(name, root) + ["--trainer.max_epochs", "100000"], root.with_suffix(".log"), after, signum
    )
    return code, time.perf_counter() - began - after


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_a_run_with_its_exit_code(litrl, undisturbed, tmp_path, signum):
    code, seconds = stop_by(litrl, signum, "kuhn_ppo", 2.5, tmp_path / "a")
    assert code == 128 + signum and seconds < 5
    folder = tmp_path / "a" / "version_0"
    status = json.loads((folder / "status.json").read_text())
    assert status["state"] == "stopped" and status["exit_code"] == 128 + signum and status["iteration"] > 0
    way_on = f"go on with: litrl fit --config {folder / 'config.yaml'} --ckpt_path last"
    assert last_line(tmp_path / "a.log") == f"stopped by {signal.Signals(signum).name}; {way_on}"
    newest, _ = newest_verified(folder / "checkpoints")
    assert torch.load(newest, weights_only=True)["run"]["iteration"] == status["iteration"]


@pytest.mark.slow
def test_many_signals(litrl, undisturbed, tmp_path):
    """At random instants, start-up included: the right exit code within five seconds, and the same bits in the end."""
    rng, longest, count = random.Random(3), 0.0, 0
    for i in range(24):
        signum = rng.choice([signal.SIGTERM, signal.SIGINT])
        code, seconds = stop_by(litrl, signum, rng.choice(list(RUNS)), rng.uniform(0.3, 6.0), tmp_path / str(i))
        assert code == 128 + signum and seconds < 5, (code, seconds, (tmp_path / f"{i}.log").read_text()[-2000:])
        longest, count = max(longest, seconds), count + 1
    tally = {}
    for i, name in enumerate(list(RUNS) * 2):
        reference, length, _ = undisturbed[name]
        codes = disturb(litrl, name, length, tmp_path / f"r{i}", 6, [signal.SIGTERM, signal.SIGINT], rng)
        assert digest(tmp_path / f"r{i}" / "version_0") == reference
        tally = {code: tally.get(code, 0) + codes.get(code, 0) for code in tally.keys() | codes.keys()}
    print(f"\n{count} signals, the slowest exit after {longest:.2f} s; then resumed through {tally}, bits equal")


@pytest.mark.parametrize(("signals", "at_least", "at_most"), [(1, 4.0, 10.0), (2, 0.0, 3.9)])
def test_a_batch_that_takes_for_ever(litrl, undisturbed, tmp_path, signals, at_least, at_most):
    """One signal waits its four seconds for the end of the batch, a second one does not."""
    began = time.perf_counter()
    assert litrl(fit_arguments("kuhn_ppo", tmp_path), tmp_path / "log", sabotage=("hang", signals)) == 143
    assert at_least < time.perf_counter() - began < at_most
    assert litrl(resume_arguments(tmp_path / "version_0"), tmp_path / "log") == 0
    assert digest(tmp_path / "version_0") == undisturbed["kuhn_ppo"][0]


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_every_minibatch_is_a_place_to_go_on_from(litrl, tmp_path, undisturbed, precision):
    """Stopped after each minibatch of some iterations, first, middle and last ones: always the same bits."""
    short = ["--trainer.precision", precision, "--trainer.max_epochs", "6", "--trainer.check_val_every_n_epoch", "2"]
    name = "leduc_ppo"  # four minibatches per iteration
    assert litrl(fit_arguments(name, tmp_path / "whole") + short, tmp_path / "log") == 0
    reference = digest(tmp_path / "whole" / "version_0")
    for number in (0, 3, 4, 5, 6, 7, 11, 18, 22):
        root = tmp_path / str(number)
        assert litrl(fit_arguments(name, root) + short, tmp_path / "log", sabotage=("stop_after_batch", number)) == 143
        assert litrl(resume_arguments(root / "version_0"), tmp_path / "log") == 0, (tmp_path / "log").read_text()[
            -2000:
        ]
        assert digest(root / "version_0") == reference, number


@pytest.mark.parametrize(
    "odd",
    [
        ["--trainer.accumulate_grad_batches", "2"],
        ["--trainer.limit_train_batches", "3"],
        ["--trainer.val_check_interval", "2"],
    ],
    ids=lambda odd: odd[0],
)
def test_trainers_with_odd_rhythms(litrl, tmp_path, odd):
    """Stopped in the middle of accumulated gradients, short of a rollout's last batch, where a validation is due."""
    short = ["--trainer.max_epochs", "5", "--trainer.check_val_every_n_epoch", "1", *odd]
    assert litrl(fit_arguments("leduc_ppo", tmp_path / "whole") + short, tmp_path / "log") == 0
    for number in (4, 5, 6):
        root = tmp_path / str(number)
        args = fit_arguments("leduc_ppo", root) + short
        assert litrl(args, tmp_path / "log", sabotage=("stop_after_batch", number)) == 143
        assert litrl(resume_arguments(root / "version_0"), tmp_path / "log") == 0, last_line(tmp_path / "log")
        assert digest(root / "version_0") == digest(tmp_path / "whole" / "version_0"), number


def test_a_run_that_stopped_early_stays_as_it_is(litrl, tmp_path):
    """EarlyStopping ended it; going on from its last checkpoint does not train on."""
    early = [
        "--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor", "eval/nash_conv",
        "--trainer.callbacks.patience", "1", "--trainer.callbacks.min_delta", "5",
    ]  # fmt: skip
    assert litrl(fit_arguments("kuhn_ppo", tmp_path) + early, tmp_path / "log") == 0
    folder = tmp_path / "version_0"
    before, iterations = digest(folder), json.loads((folder / "status.json").read_text())["iteration"]
    assert iterations < 60
    assert litrl(resume_arguments(folder), tmp_path / "log") == 0
    assert json.loads((folder / "status.json").read_text())["iteration"] == iterations
    assert digest(folder) == before


def test_a_branch_killed_before_its_first_checkpoint_begins_where_it_began(litrl, tmp_path, undisturbed):
    start = str(undisturbed["kuhn_ppo"][2] / "checkpoints" / "best.ckpt")
    branch = ["--ckpt_path", start]
    assert litrl(fit_arguments("kuhn_ppo", tmp_path / "a") + branch, tmp_path / "log") == 0
    killed = litrl(fit_arguments("kuhn_ppo", tmp_path / "b") + branch, tmp_path / "log", sabotage=("die_at_start",))
    assert killed == -signal.SIGKILL
    assert litrl(resume_arguments(tmp_path / "b" / "version_0"), tmp_path / "log") == 0
    assert digest(tmp_path / "b" / "version_0") == digest(tmp_path / "a" / "version_0")


def test_elsewhere_with_another_seed_and_a_moved_folder(litrl, tmp_path, undisturbed):
    """Nothing hangs on the global seed, the hash seed, the working directory, or where the run folder lies."""
    reference, _, folder = undisturbed["kuhn_ppo"]
    root = tmp_path / "a"
    assert litrl(fit_arguments("kuhn_ppo", root), tmp_path / "log", sabotage=("stop_after_batch", 61)) == 143
    moved = tmp_path / "b" / "renamed"
    moved.parent.mkdir()
    shutil.move(root / "version_0", moved)
    for path in (moved / "checkpoints").iterdir():
        os.utime(path, (315532800, 315532800) if "last" in path.name else None)  # file times say nothing: 1980 or now

    args = [*resume_arguments(moved), "--seed_everything", "77"]
    code = litrl(args, tmp_path / "log", sabotage=("elsewhere", str(tmp_path)))
    assert code == 0, (tmp_path / "log").read_text()[-2000:]
    assert digest(moved) == reference
    best = json.loads((moved / "summary.json").read_text())
    assert Path(best["best_checkpoint"]).parent == moved / "checkpoints"
    assert best["best_nash_conv"] == json.loads((folder / "summary.json").read_text())["best_nash_conv"]


def test_last_is_no_checkpoint_taken_during_a_validation(tmp_path):
    """best.ckpt may be the newest file, but the row of metrics of its validation would be missing afterwards."""
    checkpoint = small_checkpoint(3)
    VerifiedCheckpointIO().save_checkpoint(checkpoint, tmp_path / "last.ckpt")
    VerifiedCheckpointIO().save_checkpoint(checkpoint | {"quiescent": False}, tmp_path / "best.ckpt")
    VerifiedCheckpointIO().save_checkpoint(checkpoint | {"optimizer_states": []}, tmp_path / "weights.ckpt")
    assert newest_verified(tmp_path)[0].name == "last.ckpt"
    (tmp_path / "last.ckpt").write_bytes(b"")
    assert newest_verified(tmp_path)[0].name == "best.ckpt"


@pytest.mark.parametrize(
    ("config", "strategy"),
    [("kuhn_ppo", "ddp"), pytest.param("kuhn_armac", "ddp_find_unused_parameters_true", marks=pytest.mark.slow)],
)
def test_two_ranks_go_on_bit_by_bit(tmp_path, config, strategy):
    """SIGTERM to the first of two processes, in the middle of an iteration; both stop, both go on with their games."""
    (tmp_path / "stopper.py").write_text(
        "import lightning as L, os, signal\n"
        "class Stopper(L.Callback):\n"
        "    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):\n"
        "        if trainer.global_rank == 0 and os.environ.get('STOP') == str(trainer.global_step):\n"
        "            os.kill(os.getpid(), signal.SIGTERM)\n"
    )

    def run(args: list[str], stop: str = "") -> tuple[int, str]:
        env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "STOP": stop}
        command = [sys.executable, "-W", "ignore", "-m", "lit_rl", *args]
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=240)
        return done.returncode, done.stderr

    base = [
        "fit", "--config", str(ROOT / "configs" / f"{config}.yaml"), "--trainer.devices", "2", "--trainer.strategy",
        strategy, "--trainer.max_epochs", "6", "--trainer.check_val_every_n_epoch", "2", "--trainer.log_every_n_steps",
        "1", "--trainer.enable_progress_bar", "false", "--trainer.callbacks+=stopper.Stopper",
    ]  # fmt: skip
    code, err = run([*base, "--trainer.default_root_dir", "whole"])
    assert code == 0, err[-3000:]
    code, err = run([*base, "--trainer.default_root_dir", "cut"], stop="4")
    assert code == 143, err[-3000:]
    folder = tmp_path / "cut" / "version_0"
    assert (
        torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 5
    )  # of 2 or 3 an iteration
    code, err = run([*resume_arguments(folder), "--trainer.devices", "1", "--trainer.strategy", "auto"])
    assert code == 2 and "trainer.devices: the checkpoint is of a run on 2 device(s), this one has 1" in err
    code, err = run(resume_arguments(folder))
    assert code == 0, err[-3000:]
    assert digest(folder) == digest(tmp_path / "whole" / "version_0")


def test_validation_changes_nothing(litrl, tmp_path, undisturbed):
    def weights(root):
        hasher = hashlib.sha256()
        checkpoint = torch.load(root / "version_0" / "checkpoints" / "last.ckpt", weights_only=True)
        feed(hasher, [checkpoint["state_dict"], checkpoint["SelfPlayDataModule"]])
        return hasher.hexdigest()

    never = ["--trainer.limit_val_batches", "0"]
    assert litrl(fit_arguments("kuhn_ppo", tmp_path) + never, tmp_path / "log") == 0, (tmp_path / "log").read_text()
    assert weights(tmp_path) == weights(undisturbed["kuhn_ppo"][2].parent)


def test_a_longer_run_goes_on_from_the_end_of_a_shorter_one(litrl, tmp_path, undisturbed):
    """With schedules that do not depend on the length; the end of a run is a border like any other."""
    constant = ["--model.lr_schedule", "null", "--config", "constant.yaml"]
    (tmp_path / "constant.yaml").write_text("trainer: {callbacks: []}\n")
    constant[-1] = str(tmp_path / "constant.yaml")
    base = [*RUNS["kuhn_ppo"], *constant, "--trainer.enable_progress_bar", "false"]
    for root, epochs in (("long", "7"), ("short", "4")):
        args = ["fit", *base, "--trainer.max_epochs", epochs, "--trainer.default_root_dir", str(tmp_path / root)]
        assert litrl(args, tmp_path / "log") == 0, (tmp_path / "log").read_text()[-2000:]
    folder = tmp_path / "short" / "version_0"
    assert litrl([*resume_arguments(folder), "--trainer.max_epochs", "7"], tmp_path / "log") == 0
    weights = [
        torch.load(f / "checkpoints/last.ckpt", weights_only=True) for f in (tmp_path / "long/version_0", folder)
    ]
    for name, tensor in weights[0]["state_dict"].items():
        assert torch.equal(tensor, weights[1]["state_dict"][name]), name
    assert weights[0]["SelfPlayDataModule"]["ranks"][0]["env"] == weights[1]["SelfPlayDataModule"]["ranks"][0]["env"]


def test_killed_between_the_last_checkpoint_and_the_summary(litrl, tmp_path, undisturbed):
    code = litrl(fit_arguments("kuhn_ppo", tmp_path), tmp_path / "log", sabotage=("die_after_the_end",))
    folder = tmp_path / "version_0"
    assert code == -signal.SIGKILL and not (folder / "summary.json").exists()
    assert litrl(resume_arguments(folder), tmp_path / "log") == 0
    assert digest(folder) == undisturbed["kuhn_ppo"][0]
    assert json.loads((folder / "status.json").read_text())["state"] == "finished"
    assert (folder / "summary.json").exists() and (folder / "learning_curve.png").exists()


def test_one_run_per_folder(litrl, tmp_path, undisturbed):
    """A second process is refused by name; the lock of a killed one is taken over."""

    meddle = ("second_run", str(tmp_path / "version_0"), str(tmp_path / "second.log"))
    assert litrl(fit_arguments("kuhn_ppo", tmp_path), tmp_path / "log", sabotage=meddle) == -signal.SIGKILL
    line = last_line(tmp_path / "second.log")
    assert line.startswith(f"error[2]: run folder {tmp_path / 'version_0'}: in use by process ")
    assert litrl(resume_arguments(tmp_path / "version_0"), tmp_path / "log") == 0
    assert digest(tmp_path / "version_0") == undisturbed["kuhn_ppo"][0]


def test_a_full_disk_loses_nothing(litrl, tmp_path, undisturbed):
    """No file may grow beyond 64 kB, a checkpoint has more: exit 5, old files untouched, and bits equal afterwards."""
    args = fit_arguments("kuhn_ppo", tmp_path)
    assert litrl(args, tmp_path / "log", sabotage=("stop_after_batch", 50)) == 143
    folder = tmp_path / "version_0"
    before = {p.name: p.read_bytes() for p in (folder / "checkpoints").iterdir()}
    assert litrl(resume_arguments(folder), tmp_path / "log", sabotage=("full_disk", 65_536)) == 5
    line = last_line(tmp_path / "log")
    assert line.startswith("error[5]: checkpoint") and line.endswith("times in a row: free some space")
    after = {p.name: p.read_bytes() for p in (folder / "checkpoints").iterdir()}
    assert {k: v for k, v in after.items() if k != "manifest.json"} == {
        k: v for k, v in before.items() if k != "manifest.json"
    }
    assert json.loads((folder / "status.json").read_text())["exit_code"] == 5
    assert litrl(resume_arguments(folder), tmp_path / "log") == 0
    assert digest(folder) == undisturbed["kuhn_ppo"][0]


def test_a_folder_that_cannot_be_written_to_is_said_at_once(litrl, tmp_path, undisturbed):
    (tmp_path / "file").write_text("")
    assert litrl(fit_arguments("kuhn_ppo", tmp_path / "file" / "runs"), tmp_path / "log") == 5
    assert last_line(tmp_path / "log").startswith("error[5]: trainer.default_root_dir=")


def test_an_exception_in_mid_update_leaves_the_last_good_checkpoint(litrl, tmp_path, undisturbed):
    assert litrl(fit_arguments("kuhn_ppo", tmp_path), tmp_path / "log", sabotage=("bug", 33)) == 1
    folder = tmp_path / "version_0"
    assert "error[1]: RuntimeError: something broke" in last_line(tmp_path / "log")
    assert "Traceback" not in (tmp_path / "log").read_text()
    assert "optimizer_step" in (folder / "crash" / "traceback-rank0.txt").read_text()
    assert litrl(resume_arguments(folder), tmp_path / "log") == 0
    assert digest(folder) == undisturbed["kuhn_ppo"][0]


def test_a_nan_exits_with_4_and_leaves_no_nan_checkpoint(litrl, tmp_path, undisturbed):
    assert litrl(fit_arguments("kuhn_ppo", tmp_path), tmp_path / "log", sabotage=("poison", 33)) == 4
    assert last_line(tmp_path / "log").startswith("error[4]: loss term value_loss=nan at iteration 33")
    for path in (tmp_path / "version_0" / "checkpoints").glob("*.ckpt"):
        assert all(torch.isfinite(x).all() for x in torch.load(path, weights_only=True)["state_dict"].values())
    assert litrl(resume_arguments(tmp_path / "version_0"), tmp_path / "log") == 0
    assert digest(tmp_path / "version_0") == undisturbed["kuhn_ppo"][0]


def test_a_checkpoint_of_another_game_algorithm_or_network_is_refused(litrl, tmp_path, undisturbed):
    kuhn, leduc = (str(undisturbed[name][2] / "checkpoints" / "last.ckpt") for name in ("kuhn_ppo", "leduc_ppo"))
    cases = [
        (["--ckpt_path", leduc], "checkpoint is of PPO on leduc_poker (rules 1.0), this run is PPO on kuhn"),
        (
            ["--ckpt_path", kuhn, "--model.network.hidden", "[8]"],
            "policy_head.weight has shape (2, 64) there and (2, 8) here",
        ),
    ]
    for i, (more, words) in enumerate(cases):
        assert litrl(fit_arguments("kuhn_ppo", tmp_path) + more, tmp_path / f"log{i}") == 3
        assert words in last_line(tmp_path / f"log{i}")


# Checkpoint files by themselves: every crash point of a write, and every kind of damage.

PRIMITIVES = ("open", "write", "fsync", "replace", "link", "unlink", "close")


def small_checkpoint(step: int) -> dict:
    generator = torch.Generator().manual_seed(step)
    weights = {"w": torch.rand(3000, generator=generator)}
    resumable = {"loops": {"fit_loop": {}}, "optimizer_states": [{}], "quiescent": True}
    return {"global_step": step, "state_dict": weights, "run": {"iteration": step}} | resumable


def write_in_fork(folder: Path, step: int, fail_at: int, crash: bool) -> int:
    """Write generation `step` in a fork in which the `fail_at`-th call of a PRIMITIVE kills it or finds no space.

    Returns the exit code: 0 written, 9 killed, 5 refused.
    """
    pid = os.fork()
    if pid == 0:
        calls = 0

        def guarded(primitive):
            def call(*args, **kwargs):
                nonlocal calls
                calls += 1
                if calls == fail_at:
                    if crash:
                        os._exit(9)
                    raise OSError(28, "No space left on device")
                return primitive(*args, **kwargs)

            return call

        for name in PRIMITIVES:
            setattr(os, name, guarded(getattr(os, name)))
        try:
            VerifiedCheckpointIO().save_checkpoint(small_checkpoint(step), folder / "last.ckpt")
            os._exit(0)
        except StorageError:
            os._exit(5)
        except BaseException:
            os._exit(1)
    return exit_status(pid)


@pytest.mark.parametrize("crash", [True, False])
def test_every_crash_point_of_a_checkpoint_write(tmp_path, crash):
    """Killed, or out of space, at the n-th system call, for every n: two verified generations stay."""
    points = 0
    for n in range(1, 200):
        folder = tmp_path / str(n)
        for step in (1, 2, 3):
            VerifiedCheckpointIO().save_checkpoint(small_checkpoint(step), folder / "last.ckpt")
        code = write_in_fork(folder, 4, n, crash)
        newest, refused = newest_verified(folder)
        content = torch.load(newest, weights_only=True)
        assert content["global_step"] in ((4,) if code == 0 else (3, 4)), (n, code)
        assert torch.equal(content["state_dict"]["w"], small_checkpoint(content["global_step"])["state_dict"]["w"])
        assert refused == [] and (folder / "last.ckpt").exists()
        steps = {torch.load(p, weights_only=True)["global_step"] for p in folder.glob("*.ckpt") if verify(p)}
        assert len(steps) >= 2, (n, steps)
        VerifiedCheckpointIO().save_checkpoint(small_checkpoint(5), folder / "last.ckpt")  # and life goes on
        assert torch.load(newest_verified(folder)[0], weights_only=True)["global_step"] == 5
        if code == 0:
            break
        assert code == (9 if crash else 5), (n, code)
        points += 1
    assert code == 0 and points >= 8
    print(f"\n{points} points of {'death' if crash else 'ENOSPC'} in one checkpoint write, none loses a generation")


@pytest.mark.parametrize("place", [os, _Sink], ids=["within", "on entry"])
def test_a_signal_in_mid_write_comes_out_as_itself(tmp_path, monkeypatch, place):
    """Raised in each of the writes that torch's writer asks for: no other error hides it, the old file stays."""
    VerifiedCheckpointIO().save_checkpoint(small_checkpoint(1), tmp_path / "last.ckpt")
    write, left = place.write, 0

    def stopping(*args):
        nonlocal left
        left -= 1
        if left == 0:
            raise Stopped(signal.SIGTERM)
        return write(*args)

    monkeypatch.setattr(place, "write", stopping)
    for point in range(1, 200):
        left = point
        try:
            VerifiedCheckpointIO().save_checkpoint(small_checkpoint(2), tmp_path / "last.ckpt")
            break
        except Stopped:
            assert verify(tmp_path / "last.ckpt")["global_step"] == 1
    assert point > 10 and verify(tmp_path / "last.ckpt")["global_step"] == 2


def damage(data: bytes, other: bytes, rng: random.Random) -> bytes:
    kind = rng.randrange(6)
    at = rng.randrange(len(data))
    if kind == 0:
        return data[:at]
    if kind == 1:
        return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]
    if kind == 2:
        return data[:at] + rng.randbytes(rng.randint(1, 64)) + data[at:]
    if kind == 3:
        return data[:at] + bytes(min(512, len(data) - at)) + data[at + 512 :]
    if kind == 4:
        at = rng.randrange(len(data) // 4, 3 * len(data) // 4)
        return other[:at] + data[at:]
    return rng.randbytes(rng.randint(0, 4096))


def corrupt(folder: Path, count: int, seed: int) -> dict[str, int]:
    """Damage checkpoints and manifests `count` times; each must be refused, or be harmless: the same content."""
    rng, tally = random.Random(seed), {"refused": 0, "harmless": 0, "previous used": 0}
    for i in range(count):
        place = folder / str(i)
        for step in (1, 2):
            VerifiedCheckpointIO().save_checkpoint(small_checkpoint(step), place / "last.ckpt")
        target = place / rng.choice(["last.ckpt", "last.ckpt", "manifest.json"])
        if rng.random() < 0.3:
            (place / "manifest.json").unlink(missing_ok=True)  # a file copied alone, or a lost manifest
            target = place / "last.ckpt"
        other = io.BytesIO()
        torch.save(small_checkpoint(77), other)
        target.write_bytes(damage(target.read_bytes(), other.getvalue(), rng))
        try:
            content = VerifiedCheckpointIO().load_checkpoint(place / "last.ckpt")
            assert torch.equal(content["state_dict"]["w"], small_checkpoint(2)["state_dict"]["w"]), (i, target)
            assert content["global_step"] == 2
            tally["harmless"] += 1
        except ArtefactError as error:
            assert str(place / "last.ckpt") in str(error)
            tally["refused"] += 1
        newest, _ = newest_verified(place)
        assert newest is not None and torch.load(newest, weights_only=True)["global_step"] in (1, 2)
        tally["previous used"] += newest.name == "last.previous.ckpt"
        shutil.rmtree(place)
    return tally


def test_damaged_checkpoints_are_refused_or_harmless(tmp_path):
    tally = corrupt(tmp_path, 150, seed=1)
    assert tally["refused"] > 60 and tally["previous used"] > 60


@pytest.mark.slow
def test_many_damaged_checkpoints(tmp_path):
    print(f"\n2,500 damaged artefacts: {corrupt(tmp_path, 2500, seed=2)}")


def test_what_is_not_plain_data_is_not_written(tmp_path):
    with pytest.raises(ArtefactError, match="would not load with weights_only=True"):
        VerifiedCheckpointIO().save_checkpoint(small_checkpoint(1) | {"extra": Path("x")}, tmp_path / "last.ckpt")
    with pytest.raises(FloatingPointError, match="weight w is NaN"):
        checkpoint = small_checkpoint(1)
        checkpoint["state_dict"]["w"][7] = torch.nan
        VerifiedCheckpointIO().save_checkpoint(checkpoint, tmp_path / "last.ckpt")
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_write_leaves_no_garbage(tmp_path):
    """However often the collector runs while one is written: what torch made for it must not end up among the old."""

    def old_classes() -> int:
        old = [x for x in gc.get_objects(generation=2) if type(x) is type and x.__module__ == "torch.serialization"]
        return sum("<locals>" in x.__qualname__ for x in old)

    threshold = gc.get_threshold()
    gc.collect()
    before = old_classes()  # those of writes that failed in other tests
    try:
        gc.set_threshold(20, 1, 1_000_000)
        for step in range(30):
            VerifiedCheckpointIO().save_checkpoint(small_checkpoint(step), tmp_path / "last.ckpt")
    finally:
        gc.set_threshold(*threshold)
    gc.collect(1)
    assert old_classes() == before


@pytest.mark.slow
def test_memory_stays_flat(tmp_path):
    """The resident set grows by less than 1 MB an hour over twenty minutes, once it is warm: after fifteen, since each
    new number of distinct rows, and some are seldom met, is new to oneDNN's cache of kernels and to the heap."""
    command = [
        sys.executable, "-W", "ignore", "-m", "lit_rl", "fit", "--config", str(ROOT / "configs" / "leduc_ppo.yaml"),
        "--trainer.max_epochs", "1000000", "--trainer.check_val_every_n_epoch", "50", "--trainer.enable_progress_bar",
        "false", "--trainer.callbacks+=LastCheckpoint", "--trainer.callbacks.every_seconds", "5",
    ]  # fmt: skip
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    run = subprocess.Popen(command, cwd=tmp_path, env=env, stdout=subprocess.DEVNULL)
    pages, began = [], time.monotonic()
    try:
        while (elapsed := time.monotonic() - began) < 35 * 60:
            time.sleep(2)
            assert run.poll() is None
            resident = int(Path(f"/proc/{run.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
            pages.append((elapsed / 3600, resident / 1e6))
    finally:
        run.terminate()
        code = run.wait(60)
    assert code == 143
    hours, megabytes = np.array([page for page in pages if page[0] > 1 / 4]).T
    slope = np.polyfit(hours, megabytes, 1)[0]
    print(f"\nresident set {megabytes[0]:.1f} -> {megabytes[-1]:.1f} MB over twenty minutes, {slope:+.2f} MB/h")
    assert slope < 1.0
