"""Matches against what exact evaluation says, and among teams."""

import numpy as np
import pytest
import quarrel
from league_runs import HEURISTICS, exact_return, lively

from lit_rl.league.match import games_of, match_players
from lit_rl.league.players import HeuristicPlayer, NetworkPlayer, player_table


def test_matches_agree_with_exact_evaluation(leduc, leduc_tree):
    network, caller = NetworkPlayer(lively(leduc)), HeuristicPlayer(HEURISTICS[0], leduc)
    exact = exact_return(leduc_tree, player_table(network, leduc_tree), player_table(caller, leduc_tree))
    match = match_players(games_of(leduc), network, caller, 20_001, seed=3)
    assert match.games.tolist() == [10_001, 10_001]
    low, high = match.return_interval(z=4)
    assert low < exact.mean() < high and high - low < 0.5
    error = np.sqrt(match.squares / match.games / match.games)
    assert (np.abs(match.returns / match.games - exact) < 4 * error).all()
    assert match.others == pytest.approx(-match.returns)  # zero sum
    again = match_players(games_of(leduc), network, caller, 20_001, seed=3)
    assert all(np.array_equal(a, b) for a, b in zip(match, again))
    assert 0 < match.win_interval()[0] < match.win_rate < match.win_interval()[1] < 1


@pytest.mark.parametrize("team", [(0, 1, 2), (0, 1, 0, 1), (1, 0, 0, 2)])
def test_a_match_is_between_teams(team):
    """The first player has all seats of one team; its mean return is compared with the other teams' mean."""
    game, num_seats = quarrel.make(*team), max(team) + 1
    first, second = quarrel.Says(2), quarrel.Says(0)
    match = match_players(games_of(game), first, second, 5 * num_seats - 1, seed=0)
    assert match.games.tolist() == [5] * num_seats and first.began == second.began == [list(range(5 * num_seats))]
    for s in range(num_seats):
        said = np.array([2 if t == s else 0 for t in team])
        earned = np.arange(len(team)) + 10 * said - np.roll(said, 1)
        returns = [earned[np.array(team) == t].mean() for t in range(num_seats)]
        others = np.mean([r for t, r in enumerate(returns) if t != s])
        assert match.returns[s] == pytest.approx(5 * returns[s]) and match.others[s] == pytest.approx(5 * others)
        assert match.wins[s] == 5 * (returns[s] > others)
    results = match.results("a", "b")
    assert [r.seat for r in results] == list(range(num_seats)) and sum(r.games for r in results) == 5 * num_seats
