"""Chance that always has one outcome and always comes again: a tree of one branch without an end."""

from games.faulty import faulty_game

GAME = faulty_game("unending", 1, (1.0, 0.0), False, 1_000)
