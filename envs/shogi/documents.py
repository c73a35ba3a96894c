"""Shogi as the first system that learned it here saw it: 46 planes and 13,527 actions, for comparison with `compact`.

Everything is as the player to move sees it, White's board turned by 180 degrees; there the actions were those of the
diagram, though White's planes were turned. Actions: for each square of origin each of the other 80 squares, without and
then with promotion (12,960), then for each square a drop of each kind, pawn to rook (567).

obs [46, 9, 9] uint8: 0-13 my pieces by kind, pawn to king, then promoted ones; 14-27 theirs; 28-34 how many of each
kind I hold, 35-41 how many they hold, the same number all over a plane; 42 ones if I am Black; 43 half of the moves
made so far, at most 255; 44 and 45 nothing. `SCALE` makes the documents' fractions of it.
"""

import dataclasses

import numpy as np

from envs.jit import njit
from envs.shogi import compact, rules
from envs.shogi.moves import PROMOTES, SOURCE
from envs.shogi.notation import japanese_of, usi_of
from envs.shogi.pieces import HAND, HELD, KINDS, SQUARES

PLANES = 46
BOARD_ACTIONS = SQUARES * (SQUARES - 1) * 2
NUM_ACTIONS = BOARD_ACTIONS + SQUARES * HAND
LAST = SQUARES - 1
HALF = 2  # moves to one in the obs
SCALE = np.ones(PLANES, np.float32)  # of each plane
SCALE[28:42] = [1 / count for _ in range(2) for count in HELD]
SCALE[43] = HALF / 512


@njit
def action_of(player, move):
    """The action that a move is to the player who makes it."""
    to, source = move % SOURCE, (move // SOURCE) % SOURCE
    if player == 1:
        to = LAST - to
    if source >= SQUARES:
        return BOARD_ACTIONS + HAND * to + source - SQUARES
    if player == 1:
        source = LAST - source
    other = to - 1 if to > source else to
    return 2 * ((SQUARES - 1) * source + other) + (1 if move >= PROMOTES else 0)


@njit
def move_of(state, action):
    """The move that a legal action is where the game stands."""
    turned = state.turn == 1
    if action >= BOARD_ACTIONS:
        to, held = (action - BOARD_ACTIONS) // HAND, (action - BOARD_ACTIONS) % HAND
        return (LAST - to if turned else to) + SOURCE * (SQUARES + held)
    source, other = action // 2 // (SQUARES - 1), action // 2 % (SQUARES - 1)
    to = other + 1 if other >= source else other
    if turned:
        source, to = LAST - source, LAST - to
    return to + SOURCE * source + PROMOTES * (action % 2)


@njit
def legal_actions(state, legal):
    me = np.int64(state.turn)
    for i in range(state.num_moves):
        legal[action_of(me, np.int64(state.moves[i]))] = True


@njit
def apply_action(state, action):
    rules.play(state, move_of(state, action))


@njit
def _fill(plane, value):
    if value != 0:
        for row in range(9):
            for column in range(9):
                plane[row, column] = value


@njit
def observe(state, player, obs):
    sign = 1 - 2 * player
    for square in range(SQUARES):
        piece = state.board[square] * sign
        if piece != 0:
            seen = square if player == 0 else LAST - square
            obs[piece - 1 if piece > 0 else KINDS - 2 - piece, seen // 9, seen % 9] = 1
    for held in range(HAND):
        _fill(obs[28 + held], state.hand[player, held])
        _fill(obs[35 + held], state.hand[1 - player, held])
    _fill(obs[42], 1 - player)
    _fill(obs[43], min(state.ply // HALF, 255))


@njit
def redact(state, player):
    """Nothing is hidden; but what an obs does not tell goes: earlier positions, repetition, and the moves by ones."""
    rules.forget(state)
    state.repeats = 0
    state.ply = HALF * min(state.ply // HALF, 255)


def names_of(state: np.record, action: int) -> tuple[str, str, str]:
    """What players call a legal action: as in USI, and as in Japan, with the player's sign and without."""
    move = int(move_of(state, action))
    japanese = japanese_of(state, move)
    return usi_of(move), japanese, japanese[1:]


GAME = dataclasses.replace(
    compact.GAME,
    name="shogi_documents",
    num_actions=NUM_ACTIONS,
    obs_shape=(PLANES, 9, 9),
    legal_actions=legal_actions,
    apply_action=apply_action,
    observe=observe,
    redact=redact,
    names_of=names_of,
    obs_parts={},
)
