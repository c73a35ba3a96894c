"""Random games of Beasty Bar, played by `envs.beasty_bar` and by the oracle side by side."""

import struct

import numpy as np
from games import beasty_oracle as oracle
from numba import njit

from envs.beasty_bar import documents, rules
from envs.beasty_bar.rules import NONE, NUM_PLAYS, NUM_SPECIES, SPECIES, STATE

NUMBER = {name: i for i, name in enumerate(SPECIES)}
MOST_PLAYS = 24


def number(species, owner):
    return NUM_SPECIES * owner + NUMBER[species]


def documents_action(slot, parameters):
    """The index that the documents give to a play of the oracle."""
    if not parameters:
        return 31 * slot
    first, *second = parameters
    return 31 * slot + 1 + 6 * first + (1 + second[0] if second else 0)


@njit
def record(orders, uniforms, states, legal, plays, actions):
    """Plays a game of random actions of the documents; what stood at each decision, and how many there were, or -1
    where the plays that are legal are not those of the actions that are legal."""
    state = states[0]
    rules.init(state)
    drawn = np.zeros(2, np.int64)
    for n in range(MOST_PLAYS + 1):
        while rules.current_player(state) == -1:
            p = state.drawer
            rules.draw(state, orders[p, drawn[p]])
            drawn[p] += 1
        if rules.current_player(state) < 0:
            return n
        documents.legal_actions(state, legal[n])
        rules.legal_plays(state, plays[n])
        named = np.zeros(NUM_PLAYS, np.bool_)
        for a in range(len(legal[n])):
            if legal[n, a]:
                named[documents.play_of(state, a)] = True
        for a in range(NUM_PLAYS):
            if named[a] != plays[n, a]:
                return -1
        skip = int(uniforms[n] * legal[n].sum())
        for a in range(len(legal[n])):
            if legal[n, a]:
                if skip == 0:
                    actions[n] = a
                skip -= 1
        states[n + 1] = states[n]
        state = states[n + 1]
        documents.apply_action(state, actions[n])
    return MOST_PLAYS


def as_bytes(table):
    """The bytes of the state that says the same as the oracle's table."""

    def padded(cards, size):
        return [*cards, *[NONE] * (size - len(cards))]

    values = []
    for zone, size in ((table.queue, 5), (table.bar, 24), (table.hell, 24)):
        values += [*padded([number(card.species, card.owner) for card in zone], size), len(zone)]
    for hand in table.hands:
        values += padded([NUMBER[card.species] for card in hand], 4)
    values += [len(hand) for hand in table.hands]
    values += [sum(1 << NUMBER[card.species] for card in deck) for deck in table.decks]
    values += [len(deck) for deck in table.decks]
    return struct.pack("=66b2h5b?", *values, table.turn, table.player, rules.NOBODY, table.is_over())


def side_by_side(rng):
    """A random game in both engines: (state, table, play) at each decision, at the end the play is None.

    That both stand alike and allow the same plays is asserted on the way.
    """
    orders = np.stack([rng.permutation(12), rng.permutation(12)])
    states, actions = np.zeros(MOST_PLAYS + 1, STATE), np.zeros(MOST_PLAYS, np.int64)
    legal, plays = np.zeros((MOST_PLAYS + 1, 124), np.bool_), np.zeros((MOST_PLAYS + 1, NUM_PLAYS), np.bool_)
    length = record(orders, rng.random(MOST_PLAYS), states, legal, plays, actions)
    assert length >= 0
    table = oracle.deal([[SPECIES[s] for s in order] for order in orders])
    for n in range(length):
        assert states[n].tobytes() == as_bytes(table), rules.render(states[n])
        assert not table.is_over()
        by_action = {documents_action(slot, choice): (slot, choice) for slot, choice in table.plays()}
        assert sorted(by_action) == np.flatnonzero(legal[n]).tolist()
        yield states[n], table, by_action[actions[n]]
        table.play(*by_action[actions[n]])
    assert states[length].tobytes() == as_bytes(table), rules.render(states[length])
    assert table.is_over()
    yield states[length], table, None
