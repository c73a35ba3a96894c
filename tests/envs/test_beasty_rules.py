"""Beasty Bar's rules: hand-made positions, the slow twin of the tests, and games written down."""

from pathlib import Path

import numpy as np
import pytest
from games import beasty_oracle as oracle
from games.beasty_games import NUMBER, documents_action, number, side_by_side
from games.beasty_positions import ROWS, cards

from envs.beasty_bar import GAME, documents, rules
from envs.beasty_bar.rules import NONE, NUM_PLAYS, PLAY_NAMES, SPECIES
from envs.contract import check_game
from envs.env import IllegalActionError
from envs.vector_env import VectorEnv


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


@pytest.mark.parametrize("games", [1000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_parity_move_by_move(games):
    rng = np.random.default_rng(15)
    decisions, seen = 0, set()
    for _ in range(games):
        for state, table, play in side_by_side(rng):
            if play is None:
                scores, earned = [table.score(p) for p in (0, 1)], np.zeros(2)
                rules.rewards(state, earned)
                assert [rules.score(state, p) for p in (0, 1)] == scores
                assert earned.tolist() == [np.sign(scores[0] - scores[1]), np.sign(scores[1] - scores[0])]
                break
            species, choice = table.hands[table.player][play[0]].species, play[1]
            seen.add((species, table.queue[choice[0]].species if species == "chameleon" else ""))
            decisions += 1
    assert len(seen) == 11 + 11  # every animal, and every one that a chameleon can copy
    assert 22.5 < decisions / games < 23.1


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


def test_an_empty_place_in_the_hand_is_refused_by_name():
    env = VectorEnv(documents.GAME, 8, seed=1)
    while not (env.state["num_hand"][np.arange(8), env.player] < 4).any():
        env.step(env.sample_uniform())
    row = int((env.state["num_hand"][np.arange(8), env.player] < 4).argmax())
    actions, before = env.sample_uniform(), env.state.copy()
    actions[row] = 31 * 3
    with pytest.raises(IllegalActionError, match=f"beasty_bar_documents, env row {row}: action 93 is illegal"):
        env.step(actions)
    assert (env.state == before).all()
