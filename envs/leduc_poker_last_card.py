"""Leduc poker, last card only: the same rules, and an observation that forgets the first round when the second begins.

In the first round a player sees its own card and the bets; in the second the public card, the bets of that round, and
what it did last in the first. Its own card and the other's bets it has to remember: 936 infosets look like far fewer.

obs [19] uint8: 0-1 the player, 2 second round, 3-8 the last card seen, then four actions of this round of two bits
each: 9 + 2i call, 10 + 2i raise, and in the second round 17 last called in the first, 18 last raised.
"""

from dataclasses import replace

import numpy as np
from numba import njit

from envs import leduc_poker


@njit
def observe(state, player, obs):
    obs[player] = 1
    second = state.round
    obs[2] = second
    card = state.card[2] if second else state.card[player]
    if card >= 0:
        obs[3 + card] = 1
    for i in range(state.num_moves[second]):
        obs[8 + 2 * i + state.moves[second, i]] = 1
    if second:
        last = state.num_moves[0] - 1
        mine = last if last % 2 == player else last - 1
        obs[16 + state.moves[0, mine]] = 1


GAME = replace(
    leduc_poker.GAME, name="leduc_poker_last_card", obs_shape=(19,), obs_dtype=np.dtype(np.uint8), observe=observe,
    redact=None, perfect_recall=False, obs_parts={}, structure=None,
)  # fmt: skip
