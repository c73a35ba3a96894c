"""The five opponents of shogi against a slow search, and against each other."""

import numpy as np
import pytest

from envs.heuristics import compile_heuristic
from envs.shogi import GAME, compact, documents, rules
from envs.shogi.heuristics import OPPONENTS
from envs.shogi.notation import read_sfen, usi_of
from envs.shogi.pieces import VALUES
from envs.vector_env import VectorEnv

INTERFACE = {GAME.name: compact, documents.GAME.name: documents}
PLIES = {"one_ply": 1, "two_ply": 2, "four_ply": 4}
MATE = 100_000


def material(state, player):
    board = sum(VALUES[abs(p)] * (1 if p > 0 else -1) for p in state["board"].tolist())
    hands = [sum(VALUES[held + 1] * int(n) for held, n in enumerate(state["hand"][p])) for p in range(2)]
    return (board + hands[0] - hands[1]) * (1 - 2 * player)


def legal_moves(state):
    return state["moves"][: state["num_moves"]].tolist()


def after(state, move):
    copy = np.array([state])[0]
    rules.play(copy, move)
    return copy


def searched(state, left):
    """What the mover can have in so many plies, by looking at all of them."""
    if left == 0:
        return material(state, state["turn"])
    if not state["num_moves"]:
        return -MATE * left + material(state, state["turn"])
    return max(-searched(after(state, move), left - 1) for move in legal_moves(state))


def best(state, plies):
    scores = {move: -searched(after(state, move), plies - 1) for move in legal_moves(state)}
    return {move for move, score in scores.items() if score == max(scores.values())}


def answers(game, name, state):
    legal, probs = np.zeros((1, game.num_actions), np.bool_), np.zeros((1, game.num_actions), np.float32)
    game.legal_actions(state, legal[0])
    kernel = compile_heuristic(OPPONENTS[name], game)
    kernel(np.arange(1), np.array([state]), np.array([state["turn"]], np.int8), None, legal, probs)
    return probs[0]


def positions(count, every, seed):
    rng, state = np.random.default_rng(seed), GAME.new_state()[0]
    found = 0
    while found < count:
        for _ in range(every):
            if state["end"]:
                rules.init(state)
            rules.play(state, int(rng.choice(legal_moves(state))))
        if not state["end"]:
            found += 1
            yield state


@pytest.mark.parametrize("name, count", [("one_ply", 30), ("two_ply", 4)])
def test_each_chooses_what_a_slow_search_does(name, count):
    for state in positions(count, 13, seed=7):
        wanted = best(state, PLIES[name])
        for game in (GAME, documents.GAME):
            probs = answers(game, name, state)
            found = {int(INTERFACE[game.name].move_of(state, a)) for a in np.flatnonzero(probs)}
            assert found == wanted
            assert probs[probs > 0] == pytest.approx(1 / len(wanted))


def test_four_plies_are_those_of_the_slow_search():
    """Where little stands on the board."""
    state = read_sfen("3k5/9/3p5/9/3S5/9/9/9/4K3r b - 1")[0]
    probs = answers(GAME, "four_ply", state)
    found = {usi_of(int(move)) for move in moves_of(state, probs)}
    assert found == {usi_of(move) for move in best(state, 4)}


def moves_of(state, probs):
    return [compact.move_of(state, a) for a in np.flatnonzero(probs)]


def test_greedy_takes_the_most_valuable_piece():
    state = read_sfen("4k4/9/3+r5/2S1P4/1p7/9/9/1R7/4K4 b - 1")[0]
    assert {usi_of(int(move)) for move in moves_of(state, answers(GAME, "greedy", state))} == {"7d6c", "7d6c+"}
    quiet = GAME.new_state()[0]
    assert np.count_nonzero(answers(GAME, "greedy", quiet)) == 30


@pytest.mark.parametrize("name", ["two_ply", "four_ply"])
def test_mate_in_one_comes_first(name):
    """Though a rook could be taken instead."""
    state = read_sfen("k8/9/1G7/9/9/9/9/7r1/K6R1 b G 1")[0]
    mates = {usi_of(int(move)) for move in moves_of(state, answers(GAME, name, state))}
    assert mates <= {"G*9b", "G*8b", "8c8b", "8c9b"} and "G*8b" in mates


def share(first, second, games, seed=3, plies=300):
    """Score of `first`, draws and games cut off counting half."""
    kernels = [compile_heuristic(OPPONENTS[name], GAME) for name in (first, second)]
    env, seat = VectorEnv(GAME, games, seed, truncate_after=plies), np.arange(games) % 2
    score, over = np.full(games, 0.5), np.zeros(games, np.bool_)
    probs = np.zeros(env.legal.shape, np.float32)
    for _ in range(plies):
        for player, kernel in enumerate(kernels):
            rows = np.flatnonzero((env.player == seat) == (player == 0))
            kernel(rows, env.state, env.player, env.obs, env.legal, probs)
        env.step(env.sample(probs))
        ended = env.done & ~over
        score[ended] = 0.5 + 0.5 * env.rewards[np.arange(games), seat][ended]
        over |= env.done
        if over.all():
            break
    return score.mean(), env.state.tobytes()


@pytest.mark.parametrize(
    "first, second, least, games",
    [("greedy", "random", 0.8, 64), ("one_ply", "random", 0.8, 64), ("two_ply", "one_ply", 0.95, 32),
     pytest.param("four_ply", "two_ply", 0.8, 16, marks=pytest.mark.slow)],
)  # fmt: skip
def test_a_rung_beats_the_one_below(first, second, least, games):
    found, state = share(first, second, games)
    assert found > least
    if first == "greedy":
        assert share(first, second, games) == (found, state)
