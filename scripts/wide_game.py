"""A game of shogi's sizes and no sense, for `scripts/bench.py`: 13,527 actions of which 80 are legal, 46 x 81 uint8.

Positions are random numbers; two players in turn, a game lasts 200 moves. `dataclasses.replace` gives it other sizes.
"""

import numpy as np
from numba import njit

from envs.game import TERMINAL, Game
from envs.rng import mix

NUM_ACTIONS, NUM_LEGAL, PLANES, LENGTH = 13_527, 80, 46, 200
STATE = np.dtype([("position", np.uint64), ("num_moves", np.int16)])


@njit
def init(state):
    state.position = np.uint64(1)
    state.num_moves = 0


@njit
def current_player(state):
    return TERMINAL if state.num_moves == LENGTH else state.num_moves % 2


@njit
def legal_actions(state, legal):
    number = state.position
    for _ in range(NUM_LEGAL):
        number = mix(number)
        legal[np.int64(number % np.uint64(len(legal)))] = True


@njit
def chance_probs(state, probs):
    pass


@njit
def apply_action(state, action):
    state.position = mix(state.position + np.uint64(action))
    state.num_moves += 1


@njit
def rewards(state, out):
    if state.num_moves == LENGTH:
        out[0] = 1.0 if state.position & np.uint64(1) else -1.0
        out[1] = -out[0]


@njit
def observe(state, player, obs):
    number = state.position + np.uint64(player)
    for plane in range(obs.shape[0]):
        number = mix(number)
        for square in range(min(64, obs.shape[1])):
            obs[plane, square] = (number >> np.uint64(square)) & np.uint64(1)


def render(state) -> str:
    return f"position {state['position']:016x}"


GAME = Game(
    name="wide_game",
    version="1.0",
    num_players=2,
    num_actions=NUM_ACTIONS,
    num_chance_outcomes=0,
    max_steps=LENGTH,
    obs_shape=(PLANES, 81),
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
)
