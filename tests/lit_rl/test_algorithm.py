"""The page between algorithm, data and watchers: what is missing is named; a stranger's is first-class."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import small_mlp
from harness import digest
from reinforce import Reinforce

from lit_rl.algorithm import REQUIRED, check_algorithm
from lit_rl.run.errors import ConfigError

ROOT = Path(__file__).parents[2]


def reinforce(**without):
    """The guide's algorithm, with some members changed."""
    return type("Stranger", (Reinforce,), without)("envs.kuhn_poker", network=small_mlp)


def test_the_guide_is_an_algorithm_and_needs_eight_members():
    check_algorithm(reinforce())
    assert len(REQUIRED) <= 8
    assert len((ROOT / "tests" / "reinforce.py").read_text().splitlines()) < 80


@pytest.mark.parametrize("member", REQUIRED)
def test_a_missing_member_is_named(member):
    module = reinforce()
    if member.startswith("on_"):
        setattr(type(module), member, getattr(torch.nn.Module, member, None) or getattr(Reinforce.__bases__[0], member))
    elif member in module._buffers:
        del module._buffers[member]
    elif member in module._modules:
        del module._modules[member]
    elif member in vars(module):
        delattr(module, member)
    else:

        def missing(self):
            raise AttributeError(member)

        setattr(type(module), member, property(missing))
    with pytest.raises(ConfigError, match=f"model=Stranger: {member} is missing; .*lit_rl/algorithm.py"):
        check_algorithm(module)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"batches_per_iteration": 0}, "batches_per_iteration is 0, not a positive int"),
        ({"export_policy": lambda self: small_mlp(self.game)}, "export_policy returns a MLP that is no submodule"),
        ({"make_batches": None}, "make_batches cannot be called"),
        ({"collecting": {"temperature": 2.0}}, "collecting is a dict"),
    ],
)
def test_what_is_not_as_it_should_be_is_named(change, said):
    with pytest.raises(ConfigError, match=said):
        check_algorithm(reinforce(**change))


def test_decisions_must_be_a_counter():
    module = reinforce()
    module.decisions = torch.zeros(3)
    with pytest.raises(ConfigError, match="decisions is no scalar int64 buffer"):
        check_algorithm(module)


def litrl(folder, *args, code=0):
    """The command in a process of its own, as the stranger runs it, with the guide beside them."""
    env = {
        "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}",
        "OMP_NUM_THREADS": "1",
        "PATH": "/usr/bin:/bin",
        "HOME": str(folder),
    }
    run = subprocess.run(
        [sys.executable, "-m", *args], cwd=folder, env=env, capture_output=True, text=True, timeout=300, check=False
    )
    assert run.returncode == code, run.stdout + run.stderr
    return run.stdout


FIT = (
    "lit_rl", "fit", "--model", "reinforce.Reinforce", "--model.network", "MLP", "--model.network.hidden", "[16]",
    "--data.num_envs", "32", "--data.num_steps", "8", "--data.game", "envs.kuhn_poker",
    "--trainer.accelerator", "cpu", "--trainer.max_epochs", "20", "--trainer.check_val_every_n_epoch", "10",
    "--trainer.log_every_n_steps", "4",
)  # fmt: skip


def test_a_strangers_algorithm_is_first_class(tmp_path, zygote):
    """Trained, stopped and resumed bit by bit, validated, exported into a league, recorded, replay-verified."""
    data = ["--data", "LeagueDataModule", "--data.opponents", "[random]", "--data.refresh_every", "5"]
    more = ["--trainer.callbacks+=Replay", "--trainer.callbacks+=Snapshot", "--trainer.callbacks.every", "7"]
    saves = ["--trainer.callbacks+=LastCheckpoint", "--trainer.callbacks.every_seconds", "0"]
    fit = [*FIT[1:2], *data, *FIT[2:], *more, *saves, "--trainer.default_root_dir"]
    assert zygote.litrl([*fit, str(tmp_path / "whole")], tmp_path / "log") == 0, (tmp_path / "log").read_text()
    whole = tmp_path / "whole" / "version_0"
    summary = json.loads((whole / "summary.json").read_text())
    assert summary["algorithm"] == "Reinforce" and summary["nash_conv"] < 0.917
    with (whole / "metrics.csv").open() as file:
        assert any(row.get("train/policy_loss") for row in csv.DictReader(file))

    stopped = [*fit, str(tmp_path / "stopped")]
    assert zygote.litrl(stopped, tmp_path / "log", sabotage=("stop_after_batch", 17)) == 143
    folder = tmp_path / "stopped" / "version_0"
    resume = ["fit", "--config", str(folder / "config.yaml"), "--ckpt_path", "last"]
    assert zygote.litrl(resume, tmp_path / "log") == 0, (tmp_path / "log").read_text()
    assert digest(folder) == digest(whole)

    last = whole / "checkpoints" / "last.ckpt"
    said = litrl(tmp_path, "lit_rl", "validate", "--config", str(whole / "config.yaml"), "--ckpt_path", str(last))
    assert f"NashConv        {summary['nash_conv']:.6f}" in said
    assert "by these weights" in litrl(
        tmp_path,
        "scripts.replay",
        "verify",
        str(whole / "replay.jsonl"),
        "--ckpt_path",
        str(last),
        "--allow",
        "reinforce",
    )
    fixed = ["--data", "LeagueDataModule", "--data.opponents", f"[{last}]", "--data.self_play_share", "0.0"]
    against = [*FIT[:2], *fixed, *FIT[2:], "--trainer.max_epochs", "3", "--trainer.check_val_every_n_epoch", "3"]
    litrl(tmp_path, *against, "--trainer.default_root_dir", str(tmp_path / "against"))
