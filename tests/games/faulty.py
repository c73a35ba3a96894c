"""Games whose rules break a promise: some decisions of one player, then chance, which is wrong in some way."""

import numpy as np
from numba import njit

from envs.game import CHANCE, TERMINAL, Game

STATE = np.dtype([("steps", np.int32)])


def faulty_game(name: str, decisions: int, probs: tuple[float, float], ends: bool, max_steps: int) -> Game:
    """`decisions` of player 0, then an outcome of chance with `probs`, after which it is over, or chance again."""
    first, second = probs

    @njit
    def init(state):
        state.steps = 0

    @njit
    def current_player(state):
        if state.steps < decisions:
            return 0
        return TERMINAL if ends and state.steps > decisions else CHANCE

    @njit
    def legal_actions(state, legal):
        legal[:] = True

    @njit
    def chance_probs(state, out):
        out[0], out[1] = first, second

    @njit
    def apply_action(state, action):
        state.steps += 1

    @njit
    def rewards(state, out):
        pass

    @njit
    def observe(state, player, obs):
        obs[0] = state.steps % 7

    return Game(
        name=name, version="1.0", num_players=2, num_actions=2, obs_shape=(1,), obs_dtype=np.dtype(np.uint8),
        max_return=1.0, num_chance_outcomes=2, max_steps=max_steps, state_dtype=STATE, perfect_recall=False,
        init=init, current_player=current_player, legal_actions=legal_actions, chance_probs=chance_probs,
        apply_action=apply_action, rewards=rewards, observe=observe, render=lambda state: str(state),
    )  # fmt: skip
