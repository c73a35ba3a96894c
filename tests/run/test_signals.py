"""Runs that are asked to stop: the exit code, the last line, and the checkpoint they leave."""

import json
import random
import signal
import time
from pathlib import Path

import pytest
import torch
from harness import RUNS, digest, disturb, fit_arguments, last_line, resume_arguments

from lit_rl.run.checkpoint_files import newest_verified

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # fork of a process with threads
]


ENDLESS = ["--trainer.max_epochs", "100000"]


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_a_run_with_its_exit_code(litrl, tmp_path, signum):
    """Sent once the first checkpoint is there."""
    folder = tmp_path / "version_0"
    begun = folder / "checkpoints" / "last.ckpt"
    code = litrl(fit_arguments("kuhn_ppo", tmp_path) + ENDLESS, tmp_path / "log", begun, signum)
    assert code == 128 + signum
    status = json.loads((folder / "status.json").read_text())
    assert status["state"] == "stopped" and status["exit_code"] == 128 + signum and status["iteration"] > 0
    way_on = f"go on with: litrl fit --config {folder / 'config.yaml'} --ckpt_path last"
    assert last_line(tmp_path / "log") == f"stopped by {signal.Signals(signum).name}; {way_on}"
    newest, _ = newest_verified(folder / "checkpoints")
    assert torch.load(newest, weights_only=True)["run"]["iteration"] == status["iteration"]


def stop_after(litrl, signum: int, name: str, after: float, root: Path) -> tuple[int, float]:
    """(exit code, seconds from signal to exit) of a fresh run that gets `signum` after so many seconds."""
    began = time.perf_counter()
    code = litrl(fit_arguments(name, root) + ENDLESS, root.with_suffix(".log"), after, signum)
    return code, time.perf_counter() - began - after


@pytest.mark.slow
def test_many_signals(litrl, undisturbed, tmp_path):
    """At random instants, start-up included: the right exit code within five seconds, and the same bits in the end."""
    rng, longest, count = random.Random(3), 0.0, 0
    for i in range(24):
        signum = rng.choice([signal.SIGTERM, signal.SIGINT])
        code, seconds = stop_after(litrl, signum, rng.choice(list(RUNS)), rng.uniform(0.3, 6.0), tmp_path / str(i))
        assert code == 128 + signum and seconds < 5, (code, seconds, (tmp_path / f"{i}.log").read_text()[-2000:])
        longest, count = max(longest, seconds), count + 1
    tally = {}
    for i, name in enumerate(list(RUNS) * 2):
        reference, length, _ = undisturbed[name]
        codes = disturb(litrl, name, length, tmp_path / f"r{i}", 6, [signal.SIGTERM, signal.SIGINT], rng)
        assert digest(tmp_path / f"r{i}" / "version_0") == reference
        tally = {code: tally.get(code, 0) + codes.get(code, 0) for code in tally.keys() | codes.keys()}
    print(f"\n{count} signals, the slowest exit after {longest:.2f} s; then resumed through {tally}, bits equal")


@pytest.mark.parametrize("signals", [1, 2, 5])
def test_a_batch_that_takes_for_ever(litrl, undisturbed, tmp_path, signals):
    """One signal waits for the end of the batch for a while; then the run says how it ended. A second one ends it."""
    assert litrl(fit_arguments("kuhn_ppo", tmp_path), tmp_path / "log", sabotage=("hang", signals)) == 143
    folder = tmp_path / "version_0"
    status = json.loads((folder / "status.json").read_text())
    assert (status["state"], status["exit_code"], status["iteration"]) == ("stopped", 143, 2)
    assert litrl(resume_arguments(folder), tmp_path / "log") == 0
    assert digest(folder) == undisturbed["kuhn_ppo"][0]
