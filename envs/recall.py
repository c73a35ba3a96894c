"""Recall: so many random bits are shown one by one, then asked for in the same order. Without memory half are right.

One player; `recall(length)`. Chance draws all bits as one number. While they are shown the only legal action is 2 =
look; then actions are 0 and 1, and each right answer earns 1 / length: the return is the share of bits recalled.
obs [3 + length] uint8: 0 the bit shown is 0, 1 it is 1, 2 the player is asked, then which bit it is about.
"""

import numpy as np
from numba import njit

from envs.game import CHANCE, TERMINAL, Game


def recall(length: int) -> Game:
    @njit
    def init(state):
        state.bits, state.steps, state.right = -1, 0, 0

    @njit
    def current_player(state):
        return CHANCE if state.bits < 0 else TERMINAL if state.steps == 2 * length else 0

    @njit
    def legal_actions(state, legal):
        legal[:2] = state.steps >= length
        legal[2] = state.steps < length

    @njit
    def chance_probs(state, probs):
        probs[:] = 1.0 / len(probs)

    @njit
    def apply_action(state, action):
        if state.bits < 0:
            state.bits = action
        else:
            state.right = state.steps >= length and action == state.bits >> (state.steps - length) & 1
            state.steps += 1

    @njit
    def rewards(state, out):
        out[0] = state.right / length

    @njit
    def observe(state, player, obs):
        if state.steps < length and state.bits >= 0:
            obs[state.bits >> state.steps & 1] = 1
        obs[2] = state.steps >= length
        obs[3 + state.steps % length] = 1

    return Game(
        name=f"recall_{length}", version="1.0", num_players=1, num_actions=3, num_chance_outcomes=2**length,
        max_steps=2 * length + 1, obs_shape=(3 + length,), obs_dtype=np.dtype(np.uint8), max_return=1.0, zero_sum=False,
        perfect_recall=False, state_dtype=np.dtype([("bits", np.int32), ("steps", np.int8), ("right", np.int8)]),
        init=init, current_player=current_player, legal_actions=legal_actions, chance_probs=chance_probs,
        apply_action=apply_action, rewards=rewards, observe=observe, render=str,
    )  # fmt: skip


GAME = recall(8)
