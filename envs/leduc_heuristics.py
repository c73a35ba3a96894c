"""Three ways to play Leduc poker by hand, as sparring partners: see `envs.heuristics` for what a heuristic is."""

from numba import njit

from envs.leduc_poker import CALL, FOLD, RAISE


@njit
def always_call(obs, legal, probs):
    """Never folds, never raises."""
    probs[CALL] = 1.0


@njit
def always_raise(obs, legal, probs):
    """Raises as long as the rules allow, then calls."""
    probs[RAISE if legal[RAISE] else CALL] = 1.0


@njit
def hand_strength(obs, legal, probs):
    """Raises with a pair and with a king as yet unpaired, calls with a queen, folds a jack that faces a raise."""
    rank, public = 0, -1
    for card in range(6):
        if obs[2 + card]:
            rank = card // 2
        if obs[8 + card]:
            public = card // 2
    if rank == public or (rank == 2 and public < 0):
        probs[RAISE if legal[RAISE] else CALL] = 1.0
    elif rank == 0 and legal[FOLD]:
        probs[FOLD] = 1.0
    else:
        probs[CALL] = 1.0
