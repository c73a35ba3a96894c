"""Phantom tic-tac-toe, the abrupt game: who tries a taken cell sees it and loses the turn."""

from envs.phantom_board import line_wins, phantom_board

GAME = phantom_board("phantom_tic_tac_toe_abrupt", 3, line_wins(), abrupt=True)
