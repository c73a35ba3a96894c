"""The rules of shogi over one record: how moves are made, and how a game ends.

A player without a legal move loses. A position that comes for the fourth time, the same player to move and the same
pieces in hand, is a draw; if one of the two gave check with every move since its first time, that one loses. Whoever
is to move and may declare a win by the 27-point rule is taken to do so: the king stands in the far three ranks with ten
other own pieces, is not in check, and those ten or more with the hand count 28 points for Black, 27 for White (rooks
and bishops five each, promoted or not, all others one). A game of MAX_PLIES is a draw; training cuts games off earlier,
by `data.truncate_after`, and that is no draw: what the players expect there takes the place of an outcome.

Readings: where both gave check with every move, the fourth time is a draw. Mate goes before repetition, a declaration
before both repetition and length.
"""

import numpy as np

from envs.game import TERMINAL
from envs.jit import njit
from envs.shogi.moves import PROMOTES, ROOM, SOURCE, gain_of, generate, make
from envs.shogi.pieces import (
    BISHOP,
    BOARD_KEYS,
    DRAGON,
    HAND,
    HAND_KEYS,
    HORSE,
    KINDS,
    KING,
    PROMOTED,
    ROOK,
    ROW,
    SQUARES,
    START,
    TURN_KEY,
    UNPROMOTED,
)

MAX_PLIES = 1024
RUNNING, MATE, IMPASSE, REPETITION, PERPETUAL, LENGTH = range(6)
ENDS = ("", "no legal move", "declared by 27 points", "fourfold repetition", "perpetual check", f"{MAX_PLIES} plies")
NOBODY = -1
FOURTH = 3  # earlier times that a position stood there
WORTH_OF_A_PAWN = 0.01  # of the bonus

STATE = np.dtype(
    [
        ("board", np.int8, SQUARES),  # pieces, White's negative; see `envs.shogi.pieces`
        ("hand", np.int8, (2, HAND)),
        ("king", np.int8, 2),  # squares
        ("turn", np.int8),  # the player to move
        ("ply", np.int16),  # moves made so far
        ("num_moves", np.int16),
        ("moves", np.int16, ROOM),  # the legal ones, see `envs.shogi.moves`
        ("in_check", np.int8),
        ("repeats", np.int8),  # how often the position stood there before
        ("gain", np.int8),  # pawns that the last move was worth to who made it
        ("end", np.int8),
        ("winner", np.int8),
        ("checks", np.int16, 2),  # given by each player with every move of late
        ("root", np.int16),  # the ply from which on positions are known
        ("key", np.uint64),  # of the position
        ("keys", np.uint64, MAX_PLIES + 1),  # of all positions so far, by ply
    ]
)


@njit
def init(state):
    for square in range(SQUARES):
        state.board[square] = START[square]
    for p in range(2):
        for held in range(HAND):
            state.hand[p, held] = 0
    state.king[0], state.king[1] = 76, 4
    state.turn, state.ply = 0, 0
    begin(state)


@njit
def begin(state):
    """Fills in the rest of a record in which board, hands, kings, player to move and ply stand."""
    for i in range(len(state.moves)):
        state.moves[i] = 0
    for i in range(len(state.keys)):
        state.keys[i] = 0
    state.gain, state.root, state.repeats = 0, state.ply, 0
    state.checks[0], state.checks[1] = 0, 0
    key = TURN_KEY * np.uint64(state.turn)
    for square in range(SQUARES):
        if state.board[square] != 0:
            key ^= BOARD_KEYS[state.board[square] + KINDS - 1, square]
    for p in range(2):
        for held in range(HAND):
            key ^= HAND_KEYS[p, held, state.hand[p, held]]
    state.key = key
    _look(state)


@njit
def current_player(state):
    return TERMINAL if state.end != RUNNING else np.int64(state.turn)


@njit
def chance_probs(state, probs):
    pass


@njit
def play(state, move):
    """A legal move, a number of `envs.shogi.moves`; the game may end with it."""
    me = np.int64(state.turn)
    _account(state, me, move)
    make(state, move)
    state.ply += 1
    _look(state)
    state.checks[me] = state.checks[me] + 1 if state.in_check else 0


@njit
def _account(state, me, move):
    """What a move does to the key of the position, and what it gains."""
    to, source = move % SOURCE, (move // SOURCE) % SOURCE
    key, sign = state.key ^ TURN_KEY, 1 - 2 * me
    if source >= SQUARES:
        held = source - SQUARES
        key ^= BOARD_KEYS[sign * (held + 1) + KINDS - 1, to]
        key ^= HAND_KEYS[me, held, state.hand[me, held]] ^ HAND_KEYS[me, held, state.hand[me, held] - 1]
    else:
        piece, taken = np.int64(state.board[source]), np.int64(state.board[to])
        key ^= BOARD_KEYS[piece + KINDS - 1, source]
        if taken != 0:
            held = UNPROMOTED[abs(taken)] - 1
            key ^= BOARD_KEYS[taken + KINDS - 1, to]
            key ^= HAND_KEYS[me, held, state.hand[me, held]] ^ HAND_KEYS[me, held, state.hand[me, held] + 1]
        if move >= PROMOTES:
            piece = np.int64(sign * PROMOTED[abs(piece)])
        key ^= BOARD_KEYS[piece + KINDS - 1, to]
    state.key, state.gain = key, gain_of(state, move)


@njit
def _look(state):
    """Legal moves, check, repetition, and whether the game is over."""
    state.keys[state.ply] = state.key
    num_moves, checkers = generate(state, state.moves)
    state.num_moves, state.in_check = num_moves, checkers > 0
    state.end, state.winner = RUNNING, NOBODY
    first = _count_repeats(state)
    if num_moves == 0:
        state.end, state.winner = MATE, 1 - state.turn
    elif may_declare(state):
        state.end, state.winner = IMPASSE, state.turn
    elif state.repeats >= FOURTH:
        _repeated(state, state.ply - first)
    elif state.ply >= MAX_PLIES:
        state.end = LENGTH


@njit
def _count_repeats(state):
    """Into `repeats`, how often the position stood there before; at which ply for the first time."""
    repeats, first, key, ply = 0, np.int64(state.ply), state.key, np.int64(state.ply) - 4
    while ply >= state.root:
        if state.keys[ply] == key:
            repeats, first = repeats + 1, ply
        ply -= 2
    state.repeats = repeats
    return first


@njit
def _repeated(state, plies):
    """The end by repetition, so many plies after the position stood there first."""
    mover = np.int64(state.turn)
    mine = 2 * state.checks[mover] >= plies
    theirs = state.in_check and 2 * (state.checks[1 - mover] + 1) >= plies  # the last move is not yet counted
    if mine == theirs:
        state.end = REPETITION
    else:
        state.end, state.winner = PERPETUAL, 1 - mover if mine else mover


@njit
def may_declare(state):
    """The player to move may declare a win by the 27-point rule."""
    me = np.int64(state.turn)
    if state.in_check or ROW[me, state.king[me]] > 2:
        return False
    sign, count, points = 1 - 2 * me, 0, 0
    for square in range(SQUARES):
        kind = state.board[square] * sign
        if kind > 0 and kind != KING and ROW[me, square] < 3:
            count += 1
            points += 5 if kind in (BISHOP, ROOK, HORSE, DRAGON) else 1
    for held in range(HAND):
        points += state.hand[me, held] * (5 if held + 1 in (BISHOP, ROOK) else 1)
    return count >= 10 and points >= 28 - me


@njit
def rewards(state, out):
    if state.winner != NOBODY:
        out[state.winner] = 1.0
        out[1 - state.winner] = -1.0


@njit
def bonus(state, out):
    """Material: WORTH_OF_A_PAWN for each pawn's worth that the last move took or won by promotion, and less for the
    other."""
    out[1 - state.turn] = WORTH_OF_A_PAWN * state.gain
    out[state.turn] = -WORTH_OF_A_PAWN * state.gain


@njit
def forget(state):
    """Erases what no player can read off a board: the positions before, and what the last move was worth."""
    for i in range(state.num_moves, len(state.moves)):
        state.moves[i] = 0
    for i in range(len(state.keys)):
        state.keys[i] = 0
    state.gain, state.root, state.key = 0, 0, 0
    state.checks[0], state.checks[1] = 0, 0
