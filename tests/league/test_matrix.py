"""The matrix of results: each pair seen from both sides."""

import pytest
from league_runs import HEURISTICS

from lit_rl.league.league import Payoff
from lit_rl.league.match import games_of, match_players
from lit_rl.league.matrix import cell_of, draw_matrix, result_matrix
from lit_rl.league.players import load_player
from lit_rl.league.ratings import mean_interval, wilson_interval


def test_a_matrix_and_its_page(leduc, tmp_path):
    players = {name: load_player(name, leduc) for name in ("random", *HEURISTICS[:2])}
    own = {
        name: cell_of(match_players(games_of(leduc), players["random"], players[name], 400, seed=1))
        for name in HEURISTICS[:2]
    }  # fmt: skip
    a, b = HEURISTICS[:2]
    names, matrix = result_matrix("learner", own, {(a, b): Payoff(30.0, 100, 12.0, 200.0)})
    assert names == ["learner", a, b] and [row[i] for i, row in enumerate(matrix)] == [None] * 3
    assert matrix[0][1:] == [own[a][0], own[b][0]] and matrix[2][1] is None  # b has not been asked about a
    mine, theirs = matrix[0][1], matrix[1][0]
    assert mine["win_rate"] + theirs["win_rate"] == pytest.approx(1)
    assert theirs["mean_return"] == pytest.approx(-mine["mean_return"])
    assert theirs["win_rate_interval"] == pytest.approx([1 - x for x in mine["win_rate_interval"][::-1]])
    assert theirs["return_interval"] == pytest.approx([-x for x in mine["return_interval"][::-1]], abs=0.01)
    assert matrix[1][2] == {
        "win_rate": 0.3, "win_rate_interval": list(wilson_interval(30, 100)), "games": 100, "mean_return": 0.12,
        "return_interval": list(mean_interval(12.0, 200.0, 100)),
    }  # fmt: skip
    draw_matrix(names, matrix, "leduc_poker, iteration 7", tmp_path / "arena.png")
    assert (tmp_path / "arena.png").stat().st_size > 10_000
