"""Beasty Bar's encoders: sets, orders, empty zones and sizes; and Beasty Bar's runs."""

import json
from functools import partial

import numpy as np
import pytest
import torch

from envs.beasty_bar import GAME, documents
from envs.beasty_bar.heuristics import OPPONENTS
from envs.beasty_bar.network import QueueAttention, ZoneTransformers
from envs.game import parts
from envs.leduc_poker import GAME as LEDUC
from envs.vector_env import VectorEnv
from lit_rl.networks import Encoded
from lit_rl.policy import MASKED

KINDS = [(GAME, QueueAttention), (documents.GAME, ZoneTransformers)]
NAMES = ["compact", "documents"]


def table(game, steps=20):
    """obs and legal of 64 games under way; the first of them at their beginning, with empty zones."""
    env = VectorEnv(game, 64, seed=3)
    obs, legal = env.obs.copy(), env.legal.copy()
    for _ in range(steps):
        env.step(env.sample_uniform())
    obs[8:], legal[8:] = env.obs[8:], env.legal[8:]
    return torch.from_numpy(obs), torch.from_numpy(legal)


@pytest.mark.parametrize("game, kind", KINDS, ids=NAMES)
def test_forward_and_gradients(game, kind):
    network = Encoded(game, kind)
    obs, legal = table(game)
    output = network(obs, legal)
    assert output.logits.shape == legal.shape and output.value.shape == (64,)
    assert torch.isfinite(output.logits).all() and torch.isfinite(output.value).all()
    assert ((output.logits == MASKED) == ~legal).all()
    (torch.log_softmax(output.logits, -1)[legal].sum() + output.value.sum()).backward()
    without = [name for name, p in network.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()]
    assert without == []


def test_bar_and_hell_are_sets_and_the_queue_is_not():
    obs, _ = table(documents.GAME, steps=14)
    encoder, torch_rng = ZoneTransformers(documents.GAME), torch.Generator().manual_seed(1)
    with torch.no_grad():
        before = encoder(obs)
        for zone, is_set in (("bar", True), ("hell", True), ("hand", True), ("queue", False)):
            shuffled = obs.clone()
            cards = parts(documents.GAME, shuffled)[zone]
            cards[:] = cards[:, torch.randperm(cards.shape[1], generator=torch_rng)].clone()
            assert not torch.equal(shuffled, obs)
            assert torch.allclose(encoder(shuffled), before, atol=1e-5) == is_set, zone


def test_order_matters_in_the_compact_queue():
    obs, _ = table(GAME)
    encoder = QueueAttention(GAME)
    queue = parts(GAME, shuffled := obs.clone())["queue"]
    queue[:] = queue.flip(1).clone()
    with torch.no_grad():
        assert not torch.allclose(encoder(shuffled), encoder(obs), atol=1e-4)


@pytest.mark.parametrize("game, kind", KINDS, ids=NAMES)
def test_what_does_not_fit_is_refused(game, kind):
    with pytest.raises(ValueError, match=f"{kind.__name__}: reads the obs of {game.name},"):
        kind(LEDUC)
    with pytest.raises(ValueError, match="heads=5: must divide the width 64"):
        kind(game, width=64, heads=5)


def test_sizes_of_the_documents_networks():
    def size(**options):
        network = Encoded(documents.GAME, partial(ZoneTransformers, **options))
        return sum(p.numel() for p in network.parameters())

    assert 0.8e6 < size() < 1.4e6
    assert 13e6 < size(width=256, heads=8, layers=4, embedding=64) < 18e6


TEN = ["random", *(f"envs.beasty_bar.heuristics.{name}" for name in OPPONENTS if name != "random")]
SMALL = (
    "--trainer.max_epochs", 1, "--data.num_envs", 64, "--data.num_steps", 32, "--model.minibatches.update_epochs", 1,
    "--trainer.accelerator", "cpu", "--data.evaluation",
    json.dumps([{"class_path": "Matches", "init_args": {"opponents": TEN, "games": 20}}]),
)  # fmt: skip
NARROW = tuple(f"--model.network.encoder.{name}={size}" for name, size in (("width", 16), ("heads", 2), ("layers", 1)))
QUIET = pytest.mark.filterwarnings(
    "ignore::UserWarning", "ignore::DeprecationWarning",
    "ignore::lightning.pytorch.utilities.warnings.PossibleUserWarning",
)  # fmt: skip
RUNS = {
    "beasty_ppo": (),
    "beasty_rnad": (),
    "beasty_documents": NARROW,
    "beasty_ppo, attention": (
        "--model.network", "Encoded", "--model.network.encoder", "envs.beasty_bar.network.QueueAttention", *NARROW,
    ),
}  # fmt: skip


@QUIET
@pytest.mark.parametrize("name", RUNS)
def test_a_config_runs_and_is_judged_against_the_ten(command, name):
    code, out, err = command("fit", "--config", name.split(",")[0], *SMALL, *RUNS[name])
    assert code == 0, err
    assert out.count("  against ") == 10 and "against distilled_outcome" in out
    assert ("  mean win rate" in out) != ("  win rate, return           sampled                         greedy" in out)


def half(pool):
    """A matchmaker whose shares sum to one half."""
    return np.full(len(pool.names), 0.5 / len(pool.names))


@QUIET
@pytest.mark.parametrize(
    "wrong, said",
    [
        (
            ("--data.opponents", '["envs.beasty_bar.heuristics.nobody"]'),
            "'envs.beasty_bar.heuristics.nobody': no such heuristic",
        ),
        (("--data.matchmaker", "test_beasty_network.half"), "shares must not be negative and must sum to 1"),
        (("--data.matchmaker_options.floor", "7"), "floor=7"),
    ],
    ids=["opponent", "weights", "floor"],
)
def test_bad_input_is_refused_by_name(command, wrong, said):
    code, _, err = command("fit", "--config", "beasty_ppo", *SMALL, *wrong)
    assert code == 2 and said in err.splitlines()[-1]


@QUIET
def test_a_checkpoint_of_the_other_observation_is_refused(command, tmp_path):
    """To go on from, to be judged, and as an opponent."""
    code, _, err = command("fit", "--config", "beasty_ppo", *SMALL, "--trainer.default_root_dir", tmp_path / "a")
    assert code == 0, err
    path = tmp_path / "a" / "version_0" / "checkpoints" / "last.ckpt"
    other = ("--config", "beasty_documents", *SMALL, *NARROW, "--trainer.default_root_dir", tmp_path / "b")
    for verb in ("fit", "validate"):
        code, _, err = command(verb, *other, "--ckpt_path", path)
        assert code == 3 and "checkpoint is of PPO on beasty_bar (rules " in err.splitlines()[-1]
        assert "this run is PPO on beasty_bar_documents" in err.splitlines()[-1]
    code, _, err = command("fit", *other, "--data.opponents", json.dumps([str(path)]))
    assert code == 3 and "beasty_bar" in err.splitlines()[-1] and str(path) in err.splitlines()[-1]
