"""Fixtures shared by all tests: games, their trees (built once) and quiet small trainers."""

import warnings

import lightning as L
import pytest
import torch

from datamodules.self_play import SelfPlayDataModule
from envs.exact import GameTree
from envs.game import load_game
from lit_rl.networks import MLP
from lit_rl.ppo import PPO

GAMES = (
    "envs.kuhn_poker", "envs.leduc_poker", "envs.matching_pennies", "envs.biased_rps", "envs.tic_tac_toe",
    "games.pairs",
)  # fmt: skip


@pytest.fixture(scope="session", params=GAMES)
def any_game(request):
    return load_game(request.param)


@pytest.fixture(scope="session")
def kuhn():
    return load_game("envs.kuhn_poker")


@pytest.fixture(scope="session")
def leduc():
    return load_game("envs.leduc_poker")


@pytest.fixture(scope="session")
def pairs():
    """Two against two: teams, hidden choices made at once, players who drop out, a bonus (tests/games/pairs.py)."""
    return load_game("games.pairs")


@pytest.fixture(scope="session")
def kuhn_tree(kuhn):
    return GameTree(kuhn)


@pytest.fixture(scope="session")
def leduc_tree(leduc):
    return GameTree(leduc)


@pytest.fixture(scope="session")
def pairs_tree(pairs):
    return GameTree(pairs)


@pytest.fixture(autouse=True)
def one_torch_thread():
    torch.set_num_threads(1)
    torch.manual_seed(0)


def small_mlp(game):
    return MLP(game, hidden=(32,))


@pytest.fixture
def make_fit(tmp_path):
    """Build (trainer, model, data) for a short run on Kuhn; keyword arguments override any part."""

    def build(model=None, data=None, **trainer):
        model = PPO("envs.kuhn_poker", **({"network": small_mlp} | (model or {})))
        data = SelfPlayDataModule("envs.kuhn_poker", **({"num_envs": 64, "num_steps": 8} | (data or {})))
        defaults = dict(
            accelerator="cpu", max_epochs=3, logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, num_sanity_val_steps=0, log_every_n_steps=1, default_root_dir=tmp_path,
        )  # fmt: skip
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return L.Trainer(**(defaults | trainer)), model, data

    return build
