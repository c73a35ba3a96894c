"""What chance may do after an action: the rules, asked one history at a time, say the same."""

import dataclasses

import naive
import numpy as np
import pytest

from envs.game import CHANCE, Game, load_game
from envs.jit import njit
from envs.outcomes import chance_outcomes
from envs.vector_env import VectorEnv


def leaves(game: Game, state: np.ndarray, prob: float, earned: np.ndarray) -> list:
    """(prob, earned, player, every player's infostate) of all that chance may do in `state`."""
    player = game.current_player(state[0])
    if player != CHANCE:
        return [(prob, earned, player, [naive.obs_of(game, state[0], p) for p in range(game.num_players)])]
    found = []
    for outcome, share in enumerate(naive.chance_of(game, state[0])):
        if share > 0:
            there = naive.child(game, state, outcome)
            found += leaves(game, there, prob * share, earned + naive.rewards_of(game, there[0]))
    return found


@pytest.mark.parametrize("loaded", [False, True])
def test_twin(leduc, loaded):
    """Also of a deck in which later cards are likelier."""
    if loaded:
        fair = leduc.chance_probs

        @njit
        def chance_probs(state, probs):
            fair(state, probs)
            total = 0.0
            for card in range(len(probs)):
                probs[card] *= card + 1
                total += probs[card]
            for card in range(len(probs)):
                probs[card] /= total

        leduc = dataclasses.replace(leduc, name="loaded_leduc", chance_probs=chance_probs)
    env = VectorEnv(leduc, 60, seed=1)
    met = 0
    for _ in range(6):
        states, actions = env.state.copy(), env.sample_uniform()
        found = chance_outcomes(leduc, states, actions)
        for i in range(len(states)):
            there = naive.child(leduc, states[i : i + 1], int(actions[i]))
            chance = leduc.current_player(there[0]) == CHANCE
            expected = leaves(leduc, there, 1.0, naive.rewards_of(leduc, there[0])) if chance else []
            here = np.flatnonzero(found.source == i)
            assert len(here) == len(expected)
            for k, (prob, earned, player, history) in zip(here, expected):
                assert found.prob[k] == pytest.approx(prob) and (found.earned[k] == earned).all()
                assert found.player[k] == player and (found.history[k] == np.stack(history)).all()
                assert found.legal[k].any()
            met += chance
        env.step(actions)
    assert met > 40


def test_where_chance_only_deals_there_is_nothing(kuhn):
    env = VectorEnv(kuhn, 10, seed=1)
    found = chance_outcomes(kuhn, env.state.copy(), env.sample_uniform())
    assert len(found.prob) == 0 and found.history.shape == (0, 2, *kuhn.obs_shape)


def test_too_many_are_refused(leduc):
    env = VectorEnv(leduc, 60, seed=1)
    env.step(np.ones(60, np.int64))  # check; the next one ends the round
    with pytest.raises(ValueError, match="more than 100 outcomes after 60 actions"):
        chance_outcomes(leduc, env.state.copy(), np.ones(60, np.int64), most=100)


def test_every_card_that_is_left():
    game = load_game("envs.leduc_poker_13x4")
    env = VectorEnv(game, 20, seed=3)
    env.step(np.ones(20, np.int64))
    found = chance_outcomes(game, env.state.copy(), np.ones(20, np.int64))
    assert np.bincount(found.source, found.prob) == pytest.approx(np.ones(20))
    assert (np.bincount(found.source) == 50).all()  # 52 cards, two of them dealt
