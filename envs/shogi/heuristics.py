"""Five opponents for shogi, a ladder from chance to a small search, for `envs.shogi` and `envs.shogi.documents` alike.

    random           any legal move
    greedy           takes the most valuable piece that it can, whatever that costs
    one_ply          the most material after its move: what it takes, and promotion
    two_ply          the most material after the best reply; it mates in one, and avoids that
    four_ply         the same after its second move and the reply to that, by alpha-beta

One of the best moves is taken, each as likely. Material is counted in pawns (`envs.shogi.pieces.VALUES`), a piece taken
as lost by the one and held by the other. No search knows of repetition, impasse or the length of a game.
"""

import numpy as np

from envs.heuristics import uniform as random
from envs.jit import njit
from envs.shogi import compact, documents
from envs.shogi.moves import ROOM, SOURCE, gain_of, generate, make, unmake
from envs.shogi.pieces import VALUES

MATE = 100_000  # times the plies that are left to search and one, so that a mate soon is better than one later
INFINITE = 10_000_000


@njit
def _order(state, moves, n):
    """Those that gain material first, the largest gain in front."""
    front = 0
    for i in range(n):
        move = moves[i]
        gain = gain_of(state, np.int64(move))
        if gain > 0:
            k = front
            moves[i] = moves[front]
            while k > 0 and gain_of(state, np.int64(moves[k - 1])) < gain:
                moves[k] = moves[k - 1]
                k -= 1
            moves[k] = move
            front += 1


@njit
def _standing(state, moves, alpha, beta):
    """What no more move brings."""
    return 0


@njit
def _last(state, moves, alpha, beta):
    """The most that the player to move gains by one move; -MATE without any."""
    n, _ = generate(state, moves[0])
    best = 0 if n > 0 else -MATE
    for i in range(n):
        best = max(best, gain_of(state, np.int64(moves[0, i])))
    return best


def _before(below, plies):
    """The search of one ply more, of so many in all; `moves` [plies, ROOM] is scratch."""

    @njit
    def search(state, moves, alpha, beta):
        n, _ = generate(state, moves[0])
        if n == 0:
            return -MATE * plies
        _order(state, moves[0], n)
        best = -INFINITE
        for i in range(n):
            move = np.int64(moves[0, i])
            gain = gain_of(state, move)
            taken = make(state, move)
            best = max(best, gain - below(state, moves[1:], gain - beta, gain - max(alpha, best)))
            unmake(state, move, taken)
            if best >= beta:
                break
        return best

    return search


@njit
def _choose(me, moves, n, scores, best, num_actions, probs):
    """One of the moves with the best score, each as likely."""
    count = 0
    for i in range(n):
        count += scores[i] == best
    for i in range(n):
        if scores[i] == best:
            move = np.int64(moves[i])
            if num_actions == compact.NUM_ACTIONS:
                probs[compact.action_of(me, move)] = 1.0 / count
            else:
                probs[documents.action_of(me, move)] = 1.0 / count


def _looking(below, plies):
    """The opponent that scores each of its moves by what it gains, less what `below` says of the position after it.

    The window of a move ends one below the best so far, so that those as good come out exactly.
    """

    @njit
    def heuristic(state, player, legal, probs):
        me, n, best = np.int64(player), np.int64(state.num_moves), -INFINITE
        scores, ordered, moves = np.empty(n, np.int64), state.moves[:n].copy(), np.empty((plies, ROOM), np.int16)
        _order(state, ordered, n)
        for i in range(n):
            move = np.int64(ordered[i])
            gain = gain_of(state, move)
            taken = make(state, move)
            scores[i] = gain - below(state, moves, -INFINITE, gain - best + 1)
            unmake(state, move, taken)
            best = max(best, scores[i])
        _choose(me, ordered, n, scores, best, len(legal), probs)

    return heuristic


@njit
def greedy(state, player, legal, probs):
    n, best = np.int64(state.num_moves), 0
    scores = np.empty(n, np.int64)
    for i in range(n):
        scores[i] = VALUES[abs(state.board[state.moves[i] % SOURCE])]
        best = max(best, scores[i])
    _choose(np.int64(player), state.moves, n, scores, best, len(legal), probs)


one_ply = _looking(_standing, 1)
two_ply = _looking(_last, 1)
four_ply = _looking(_before(_before(_last, 2), 3), 3)

OPPONENTS = {"random": random, "greedy": greedy, "one_ply": one_ply, "two_ply": two_ply, "four_ply": four_ply}
