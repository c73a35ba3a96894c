"""Dark hex on 3 x 3 cells, the abrupt game: who tries a taken cell sees it and loses the turn."""

from envs.phantom_board import hex_wins, phantom_board

GAME = phantom_board("dark_hex_3x3_abrupt", 3, hex_wins(3, 3), abrupt=True)
