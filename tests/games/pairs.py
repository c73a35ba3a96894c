"""Pairs: two against two, each with a hidden card; who stays in strengthens the pair, and risks more if it loses.

A toy for tests, of what larger games have: teams, choices made at once, players who drop out, a bonus for learning.
Seats 0 and 2 play against seats 1 and 3. Chance deals each a weak card (0, worth 1) or a strong one (1, worth 2); both
are equally likely. In each of two rounds all who are still in choose at once: 0 = leave or 1 = stay. Nobody sees a
choice before all have chosen; then it is seen who left. Play ends after the second round, or when a whole pair is out.
The pair whose players still in are worth more wins; a pair that is out is worth 0, and equal pairs split.

A player who left in the first round loses 1 chip, in the second 2, one still in 3. The losing pair shares its loss, and
the winning pair shares that. The bonus for learning: a tenth for each choice to stay.

obs [12] uint8: 0-3 the player, 4-5 own card, 6-7 the round, 8-11 who is in, by pair and seat in the pair.
"""

import numpy as np
from numba import njit

from envs.game import CHANCE, TERMINAL, Game, Part

LEAVE, STAY = 0, 1
NO_CARD, NOBODY = -1, -1

STATE = np.dtype(
    [
        ("card", np.int8, 4),
        ("dealt", np.int8),
        ("round", np.int8),
        ("player", np.int8),  # to choose
        ("choice", np.int8, 4),  # in this round
        ("inside", np.int8, 4),  # 0 or 1; numba has no arrays of bool inside a record
        ("stake", np.int8, 4),  # what each would lose
        ("stayed", np.int8),  # whose choice to stay was the last action, or NOBODY
        ("over", np.bool_),
    ]
)


@njit
def init(state):
    for p in range(4):
        state.card[p] = NO_CARD
        state.choice[p] = LEAVE
        state.inside[p] = 1
        state.stake[p] = 3
    state.dealt = 0
    state.round = 0
    state.player = 0
    state.stayed = NOBODY
    state.over = False


@njit
def current_player(state):
    if state.over:
        return TERMINAL
    if state.dealt < 4:
        return CHANCE
    return state.player


@njit
def legal_actions(state, legal):
    legal[LEAVE] = True
    legal[STAY] = True


@njit
def chance_probs(state, probs):
    probs[0] = 0.5
    probs[1] = 0.5


@njit
def apply_action(state, action):
    if state.dealt < 4:
        state.card[state.dealt] = action
        state.dealt += 1
        return
    me = state.player
    state.choice[me] = action
    state.stayed = me if action == STAY else NOBODY
    for p in range(me + 1, 4):
        if state.inside[p]:
            state.player = p
            return
    _reveal(state)


@njit
def _reveal(state):
    """All have chosen: those who leave are out, and the next round begins or the game ends."""
    for p in range(4):
        if state.inside[p] and state.choice[p] == LEAVE:
            state.inside[p] = 0
            state.stake[p] = state.round + 1
        state.choice[p] = LEAVE
    state.over = state.round == 1 or _worth(state, 0) == 0 or _worth(state, 1) == 0
    if state.over:
        return
    state.round = 1
    state.player = 0
    while state.inside[state.player] == 0:
        state.player += 1


@njit
def _worth(state, team):
    worth = 0
    for p in range(team, 4, 2):
        if state.inside[p]:
            worth += 1 + state.card[p]
    return worth


@njit
def rewards(state, out):
    if not state.over or _worth(state, 0) == _worth(state, 1):
        return
    loser = 0 if _worth(state, 0) < _worth(state, 1) else 1
    loss = 0.5 * (state.stake[loser] + state.stake[loser + 2])
    for p in range(4):
        out[p] = -loss if p % 2 == loser else loss


@njit
def observe(state, player, obs):
    obs[player] = 1
    if state.card[player] >= 0:
        obs[4 + state.card[player]] = 1
    obs[6 + state.round] = 1
    for p in range(4):
        obs[8 + 2 * (p % 2) + p // 2] = state.inside[p]


@njit
def hidden_from(state, player):
    """A card for good, a choice of the second round as well; those of the first are seen when all have chosen."""
    if state.dealt < 4:
        return state.dealt != player
    return state.round == 1 and state.player != player


@njit
def redact(state, player):
    for p in range(4):
        if p != player:
            state.card[p] = NO_CARD
        state.choice[p] = LEAVE
    state.stayed = NOBODY


@njit
def bonus(state, out):
    if state.stayed != NOBODY:
        out[state.stayed] = 0.1


@njit
def out(state, player):
    return state.inside[player] == 0


def render(state) -> str:
    cards = " ".join("?" if c < 0 else "ws"[c] for c in state["card"])
    inside = " ".join("-+"[i] for i in state["inside"])
    return f"cards {cards} | in {inside} | round {state['round']}"


GAME = Game(
    name="pairs",
    version="1.0",
    num_players=4,
    num_actions=2,
    num_chance_outcomes=2,
    max_steps=12,
    obs_shape=(12,),
    obs_dtype=np.dtype(np.uint8),
    state_dtype=STATE,
    max_return=3.0,
    init=init,
    current_player=current_player,
    legal_actions=legal_actions,
    chance_probs=chance_probs,
    apply_action=apply_action,
    rewards=rewards,
    observe=observe,
    render=render,
    hidden_from=hidden_from,
    redact=redact,
    bonus=bonus,
    out=out,
    action_names=("leave", "stay"),
    teams=(0, 1, 0, 1),
    obs_parts={
        "player": Part(0, (4,)),
        "card": Part(4, (2,)),
        "round": Part(6, (2,)),
        "inside": Part(8, (2, 2)),
    },
)
