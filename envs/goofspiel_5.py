"""Goofspiel with 5 cards and hidden bids."""

from envs.goofspiel import goofspiel

GAME = goofspiel(5)
