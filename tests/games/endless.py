"""Chance that is always to move again."""

from games.faulty import faulty_game

GAME = faulty_game("endless", 3, (0.5, 0.5), False, 9)
