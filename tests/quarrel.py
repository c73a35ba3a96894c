"""A game of any number of players for tests of teams: each says a number once, and what they earn tells who said what.

Player p says 0, 1 or 2 and earns p + 10 x its number minus what the one before it said: nobody's return is another's.
"""

import numpy as np
from numba import njit

from envs.game import TERMINAL, Game


def make(*teams):
    """The game of as many players, in these teams."""
    num_players = len(teams)

    @njit
    def init(state):
        state.said[:] = -1
        state.turn = 0

    @njit
    def current_player(state):
        return state.turn if state.turn < num_players else TERMINAL

    @njit
    def legal_actions(state, legal):
        legal[:] = True

    @njit
    def chance_probs(state, probs):
        pass

    @njit
    def apply_action(state, action):
        state.said[state.turn] = action
        state.turn += 1

    @njit
    def rewards(state, out):
        if state.turn == num_players:
            for p in range(num_players):
                out[p] = p + 10 * state.said[p] - state.said[p - 1]

    @njit
    def observe(state, player, obs):
        obs[player] = 1
        obs[num_players] = state.said[player] + 1

    return Game(
        name=f"quarrel_{num_players}",
        version="1",
        num_players=num_players,
        num_actions=3,
        teams=teams,
        num_chance_outcomes=0,
        max_steps=num_players,
        obs_shape=(num_players + 1,),
        obs_dtype=np.dtype(np.uint8),
        state_dtype=np.dtype([("said", np.int64, (num_players,)), ("turn", np.int64)]),
        max_return=10.0 * 2 + num_players,
        init=init,
        current_player=current_player,
        legal_actions=legal_actions,
        chance_probs=chance_probs,
        apply_action=apply_action,
        rewards=rewards,
        observe=observe,
        render=str,
        zero_sum=False,
        perfect_recall=False,
    )


class Says:
    """A player who always says the same number, and notes whose moves it made and where games began."""

    def __init__(self, number):
        self.number, self.moves, self.began = number, [], []

    def act(self, table, rows, probs):
        self.moves += [(int(b), int(table.player[b])) for b in rows]
        probs[rows] = 0
        probs[rows, self.number] = 1

    def begin(self, rows):
        self.began.append(rows.tolist())
