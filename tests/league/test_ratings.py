"""Ratings against the numbers of their papers."""

import math

import pytest

from lit_rl.league.ratings import (
    SCALE,
    Rating,
    Score,
    elo,
    expected_score,
    glicko2,
    promoted,
    rate_matches,
    rate_period,
    to_retire,
    wilson_interval,
)  # fmt: skip

# The worked example of Glickman (2013): a player of 1500 / 200 wins against 1400, loses to 1550 and 1700.
PLAYER = Rating(1500, 200, 0.06)
GAMES = [(Rating(1400, 30), 1.0, 1), (Rating(1550, 100), 0.0, 1), (Rating(1700, 300), 0.0, 1)]


def test_glickmans_worked_example():
    rating, deviation, volatility = glicko2(PLAYER, GAMES, tau=0.5)
    assert rating == pytest.approx(1464.06, abs=0.01)
    assert deviation == pytest.approx(151.52, abs=0.01)
    assert volatility == pytest.approx(0.05999, abs=1e-5)


def test_without_games_only_the_deviation_grows():
    assert glicko2(PLAYER, []) == (1500, pytest.approx(math.hypot(200, 0.06 * 173.7178)), 0.06)


def test_games_against_one_opponent_add_up():
    one = glicko2(PLAYER, [(Rating(1600, 80), 1.0, 1), (Rating(1600, 80), 0.0, 1), (Rating(1600, 80), 0.5, 1)])
    assert glicko2(PLAYER, [(Rating(1600, 80), 1.5, 3)]) == pytest.approx(one)


def test_a_surprise_raises_the_volatility():
    """The other branch of step 5: delta^2 > phi^2 + v."""
    after = glicko2(Rating(1500, 50, 0.06), [(Rating(1900, 30), 30.0, 30)])
    assert after.volatility > 0.0605 and after.rating > 1500


def test_a_period_is_settled_from_the_ratings_at_its_start():
    before = {"a": PLAYER, **{name: game[0] for name, game in zip("bcd", GAMES)}, "idle": Rating()}
    scores = [Score("a", name, game[1], 1) for name, game in zip("bcd", GAMES)]
    after = rate_period(before, scores)
    assert after["a"] == glicko2(PLAYER, GAMES) and "idle" not in after
    assert after["b"] == glicko2(before["b"], [(PLAYER, 0.0, 1)])
    assert rate_period(before, scores[::-1])["c"] == pytest.approx(after["c"])


def test_a_period_of_many_games():
    """300 won of 400 against three whose ratings are sure: Elo's 191 points more; a hundred thousand do no worse."""
    sure = {name: Rating(1500.0, 10.0) for name in "bcd"}
    for scale in (1, 250):
        scores = [Score("a", "b", 75 * scale, 100 * scale), Score("a", "c", 75 * scale, 100 * scale)]
        scores += [Score("d", "a", 50 * scale, 200 * scale)]
        after = rate_matches(sure | {"a": Rating(), "idle": Rating()}, scores)
        assert after.keys() == set("abcd")
        assert after["a"].rating - after["b"].rating == pytest.approx(400 * math.log10(3), abs=25)
        assert after["a"].deviation < 40 and after["b"].deviation < 15
        assert all(0.05 < rating.volatility < 0.07 for rating in after.values())
        assert rate_matches(sure | {"a": Rating()}, scores[::-1])["a"] == pytest.approx(after["a"])
    few = [Score("a", "b", 3.0, 5.0), Score("c", "a", 1.0, 5.0)]
    assert rate_matches(sure | {"a": PLAYER}, few) == rate_period(sure | {"a": PLAYER}, few)
    assert rate_matches(sure, []) == {}


def test_every_game_of_a_match_counts_once():
    """Even games against somebody whose strength is known each tell a quarter: 1 / phi'^2 = 1 / phi^2 + games / 4."""
    before = {"a": Rating(1500, 350, 1e-6), "known": Rating(1500, 1e-3, 1e-6)}
    for games in (40, 400, 4000):
        after = rate_matches(before, [Score("a", "known", games / 2, games)])
        expected = SCALE / math.hypot(SCALE / 350, math.sqrt(games / 4))
        assert after["a"] == (pytest.approx(1500), pytest.approx(expected, rel=1e-3), pytest.approx(1e-6, rel=0.1))


def test_elo():
    assert expected_score(1613, 1609) == pytest.approx(0.5058, abs=1e-4)  # Wikipedia's example, player of 1613
    before = {"me": 1613.0, "a": 1609.0, "b": 1477.0, "c": 1388.0, "d": 1586.0, "e": 1720.0}
    scores = [Score("me", o, s, 1) for o, s in (("a", 0), ("b", 0.5), ("c", 1), ("d", 1), ("e", 0))]
    after = elo(before, scores, k=32)
    assert after["me"] == pytest.approx(1601, abs=0.5)
    assert sum(after.values()) == pytest.approx(sum(before.values()))  # what one wins the others lose


def test_bad_scores_are_refused_by_name():
    with pytest.raises(ValueError, match="score=2 of a in games=1"):
        rate_period({"a": Rating(), "b": Rating()}, [Score("a", "b", 2, 1)])
    with pytest.raises(ValueError, match="'b' has results and no rating"):
        elo({"a": 1500.0}, [Score("a", "b", 1, 1)])


def test_promotion_and_retirement():
    ratings = {"anchor": Rating(1000, 30), "new": Rating(1100, 300), "low": Rating(1400, 50), "mid": Rating(1500, 50)}
    ratings["high"] = Rating(1600, 50)
    games = dict.fromkeys(ratings, 100) | {"new": 5}
    assert to_retire(ratings, ratings, games, keep_top=3, permanent=["anchor"]) == ["low", "mid"]
    assert to_retire(ratings, ratings, games, keep_top=4, permanent=["anchor"]) == ["low"]
    assert to_retire(ratings, ratings, games, keep_top=5) == []
    commanders = ["low", "mid", "high"]
    assert promoted("mid", commanders, ratings, keep_top=2) and not promoted("low", commanders, ratings, keep_top=2)
    assert not promoted("new", commanders, ratings, keep_top=3) and promoted("new", commanders, ratings, keep_top=4)


def test_wilson_interval():
    low, high = wilson_interval(8, 10)  # Newcombe 1998's method 3, no continuity correction
    assert (low, high) == (pytest.approx(0.4902, abs=1e-3), pytest.approx(0.9433, abs=1e-3))
    assert wilson_interval(0, 0) == (0.0, 1.0)
    assert wilson_interval(10, 10)[1] == 1.0 and 0.7 < wilson_interval(10, 10)[0] < 0.75
    narrow = wilson_interval(5500, 10_000)
    assert narrow[1] - narrow[0] == pytest.approx(2 * 1.96 * math.sqrt(0.55 * 0.45 / 10_000), rel=1e-2)
    with pytest.raises(ValueError, match="score=11 in games=10"):
        wilson_interval(11, 10)


def test_ratings_stay_put_where_thousands_of_games_are_played_per_period():
    """Two members whose strengths do not change: the difference settles where the expected score is the true one."""
    ratings = {"a": Rating(), "b": Rating()}
    for _ in range(300):
        ratings |= rate_period(ratings, [Score("a", "b", 7_500, 10_000)])
    difference = ratings["a"].rating - ratings["b"].rating
    assert expected_score(difference, 0) == pytest.approx(0.75, abs=0.02) and ratings["a"].deviation < 100
    for _ in range(300):  # and follows where they do
        ratings |= rate_period(ratings, [Score("a", "b", 0, 10_000)])
    assert -3000 < ratings["a"].rating - ratings["b"].rating < -400
