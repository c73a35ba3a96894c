"""Board, pieces and tables of shogi: what can be said of the game before anybody moves.

Squares are 0 to 80 as a diagram is read: 9a first, then along the rank to 1a, at last 9i to 1i. Player 0 is Black
(sente), whose pieces are positive numbers and go up, towards lower squares; White's (gote's) are negative.

Directions are 0 to 7: up left, up, up right, left, right, down left, down, down right; 7 - d is opposite to d.
"""

import numpy as np

from envs.rng import mix

PAWN, LANCE, KNIGHT, SILVER, GOLD, BISHOP, ROOK, KING = range(1, 9)
TOKIN, PRO_LANCE, PRO_KNIGHT, PRO_SILVER, HORSE, DRAGON = range(9, 15)
KINDS = 15  # with 0, no piece
HAND = 7  # kinds that can be held, PAWN to ROOK; a held one is its number less 1
HELD = (18, 4, 4, 4, 4, 2, 2)  # how many there are of each
SQUARES = 81

PROMOTED = np.array([0, TOKIN, PRO_LANCE, PRO_KNIGHT, PRO_SILVER, 0, HORSE, DRAGON, *[0] * 7], np.int8)
UNPROMOTED = np.array([*range(9), PAWN, LANCE, KNIGHT, SILVER, BISHOP, ROOK], np.int8)
FIRST_ROW = np.array([0, 1, 1, 2, *[0] * 11], np.int8)  # nearest row to the far edge from which a piece can still move
VALUES = np.array([0, 1, 3, 3, 5, 6, 8, 10, 0, 6, 6, 6, 6, 10, 12], np.int64)  # pawns that a piece is worth

STEPS = {  # directions of one step, as Black sees them
    PAWN: (1,), SILVER: (0, 1, 2, 5, 7), GOLD: (0, 1, 2, 3, 4, 6), KING: range(8),
    TOKIN: (0, 1, 2, 3, 4, 6), PRO_LANCE: (0, 1, 2, 3, 4, 6), PRO_KNIGHT: (0, 1, 2, 3, 4, 6),
    PRO_SILVER: (0, 1, 2, 3, 4, 6), HORSE: (1, 3, 4, 6), DRAGON: (0, 2, 5, 7),
}  # fmt: skip
SLIDES = {LANCE: (1,), BISHOP: (0, 2, 5, 7), ROOK: (1, 3, 4, 6), HORSE: (0, 2, 5, 7), DRAGON: (1, 3, 4, 6)}
ROW_OF, COLUMN_OF = (-1, -1, -1, 0, 0, 1, 1, 1), (-1, 0, 1, -1, 1, -1, 0, 1)  # of a step in each direction


def _bits(directions: dict) -> np.ndarray:
    """[2, KINDS] bit d: a piece of that player and kind goes in direction d."""
    found = np.zeros((2, KINDS), np.int64)
    for kind, ways in directions.items():
        for d in ways:
            found[0, kind] |= 1 << d
            found[1, kind] |= 1 << (7 - d)
    return found


def _ways() -> tuple[np.ndarray, np.ndarray]:
    """[2, KINDS] how many ways a piece has, and [2, KINDS, 8] which: the direction, + 8 if it slides."""
    count, ways = np.zeros((2, KINDS), np.int8), np.zeros((2, KINDS, 8), np.int8)
    for kind in range(1, KINDS):
        found = [(d, 0) for d in STEPS.get(kind, ())] + [(d, 8) for d in SLIDES.get(kind, ())]
        for player in range(2):
            count[player, kind] = len(found)
            ways[player, kind, : len(found)] = [(7 - d if player else d) + slides for d, slides in found]
    return count, ways


def _rays() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """[81, 8] squares to the edge; [81, 81] direction from one square to another, or -1, and how far that is."""
    reach, line = np.zeros((SQUARES, 8), np.int8), np.full((SQUARES, SQUARES), -1, np.int8)
    distance = np.zeros((SQUARES, SQUARES), np.int8)
    for square in range(SQUARES):
        for d in range(8):
            row, column = square // 9 + ROW_OF[d], square % 9 + COLUMN_OF[d]
            while 0 <= row < 9 and 0 <= column < 9:
                reach[square, d] += 1
                line[square, 9 * row + column], distance[square, 9 * row + column] = d, reach[square, d]
                row, column = row + ROW_OF[d], column + COLUMN_OF[d]
    return reach, line, distance


def _jumps() -> np.ndarray:
    """[2, 81, 2] where a knight goes, to the left and to the right on the page; -1 off the board."""
    found = np.full((2, SQUARES, 2), -1, np.int8)
    for player, rows in enumerate((-2, 2)):
        for square in range(SQUARES):
            for i, columns in enumerate((-1, 1)):
                row, column = square // 9 + rows, square % 9 + columns
                if 0 <= row < 9 and 0 <= column < 9:
                    found[player, square, i] = 9 * row + column
    return found


def _keys(first: int, shape: tuple[int, ...]) -> np.ndarray:
    """Random 64-bit numbers, the same in every process."""
    size = int(np.prod(shape))
    return np.array([mix(np.uint64(first + i)) for i in range(size)], np.uint64).reshape(shape)


STEP_BITS, SLIDE_BITS = _bits(STEPS), _bits(SLIDES)
NUM_WAYS, WAYS = _ways()
REACH, LINE, DISTANCE = _rays()
JUMPS = _jumps()
OFFSET = np.array([9 * row + column for row, column in zip(ROW_OF, COLUMN_OF)], np.int64)
ROW = np.array([[s // 9 for s in range(SQUARES)], [8 - s // 9 for s in range(SQUARES)]], np.int8)  # as a player sees it
COLUMN = np.array([s % 9 for s in range(SQUARES)], np.int8)
BOARD_KEYS = _keys(1, (2 * KINDS - 1, SQUARES))  # [piece + 14, square]
HAND_KEYS = _keys(100_001, (2, HAND, HELD[0] + 1))  # [player, kind, how many]
TURN_KEY = _keys(200_001, (1,))[0]


def _start() -> np.ndarray:
    board = np.zeros((9, 9), np.int8)
    board[8] = (LANCE, KNIGHT, SILVER, GOLD, KING, GOLD, SILVER, KNIGHT, LANCE)
    board[7, 1], board[7, 7], board[6] = BISHOP, ROOK, PAWN
    return (board - board[::-1, ::-1]).reshape(SQUARES)


START = _start()
