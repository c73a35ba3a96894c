"""Leduc poker with thirteen ranks in four suits."""

from envs.leduc_poker import leduc

GAME = leduc(13, 4)
