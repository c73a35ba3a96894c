"""Liar's dice, two dice of 3 faces each."""

from envs.liars_dice import liars_dice

GAME = liars_dice(2, 3)
