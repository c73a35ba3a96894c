"""Beasty Bar: animals at the door of a bar, two hidden hands, and rules in `envs.beasty_bar.rules`.

`envs.beasty_bar` is the game for learners (`compact`); `envs.beasty_bar.documents` is the same game with the
observation and the actions of the first system that learned it. `heuristics` has ten opponents for both.
"""

from envs.beasty_bar.compact import GAME as GAME
