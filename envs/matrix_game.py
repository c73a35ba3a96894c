"""Zero-sum matrix games: both players choose at once, which here means in sequence, the first choice unseen.

`matrix_game(name, payoff)` builds the `Game`; `envs.matching_pennies` and `envs.biased_rps` are two of them.

obs [3] uint8: 0-1 the player, 2 whether that player has chosen already.
"""

from collections.abc import Sequence

import numpy as np
from numba import njit

from envs.game import TERMINAL, Game

STATE = np.dtype([("num_moves", np.int8), ("moves", np.int16, 2)])


@njit
def init(state):
    state.num_moves = 0


@njit
def current_player(state):
    return TERMINAL if state.num_moves == 2 else state.num_moves


@njit
def legal_actions(state, legal):
    legal[:] = True


@njit
def chance_probs(state, probs):
    pass


@njit
def apply_action(state, action):
    state.moves[state.num_moves] = action
    state.num_moves += 1


@njit
def observe(state, player, obs):
    obs[player] = 1
    obs[2] = state.num_moves > player


@njit
def hidden_from(state, player):
    return player != state.num_moves


def matrix_game(name: str, payoff: Sequence[Sequence[float]], action_names: Sequence[str]) -> Game:
    """A square zero-sum matrix game; `payoff` [A, A] is what the row player (player 0) wins.

    Raises:
        ValueError: the matrix is not square, not finite, or does not fit the names.
    """
    table = np.array(payoff, dtype=np.float64)
    if table.ndim != 2 or table.shape[0] != table.shape[1] or not np.isfinite(table).all():
        raise ValueError(f"payoff of {name}: needs a square matrix of finite numbers, got shape {table.shape}")
    if len(action_names) != len(table):
        raise ValueError(f"action_names of {name}: {len(action_names)} names for {len(table)} actions")

    @njit
    def rewards(state, out):
        if state.num_moves == 2:
            out[0] = table[state.moves[0], state.moves[1]]
            out[1] = -out[0]

    def render(state) -> str:
        return "chosen " + (" ".join(action_names[m] for m in state["moves"][: state["num_moves"]]) or "-")

    return Game(
        name=name,
        version="1.0",
        num_players=2,
        num_actions=len(table),
        num_chance_outcomes=0,
        max_steps=2,
        obs_shape=(3,),
        obs_dtype=np.dtype(np.uint8),
        state_dtype=STATE,
        max_return=float(np.abs(table).max()),
        init=init,
        current_player=current_player,
        legal_actions=legal_actions,
        chance_probs=chance_probs,
        apply_action=apply_action,
        rewards=rewards,
        observe=observe,
        render=render,
        hidden_from=hidden_from,
        action_names=tuple(action_names),
    )
