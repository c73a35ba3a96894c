"""Shogi by the rules of tournaments, in `envs.shogi.rules`; both players see everything.

`envs.shogi` is the game for learners (`compact`); `envs.shogi.documents` is the same game with the observation and the
actions of the first system that learned it. `heuristics` has five opponents for both, `notation` reads and writes SFEN,
USI and Japanese moves.
"""

from envs.shogi.compact import GAME as GAME
