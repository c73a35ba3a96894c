"""`scripts/wide_game.py` with 128 numbers to see and 16 actions: what a GRU's speed is measured on."""

from dataclasses import replace

from scripts.wide_game import GAME as WIDE

GAME = replace(WIDE, name="memory_game", num_actions=16, obs_shape=(2, 64))
