"""Our games as PettingZoo's, held against its own tests."""

import importlib
import sys
import warnings

import numpy as np
import pytest

from envs.env import IllegalActionError
from lit_rl.league.history import History
from lit_rl.run.errors import ConfigError

pytest.importorskip("pettingzoo")

from lit_rl.league.beside.pettingzoo import GameAEC

TOLD = [
    "Agent's (minimum|maximum) observation space value is -?infinity",
    "Observation space for each agent probably should be",
    "Observation numpy array is all zeros",
    "Action mask numpy array is all zeros",
    "Observation is a single number",
    "Observation is not a NumPy array",  # it is a dictionary with a mask, as of all card games there
    "The observation contains negative numbers and is in the shape of a graphical",
    ".*precision lowered by casting",
    ".*Box (low|high)'s precision",
]


@pytest.fixture
def strict():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for message in TOLD:
            warnings.filterwarnings("ignore", message=message)
        yield


def test_api(every_game, strict):
    from pettingzoo.test import api_test

    api_test(GameAEC(every_game), num_cycles=100)


def test_seed(every_game, strict):
    from pettingzoo.test import seed_test

    seed_test(lambda: GameAEC(every_game), num_cycles=100)


def play(env, rng):
    """Play one game; returns the agents' returns, as `last` tells them, in the order of players."""
    returns = dict.fromkeys(env.possible_agents, 0.0)
    for agent in env.agent_iter():
        seen, reward, ended, _, _ = env.last()
        returns[agent] += reward
        mask = seen["action_mask"]
        env.step(None if ended else int((rng.random(len(mask)) * mask).argmax()))
    return list(returns.values())


def test_returns_are_those_of_the_rules(any_game):
    """`last` hands every reward to its agent once: the sum of what was earned in the same game told by its rules."""
    env, rng = GameAEC(any_game), np.random.default_rng(0)
    for seed in range(30):
        env.reset(seed=seed)
        earned, own = np.zeros(any_game.num_players), env._play

        def told(action, own=own, earned=earned):
            own(action)
            out = np.zeros(any_game.num_players)
            any_game.rewards(env._state[0], out)
            earned += out

        env._play = told
        assert play(env, rng) == pytest.approx(earned.tolist())
        env._play = own


def test_chance_plays_by_its_probabilities(kuhn):
    env, hands = GameAEC(kuhn), []
    env.reset(seed=0)
    for _ in range(3000):
        env.reset()
        hands.append(env.render() or tuple(env.observe("player_0")["observation"]))
    counts = np.unique(np.array(hands), axis=0, return_counts=True)[1]
    assert len(counts) == 3 and abs(counts / 3000 - 1 / 3).max() < 0.05


def test_observations_are_those_of_a_history(any_game):
    env, past, rng = GameAEC(any_game), History(any_game), np.random.default_rng(0)
    env.reset(seed=1)
    for agent in env.agent_iter():
        seen, _, ended, _, _ = env.last()
        if ended:
            break
        past.state = env._state.copy()
        past._look()
        assert agent == f"player_{past.mover}"
        np.testing.assert_array_equal(seen["observation"], past.obs[0])
        np.testing.assert_array_equal(seen["action_mask"], past.legal[0])
        others = set(env.possible_agents) - {agent}
        assert not any(env.observe(other)["action_mask"].any() for other in others)
        env.step(rng.choice(np.flatnonzero(seen["action_mask"])))


def test_bad_input(kuhn):
    with pytest.raises(ConfigError, match="render_mode='human': use 'ansi' or None"):
        GameAEC(kuhn, render_mode="human")
    env = GameAEC("envs.leduc_poker", render_mode="ansi")
    env.reset(seed=0)
    before = env.render()
    for action in (0, 7, -1, None, "call"):
        with pytest.raises(IllegalActionError, match=r"leduc_poker: action .* is illegal for player_0, legal actions"):
            env.step(action)
    assert env.render() == before


def test_a_missing_library_is_named_with_its_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "pettingzoo", None)
    monkeypatch.delitem(sys.modules, "lit_rl.league.beside.pettingzoo", raising=False)
    with pytest.raises(ModuleNotFoundError, match=r"pettingzoo is not installed: pip install .*lit-rl\[pettingzoo"):
        importlib.import_module("lit_rl.league.beside.pettingzoo")
