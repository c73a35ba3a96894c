"""Liar's dice, one die of 4 faces each."""

from envs.liars_dice import liars_dice

GAME = liars_dice(1, 4)
