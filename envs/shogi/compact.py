"""Shogi for learners: the board in 100 small numbers, and 2,187 actions, all as the player to move sees them.

White sees the board turned by 180 degrees, so that everybody's own pieces go up. Action 81 * way + to: a piece comes to
square `to` by one of 27 ways, which with the square tells which piece it is: 0-7 along a direction
(`envs.shogi.pieces`), 8 and 9 a knight's jump to the left and to the right; 10-19 the same with promotion; 20-26 from
the hand, pawn to rook.

obs [100] uint8: 81 squares, 0 empty, 1-14 a piece of mine, 15-28 one of theirs; how many of each kind I hold, pawn to
rook, and how many they hold; how often the position stood there before; whether I am in check; whether I am White (the
27-point rule asks one point less); a quarter of the moves made so far; whether I am to move.
"""

import numpy as np

import envs.shogi.rules as rules
from envs.game import Game, Part
from envs.jit import njit
from envs.shogi.moves import PROMOTES, SOURCE
from envs.shogi.notation import japanese_of, render, usi_of
from envs.shogi.pieces import HAND, JUMPS, LINE, OFFSET, REACH, SQUARES

WAYS = 27
NUM_ACTIONS = WAYS * SQUARES
BOARD_WAYS = 10  # without promotion
DROPS = 2 * BOARD_WAYS  # the first way of a drop
LAST = SQUARES - 1
QUARTER = 4  # moves to one in the obs
PARTS = {
    "board": Part(0, (9, 9)),
    "hand": Part(81, (2, HAND)),
    "repeats": Part(95, (1,)),
    "in_check": Part(96, (1,)),
    "white": Part(97, (1,)),
    "quarter_moves": Part(98, (1,)),
    "to_move": Part(99, (1,)),
}
OBS = 100


def _way_of() -> np.ndarray:
    """[81, 81] the way, without promotion, from one square to another as Black sees them; -1 where no piece goes."""
    ways = LINE.astype(np.int8)
    for square in range(SQUARES):
        for i in range(2):
            if JUMPS[0, square, i] >= 0:
                ways[square, JUMPS[0, square, i]] = 8 + i
    return ways


WAY_OF = _way_of()


@njit
def action_of(player, move):
    """The action that a move is to the player who makes it."""
    to, source = move % SOURCE, (move // SOURCE) % SOURCE
    if player == 1:
        to = LAST - to
    if source >= SQUARES:
        return SQUARES * (DROPS + source - SQUARES) + to
    if player == 1:
        source = LAST - source
    way = WAY_OF[source, to] + (BOARD_WAYS if move >= PROMOTES else 0)
    return SQUARES * way + to


@njit
def move_of(state, action):
    """The move that a legal action is where the game stands."""
    me = np.int64(state.turn)
    way, to = action // SQUARES, action % SQUARES
    if me == 1:
        to = LAST - to
    if way >= DROPS:
        return to + SOURCE * (SQUARES + way - DROPS)
    promotes = PROMOTES if way >= BOARD_WAYS else 0
    way %= BOARD_WAYS
    if way >= 8:
        return to + SOURCE * _knight_before(me, to, way - 8) + promotes
    back = way if me == 1 else 7 - way  # White's direction d is 7 - d to Black
    source = to
    for _ in range(REACH[to, back]):
        source += OFFSET[back]
        if state.board[source] != 0:
            break
    return to + SOURCE * source + promotes


@njit
def _knight_before(me, to, side):
    """Where a knight stood before it jumped to `to`, to its own left (0) or right (1)."""
    forth = -18 - 1 + 2 * side  # as Black sees it
    return to - forth if me == 0 else to + forth


@njit
def legal_actions(state, legal):
    me = np.int64(state.turn)
    for i in range(state.num_moves):
        legal[action_of(me, np.int64(state.moves[i]))] = True


@njit
def apply_action(state, action):
    rules.play(state, move_of(state, action))


@njit
def observe(state, player, obs):
    sign, theirs = 1 - 2 * player, 14
    for square in range(SQUARES):
        piece = state.board[square] * sign
        seen = square if player == 0 else LAST - square
        obs[seen] = piece if piece >= 0 else theirs - piece
    for held in range(HAND):
        obs[81 + held] = state.hand[player, held]
        obs[88 + held] = state.hand[1 - player, held]
    obs[95] = state.repeats
    obs[96] = state.in_check and state.turn == player
    obs[97] = player
    obs[98] = min(state.ply // QUARTER, 255)
    obs[99] = state.turn == player


@njit
def redact(state, player):
    """Nothing is hidden; but what an obs does not tell goes: the positions before, and the moves by ones."""
    rules.forget(state)
    state.ply = QUARTER * min(state.ply // QUARTER, 255)


def names_of(state: np.record, action: int) -> tuple[str, str, str]:
    """What players call a legal action: as in USI, and as in Japan, with the player's sign and without."""
    move = int(move_of(state, action))
    japanese = japanese_of(state, move)
    return usi_of(move), japanese, japanese[1:]


GAME = Game(
    name="shogi",
    version="1.0",
    num_players=2,
    num_actions=NUM_ACTIONS,
    num_chance_outcomes=0,
    max_steps=rules.MAX_PLIES,
    obs_shape=(OBS,),
    obs_dtype=np.dtype(np.uint8),
    state_dtype=rules.STATE,
    max_return=1.0,
    perfect_recall=False,
    perfect_information=True,
    init=rules.init,
    current_player=rules.current_player,
    legal_actions=legal_actions,
    chance_probs=rules.chance_probs,
    apply_action=apply_action,
    rewards=rules.rewards,
    observe=observe,
    render=render,
    redact=redact,
    bonus=rules.bonus,
    bonus_zero_sum=True,
    names_of=names_of,
    obs_parts=PARTS,
)
