"""Rollouts against the past: any algorithm, resumed bit by bit, and with new games but the same past."""

import functools

import lightning as L
import pytest
import torch
from conftest import small_mlp

from datamodules.retrospective import RetrospectiveDataModule
from lit_rl.armac.armac import ARMAC
from lit_rl.armac.memory import RowMemory
from lit_rl.armac.parameter_groups import Groups, GroupSettings
from lit_rl.ppo import PPO
from lit_rl.run.errors import ConfigError


def make(algorithm):
    torch.manual_seed(3)
    if algorithm is PPO:
        return PPO("envs.kuhn_poker", network=small_mlp)
    steady = GroupSettings(lr=1e-2, lr_end=1e-2)  # whatever the length of the run
    groups = Groups(steady, steady, steady)
    memory = functools.partial(RowMemory, floor=False, regret_decay=0.98)
    return ARMAC("envs.kuhn_poker", network=small_mlp, memory=memory, groups=groups)


def data(**options):
    return RetrospectiveDataModule(
        "envs.kuhn_poker", **{"num_envs": 16, "num_steps": 5, "past_policies": 3, "seated": 2, "seed": 4} | options
    )


def fit(model, data, max_epochs, ckpt_path=None):
    trainer = L.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0, max_epochs=max_epochs,
    )  # fmt: skip
    trainer.fit(model, data, ckpt_path=ckpt_path, weights_only=True)
    return trainer


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("algorithm", [ARMAC, PPO])
def test_a_run_against_its_past_goes_on_bit_by_bit(tmp_path, algorithm):
    whole = make(algorithm)
    finished = fit(whole, data(), 7)
    fit(make(algorithm), data(), 4).save_checkpoint(tmp_path / "half.ckpt")
    torch.manual_seed(99)
    resumed = make(algorithm)
    again = fit(resumed, data(seed=5), 7, ckpt_path=tmp_path / "half.ckpt")  # the seed of the run goes on
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), resumed.state_dict().values()))
    ours, theirs = (trainer.datamodule.opponents for trainer in (finished, again))
    assert ours.seen == 7 and len(ours.kept) == 3 and torch.equal(ours.kept, theirs.kept)
    assert torch.equal(ours.slot, theirs.slot)


@pytest.mark.filterwarnings("ignore")
def test_new_games_against_the_same_past(tmp_path):
    trainer = fit(make(ARMAC), data(), 4)
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    before = trainer.datamodule.opponents.kept
    again = fit(make(ARMAC), data(num_envs=32, restart_games=True), 5, ckpt_path=tmp_path / "half.ckpt")
    past = again.datamodule.opponents
    assert past.seen == 5 and sum(any(torch.equal(a, b) for b in before) for a in past.kept) >= 2


@pytest.mark.filterwarnings("ignore")
def test_its_learner_learns_at_its_own_seat(tmp_path):
    trainer = fit(make(PPO), data(), 2)
    rollout = trainer.datamodule.loader.rollout
    assert torch.equal(rollout.learner, rollout.player == torch.arange(16) % 2)


def test_what_is_refused():
    for options, words in (({"keep": "best"}, "keep='best'"), ({"num_envs": 33}, "num_envs=33")):
        with pytest.raises(ConfigError, match=words):
            data(**options)
