"""Legal moves of shogi, made and taken back, over a record with `board` [81], `hand` [2, 7], `king` [2] and `turn`.

A move is a number: to + 128 source + 16384 if it promotes; a source of 81 + kind is a drop from the hand.
How the legal ones are found: from the king's square one looks along the eight rays for whoever gives check and for own
pieces that are pinned. So no move but the king's has to be tried: a pinned piece keeps to its line, and in check a move
has to take or to block.
"""

import numpy as np

from envs.jit import njit
from envs.shogi.pieces import (
    COLUMN,
    DISTANCE,
    FIRST_ROW,
    HAND,
    JUMPS,
    KING,
    KNIGHT,
    LINE,
    NUM_WAYS,
    OFFSET,
    PAWN,
    PROMOTED,
    REACH,
    ROW,
    SLIDE_BITS,
    SQUARES,
    STEP_BITS,
    UNPROMOTED,
    VALUES,
    WAYS,
)

SOURCE, PROMOTES = 128, 16384
MOST_MOVES = 593  # legal ones of any position
ROOM = MOST_MOVES + SQUARES  # numbers that `generate` writes to: moves, and behind them squares of its own


@njit
def attacked(state, square, by):
    """A piece of player `by` could go to the square."""
    sign = 1 - 2 * by
    for d in range(8):
        at, kind = square, 0
        for distance in range(REACH[square, d]):
            at += OFFSET[d]
            kind = state.board[at] * sign
            if kind != 0:
                if kind > 0:
                    ways = SLIDE_BITS[by, kind]
                    if distance == 0:
                        ways |= STEP_BITS[by, kind]
                    if (ways >> (7 - d)) & 1:
                        return True
                break
    for i in range(2):
        at = JUMPS[1 - by, square, i]
        if at >= 0 and state.board[at] * sign == KNIGHT:
            return True
    return False


@njit
def look_around(state, me):
    """What is seen from my king: how many give check, where the last of them is, and which pieces are pinned.

    The latter as seven bits for each direction, the square of the piece pinned there or 127.
    """
    sign, other, king = 1 - 2 * me, 1 - me, state.king[me]
    checkers, checker, pins = 0, 0, (1 << 56) - 1
    for d in range(8):
        at, shield = np.int64(king), -1
        for distance in range(REACH[king, d]):
            at += OFFSET[d]
            kind = state.board[at] * sign
            if kind > 0:
                if shield >= 0:
                    break
                shield = at
            elif kind < 0:
                ways = SLIDE_BITS[other, -kind]
                if distance == 0:
                    ways |= STEP_BITS[other, -kind]
                if (ways >> (7 - d)) & 1:
                    if shield < 0:
                        checkers += 1
                        checker = at
                    else:
                        pins ^= (127 ^ shield) << (7 * d)
                break
    for i in range(2):
        at = np.int64(JUMPS[me, king, i])
        if at >= 0 and state.board[at] * sign == -KNIGHT:
            checkers += 1
            checker = at
    return checkers, checker, pins


@njit
def _is_pinned(pins, line, square):
    return line >= 0 and (pins >> (7 * line)) & 127 == square


@njit
def _answers(king, checker, to):
    """A piece that comes to `to` takes the checker, or stands between it and the king."""
    line = LINE[king, checker]
    return to == checker or (line >= 0 and LINE[king, to] == line and DISTANCE[king, to] < DISTANCE[king, checker])


@njit
def _king_moves(state, me, out, n):
    sign, king = 1 - 2 * me, np.int64(state.king[me])
    state.board[king] = 0  # it does not hide the squares behind it
    for d in range(8):
        if REACH[king, d] > 0:
            to = king + OFFSET[d]
            if state.board[to] * sign <= 0 and not attacked(state, to, 1 - me):
                out[n] = to + SOURCE * king
                n += 1
    state.board[king] = sign * KING
    return n


@njit
def _add(me, kind, source, to, out, n):
    """With and without promotion, as far as either is allowed."""
    move = to + SOURCE * source
    if PROMOTED[kind] != 0 and (ROW[me, to] < 3 or ROW[me, source] < 3):
        out[n] = move + PROMOTES
        n += 1
    if ROW[me, to] >= FIRST_ROW[kind]:
        out[n] = move
        n += 1
    return n


@njit
def _board_moves(state, me, checkers, checker, pins, out, n):
    """Of all pieces but the king; besides, which files hold a pawn of mine, and how many squares a drop may go to.

    These squares are written to `out` behind the moves.
    """
    sign, king = 1 - 2 * me, state.king[me]
    pawns, free = 0, 0
    for source in range(SQUARES):
        kind = state.board[source] * sign
        if kind <= 0:
            if kind == 0 and (checkers == 0 or _answers(king, checker, source)):
                out[MOST_MOVES + free] = source
                free += 1
            continue
        if kind == KING:
            continue
        if kind == PAWN:
            pawns |= 1 << COLUMN[source]
        line = LINE[king, source]
        pinned = _is_pinned(pins, line, source)
        if kind == KNIGHT:
            if not pinned:
                for i in range(2):
                    to = JUMPS[me, source, i]
                    if to >= 0 and state.board[to] * sign <= 0 and (checkers == 0 or _answers(king, checker, to)):
                        n = _add(me, kind, source, to, out, n)
            continue
        for i in range(NUM_WAYS[me, kind]):
            way = WAYS[me, kind, i]
            d = way & 7
            if pinned and d != line and d != 7 - line:
                continue
            to, far = source, np.int64(REACH[source, d])
            if way < 8:
                far = min(far, 1)
            for _ in range(far):
                to += OFFSET[d]
                target = state.board[to] * sign
                if target > 0:
                    break
                if checkers == 0 or _answers(king, checker, to):
                    n = _add(me, kind, source, to, out, n)
                if target < 0:
                    break
    return n, pawns, free


@njit
def _drops(state, me, pawns, free, out, n):
    front = state.king[1 - me] + 9 * (1 - 2 * me)  # from there my pawn gives check
    for held in range(HAND):
        if state.hand[me, held] == 0:
            continue
        move, row = SOURCE * (SQUARES + held), FIRST_ROW[held + 1]
        for i in range(free):
            to = out[MOST_MOVES + i]
            if ROW[me, to] < row:
                continue
            if held == PAWN - 1 and ((pawns >> COLUMN[to]) & 1 or (to == front and drop_mates(state, me, to))):
                continue
            out[n] = move + to
            n += 1
    return n


@njit
def drop_mates(state, me, square):
    """My pawn, dropped on an empty square in front of the other king, would give mate."""
    other, sign = 1 - me, 1 - 2 * me
    state.board[square] = sign * PAWN
    mates = not _can_flee(state, other) and not _can_take(state, other, square)
    state.board[square] = 0
    return mates


@njit
def _can_flee(state, me):
    sign, king, found = 1 - 2 * me, np.int64(state.king[me]), False
    state.board[king] = 0
    for d in range(8):
        if REACH[king, d] > 0:
            to = king + OFFSET[d]
            if state.board[to] * sign <= 0 and not attacked(state, to, 1 - me):
                found = True
                break
    state.board[king] = sign * KING
    return found


@njit
def _can_take(state, me, square):
    """One of my pieces other than the king may take what stands there."""
    sign, king = 1 - 2 * me, state.king[me]
    _, _, pins = look_around(state, me)
    for d in range(8):
        at = square
        for distance in range(REACH[square, d]):
            at += OFFSET[d]
            kind = state.board[at] * sign
            if kind != 0:
                if kind > 0 and kind != KING:
                    ways = SLIDE_BITS[me, kind]
                    if distance == 0:
                        ways |= STEP_BITS[me, kind]
                    line = LINE[king, at]
                    bound = _is_pinned(pins, line, at) and d != line and d != 7 - line
                    if (ways >> (7 - d)) & 1 and not bound:
                        return True
                break
    for i in range(2):
        at = np.int64(JUMPS[1 - me, square, i])
        if at >= 0 and state.board[at] * sign == KNIGHT and not _is_pinned(pins, LINE[king, at], at):
            return True
    return False


@njit
def generate(state, out):
    """All legal moves of the player to move into `out` [ROOM]; how many they are, and how many pieces give it check."""
    me = np.int64(state.turn)
    checkers, checker, pins = look_around(state, me)
    n = _king_moves(state, me, out, 0)
    if checkers < 2:
        n, pawns, free = _board_moves(state, me, checkers, checker, pins, out, n)
        n = _drops(state, me, pawns, free, out, n)
    return n, checkers


@njit
def gain_of(state, move):
    """Pawns' worth that a move brings: what it takes from the other and puts into the hand, and by promotion."""
    to, source = move % SOURCE, (move // SOURCE) % SOURCE
    taken, gain = abs(np.int64(state.board[to])), 0
    if taken != 0:
        gain = VALUES[taken] + VALUES[UNPROMOTED[taken]]
    if move >= PROMOTES:
        kind = abs(np.int64(state.board[source]))
        gain += VALUES[PROMOTED[kind]] - VALUES[kind]
    return gain


@njit
def make(state, move):
    """Makes a legal move, and returns what it takes: the piece that stood there, or 0."""
    me = state.turn
    sign, to, source, taken = 1 - 2 * me, move % SOURCE, (move // SOURCE) % SOURCE, 0
    if source >= SQUARES:
        state.board[to] = sign * (source - SQUARES + 1)
        state.hand[me, source - SQUARES] -= 1
    else:
        taken = np.int64(state.board[to])
        if taken != 0:
            state.hand[me, UNPROMOTED[abs(taken)] - 1] += 1
        kind = state.board[source] * sign
        state.board[source] = 0
        state.board[to] = sign * (PROMOTED[kind] if move >= PROMOTES else kind)
        if kind == KING:
            state.king[me] = to
    state.turn = 1 - me
    return taken


@njit
def unmake(state, move, taken):
    """Takes back the move that was made last, which took `taken`."""
    me = 1 - state.turn
    sign, to, source = 1 - 2 * me, move % SOURCE, (move // SOURCE) % SOURCE
    state.turn = me
    if source >= SQUARES:
        state.board[to] = 0
        state.hand[me, source - SQUARES] += 1
        return
    kind = state.board[to] * sign
    state.board[source] = sign * (UNPROMOTED[kind] if move >= PROMOTES else kind)
    state.board[to] = taken
    if taken != 0:
        state.hand[me, UNPROMOTED[abs(taken)] - 1] -= 1
    if kind == KING:
        state.king[me] = source


@njit
def perft(state, depth):
    """How many positions stand `depth` plies away, each as often as it is reached; `state` is left as it was."""
    if depth == 0:
        return 1
    moves = np.empty((depth, ROOM), np.int16)
    count, taken = np.empty(depth, np.int64), np.empty(depth, np.int64)
    total, level = 0, 0
    count[0], _ = generate(state, moves[0])
    while True:
        if level < depth - 1 and count[level] > 0:
            count[level] -= 1
            taken[level] = make(state, np.int64(moves[level, count[level]]))
            level += 1
            count[level], _ = generate(state, moves[level])
            continue
        if level == depth - 1:
            total += count[level]
        if level == 0:
            return total
        level -= 1
        unmake(state, np.int64(moves[level, count[level]]), taken[level])
