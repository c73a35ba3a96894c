"""Fixtures shared by all tests: games, their trees (built once), quiet small trainers, runs to be killed."""

import re
import sys
import time
import warnings
from dataclasses import fields
from pathlib import Path

import lightning as L
import pytest
import torch
from harness import ROOT, Zygote, digest, fit_arguments

from datamodules.self_play import SelfPlayDataModule
from envs.exact import GameTree
from envs.game import load_game
from lit_rl.batches import Minibatches
from lit_rl.networks import MLP
from lit_rl.ppo import PPO
from lit_rl.returns import Credit

GAMES = (
    "envs.kuhn_poker", "envs.leduc_poker", "envs.matching_pennies", "envs.biased_rps", "envs.tic_tac_toe",
    "games.pairs",
)  # fmt: skip


EVERY_GAME = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in (ROOT / "envs").rglob("*.py")
    if path.name != "compact.py"  # its package's GAME
    and re.search(r"^GAME = |^from \S+ import .*\bGAME\b", path.read_text(), re.MULTILINE)
)  # of this package that a user can name


@pytest.fixture(scope="session", params=GAMES)
def any_game(request):
    return load_game(request.param)


@pytest.fixture(scope="session", params=[*EVERY_GAME, "games.pairs"])
def every_game(request):
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


def grouped(arguments):
    """Arguments of an algorithm, those of its minibatches and its credit given flat."""
    arguments = dict(arguments)
    for name, kind in (("minibatches", Minibatches), ("credit", Credit)):
        own = {f.name: arguments.pop(f.name) for f in fields(kind) if f.name in arguments}
        if own:
            arguments[name] = kind(**own)
    return arguments


def small_mlp(game):
    return MLP(game, hidden=(32,))


@pytest.fixture
def short_trainer(tmp_path):
    """Build a quiet trainer of three iterations on the CPU; keyword arguments override any part."""

    def build(**options):
        defaults = dict(
            accelerator="cpu", max_epochs=3, logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, num_sanity_val_steps=0, log_every_n_steps=1, default_root_dir=tmp_path,
        )  # fmt: skip
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return L.Trainer(**(defaults | options))

    return build


@pytest.fixture
def short_fit(short_trainer):
    """Fit `model` on `data` with a short trainer; returns the trainer."""

    def fit(model, data, ckpt_path=None, **options):
        trainer = short_trainer(**options)
        trainer.fit(model, data, ckpt_path=ckpt_path)
        return trainer

    return fit


@pytest.fixture
def make_fit(short_trainer):
    """Build (trainer, model, data) for a short run of PPO on Kuhn; keyword arguments override any part."""

    def build(model=None, data=None, **trainer):
        model = PPO("envs.kuhn_poker", **grouped({"network": small_mlp} | (model or {})))
        data = SelfPlayDataModule("envs.kuhn_poker", **({"num_envs": 64, "num_steps": 8} | (data or {})))
        return short_trainer(**trainer), model, data

    return build


@pytest.fixture
def command(capsys, monkeypatch, tmp_path):
    """Run the command in this process from an empty folder: command("fit", ...) -> (exit code, stdout, stderr)."""
    from lit_rl.cli import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def run(*args):
        code = 0
        try:
            main([str(a) for a in args])
        except SystemExit as stop:
            code = stop.code
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


# Runs of the command in processes of their own, see harness.py


@pytest.fixture(scope="session")
def zygote(tmp_path_factory):
    """The process that all runs of a session are forked from."""
    zygote = Zygote(tmp_path_factory.mktemp("zygote"))
    yield zygote
    zygote.close()


@pytest.fixture(scope="session")
def litrl(zygote):
    """litrl(args, log, when, signum, sabotage) -> exit code of the command, see `harness.Zygote.litrl`."""
    return zygote.litrl


@pytest.fixture(scope="session")
def undisturbed(zygote, tmp_path_factory):
    """name -> (digest, seconds, run folder) of a run that nobody touched, made when first asked for."""

    class Runs(dict):
        def __missing__(self, name: str) -> tuple[str, float, Path]:
            zygote.warm(name)
            root, began = tmp_path_factory.mktemp(name), time.perf_counter()
            assert zygote.litrl(fit_arguments(name, root), root / "log") == 0, (root / "log").read_text()[-2000:]
            self[name] = (digest(root / "version_0"), time.perf_counter() - began, root / "version_0")
            return self[name]

    return Runs()
