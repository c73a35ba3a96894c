"""All histories of a game, level by level; and about how many there are, before the work is begun.

A few random games tell how large a tree is (Knuth 1975). A random game takes every child of a history (action, or
chance outcome that is possible) with the same probability. With b_i children at its i-th history, the number of
histories N of the whole tree is the expectation of

    X = 1 + b_0 + b_0 b_1 + b_0 b_1 b_2 + ...

since a history at depth d is met with probability 1 / (b_0 ... b_{d-1}). The mean of some games' X is unbiased, too,
and never negative; by Markov's inequality it exceeds c N with probability below 1 / c.

Source: D. E. Knuth (1975), Estimating the efficiency of backtrack programs, Mathematics of Computation 29.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np

from envs.env import RulesError
from envs.game import CHANCE, TERMINAL, Game
from envs.jit import njit

SURELY = 100  # see `refuse_if_too_large`
ENOUGH = 1e300  # near the end of float64: no game's X is followed beyond
LONGEST = 10_000  # actions of a history; each takes a step of its own here, however few histories there are


class GameTooLargeError(ValueError):
    """The game tree has more nodes than exact evaluation was allowed to build."""


@dataclass
class Level:
    """All histories of one length."""

    player: np.ndarray  # [M] int8: 0..P-1, CHANCE or TERMINAL
    obs: np.ndarray  # [M, *D]
    legal: np.ndarray  # [M, A] bool
    returns: np.ndarray  # [M, P] rewards so far
    parent: np.ndarray  # [M] index into the level above
    action: np.ndarray  # [M] the player's or chance's action that led here
    edge_prob: np.ndarray  # [M] chance's probability of that action; 1 for a player's


def estimate_histories(game: Game, num_games: int = 20, seed: int = 0) -> float:
    """About how many histories the tree of `game` has, terminal ones included, from `num_games` random games.

    Few games mostly say too little where rare branches hold most of the tree. A game is left at `ENOUGH` histories, or
    after `max_steps` or `LONGEST` actions; all of it makes the estimate smaller.
    """
    rng = np.random.default_rng(seed)
    return float(sum(_one_game(game, rng) / num_games for _ in range(num_games)))


def _one_game(game: Game, rng: np.random.Generator) -> float:
    """X. The rules are called one by one, with the types that the driver uses, so that they are compiled once."""
    state = game.new_state()[0]
    histories, here = 1.0, 1.0
    for _ in range(min(game.max_steps, LONGEST)):
        player = game.current_player(state)
        if player == TERMINAL or histories > ENOUGH:
            break
        if player == CHANCE:
            children = np.zeros(game.num_chance_outcomes)
            game.chance_probs(state, children)
        else:
            children = np.zeros(game.num_actions, np.bool_)
            game.legal_actions(state, children)
        children = np.flatnonzero(children)
        here *= len(children)
        histories += here
        game.apply_action(state, int(children[rng.integers(len(children))]))
    return histories


def longest(game: Game) -> int:
    """Actions of the longest history that is looked at."""
    return min(game.max_steps, LONGEST)


def refuse_longer(game: Game) -> None:
    """Say that a history goes on after `longest(game)` actions.

    Raises:
        RulesError: it should have ended.
        GameTooLargeError: it is longer than `LONGEST`.
    """
    if game.max_steps <= LONGEST:
        raise RulesError(f"{game.name}: a game goes on after max_steps={game.max_steps} actions; raise max_steps")
    raise GameTooLargeError(f"{game.name}: histories of more than {LONGEST} actions; too large for exact evaluation")


def count_histories(game: Game, most: int) -> int:
    """How many histories the tree of `game` has, found depth first; `most` where there are as many or more.

    Raises:
        RulesError, GameTooLargeError: see `refuse_longer`.
    """
    levels = longest(game) + 1
    state = np.zeros(levels, game.state_dtype)
    game.init(state[0])
    branches = np.zeros((levels, max(game.num_actions, game.num_chance_outcomes)), np.bool_)
    found = _compile_count(game)(state, branches, np.zeros(max(game.num_chance_outcomes, 1)), most)
    if found < 0:
        refuse_longer(game)
    return found


@cache
def _compile_count(game: Game):
    current_player, legal_actions = game.current_player, game.legal_actions
    chance_probs, apply_action = game.chance_probs, game.apply_action
    num_actions, num_outcomes = game.num_actions, game.num_chance_outcomes

    @njit(nogil=True)
    def count(state, branches, probs, most):
        d, found, next_ = 0, 0, np.zeros(len(state), np.int64)
        entered = False
        while d >= 0 and found < most:
            if not entered:
                found += 1
                next_[d] = 0
                branches[d] = False
                player = current_player(state[d])
                if player == CHANCE:
                    probs[:] = 0.0
                    chance_probs(state[d], probs)
                    for a in range(num_outcomes):
                        branches[d, a] = probs[a] > 0.0
                elif player != TERMINAL:
                    legal_actions(state[d], branches[d, :num_actions])
            a = next_[d]
            while a < branches.shape[1] and not branches[d, a]:
                a += 1
            next_[d] = a + 1
            entered = a == branches.shape[1]
            if entered:
                d -= 1
            elif d + 1 == len(state):
                return -1
            else:
                state[d + 1] = state[d]
                apply_action(state[d + 1], a)
                d += 1
        return found

    return count


def refuse_if_too_large(game: Game, max_nodes: int) -> None:
    """Raise GameTooLargeError where there are more than `max_nodes` histories.

    Random games that show `SURELY` times too many are enough: a tree that is not too large is refused so with
    probability below 1 / SURELY, over the seed of the games. Else the histories are counted.
    """
    games = 20
    estimate = estimate_histories(game, games)
    if estimate > SURELY * max_nodes:
        about = "more than 1e300" if estimate > ENOUGH else f"about {estimate:.0e}".replace("e+", "e")
        raise GameTooLargeError(
            f"{game.name}: {about} histories, estimated from {games} random games, and max_nodes={max_nodes}; too "
            "large for exact evaluation"
        )
    if count_histories(game, max_nodes + 1) > max_nodes:
        raise GameTooLargeError(
            f"{game.name}: more than max_nodes={max_nodes} histories; too large for exact evaluation"
        )


def first_paths(levels: list[Level], row_of_node: list[np.ndarray], num_rows: int) -> np.ndarray:
    """[R, longest] int64: the actions that lead to the first history of each row, then -1."""
    paths, met = np.full((num_rows, len(levels) - 1), -1), np.zeros(num_rows, np.bool_)
    for depth, row in enumerate(row_of_node):
        rows, node = np.unique(row, return_index=True)
        node, rows = node[rows >= 0], rows[rows >= 0]
        new = ~met[rows]
        rows, node = rows[new], node[new]
        met[rows] = True
        for d in range(depth, 0, -1):
            paths[rows, d - 1] = levels[d].action[node]
            node = levels[d].parent[node]
    return paths


def expand(game: Game) -> list[Level]:
    """Every history of `game`, shortest first."""
    describe, descend = compile_expansion(game)
    states = game.new_state()
    returns = np.zeros((1, game.num_players))
    parent, action, edge_prob = np.zeros(1, np.int64), np.zeros(1, np.int64), np.ones(1)
    levels = []
    while len(states):
        player = np.empty(len(states), np.int8)
        obs = np.zeros((len(states), *game.obs_shape), game.obs_dtype)
        legal = np.zeros((len(states), game.num_actions), np.bool_)
        probs = np.zeros((len(states), game.num_chance_outcomes))
        describe(states, player, obs, legal, probs)
        levels.append(Level(player, obs, legal, returns, parent, action, edge_prob))
        by_player = np.nonzero(legal)
        by_chance = np.nonzero(probs)
        parent = np.concatenate([by_player[0], by_chance[0]])
        action = np.concatenate([by_player[1], by_chance[1]])
        edge_prob = np.concatenate([np.ones(len(by_player[0])), probs[by_chance]])
        states, returns = states[parent], returns[parent]
        descend(states, action, returns)
    return levels


@cache
def compile_expansion(game: Game):
    """The kernels describe(states, player, obs, legal, probs) and descend(states, action, returns)."""
    current_player, legal_actions, chance_probs = game.current_player, game.legal_actions, game.chance_probs
    apply_action, rewards, observe = game.apply_action, game.rewards, game.observe

    @njit
    def describe(states, player, obs, legal, probs):
        for i in range(len(states)):
            player[i] = current_player(states[i])
            if player[i] == CHANCE:
                chance_probs(states[i], probs[i])
            elif player[i] != TERMINAL:
                legal_actions(states[i], legal[i])
                observe(states[i], player[i], obs[i])

    @njit
    def descend(states, action, returns):
        earned = np.zeros(returns.shape[1])
        for i in range(len(states)):
            apply_action(states[i], action[i])
            earned[:] = 0.0
            rewards(states[i], earned)
            returns[i] += earned

    return describe, descend
