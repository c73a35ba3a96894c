"""Shogi's tower: heads, planes, what its norm is for; and shogi's runs."""

import json
from functools import partial

import pytest
import torch

from envs.leduc_poker import GAME as LEDUC
from envs.shogi import GAME, compact, documents
from envs.shogi.network import WAYS, Planes, Tower, places
from envs.shogi.pieces import JUMPS, LINE
from envs.vector_env import VectorEnv
from lit_rl.networks import Headed
from lit_rl.policy import MASKED

GAMES = [GAME, documents.GAME]


def table(game, steps=40):
    env = VectorEnv(game, 16, seed=3)
    for _ in range(steps):
        env.step(env.sample_uniform())
    return torch.from_numpy(env.obs), torch.from_numpy(env.legal)


@pytest.mark.parametrize("squeeze", [None, 0.25])
@pytest.mark.parametrize("game", GAMES, ids=lambda game: game.name)
def test_forward_and_gradients(game, squeeze):
    network = Headed(game, partial(Tower, channels=8, groups=2, squeeze=squeeze))
    obs, legal = table(game)
    output = network(obs, legal)
    assert output.logits.shape == legal.shape and output.value.shape == (16,)
    assert ((output.logits == MASKED) == ~legal).all()
    (torch.log_softmax(output.logits, -1)[legal].sum() + output.value.sum()).backward()
    without = [name for name, p in network.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()]
    assert without == []


@pytest.mark.parametrize("game", GAMES, ids=lambda game: game.name)
def test_a_row_is_the_same_among_others_and_in_training(game):
    """What BatchNorm would not give: the first ratio of PPO is 1 whatever minibatch a row falls into."""
    network = Headed(game, partial(Tower, channels=8, groups=2))
    obs, legal = table(game)
    with torch.no_grad():
        alone = network.eval()(obs[:1], legal[:1])
        among = network.train()(obs, legal)
    assert torch.allclose(alone.logits[0], among.logits[0], atol=1e-5)
    assert torch.allclose(alone.value[0], among.value[0], atol=1e-5)


def test_each_of_the_documents_moves_has_a_place_of_its_own():
    """All that some piece could do; square 0 by way 0 is the one place that also stands for what none can."""
    place = places()
    possible = [(a, b) for a in range(81) for b in range(81) if LINE[a, b] >= 0 or b in JUMPS[0, a]]
    found = place[place > 0]
    assert len(found.unique()) == len(found) == 2 * len(possible) + 567
    assert place.max() < WAYS * 81


def test_every_legal_move_of_the_documents_has_its_place():
    env, place = VectorEnv(documents.GAME, 32, seed=5), places()
    for _ in range(150):
        env.step(env.sample_uniform())
        for row in env.legal:
            found = place[torch.from_numpy(row)]
            assert len(found.unique()) == len(found)


def test_planes_are_fractions():
    """Hands and moves as the documents have them: 1 is all of a kind, and 512 moves."""
    scale = Planes(4).scale.flatten()
    assert scale[28:35].tolist() == pytest.approx([1 / n for n in (18, 4, 4, 4, 4, 2, 2)])
    assert scale[43] * 256 == pytest.approx(1) and (scale[:28] == 1).all()


def test_sizes():
    def size(game, **options):
        return sum(p.numel() for p in Tower(game, **options).parameters())

    assert 50_000 < size(GAME) < 70_000
    assert size(documents.GAME, blocks=9, channels=256, groups=16, squeeze=0.25) == 11_087_696


@pytest.mark.parametrize(
    "game, options, words",
    [
        (LEDUC, {}, "Tower: reads the obs of shogi or shogi_documents, not leduc_poker's"),
        (GAME, {"groups": 3}, "groups=3: must divide channels=32"),
        (GAME, {"blocks": 0}, "blocks=0, channels=32: needs at least one of each"),
        (GAME, {"squeeze": 2.0}, "squeeze=2.0: needs more than 0 and at most 1"),
    ],
)
def test_what_does_not_fit_is_refused(game, options, words):
    with pytest.raises(ValueError, match=words):
        Tower(game, **options)


def test_bytes_of_a_decision():
    """Obs and legal bits: the bound of a stored decision."""
    for interface, most in ((compact, 400), (documents, 5_500)):
        game = interface.GAME
        obs = int(torch.tensor(game.obs_shape).prod())
        assert obs + -(-game.num_actions // 8) < most


RUNGS = ["random", "envs.shogi.heuristics.greedy"]
SMALL = (
    "--trainer.max_epochs", 1, "--data.num_envs", 16, "--data.num_steps", 8, "--model.minibatches.update_epochs", 1,
    "--model.minibatches.num_minibatches", 2, "--data.truncate_after", 20, "--trainer.accelerator", "cpu",
    "--trainer.precision", "32-true", "--data.evaluation",
    json.dumps([{"class_path": "Ladder", "init_args": {"opponents": RUNGS, "ratings": [0, 600], "games": 4}}]),
    *(f"--model.network.body.{name}={size}" for name, size in (("channels", 8), ("groups", 2), ("blocks", 1))),
)  # fmt: skip


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::lightning.pytorch.utilities.warnings.PossibleUserWarning")
@pytest.mark.parametrize("name", ["shogi_ppo", "shogi_documents"])
def test_a_config_runs_and_is_judged_by_the_ladder(command, name):
    code, out, err = command("fit", "--config", name, *SMALL)
    assert code == 0, err
    assert "against greedy" in out and "Elo " in out
