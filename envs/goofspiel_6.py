"""Goofspiel with 6 cards and hidden bids."""

from envs.goofspiel import goofspiel

GAME = goofspiel(6)
