"""Runs that are killed, starved of disk space or hit by errors, and what must hold afterwards.

The tests marked `slow` are the same with the numbers that prove something (pytest -m slow tests/run -s prints the
tallies); the default suite takes a sample of each.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from harness import QUICK, ROOT, RUNS, digest, disturb, fit_arguments, last_line, resume_arguments

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # fork of a process with threads
]


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
