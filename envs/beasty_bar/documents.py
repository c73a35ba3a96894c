"""Beasty Bar as its first learning system saw it: 988 numbers and 124 actions, for comparison with `compact`.

Action 31 * place + choice plays the animal at that place of the hand, with choice 0: no parameter, 1 + 6 f: one
parameter f, 2 + 6 f + s: two of them. A kangaroo's parameter is how many it jumps over; a parrot's the place in the
queue, from 0, of the animal that it expels; a chameleon's first one is the place of the animal that it copies, its
second one the parameter of what it does as a parrot or kangaroo.

obs [988] float32: 5 cards of the queue, 24 of the bar and 24 of hell in order of arrival, 4 of my hand, the first four
zones with 17 numbers a card (there is one; 1 mine, 0 theirs, 0.5 nobody's; species in alphabetical order; strength
/ 12; points / 4; place in the zone / (its size - 1)); 4 of the other hand with 3 numbers (there is one; place; 0); then
my deck / 12, theirs / 12, my hand / 4, theirs / 4, I am to move, turn / 100, queue / 5.
"""

import dataclasses

import numpy as np
from numba import njit

from envs.beasty_bar import compact
from envs.beasty_bar.rules import (
    CHAMELEON,
    COPY,
    FIRST,
    HAND,
    KANGAROO,
    NOBODY,
    NUM_SPECIES,
    PARROT,
    POINTS,
    QUEUE,
    SPECIES,
    draw,
    hide,
    owner_of,
    play,
    species_of,
)
from envs.game import Part

CHOICES = 31  # per place in the hand
CARD = 17
ALPHABET = np.array([sorted(SPECIES).index(name) for name in SPECIES], np.int64)
PARTS = {
    "queue": Part(0, (QUEUE, CARD)),
    "bar": Part(85, (24, CARD)),
    "hell": Part(493, (24, CARD)),
    "hand": Part(901, (HAND, CARD)),
    "other_hand": Part(969, (HAND, 3)),
    "scalars": Part(981, (7,)),
}


@njit
def legal_actions(state, legal):
    waiting = state.num_queue
    for i in range(state.num_hand[state.player]):
        species, start = state.hand[state.player, i], CHOICES * i
        if species == PARROT:
            for place in range(waiting):
                legal[start + 1 + 6 * place] = True
        elif species == KANGAROO:
            if waiting == 0:
                legal[start] = True
            for jump in range(1, min(waiting, 2) + 1):
                legal[start + 1 + 6 * jump] = True
        elif species == CHAMELEON:
            for k in range(waiting):
                copied = species_of(state.queue[k])
                if copied == PARROT:
                    for place in range(waiting):
                        legal[start + 2 + 6 * k + place] = True
                elif copied == KANGAROO:
                    for jump in range(1, min(waiting, 2) + 1):
                        legal[start + 2 + 6 * k + jump] = True
                elif copied != CHAMELEON:
                    legal[start + 1 + 6 * k] = True
        else:
            legal[start] = True


@njit
def play_of(state, action):
    """The play (`envs.beasty_bar.rules.PLAYS`) that an action is where the game stands."""
    species, choice = state.hand[state.player, action // CHOICES], action % CHOICES
    first, second = (choice - 1) // 6, (choice - 1) % 6 - 1
    if species == PARROT:
        return FIRST[PARROT] + first
    if species == KANGAROO:
        return FIRST[KANGAROO] + (first if choice > 0 else 0)
    if species == CHAMELEON:
        copied = species_of(state.queue[first])
        return COPY[copied] + (second if copied in (PARROT, KANGAROO) else 0)
    return FIRST[species]


@njit
def apply_action(state, action):
    if state.drawer != NOBODY:
        draw(state, action)
    else:
        play(state, play_of(state, action))


@njit
def _show_card(obs, start, species, mine):
    obs[start] = 1.0
    obs[start + 1] = mine
    obs[start + 2 + ALPHABET[species]] = 1.0
    obs[start + 14] = (species + 1) / 12
    obs[start + 15] = POINTS[species] / 4


@njit
def _show_zone(obs, start, size, cards, count, player):
    for i in range(size):
        at = start + CARD * i
        if i < count:
            _show_card(obs, at, species_of(cards[i]), owner_of(cards[i]) == player)
        else:
            obs[at + 1] = 0.5
        obs[at + 16] = i / (size - 1)


@njit
def observe(state, player, obs):
    other = 1 - player
    _show_zone(obs, 0, QUEUE, state.queue, state.num_queue, player)
    _show_zone(obs, 85, 24, state.bar, state.num_bar, player)
    _show_zone(obs, 493, 24, state.hell, state.num_hell, player)
    for i in range(HAND):
        at = 901 + CARD * i
        if i < state.num_hand[player]:
            _show_card(obs, at, state.hand[player, i], 1.0)
        else:
            obs[at + 1] = 0.5
        obs[at + 16] = i / (HAND - 1)
        obs[969 + 3 * i] = i < state.num_hand[other]
        obs[970 + 3 * i] = i / (HAND - 1)
    obs[981] = state.num_deck[player] / NUM_SPECIES
    obs[982] = state.num_deck[other] / NUM_SPECIES
    obs[983] = state.num_hand[player] / HAND
    obs[984] = state.num_hand[other] / HAND
    obs[985] = state.player == player
    obs[986] = state.turn / 100
    obs[987] = state.num_queue / QUEUE


def _name(choice: int) -> str:
    if choice == 0:
        return ""
    first, second = divmod(choice - 1, 6)
    return f" ({first})" if second == 0 else f" ({first}, {second - 1})"


GAME = dataclasses.replace(
    compact.GAME,
    name="beasty_bar_documents",
    num_actions=HAND * CHOICES,
    obs_shape=(988,),
    obs_dtype=np.dtype(np.float32),
    legal_actions=legal_actions,
    apply_action=apply_action,
    observe=observe,
    hidden_from=None,  # the same action plays another animal where another one was drawn, and that is seen
    redact=hide,
    action_names=tuple(f"card {i + 1}{_name(choice)}" for i in range(HAND) for choice in range(CHOICES)),
    obs_parts=PARTS,
)
