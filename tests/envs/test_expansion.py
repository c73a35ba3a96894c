"""Trees that are far too large are refused after a few random games; the estimate is unbiased."""

import dataclasses

import constants
import numpy as np
import pytest

from envs import expansion
from envs.env import RulesError
from envs.exact import GameTooLargeError, GameTree
from envs.expansion import estimate_histories, refuse_if_too_large
from envs.game import Game, load_game


def wide_and_deep(calls, num_actions=40, num_moves=60):
    """So many actions, so often; ordinary functions, which count their calls and which numba would not compile."""

    def counted(function):
        def call(*args):
            calls[function.__name__] = calls.get(function.__name__, 0) + 1
            return function(*args)

        return call

    @counted
    def init(state):
        state["num_moves"] = 0

    @counted
    def current_player(state):
        return -4 if state["num_moves"] == num_moves else int(state["num_moves"] % 2)

    @counted
    def legal_actions(state, legal):
        legal[:] = True

    @counted
    def apply_action(state, action):
        state["num_moves"] += 1

    def unused(*args):
        raise AssertionError("only the tree itself needs this")

    return Game(
        name="wide_and_deep", version="1", num_players=2, num_actions=num_actions, num_chance_outcomes=0,
        max_steps=num_moves, obs_shape=(1,), obs_dtype=np.dtype(np.uint8), max_return=1.0,
        state_dtype=np.dtype([("num_moves", np.int32)]), init=init, current_player=current_player,
        legal_actions=legal_actions, chance_probs=unused, apply_action=apply_action, rewards=unused, observe=unused,
        render=str,
    )  # fmt: skip


def test_a_huge_tree_is_refused_after_twenty_games():
    calls = {}
    with pytest.raises(GameTooLargeError, match=r"about 1e96 histories, estimated from 20 random games.*=2000000"):
        GameTree(wide_and_deep(calls))
    assert calls["apply_action"] <= 20 * 60 and calls["legal_actions"] <= 20 * 60


def test_an_endless_game_is_left_early():
    calls = {}
    with pytest.raises(GameTooLargeError, match="more than 1e300 histories"):
        GameTree(wide_and_deep(calls, num_moves=1_000_000))
    assert calls["apply_action"] <= 20 * 200


def test_a_tree_of_one_branch_without_an_end_is_refused():
    game = load_game("games.unending")
    with pytest.raises(RulesError, match="a game goes on after max_steps=1000 actions"):
        GameTree(game)
    with pytest.raises(GameTooLargeError, match="more than 10000 actions"):
        GameTree(dataclasses.replace(game, max_steps=10**9))


def test_the_estimate_is_exact_where_every_game_is_as_long():
    assert estimate_histories(wide_and_deep({}, 3, 4)) == pytest.approx(1 + 3 + 9 + 27 + 81)


@pytest.mark.parametrize("name", ["kuhn", "leduc", "pairs"])
def test_the_estimate_is_unbiased(name, request):
    """Mean over 2,000 games against the tree, within five standard errors."""
    game, tree = request.getfixturevalue(name), request.getfixturevalue(f"{name}_tree")
    each = np.array([estimate_histories(game, 1, seed) for seed in range(2000)])
    assert abs(each.mean() - tree.num_nodes) < 5 * each.std() / np.sqrt(len(each))


def test_small_trees_are_never_refused_by_the_estimate(any_game):
    refuse_if_too_large(any_game, constants.TIC_TAC_TOE_TERMINALS * 3)
    assert estimate_histories(any_game, seed=5) == estimate_histories(any_game, seed=5)


def test_an_estimate_that_is_not_decisive_leaves_it_to_the_tree(leduc, monkeypatch):
    monkeypatch.setattr(expansion, "estimate_histories", lambda game, num_games: 100 * 1000.0)
    with pytest.raises(GameTooLargeError, match="leduc_poker: more than max_nodes=1000"):
        GameTree(leduc, max_nodes=1000)


def test_a_game_without_an_end_within_max_steps(kuhn):
    assert estimate_histories(dataclasses.replace(kuhn, max_steps=2)) == 1 + 3 + 6
