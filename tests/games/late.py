"""Chance that does not end, after so many decisions that no rehearsal comes to it."""

from games.faulty import faulty_game

GAME = faulty_game("late", 100, (0.5, 0.5), False, 200)
