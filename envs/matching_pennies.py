"""Matching pennies: player 0 wins one if the coins match. Value 0, the one equilibrium is half and half."""

from envs.matrix_game import matrix_game

GAME = matrix_game("matching_pennies", [[1, -1], [-1, 1]], ["heads", "tails"])
