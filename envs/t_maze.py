"""The T-maze: a cue at its beginning tells which way to turn at its end (Bakker 2001). Nothing in between repeats it.

One player; `t_maze(length)`. Chance shows a cue, 0 left or 1 right; so many times the only legal action is 0 = forward;
then 1 = left or 2 = right. The right turn earns 1: the return is the share of mazes solved, 0.5 without memory.
obs [4] uint8: 0 the cue is left, 1 it is right (both 0 after the first decision), 2 corridor, 3 junction.
"""

import numpy as np
from numba import njit

from envs.game import CHANCE, TERMINAL, Game


def t_maze(length: int) -> Game:
    @njit
    def init(state):
        state.cue, state.place, state.turn = -1, 0, 0

    @njit
    def current_player(state):
        return CHANCE if state.cue < 0 else TERMINAL if state.turn else 0

    @njit
    def legal_actions(state, legal):
        legal[0] = state.place < length
        legal[1:] = state.place == length

    @njit
    def apply_action(state, action):
        if state.cue < 0:
            state.cue = action
        elif action == 0:
            state.place += 1
        else:
            state.turn = action

    @njit
    def observe(state, player, obs):
        if state.place == 0 and state.cue >= 0:
            obs[state.cue] = 1
        obs[3 if state.place == length else 2] = 1

    @njit
    def chance_probs(state, probs):
        probs[:] = 0.5

    @njit
    def rewards(state, out):
        out[0] = state.turn == 1 + state.cue

    return Game(
        name=f"t_maze_{length}", version="1.0", num_players=1, num_actions=3, num_chance_outcomes=2,
        max_steps=length + 2, obs_shape=(4,), obs_dtype=np.dtype(np.uint8), max_return=1.0, zero_sum=False,
        perfect_recall=False, state_dtype=np.dtype([("cue", np.int8), ("place", np.int16), ("turn", np.int8)]),
        init=init, current_player=current_player, legal_actions=legal_actions, chance_probs=chance_probs,
        apply_action=apply_action, rewards=rewards, observe=observe, render=str,
    )  # fmt: skip


GAME = t_maze(20)
