"""Echelon's opponents against each other, its pictures, and members that do not belong."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
from games.echelon_scenes import TWO, begun

from envs.echelon import heuristics, render
from envs.echelon.heuristics import Cheater
from envs.echelon.mechs import LEFT, turn_of
from envs.game import load_game
from lit_rl.league.match import games_of, match_players
from lit_rl.league.player_file import load_network, save_player
from lit_rl.league.players import load_player
from lit_rl.networks import MLP
from lit_rl.run.errors import ArtefactError

LADDER = ["idle", "zone_walker", "lieutenant_50"]


def player(name, game=TWO):
    return load_player("random" if name == "random" else f"envs.echelon.heuristics.{name}", game)


def match(first, second, games, game=TWO, seed=3):
    return match_players(games_of(game), player(first, game), player(second, game), games, seed)


def test_each_rung_beats_the_one_below():
    for below, above in zip(LADDER, LADDER[1:]):
        assert match(above, below, 40).win_interval()[0] > 0.7, (below, above)


def test_who_fires_at_once_plays_itself_to_a_draw():
    """Nothing is drawn but the map, and a game in a mirror is the same game."""
    found = match("lieutenant_100", "lieutenant_100", 64)
    assert found.draws.sum() == 64


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lieutenant_20", "lieutenant_50"])
def test_a_lieutenant_against_itself(name):
    """Team 0 wins .5 of its games: whose seat the first player has makes no difference."""
    game = load_game("envs.echelon")
    found = match(name, name, 8000, game)
    others = found.games - found.wins - found.draws
    team_0 = (found.wins[0] + others[1] + 0.5 * found.draws.sum()) / found.games.sum()
    assert abs(team_0 - 0.5) < 0.02 and abs(found.win_rate - 0.5) < 0.02


def test_the_cheater_knows_of_enemies_that_it_does_not_see():
    """An enemy stands 20 m to the left of a heavy that does not see it: the cheater alone turns."""
    state = begun(TWO, 0)
    state["fx"][1], state["fy"][1], state["seen"][1] = 1.0, 0.0, 0
    state["x"][3], state["y"][3] = state["x"][1], state["y"][1] + 20
    legal, probs = np.ones(TWO.num_actions, np.bool_), np.zeros((2, TWO.num_actions), np.float32)
    heuristics.lieutenant_100(state, 1, legal, probs[0])
    table = SimpleNamespace(state=np.array([state]), player=np.array([1], np.int8))
    Cheater(TWO).act(table, np.arange(1), probs[1:])
    honest, cheating = (turn_of(int(p.argmax())) for p in probs)
    assert cheating == LEFT != honest


def test_text_and_pictures(tmp_path):
    assert TWO.render(TWO.new_state()[0]) == "no map yet"
    state = begun(TWO, 1)
    text = TWO.render(state)
    assert text.startswith("urban 1, 0.00 s") and all(text.count(letter) >= 1 for letter in "SHsh")
    pixels = render.picture(state)
    assert pixels.shape == (480, 480, 3) and pixels.dtype == np.uint8
    blue, red = ((pixels == colour).all(-1).sum() for colour in render.TEAM)
    assert blue == pytest.approx(red, rel=0.1) and blue > 500
    states = render.play(TWO, heuristics.lieutenant_100, 2)
    render.strip(tmp_path / "game.png", states)
    render.film(tmp_path / "game.gif", states[:6])
    assert (tmp_path / "game.png").stat().st_size > 1000 and (tmp_path / "game.gif").stat().st_size > 1000


def test_a_member_of_another_version_is_refused_in_a_line(tmp_path):
    other = dataclasses.replace(TWO, version="2.0")
    save_player(tmp_path / "other.pt", MLP(other), other)
    with pytest.raises(ArtefactError, match=r"rules 2\.0.*not of echelon_two \(rules 1\.0") as error:
        load_network(tmp_path / "other.pt", TWO, make=lambda: MLP(TWO))
    assert "\n" not in str(error.value)
