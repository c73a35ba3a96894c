"""Goofspiel with 4 cards and hidden bids."""

from envs.goofspiel import goofspiel

GAME = goofspiel(4)
