"""Facts of betting: what an obs of a game of bets says to everybody, in shares that mean the same in any such game.

A game of bets has a plain function `betting(obs [N, *D]) -> Betting` in its module (`envs.kuhn_poker.betting`). Whoever
needs the facts takes its import path; a game knows nothing of it.
"""

from typing import NamedTuple

import numpy as np


class Betting(NamedTuple):
    """Of N infostates."""

    round: np.ndarray  # [N] int64, from 0
    pot: np.ndarray  # [N] float64, of the largest pot that this game can have
    stack: np.ndarray  # [N] float64, of what the player who observes began with, still in hand
