"""Chance with a probability below 0."""

from games.faulty import faulty_game

GAME = faulty_game("negative", 3, (1.5, -0.5), True, 9)
