"""What the players of Beasty Bar see: against the oracle's table, and nothing of what is hidden."""

import numpy as np
import pytest
from games.beasty_games import side_by_side
from games.beasty_oracle import POINTS, STRENGTH

from envs.beasty_bar import GAME, documents
from envs.beasty_bar.rules import NONE, NUM_SPECIES, SPECIES, unplayed
from envs.game import parts

GAMES = [GAME, documents.GAME]


def seen(game, state, player):
    obs = np.zeros(game.obs_shape, game.obs_dtype)
    game.observe(state, player, obs)
    return obs


def bits(cards):
    return [int(name in {card.species for card in cards}) for name in SPECIES]


def one_hot(i, size):
    return [int(k == i) for k in range(size)]


def compact_twin(table, me):
    you = 1 - me
    found = [int(table.player == me)]
    for place in range(4):
        for owner in (me, you):
            found += bits([card for card in table.queue[place : place + 1] if card.owner == owner])
    for zone in (table.bar, table.hell):
        for owner in (me, you):
            found += bits([card for card in zone if card.owner == owner])
    found += bits(table.hands[me]) + bits(table.decks[me]) + bits(table.hands[you] + table.decks[you])
    for owner in (me, you):
        found += one_hot(len(table.hands[owner]) + len(table.decks[owner]), 13)
    return found + one_hot(min(max(table.score(me) - table.score(you), -8), 8) + 8, 17)


def documents_twin(table, me):
    you = 1 - me

    def zone(cards, capacity):
        found = []
        for i in range(capacity):
            card = cards[i] if i < len(cards) else None
            if card is None:
                found += [0, 0.5, *[0] * 12, 0, 0]
            else:
                species = [int(name == card.species) for name in sorted(SPECIES)]
                found += [1, int(card.owner == me), *species, STRENGTH[card.species] / 12, POINTS[card.species] / 4]
            found.append(i / (capacity - 1))
        return found

    found = zone(table.queue, 5) + zone(table.bar, 24) + zone(table.hell, 24) + zone(table.hands[me], 4)
    for i in range(4):
        found += [int(i < len(table.hands[you])), i / 3, 0]
    found += [len(table.decks[me]) / 12, len(table.decks[you]) / 12]
    found += [len(table.hands[me]) / 4, len(table.hands[you]) / 4]
    return [*found, int(table.player == me), min(table.turn / 100, 1), len(table.queue) / 5]


@pytest.mark.parametrize("game", GAMES, ids=lambda game: game.name)
def test_obs_says_what_stands_on_the_table(game):
    twin = compact_twin if game is GAME else documents_twin
    rng = np.random.default_rng(2)
    for _ in range(25):
        for state, table, _ in side_by_side(rng):
            for player in (0, 1):
                wanted = np.array(twin(table, player), np.float32)
                assert np.array_equal(seen(game, state, player).astype(np.float32), wanted)


def other_hands(state, player, rng):
    """Copies of the state that differ in what the other player holds of its unplayed cards."""
    other = 1 - player
    pool = [s for s in range(NUM_SPECIES) if (unplayed(state, other) >> s) & 1]
    for _ in range(5):
        copy = np.array([state])
        held = rng.permutation(pool)[: state["num_hand"][other]]
        copy["hand"][0, other] = [*held, *[NONE] * (4 - len(held))]
        copy["deck"][0, other] = sum(1 << s for s in pool if s not in held)
        yield copy[0]


@pytest.mark.parametrize("game", GAMES, ids=lambda game: game.name)
def test_no_hidden_card_moves_an_obs_or_what_redact_leaves(game):
    rng, different = np.random.default_rng(4), 0
    for _ in range(20):
        for state, _, _ in side_by_side(rng):
            for player in (0, 1):
                obs, left = seen(game, state, player), np.array([state])
                game.redact(left[0], player)
                for other in other_hands(state, player, rng):
                    different += other.tobytes() != state.tobytes()
                    assert np.array_equal(seen(game, other, player), obs)
                    redacted = np.array([other])
                    game.redact(redacted[0], player)
                    assert redacted.tobytes() == left.tobytes()
    assert different > 1000


@pytest.mark.parametrize("game", GAMES, ids=lambda game: game.name)
def test_named_parts_cover_the_obs(game):
    named = parts(game, np.arange(game.obs_shape[0]))
    assert sorted(i for part in named.values() for i in part.ravel()) == list(range(game.obs_shape[0]))
