"""Beasty Bar's rules: hand-made positions, the slow twin of the tests, and games written down."""

from pathlib import Path

import numpy as np
import pytest
from games import beasty_oracle as oracle
from games.beasty_positions import ROWS, cards
from numba import njit

from envs.beasty_bar import GAME, documents, rules
from envs.beasty_bar.rules import NONE, NUM_PLAYS, NUM_SPECIES, PLAY_NAMES, SPECIES, STATE
from envs.contract import check_game

NUMBER = {name: i for i, name in enumerate(SPECIES)}
MOST_PLAYS = 24


def number(species, owner):
    return NUM_SPECIES * owner + NUMBER[species]


@pytest.mark.parametrize("name, before, play, parameters, queue, bar, hell", ROWS)
def test_position(name, before, play, parameters, queue, bar, hell):
    """In both engines."""
    table = oracle.Table([[oracle.Card(play, 0)], []], [[], []], [oracle.Card(*card) for card in cards(before)], turn=9)
    assert (0, parameters) in table.plays()
    table.play(0, parameters)
    found = [[(card.species, card.owner) for card in zone] for zone in (table.queue, table.bar, table.hell)]
    assert found == [cards(queue), cards(bar), cards(hell)]

    state = GAME.new_state()[0]
    state["deck"], state["num_deck"], state["drawer"], state["turn"] = 0, 0, rules.NOBODY, 9
    state["hand"][0, 0], state["num_hand"][0], state["num_queue"] = NUMBER[play], 1, len(cards(before))
    state["queue"][: len(cards(before))] = [number(*card) for card in cards(before)]
    action, legal = documents_action(0, parameters), np.zeros(124, np.bool_)
    documents.legal_actions(state, legal)
    assert legal[action]
    documents.apply_action(state, action)
    for zone, text in (("queue", queue), ("bar", bar), ("hell", hell)):
        held = state[zone][: state[f"num_{zone}"]].tolist()
        assert held == [number(*card) for card in cards(text)], zone
        assert (state[zone][len(held) :] == NONE).all()


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


def as_record(table):
    """The state that says the same as the oracle's table."""
    state = np.full(1, NONE, np.int8).repeat(STATE.itemsize).view(STATE)[0]
    for zone in ("queue", "bar", "hell"):
        held = [number(card.species, card.owner) for card in getattr(table, zone)]
        state[zone][: len(held)] = held
        state[f"num_{zone}"] = len(held)
    for p in (0, 1):
        hand, deck = ([NUMBER[card.species] for card in pile[p]] for pile in (table.hands, table.decks))
        state["hand"][p][: len(hand)] = hand
        state["num_hand"][p], state["num_deck"][p] = len(hand), len(deck)
        state["deck"][p] = sum(1 << species for species in deck)
    state["turn"], state["player"], state["over"] = table.turn, table.player, table.is_over()
    return state


def follow(rng):
    """Plays a random game in both engines; the names of the animals played as they are, and by a chameleon."""
    orders = np.stack([rng.permutation(12), rng.permutation(12)])
    states, actions = np.zeros(MOST_PLAYS + 1, STATE), np.zeros(MOST_PLAYS, np.int64)
    legal, plays = np.zeros((MOST_PLAYS + 1, 124), np.bool_), np.zeros((MOST_PLAYS + 1, NUM_PLAYS), np.bool_)
    length = record(orders, rng.random(MOST_PLAYS), states, legal, plays, actions)
    assert length >= 0
    table, seen = oracle.deal([[SPECIES[s] for s in order] for order in orders]), set()
    for n in range(length):
        assert states[n].tobytes() == as_record(table).tobytes(), rules.render(states[n])
        assert not table.is_over()
        hand = table.hands[table.player]
        by_action = {documents_action(slot, choice): (slot, choice) for slot, choice in table.plays()}
        assert sorted(by_action) == np.flatnonzero(legal[n]).tolist()
        slot, choice = by_action[actions[n]]
        seen.add((hand[slot].species, table.queue[choice[0]].species if hand[slot].species == "chameleon" else ""))
        table.play(slot, choice)
    assert table.is_over() and states[length]["over"]
    assert [rules.score(states[length], p) for p in (0, 1)] == [table.score(p) for p in (0, 1)]
    earned = np.zeros(2)
    rules.rewards(states[length], earned)
    assert earned.tolist() == [np.sign(table.score(p) - table.score(1 - p)) for p in (0, 1)]
    return length, seen


@pytest.mark.parametrize("games", [1000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_parity_move_by_move(games):
    rng = np.random.default_rng(15)
    lengths, seen = [], set()
    for _ in range(games):
        length, plays = follow(rng)
        lengths.append(length)
        seen |= plays
    assert len(seen) == 11 + 11  # every animal, and every one that a chameleon can copy
    assert 22 < np.mean(lengths) < 23.5 and max(lengths) <= MOST_PLAYS


def transcripts():
    """Games as (deals, lines): the species in order of dealing, then a line of render before each play and its name."""
    text = (Path(__file__).parent.parent / "games" / "beasty_transcripts.txt").read_text()
    return [game.splitlines() for game in text.strip().split("\n\n")]


@pytest.mark.parametrize("game", range(2))
def test_a_game_written_down(game):
    decks, *lines = transcripts()[game]
    orders = [deck.split() for deck in decks.split(" / ")]
    state, drawn = GAME.new_state()[0], [0, 0]
    for line in lines:
        while GAME.current_player(state) == -1:
            p = int(state["drawer"])
            GAME.apply_action(state, NUMBER[orders[p][drawn[p]]])
            drawn[p] += 1
        if not line.startswith("> "):
            assert rules.render(state) == line
        else:
            play, legal = PLAY_NAMES.index(line.removeprefix("> ")), np.zeros(NUM_PLAYS, np.bool_)
            GAME.legal_actions(state, legal)
            assert legal[play]
            GAME.apply_action(state, play)
    assert state["over"]


@pytest.mark.parametrize("game", [GAME, documents.GAME], ids=lambda game: game.name)
def test_contract(game):
    check_game(game, num_games=40)


def test_sizes_and_names():
    assert NUM_PLAYS == 31 and len(set(PLAY_NAMES)) == 31 and documents.GAME.num_actions == 124
    assert rules.POINTS.sum() == 36
    assert {name: int(rules.POINTS[i]) for i, name in enumerate(SPECIES)} == oracle.POINTS
    assert {name: i + 1 for i, name in enumerate(SPECIES)} == oracle.STRENGTH


def test_the_bonus_is_the_margin():
    """A tenth of a point's worth for each point, at most as much as the game itself, and not before its end."""
    state = GAME.new_state()[0]
    for mine, theirs, worth in (("parrot", "lion", 0.2), ("parrot zebra skunk", "", 1.0), ("seal", "lion", 0.0)):
        names = [(name, 0) for name in mine.split()] + [(name, 1) for name in theirs.split()]
        state["bar"][: len(names)], state["num_bar"] = [number(*name) for name in names], len(names)
        for over in (False, True):
            state["over"], out, earned = over, np.zeros(2), np.zeros(2)
            GAME.bonus(state, out)
            GAME.rewards(state, earned)
            assert out == pytest.approx([worth * over, -worth * over])
            assert (np.sign(out) == earned).all()
