"""Leduc poker with five ranks in two suits."""

from envs.leduc_poker import leduc

GAME = leduc(5, 2)
