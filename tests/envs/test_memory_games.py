"""The games that need a memory: what is solved with and without one, and that nothing else is different from Leduc."""

import numpy as np
import pytest

from envs.contract import check_game
from envs.exact import GameTree
from envs.game import load_game


@pytest.mark.parametrize("name", ["t_maze", "recall", "leduc_poker_last_card"])
def test_contract(name):
    check_game(load_game(f"envs.{name}"), num_games=100)


@pytest.mark.parametrize(("name", "rows"), [("t_maze", 4), ("recall", 24)])
def test_no_table_over_obs_gets_more_than_half(name, rows):
    tree = GameTree(load_game(f"envs.{name}"))
    assert tree.num_rows == rows
    for seed in range(5):
        draws = np.random.default_rng(seed).random(tree.legal.shape) ** 4 * tree.legal
        evaluation = tree.evaluate(draws / draws.sum(1, keepdims=True))
        assert evaluation.returns[0] == pytest.approx(0.5)
        assert evaluation.best_response_returns[0] == pytest.approx(1.0)


def test_last_card_is_leduc_to_whoever_remembers(leduc):
    forgetful, whole = GameTree(load_game("envs.leduc_poker_last_card")), GameTree(leduc)
    assert forgetful.num_rows == 108 and forgetful.num_infosets == whole.num_infosets == 936
    found, expected = (tree.evaluate(tree.uniform_policy()) for tree in (forgetful, whole))
    assert found.nash_conv == pytest.approx(expected.nash_conv)
    assert np.allclose(found.returns, expected.returns)
