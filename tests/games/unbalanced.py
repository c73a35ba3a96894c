"""Chance whose probabilities do not sum to 1."""

from games.faulty import faulty_game

GAME = faulty_game("unbalanced", 3, (0.5, 0.4), True, 9)
