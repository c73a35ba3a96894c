"""`litrl` and `python -m lit_rl` as processes of their own, in folders that hold what they like."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FIT = [
    "fit", "--config", str(ROOT / "configs" / "kuhn_ppo.yaml"), "--data.num_envs", "4", "--data.num_steps", "4",
    "--model.minibatches.num_minibatches", "1", "--trainer.max_epochs", "1", "--trainer.check_val_every_n_epoch", "1",
    "--trainer.callbacks+=shouting.Shout",
]  # fmt: skip


@pytest.fixture
def shell(tmp_path):
    """Run a Python command in a folder that has packages with the names of ours, and a callback of its own."""
    for name in ("callbacks", "envs", "datamodules"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise ImportError('this is not the package you look for')\n")
    (tmp_path / "shouting.py").write_text(
        "import lightning as L\n"
        "class Shout(L.Callback):\n"
        "    def on_train_end(self, trainer, pl_module): print('hoy')\n"
    )

    def run(*command):
        env = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}", "OMP_NUM_THREADS": "1"}
        done = subprocess.run([sys.executable, *command], cwd=tmp_path, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    return run


def test_packages_of_the_current_folder_do_not_hide_ours(shell):
    """A class of the user's own is found all the same."""
    out = shell("-m", "lit_rl", *FIT)
    assert "hoy" in out and "NashConv" in out


def test_version_names_what_numbers_depend_on(shell):
    out = shell("-X", "importtime", "-m", "lit_rl", "--version")
    assert re.fullmatch(r"lit-rl \d+\.\d+\.\d+ \(torch .*, lightning .*, numba .*, numpy .*, Python .*\)\n", out)


def test_the_entry_point_too(shell, tmp_path):
    (tmp_path / "litrl.py").write_text("from lit_rl.__main__ import main\nmain()\n")  # as pip writes bin/litrl
    assert "predict" in shell("litrl.py", "--help")
