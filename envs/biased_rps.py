"""Rock-paper-scissors in which rock beats scissors for three. Value 0, the one equilibrium is (1/5, 3/5, 1/5).

From p A = 0 with p the row player's mix: paper - 3 scissors = 0, scissors - rock = 0.
"""

from envs.matrix_game import matrix_game

GAME = matrix_game("biased_rps", [[0, -1, 3], [1, 0, -1], [-3, 1, 0]], ["rock", "paper", "scissors"])
