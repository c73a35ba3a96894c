"""Phantom tic-tac-toe, the classic game: who tries a taken cell sees it and tries again."""

from envs.phantom_board import line_wins, phantom_board

GAME = phantom_board("phantom_tic_tac_toe", 3, line_wins(), abrupt=False)
