"""The rules of Beasty Bar for two players, with the twelve animals of the base game.

Each player owns a deck of twelve animals, one of each species, and holds four of them. Player 0 begins. A turn: one
animal goes to the back of the queue and does what its species does; then the queue is walked from front to back, where
hippos, crocodiles and giraffes act again; then of a queue of five the first two enter the bar, the last goes to hell,
and the other two stay; then its owner draws. The game ends when queue, hands and decks hold fewer than five animals.
Whose animals in the bar are worth more points wins 1, the other loses 1; a draw is worth 0.

Chance deals one card of at most twelve at a time: what is left in a deck is a set, and never an order.

Readings where the rules leave a choice:
- Several animals that leave the queue at once arrive in the order in which they stood there, front first; those that a
  crocodile eats arrive nearest first.
- The walk goes on behind a hippo that moved. So it meets the animals again that the hippo has overtaken, and a giraffe
  among them may take a second step. (A hippo or crocodile among them cannot: only weaker ones were overtaken with it.)
- Nobody is ever without a play, so there is no pass. Only parrot and chameleon can be unplayable: both on an empty
  queue, the chameleon also where only chameleons wait. Who holds nothing else has drawn all and has these one or two
  left, the other player no more than that, and with the queue they are fewer than five: the game is over.

A card is a number: 12 * owner + species, species in order of strength. Empty places hold NONE.
A *play* is an animal with its choices, without regard to where in the hand it is: see PLAYS.
"""

import numpy as np
from numba import njit

from envs.game import CHANCE, TERMINAL

SPECIES = (
    "skunk", "parrot", "kangaroo", "monkey", "chameleon", "seal",
    "zebra", "giraffe", "snake", "crocodile", "hippo", "lion",
)  # fmt: skip
SKUNK, PARROT, KANGAROO, MONKEY, CHAMELEON, SEAL, ZEBRA, GIRAFFE, SNAKE, CROCODILE, HIPPO, LION = range(12)
POINTS = np.array([4, 4, 4, 3, 3, 2, 4, 3, 2, 3, 2, 2], np.int8)
NUM_SPECIES, HAND, QUEUE = 12, 4, 5
MAX_WAITING = QUEUE - 1  # animals in the queue when a player is to move
MAX_STEPS = 48  # 24 cards are drawn and 24 played
NONE, NOBODY = -1, -1

STATE = np.dtype(
    [
        ("queue", np.int8, QUEUE),  # cards, the front first
        ("num_queue", np.int8),
        ("bar", np.int8, 24),  # cards in order of arrival
        ("num_bar", np.int8),
        ("hell", np.int8, 24),
        ("num_hell", np.int8),
        ("hand", np.int8, (2, HAND)),  # species, the one drawn last at the end
        ("num_hand", np.int8, 2),
        ("deck", np.int16, 2),  # bit s: species s has not been drawn
        ("num_deck", np.int8, 2),
        ("turn", np.int8),  # cards played so far
        ("player", np.int8),
        ("drawer", np.int8),  # who is to draw a card, or NOBODY
        ("over", np.bool_),
    ]
)


def _choices(ability: int, copied: bool) -> tuple[int, ...]:
    """The parameters that an ability takes: places in the queue, animals to jump over, or NONE."""
    if ability == PARROT:
        return tuple(range(MAX_WAITING))
    if ability == KANGAROO:
        return (1, 2) if copied else (0, 1, 2)
    return (NONE,)


def _plays() -> list[tuple[int, int, int]]:
    found = []
    for card in range(NUM_SPECIES):
        abilities = [s for s in range(NUM_SPECIES) if s != CHAMELEON] if card == CHAMELEON else [card]
        found += [(card, s, choice) for s in abilities for choice in _choices(s, card == CHAMELEON)]
    return found


PLAYS = np.array(_plays(), np.int8)  # [31, 3]: species, the one whose ability is used, place or jump or NONE
NUM_PLAYS = len(PLAYS)
FIRST = np.array([int((PLAYS[:, 0] == s).argmax()) for s in range(NUM_SPECIES)], np.int64)  # play of a species
COPY = np.array(  # play of a chameleon that copies a species; of a kangaroo the one before that which jumps 1
    [int(((PLAYS[:, 0] == CHAMELEON) & (PLAYS[:, 1] == s)).argmax()) - (s == KANGAROO) for s in range(NUM_SPECIES)],
    np.int64,
)


def _name(card: int, ability: int, choice: int) -> str:
    copies = f" as {SPECIES[ability]}" if ability != card else ""
    if ability == PARROT:
        return f"{SPECIES[card]}{copies} expels place {choice + 1}"
    return f"{SPECIES[card]}{copies}" + (f" jumps {choice}" if choice > 0 else "")


PLAY_NAMES = tuple(_name(*play) for play in PLAYS.tolist())


@njit
def init(state):
    for i in range(QUEUE):
        state.queue[i] = NONE
    for i in range(24):
        state.bar[i] = NONE
        state.hell[i] = NONE
    for p in range(2):
        for i in range(HAND):
            state.hand[p, i] = NONE
        state.num_hand[p] = 0
        state.deck[p] = (1 << NUM_SPECIES) - 1
        state.num_deck[p] = NUM_SPECIES
    state.num_queue = 0
    state.num_bar = 0
    state.num_hell = 0
    state.turn = 0
    state.player = 0
    state.drawer = 0
    state.over = False


@njit
def current_player(state):
    if state.over:
        return TERMINAL
    if state.drawer != NOBODY:
        return CHANCE
    return state.player


@njit
def species_of(card):
    return card - NUM_SPECIES * (card >= NUM_SPECIES)


@njit
def owner_of(card):
    return 1 * (card >= NUM_SPECIES)


@njit
def legal_plays(state, legal):
    """Of the player to move, into `legal` [31]."""
    waiting = state.num_queue
    for i in range(state.num_hand[state.player]):
        species = state.hand[state.player, i]
        if species == PARROT:
            for place in range(waiting):
                legal[FIRST[PARROT] + place] = True
        elif species == KANGAROO:
            legal[FIRST[KANGAROO] + min(waiting, 1)] = True
            if waiting > 1:
                legal[FIRST[KANGAROO] + 2] = True
        elif species == CHAMELEON:
            for k in range(waiting):
                copied = species_of(state.queue[k])
                if copied == PARROT:
                    for place in range(waiting):
                        legal[COPY[PARROT] + place] = True
                elif copied == KANGAROO:
                    legal[COPY[KANGAROO] + 1] = True
                    if waiting > 1:
                        legal[COPY[KANGAROO] + 2] = True
                elif copied != CHAMELEON:
                    legal[COPY[copied]] = True
        else:
            legal[FIRST[species]] = True


@njit
def chance_probs(state, probs):
    deck, probability = state.deck[state.drawer], 1.0 / state.num_deck[state.drawer]
    for species in range(NUM_SPECIES):
        probs[species] = probability * ((deck >> species) & 1)


@njit
def draw(state, species):
    """The one who is to draw takes `species` from its deck."""
    p = state.drawer
    state.hand[p, state.num_hand[p]] = species
    state.num_hand[p] += 1
    state.deck[p] &= ~(1 << species)
    state.num_deck[p] -= 1
    if state.turn > 0 or (p == 1 and state.num_hand[p] == HAND):
        state.drawer = NOBODY
    elif state.num_hand[p] == HAND:
        state.drawer = 1


@njit
def _remove(state, i):
    state.num_queue -= 1
    for k in range(i, state.num_queue):
        state.queue[k] = state.queue[k + 1]
    state.queue[state.num_queue] = NONE


@njit
def _expel(state, i):
    """From place `i` of the queue to hell."""
    state.hell[state.num_hell] = state.queue[i]
    state.num_hell += 1
    _remove(state, i)


@njit
def _move(state, i, j):
    """From place `i` to place `j`, which is not behind it."""
    card = state.queue[i]
    for k in range(i, j, -1):
        state.queue[k] = state.queue[k - 1]
    state.queue[j] = card


@njit
def _gives_way(state, i, species):
    ahead = species_of(state.queue[i])
    return ahead < species and ahead != ZEBRA


@njit
def _push(state, i):
    """A hippo at place `i` goes as far forward as it can; where it is then."""
    j = i
    while j > 0 and _gives_way(state, j - 1, HIPPO):
        j -= 1
    _move(state, i, j)
    return j


@njit
def _eat(state, i):
    """A crocodile at place `i` eats its way forward; where it is then."""
    while i > 0 and _gives_way(state, i - 1, CROCODILE):
        _expel(state, i - 1)
        i -= 1
    return i


@njit
def _step(state, i):
    """A giraffe at place `i` passes one weaker animal."""
    if i > 0 and species_of(state.queue[i - 1]) < GIRAFFE:
        _move(state, i, i - 1)


@njit
def _sort(state, last):
    """By strength, the animal at the back as a snake; equals stay in order."""
    for i in range(1, last + 1):
        strength = SNAKE if i == last else species_of(state.queue[i])
        j = i
        while j > 0 and species_of(state.queue[j - 1]) < strength:
            j -= 1
        _move(state, i, j)


@njit
def _join_monkeys(state, last):
    """The animal at the back, as a monkey, and the other monkeys go to the front, hippos and crocodiles to hell."""
    others = 0
    for i in range(last):
        others += species_of(state.queue[i]) == MONKEY
    if others == 0:
        return
    i = 0
    while i < last:
        species = species_of(state.queue[i])
        if species in (HIPPO, CROCODILE):
            _expel(state, i)
            last -= 1
        else:
            if species == MONKEY:
                _move(state, i, 0)
            i += 1
    _move(state, last, 0)


@njit
def _roar(state, last):
    """The animal at the back, as a lion, leaves for another lion, or goes to the front as the monkeys leave."""
    for i in range(last):
        if species_of(state.queue[i]) == LION:
            _expel(state, last)
            return
    i = 0
    while i < last:
        if species_of(state.queue[i]) == MONKEY:
            _expel(state, i)
            last -= 1
        else:
            i += 1
    _move(state, last, 0)


@njit
def two_strongest(state, places):
    """The strongest species in the first places of the queue, and the next; SKUNK where there is none but skunks."""
    first, second = SKUNK, SKUNK
    for i in range(places):
        species = species_of(state.queue[i])
        if species > first:
            first, second = species, first
        elif species != first and species > second:
            second = species
    return first, second


@njit
def _stink(state, last):
    """The animals of the two strongest species leave; skunks are none, nor is the animal at the back."""
    first, second = two_strongest(state, last)
    i = 0
    while i < last:
        species = species_of(state.queue[i])
        if species != SKUNK and species in (first, second):
            _expel(state, i)
            last -= 1
        else:
            i += 1


@njit
def _act(state, ability, choice):
    """What the animal at the back of the queue does as it is played."""
    last = state.num_queue - 1
    if ability == LION:
        _roar(state, last)
    elif ability == HIPPO:
        _push(state, last)
    elif ability == CROCODILE:
        _eat(state, last)
    elif ability == SNAKE:
        _sort(state, last)
    elif ability == GIRAFFE:
        _step(state, last)
    elif ability == SEAL:
        for i in range(1, last + 1):
            _move(state, i, 0)
    elif ability == MONKEY:
        _join_monkeys(state, last)
    elif ability == KANGAROO:
        _move(state, last, last - choice)
    elif ability == PARROT:
        _expel(state, choice)
    elif ability == SKUNK:
        _stink(state, last)


@njit
def _walk(state, entered):
    """From front to back the recurring animals act, but for a giraffe that is the card `entered`."""
    i = 0
    while i < state.num_queue:
        card = state.queue[i]
        species = species_of(card)
        if species == HIPPO:
            i = _push(state, i)
        elif species == CROCODILE:
            i = _eat(state, i)
        elif species == GIRAFFE and card != entered:
            _step(state, i)
        i += 1


@njit
def _open_bar(state):
    for i in range(2):
        state.bar[state.num_bar] = state.queue[i]
        state.num_bar += 1
    _expel(state, QUEUE - 1)
    _remove(state, 0)
    _remove(state, 0)


@njit
def play(state, number):
    """The player to move makes the play of that number; a card may have to be drawn afterwards."""
    me, species = state.player, PLAYS[number, 0]
    kept = 0
    for i in range(HAND):
        held = state.hand[me, i]
        if held != species:
            state.hand[me, kept] = held
            kept += 1
    state.hand[me, HAND - 1] = NONE
    state.num_hand[me] -= 1
    card = NUM_SPECIES * me + species
    state.queue[state.num_queue] = card
    state.num_queue += 1
    _act(state, PLAYS[number, 1], PLAYS[number, 2])
    _walk(state, card)
    if state.num_queue == QUEUE:
        _open_bar(state)
    if state.num_deck[me] > 0:
        state.drawer = me
    state.turn += 1
    state.player = 1 - me
    left = state.num_queue + state.num_hand[0] + state.num_hand[1] + state.num_deck[0] + state.num_deck[1]
    state.over = left < QUEUE


@njit
def score(state, player):
    """Points of a player's animals in the bar."""
    points = 0
    for i in range(state.num_bar):
        if owner_of(state.bar[i]) == player:
            points += POINTS[species_of(state.bar[i])]
    return points


@njit
def rewards(state, out):
    if state.over:
        margin = score(state, 0) - score(state, 1)
        out[0] = 1.0 * (margin > 0) - 1.0 * (margin < 0)
        out[1] = -out[0]


@njit
def bonus(state, out):
    """A tenth for each point of the margin, at most 1."""
    if state.over:
        margin = score(state, 0) - score(state, 1)
        out[0] = max(-1.0, min(0.1 * margin, 1.0))
        out[1] = -out[0]


@njit
def hidden_from(state, player):
    return state.drawer != NOBODY and state.drawer != player


@njit
def unplayed(state, player):
    """Bit s: the player still has species s, in hand or deck."""
    cards = state.deck[player]
    for i in range(HAND):
        if state.hand[player, i] != NONE:
            cards |= 1 << state.hand[player, i]
    return cards


@njit
def hide(state, player):
    """Erases what the other player holds: all that it has not played lies in its deck."""
    other = 1 - player
    state.deck[other] = unplayed(state, other)
    for i in range(HAND):
        state.hand[other, i] = NONE


def render(state) -> str:
    def named(cards) -> str:
        return " ".join(f"{SPECIES[card % NUM_SPECIES]}{card // NUM_SPECIES}" for card in cards) or "-"

    def held(p: int) -> str:
        species = state["hand"][p][: state["num_hand"][p]]
        return " ".join("?" if s == NONE else SPECIES[s] for s in species) or "-"

    queue, bar, hell = (named(state[name][: state[f"num_{name}"]]) for name in ("queue", "bar", "hell"))
    scores = f"{score(state, 0)}-{score(state, 1)}"
    hands = " | ".join(f"hand {p} {held(p)} + {state['num_deck'][p]}" for p in range(2))
    return f"turn {state['turn']} | queue {queue} | bar {bar} ({scores}) | hell {hell} | {hands}"
