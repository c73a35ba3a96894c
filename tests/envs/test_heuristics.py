"""Heuristics: what they see, and what they cannot."""

import dataclasses

import numpy as np
import pytest
from numba import njit

from envs import heuristics
from envs.game import Interface, load_game
from envs.heuristics import compile_heuristic, load_heuristic, reads_state
from envs.leduc_heuristics import hand_strength
from envs.leduc_poker import CALL, FOLD, NO_CARD, RAISE
from envs.vector_env import VectorEnv


@njit
def by_state(state, player, legal, probs):
    """`hand_strength` by the names of the state's fields."""
    rank = state.card[player] // 2
    public = state.card[2] // 2 if state.card[2] != NO_CARD else -1
    if rank == public or (rank == 2 and public < 0):
        probs[RAISE if legal[RAISE] else CALL] = 1.0
    elif rank == 0 and legal[FOLD]:
        probs[FOLD] = 1.0
    else:
        probs[CALL] = 1.0


@njit
def nosy(state, player, legal, probs):
    """Says a number that is made of every field, the hidden card and the remains of old games included."""
    secret = state.dealt + 10.0 * state.round + 20.0 * state.player + 40.0 * state.num_raises
    for i in range(3):
        secret = 7.0 * secret + state.card[i]
    for r in range(2):
        secret = 3.0 * secret + state.chips[r] + 5.0 * state.num_moves[r]
        for i in range(4):
            secret = 3.0 * secret + state.moves[r, i]
    for a in range(len(legal)):
        probs[a] = legal[a]
    probs[CALL] = 1.0 + secret % 1009


def played(game, steps=60, num_envs=512):
    """An env whose rows have seen many games, so that remains of old ones lie in their states."""
    env = VectorEnv(game, num_envs, seed=4)
    for _ in range(steps):
        env.step(env.sample_uniform())
    return env


def ask(kernel, table, rows=None):
    probs = np.full(table.legal.shape, -1, np.float32)
    kernel(np.arange(len(probs)) if rows is None else rows, table.state, table.player, table.obs, table.legal, probs)
    return probs


def tellings(table, probs):
    """By (player, obs): how many different answers were given."""
    answers = {}
    for player, obs, row in zip(table.player.tolist(), table.obs, probs, strict=True):
        answers.setdefault((player, obs.tobytes()), set()).add(row.tobytes())
    return [len(found) for found in answers.values()]


def test_nobody_can_peek(leduc):
    """On redacted copies histories with equal obs look alike, however nosily one looks; on the states they do not."""
    env = played(leduc, num_envs=8192)
    assert set(tellings(env, ask(compile_heuristic(nosy, leduc), env))) == {1}
    peeking = dataclasses.replace(leduc, redact=njit(lambda state, player: None))
    assert max(tellings(env, ask(compile_heuristic(nosy, peeking), env))) > 2


def test_both_kinds_can_say_the_same(leduc, leduc_tree):
    """Over an env's rows and over a tree's, where the state is that of one history of the row."""
    for table in (played(leduc), leduc_tree):
        seen, read = (ask(compile_heuristic(h, leduc), table) for h in (hand_strength, by_state))
        assert (seen == read).all() and (seen.sum(1) == 1).all()


def test_only_the_rows_that_were_asked_for(leduc):
    env, rows = played(leduc), np.array([3, 500, 7])
    for heuristic in (hand_strength, by_state):
        probs = ask(compile_heuristic(heuristic, leduc), env, rows)
        others = np.setdiff1d(np.arange(512), rows)
        assert (probs[others] == -1).all() and (probs[rows].sum(1) == 1).all()


def test_asking_changes_no_state(leduc):
    env = played(leduc)
    before = env.state_dict()
    ask(compile_heuristic(by_state, leduc), env)
    assert env.state_dict() == before


def test_the_states_of_a_tree_stand_at_its_rows(leduc, leduc_tree, pairs, pairs_tree):
    for game, tree in ((leduc, leduc_tree), (pairs, pairs_tree)):
        for row in range(0, tree.num_rows, 3):
            obs, legal = np.zeros(game.obs_shape, game.obs_dtype), np.zeros(game.num_actions, np.bool_)
            game.observe(tree.state[row], int(tree.player[row]), obs)
            game.legal_actions(tree.state[row], legal)
            assert game.current_player(tree.state[row]) == tree.row_player[row]
            assert (obs == tree.obs[row]).all() and (legal == tree.legal[row]).all()


def test_who_sees_obs_needs_no_state(leduc):
    env = played(leduc)
    kernel, probs = compile_heuristic(heuristics.uniform, leduc), np.zeros(env.legal.shape, np.float32)
    kernel(np.arange(512), None, None, env.obs, env.legal, probs)
    assert probs == pytest.approx(env.legal / env.legal.sum(1, keepdims=True))
    assert kernel is compile_heuristic(heuristics.uniform, load_game("envs.kuhn_poker"))  # compiled once for all games


def test_kinds_are_told_apart(monkeypatch, leduc):
    assert reads_state(by_state) and not reads_state(hand_strength)
    monkeypatch.setattr(heuristics, "by_state", by_state, raising=False)
    assert load_heuristic("envs.heuristics.by_state", leduc) is by_state
    with pytest.raises(ValueError, match=r"would see everything in biased_rps, which has no Game.*redact"):
        load_heuristic("envs.heuristics.by_state", load_game("envs.biased_rps"))


def test_a_game_whose_rules_run_elsewhere(leduc):
    """Its heuristics see obs; nothing but their types can be tried beforehand."""
    simulated = Interface(
        name="simulated", version="1", num_players=2, num_actions=3, obs_shape=(30,), obs_dtype=np.dtype(np.float32),
        max_return=1.0,
    )  # fmt: skip
    assert load_heuristic("envs.leduc_heuristics.hand_strength", simulated) is hand_strength
    with pytest.raises(ValueError, match="is no heuristic for simulated"):
        load_heuristic("envs.leduc_poker.init", simulated)
