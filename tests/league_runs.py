"""Short runs in leagues on Leduc, and what their tests measure by."""

import sys
import time
import warnings
from pathlib import Path

import lightning as L
import numpy as np
import torch
from lightning.pytorch.loggers import CSVLogger

from datamodules.league_play import LeagueDataModule
from lit_rl.batches import Minibatches
from lit_rl.league.league import League, Member
from lit_rl.networks import MLP
from lit_rl.ppo import PPO

ROOT = Path(__file__).parent.parent
EXPLOITER = str(ROOT / "configs" / "leduc_exploiter.yaml")
HEURISTICS = [f"envs.leduc_heuristics.{name}" for name in ("always_call", "always_raise", "hand_strength")]
SPEC = {"class_path": "lit_rl.networks.MLP", "init_args": {"hidden": [16]}}
TWICE_TWO = Minibatches(update_epochs=2, num_minibatches=2)


def small(game):
    return MLP(game, hidden=(16,))


def lively(game, seed=0):
    """A small network that is far from uniform."""
    torch.manual_seed(seed)
    network = small(game)
    torch.nn.init.normal_(network.policy_head.weight)
    return network


def exact_return(tree, first, second):
    """[P] what `first` gets in each seat, the others playing `second`; both [R, A]."""
    seats = range(tree.game.num_players)
    mixed = [np.where((tree.row_player == p)[:, None], first, second) for p in seats]
    return np.array([tree.evaluate(table).returns[p] for p, table in zip(seats, mixed)])


def league_data(**options):
    return LeagueDataModule("envs.leduc_poker", **({"num_envs": 64, "num_steps": 8, "refresh_every": 2} | options))


def league_fit(data=None, model=None, callbacks=(), folder=None, ckpt_path=None, quiet=True, **trainer):
    """Train a small PPO in a league, in the run folder `folder` if one is given."""
    torch.manual_seed(0)
    if model is None:
        model = PPO("envs.leduc_poker", network=small, minibatches=TWICE_TWO)
        if folder is not None:
            model.hparams["network"] = (
                SPEC  # as the command line leaves it, so that exploiters can rebuild their victim
            )
    logger = False if folder is None else CSVLogger(folder.parent, name="", version=folder.name)
    defaults = dict(
        accelerator="cpu", max_epochs=6, enable_checkpointing=False, enable_progress_bar=False, log_every_n_steps=1,
        enable_model_summary=False, num_sanity_val_steps=0, limit_val_batches=0, logger=logger,
    )  # fmt: skip
    with warnings.catch_warnings():
        if quiet:
            warnings.simplefilter("ignore")
        trainer = L.Trainer(**(defaults | trainer), callbacks=list(callbacks))
        trainer.fit(model, data or league_data(), ckpt_path=ckpt_path)
    return trainer, model


def digest(model):
    return [x.clone() for x in model.state_dict().values()]


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def open_league(folder, game):
    """The league of the run in `folder`."""
    return League(folder / "league" / "league.sqlite", game)


def wait_for(condition, seconds=60.0):
    """Whether `condition` came true within so many seconds."""
    until = time.monotonic() + seconds
    while not condition() and time.monotonic() < until:
        time.sleep(0.02)
    return condition()


def program(text, folder):
    """The command line of a little program that stands for an exploiter's run; it is told the job's folder."""
    return [sys.executable, "-S", "-c", text, str(folder)]


def with_file(league, name, role="past", **fields):
    """A member of `league` whose file is there, though it is no player."""
    (league.path.parent / f"{name}.pt").write_bytes(name.encode())
    return league.add(Member(name, role, file=f"{name}.pt", **fields))
