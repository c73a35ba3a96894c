"""Beasty Bar for learners: what a player knows in 224 bits, and 31 actions that name an animal and not a place in hand.

Two animals of one species do the same for the chameleon that copies them, so it names a species. The order in which
animals came to bar, hell and hand is not told: nothing depends on it. Nor is it told which animal entered last: only in
the turn that it enters does a giraffe rest, and no player is asked in that turn.

obs [224] uint8, all of them 0 or 1; "mine" comes before "theirs", species stand in order of strength:
0 I am to move; 1-96 four places of the queue, the front first, of 24 bits each; 97-120 the bar; 121-144 hell;
145-156 my hand; 157-168 my deck; 169-180 what the other player has not played yet; 181-206 how many animals I have left
in hand and deck, 0 to 12, and how many the other one; 207-223 how many points I am ahead, from -8 or less to 8 or more.
"""

import numpy as np
from numba import njit

from envs.beasty_bar.rules import (
    MAX_STEPS,
    NOBODY,
    NUM_PLAYS,
    NUM_SPECIES,
    PLAY_NAMES,
    SPECIES,
    STATE,
    bonus,
    chance_probs,
    current_player,
    draw,
    hidden_from,
    hide,
    init,
    legal_plays,
    play,
    render,
    rewards,
    score,
    unplayed,
)
from envs.game import Game, Part

LEAD = 8  # points beyond which more makes no difference to the eye
PARTS = {
    "to_move": Part(0, (1,)),
    "queue": Part(1, (4, 2, NUM_SPECIES)),
    "bar": Part(97, (2, NUM_SPECIES)),
    "hell": Part(121, (2, NUM_SPECIES)),
    "hand": Part(145, (NUM_SPECIES,)),
    "deck": Part(157, (NUM_SPECIES,)),
    "unplayed": Part(169, (NUM_SPECIES,)),
    "left": Part(181, (2, NUM_SPECIES + 1)),
    "lead": Part(207, (2 * LEAD + 1,)),
}
_QUEUE, _BAR, _HELL, _HAND, _DECK, _UNPLAYED, _LEFT, _LEAD = (part.start for name, part in PARTS.items() if part.start)


@njit
def apply_action(state, action):
    if state.drawer != NOBODY:
        draw(state, action)
    else:
        play(state, action)


@njit
def _seen(card, player):
    """The place of a card among 24, mine first."""
    return (card + NUM_SPECIES * player) % (2 * NUM_SPECIES)


@njit
def observe(state, player, obs):
    other = 1 - player
    obs[0] = state.player == player
    for i in range(state.num_queue):
        obs[_QUEUE + 2 * NUM_SPECIES * i + _seen(state.queue[i], player)] = 1
    for i in range(state.num_bar):
        obs[_BAR + _seen(state.bar[i], player)] = 1
    for i in range(state.num_hell):
        obs[_HELL + _seen(state.hell[i], player)] = 1
    for i in range(state.num_hand[player]):
        obs[_HAND + state.hand[player, i]] = 1
    theirs = unplayed(state, other)
    for species in range(NUM_SPECIES):
        obs[_DECK + species] = (state.deck[player] >> species) & 1
        obs[_UNPLAYED + species] = (theirs >> species) & 1
    obs[_LEFT + state.num_hand[player] + state.num_deck[player]] = 1
    obs[_LEFT + NUM_SPECIES + 1 + state.num_hand[other] + state.num_deck[other]] = 1
    lead = score(state, player) - score(state, other)
    obs[_LEAD + LEAD + max(-LEAD, min(lead, LEAD))] = 1


@njit
def _arrange(cards, count):
    for i in range(1, count):
        card, j = cards[i], i
        while j > 0 and cards[j - 1] > card:
            cards[j] = cards[j - 1]
            j -= 1
        cards[j] = card


@njit
def redact(state, player):
    """Besides what the other player holds, the order in hand, bar and hell is lost."""
    hide(state, player)
    _arrange(state.hand[player], state.num_hand[player])
    _arrange(state.bar, state.num_bar)
    _arrange(state.hell, state.num_hell)


GAME = Game(
    name="beasty_bar",
    version="1.0",
    num_players=2,
    num_actions=NUM_PLAYS,
    num_chance_outcomes=NUM_SPECIES,
    max_steps=MAX_STEPS,
    obs_shape=(224,),
    obs_dtype=np.dtype(np.uint8),
    state_dtype=STATE,
    max_return=1.0,
    perfect_recall=False,
    init=init,
    current_player=current_player,
    legal_actions=legal_plays,
    chance_probs=chance_probs,
    apply_action=apply_action,
    rewards=rewards,
    observe=observe,
    render=render,
    chance_names=tuple(f"draws {name}" for name in SPECIES),
    hidden_from=hidden_from,
    redact=redact,
    bonus=bonus,
    action_names=PLAY_NAMES,
    obs_parts=PARTS,
)
