"""torch's threads: one, what the environment says, or what the command line says."""

import os
import subprocess
import sys

import pytest
import torch

from lit_rl.run.threads import use_threads


@pytest.fixture(autouse=True)
def as_it_was():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("asked, variable, threads", [(None, None, 1), (None, "2", 3), (2, None, 2), (2, "3", 2)])
def test_threads(monkeypatch, asked, variable, threads):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if variable is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", variable)
    torch.set_num_threads(3)  # what torch began with; it has read the variable then
    assert use_threads(asked) == threads


def test_the_command_says_and_takes_them(tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    arguments = ["--config", "configs/kuhn_ppo.yaml", "--trainer.max_epochs", "1", "--trainer.default_root_dir"]
    done = subprocess.run(
        [sys.executable, "-m", "lit_rl", "fit", *arguments, str(tmp_path), "--threads", "2"],
        capture_output=True, text=True, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"torch threads: 2 of {os.cpu_count()} cores")
