"""Two processes with one model: equal weights, games of their own, one end; and on from where both stopped."""

import json
import os
import subprocess
import sys

import pytest
import torch
import yaml
from harness import ROOT, SMALL, digest, last_line, resume_arguments

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.fixture
def run(tmp_path):
    """Run `litrl` in a process of its own, which starts another: run(args, STOP="4") -> (exit code, stderr)."""

    def start(args: list[str], **environment: str) -> tuple[int, str]:
        env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"} | environment
        command = [sys.executable, "-W", "ignore", "-m", "lit_rl", *args]
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=600)
        return done.returncode, done.stderr

    return start


PPO = ("kuhn_ppo", "ddp", ["--model.target_kl", "0.001"])
ARMAC = ("kuhn_armac", "ddp_find_unused_parameters_true", [])
MEMORY = ("last_card_ppo", "ddp", [
    "--data.num_envs", "16", "--data.num_steps", "8", "--model.minibatches.chunk_length", "2",
    "--model.minibatches.burn_in", "1", "--model.minibatches.refresh", "true",
])  # fmt: skip


@pytest.mark.parametrize(
    ("config", "strategy", "more"),
    [pytest.param(*run, marks=pytest.mark.slow) for run in (PPO, ARMAC, MEMORY)],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_two_ranks_go_on_bit_by_bit(run, litrl, tmp_path, config, strategy, more):
    """SIGTERM to the first of two processes, in the middle of an iteration; both stop, both go on with their games."""
    path = ROOT / "configs" / f"{config}.yaml"
    base = [
        "fit", "--config", str(path), "--trainer.devices", "2", "--trainer.strategy", strategy, "--trainer.max_epochs",
        "6", "--trainer.check_val_every_n_epoch", "2", "--trainer.log_every_n_steps", "1",
        "--trainer.enable_progress_bar", "false", "--trainer.callbacks+=trouble.Trouble", *more,
    ]  # fmt: skip
    code, err = run([*base, "--trainer.default_root_dir", "whole"])
    assert code == 0, err[-3000:]
    ranks = [torch.load(tmp_path / f"rank{r}.pt", weights_only=True) for r in (0, 1)]
    assert torch.equal(ranks[0]["weights"], ranks[1]["weights"])
    assert not torch.equal(ranks[0]["obs"], ranks[1]["obs"])
    if config == "kuhn_ppo":  # whose rollouts are equally long
        data = yaml.safe_load(path.read_text())["data"]["init_args"]
        summary = json.loads((tmp_path / "whole" / "version_0" / "summary.json").read_text())
        assert summary["decisions"] == 2 * 6 * data["num_envs"] * data["num_steps"]

    code, err = run([*base, "--trainer.default_root_dir", "cut"], STOP="4")
    assert code == 143, err[-3000:]
    folder = tmp_path / "cut" / "version_0"
    last = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["global_step"] == 5  # of 2 or 3 an iteration
    alone = ["--trainer.devices", "1", "--trainer.strategy", "auto"]
    assert litrl([*resume_arguments(folder), *alone], tmp_path / "log") == 2
    assert "trainer.devices: the checkpoint is of a run on 2 device(s), this one has 1" in last_line(tmp_path / "log")
    code, err = run(resume_arguments(folder))
    assert code == 0, err[-3000:]
    assert digest(folder) == digest(tmp_path / "whole" / "version_0")


def test_a_nan_on_one_rank_ends_the_job(run, tmp_path):
    args = ["--trainer.devices", "2", "--trainer.strategy", "ddp", "--trainer.default_root_dir", "here"]
    code, err = run(["fit", *SMALL, *args, "--trainer.callbacks+=trouble.Trouble"], POISON="3")
    assert code != 0
    assert "error[4]: loss term value_loss=nan at iteration 1" in err
    assert len(list((tmp_path / "here/version_0/crash").glob("batch-rank1-*.pt"))) == 1
