"""Liar's dice, two dice of 5 faces each."""

from envs.liars_dice import liars_dice

GAME = liars_dice(2, 5)
