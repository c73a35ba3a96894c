"""Tic-tac-toe: the smallest game of perfect information; the value is a draw.

Squares (= actions) are numbered 0-8 row by row, as in OpenSpiel. The winner gets +1, the loser -1.

obs [19] uint8: 0-8 own marks, 9-17 the opponent's marks, 18 one if this is player 1 (noughts). The order of the
moves is not observed, so recall is not perfect; nothing is hidden, so nothing is lost by that.
"""

import numpy as np
from numba import njit

from envs.game import TERMINAL, Game

STATE = np.dtype([("mark", np.int8, 9), ("num_moves", np.int8), ("winner", np.int8)])  # mark: 0 empty, p + 1


@njit
def init(state):
    for i in range(9):
        state.mark[i] = 0
    state.num_moves = 0
    state.winner = -1


@njit
def current_player(state):
    if state.winner >= 0 or state.num_moves == 9:
        return TERMINAL
    return state.num_moves % 2


@njit
def legal_actions(state, legal):
    for i in range(9):
        legal[i] = state.mark[i] == 0


@njit
def chance_probs(state, probs):
    pass


@njit
def apply_action(state, action):
    player = state.num_moves % 2
    state.mark[action] = player + 1
    state.num_moves += 1
    m = player + 1
    row, col = 3 * (action // 3), action % 3
    if (
        (state.mark[row] == m and state.mark[row + 1] == m and state.mark[row + 2] == m)
        or (state.mark[col] == m and state.mark[col + 3] == m and state.mark[col + 6] == m)
        or (state.mark[0] == m and state.mark[4] == m and state.mark[8] == m)
        or (state.mark[2] == m and state.mark[4] == m and state.mark[6] == m)
    ):
        state.winner = player


@njit
def rewards(state, out):
    if state.winner >= 0:
        out[state.winner] = 1.0
        out[1 - state.winner] = -1.0


@njit
def observe(state, player, obs):
    for i in range(9):
        if state.mark[i] > 0:
            obs[i if state.mark[i] == player + 1 else 9 + i] = 1
    obs[18] = player


def render(state) -> str:
    marks = [".xo"[m] for m in state["mark"]]
    return "\n".join("".join(marks[i : i + 3]) for i in (0, 3, 6))


GAME = Game(
    name="tic_tac_toe",
    version="1.0",
    num_players=2,
    num_actions=9,
    num_chance_outcomes=0,
    max_steps=9,
    obs_shape=(19,),
    obs_dtype=np.dtype(np.uint8),
    state_dtype=STATE,
    max_return=1.0,
    init=init,
    current_player=current_player,
    legal_actions=legal_actions,
    chance_probs=chance_probs,
    apply_action=apply_action,
    rewards=rewards,
    observe=observe,
    render=render,
    action_names=tuple(f"square {i}" for i in range(9)),
    perfect_recall=False,
    perfect_information=True,
)
