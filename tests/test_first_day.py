"""The first day of somebody who has read the README: each task by the commands that stand there, in a folder of theirs.

Train, look, resume, validate; an own game, algorithm, network and callback; from a wheel. Every command is a process of
its own, without any of our folders as its current one.
"""

import csv
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SHORT = [
    "--trainer.max_epochs", "20", "--data.num_envs", "16", "--data.num_steps", "4", "--trainer.accelerator", "cpu",
    "--trainer.enable_progress_bar", "false",
]  # fmt: skip

MY_NETWORK = """
from lit_rl.networks import MLP

class MyNet(MLP):
    def __init__(self, game, width: int = 8):
        super().__init__(game, (width,))
"""

MY_CALLBACK = """
import lightning as L

class Shout(L.Callback):
    def __init__(self, word: str):
        self.word = word

    def on_train_end(self, trainer, pl_module):
        print(self.word)
"""


def litrl(*command, folder, packages=ROOT, entry="lit_rl.__main__"):
    """What `litrl` prints, run as its script runs it: the folder of the script is on the path, not the current one."""
    script = Path(folder).parent / "bin" / entry.replace(".", "_")
    script.parent.mkdir(exist_ok=True)
    script.write_text(f"from {entry} import main\nmain()\n")
    env = {**os.environ, "PYTHONPATH": str(packages), "OMP_NUM_THREADS": "1", "COLUMNS": "120"}
    words = [sys.executable, str(script), *map(str, command)]
    done = subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Traceback" not in done.stderr
    return done.stdout


def number_in(output):
    """The NashConv that a command prints at its end."""
    return next(line.split()[1] for line in output.splitlines() if line.strip().startswith("NashConv  "))


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A folder with a game, an algorithm, a network and a callback of somebody's own."""
    folder = tmp_path_factory.mktemp("day") / "project"
    folder.mkdir()
    text = (ROOT / "envs" / "kuhn_poker.py").read_text()
    (folder / "my_game.py").write_text(text.replace('name="kuhn_poker"', 'name="my_kuhn"'))
    shutil.copy(ROOT / "tests" / "reinforce.py", folder / "my_algorithm.py")
    (folder / "my_network.py").write_text(MY_NETWORK)
    (folder / "my_callback.py").write_text(MY_CALLBACK)
    return folder


@pytest.fixture(scope="module")
def elsewhere(project):
    """Another current folder, with packages that are called like ours."""
    folder = project.parent / "elsewhere"
    for name in ("envs", "callbacks"):
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text("raise ImportError('not the package you look for')\n")
    return folder


@pytest.fixture(scope="module")
def first_run(project):
    """1. Train: the folder of a run, and what it printed."""
    out = litrl("fit", "--config", "kuhn_ppo", *SHORT, folder=project)
    return project / "runs" / "kuhn_ppo" / "version_0", out


def test_look(first_run):
    """2. Look: the numbers, the picture, the metrics; ten validations, the last iteration's with them."""
    run, out = first_run
    summary = json.loads((run / "summary.json").read_text())
    assert number_in(out) == f"{summary['nash_conv']:.6f}"
    assert (run / "learning_curve.png").read_bytes().startswith(b"\x89PNG")
    with (run / "metrics.csv").open() as file:
        points = [row for row in csv.DictReader(file) if row["eval/nash_conv"]]
    assert len(points) >= 10
    assert f"{float(points[-1]['eval/nash_conv']):.6f}" == number_in(out)
    assert (run / "checkpoints" / "best.ckpt").exists() and summary["best_nash_conv"] > 0


def test_resume_and_validate(first_run, elsewhere):
    """3. and 4., in another folder: the run goes on, and the same number is printed again."""
    run, _ = first_run
    more = ("--ckpt_path", "last", "--trainer.max_epochs", "30")
    out = litrl("fit", "--config", run / "config.yaml", *more, folder=elsewhere)
    assert json.loads((run / "summary.json").read_text())["iterations"] == 30
    last = ("--config", run / "config.yaml", "--ckpt_path", run / "checkpoints" / "last.ckpt")
    assert number_in(litrl("validate", *last, folder=elsewhere)) == number_in(out)


@pytest.mark.slow
def test_own_game_and_network(project, elsewhere):
    """5. and 7.: checked, trained on, resumed and recorded, from any folder."""
    mine = ("--data.game", "my_game", "--model.network", "my_network.MyNet", "--model.network.width", "6")
    more = ("--trainer.callbacks+=Replay", "--trainer.callbacks.every", "10", "--trainer.default_root_dir", "mine")
    assert "my_kuhn, exported policy" in litrl("fit", "--config", "kuhn_ppo", *SHORT, *mine, *more, folder=project)
    run = project / "mine" / "version_0"
    assert f"code: {project}\n" in (run / "config.yaml").read_text()
    more = ("--ckpt_path", "last", "--trainer.max_epochs", "22")
    litrl("fit", "--config", run / "config.yaml", *more, folder=elsewhere)
    words = ("verify", run / "replay.jsonl", "--allow", "my_game", "my_network")
    words = (*words, "--ckpt_path", run / "checkpoints" / "last.ckpt")
    assert "ok, " in litrl(*words, "--code", project, folder=elsewhere, entry="scripts.replay")


@pytest.mark.slow
def test_own_algorithm_and_callback(project, elsewhere):
    """6. and 8.: trained, resumed, validated and written out as a table, from any folder."""
    mine = ("--model", "my_algorithm.Reinforce", "--trainer.callbacks", "[my_callback.Shout]")
    more = ("--trainer.callbacks.word", "hoy", "--trainer.default_root_dir", "own")
    assert "hoy" in litrl("fit", "--config", "kuhn_ppo", *SHORT, *mine, *more, folder=project)
    run = project / "own" / "version_0"
    more = ("--ckpt_path", "last", "--trainer.max_epochs", "22")
    assert "hoy" in (out := litrl("fit", "--config", run / "config.yaml", *more, folder=elsewhere))
    last = ("--config", run / "config.yaml", "--ckpt_path", run / "checkpoints" / "last.ckpt")
    assert number_in(litrl("validate", *last, folder=elsewhere)) == number_in(out)
    litrl("predict", *last, folder=elsewhere)
    assert len((run / "policy.csv").read_text().splitlines()) == 13


@pytest.mark.slow
def test_from_a_wheel(project, elsewhere, tmp_path):
    """9. A wheel of this repository, installed by itself: typed, with its configs, and not hidden by other folders."""
    pytest.importorskip("setuptools", minversion="70")  # older ones need another package to make wheels
    source, site = tmp_path / "source", tmp_path / "site"
    for name in ("lit_rl", "envs", "datamodules", "callbacks", "scripts", "configs"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    options = ("--no-deps", "--no-build-isolation", "--quiet", "--wheel-dir", str(tmp_path))
    subprocess.run([sys.executable, "-m", "pip", "wheel", str(source), *options], check=True, capture_output=True)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        wheel.extractall(site)
    assert all((site / name / "py.typed").exists() for name in ("lit_rl", "envs", "datamodules", "callbacks"))
    litrl("fit", "--config", "kuhn_ppo", *SHORT, folder=elsewhere, packages=site)
    assert (elsewhere / "runs" / "kuhn_ppo" / "version_0" / "summary.json").exists()
