"""Matchmaking: the documents' worked table, the papers' formulas, and what is refused."""

import numpy as np
import pytest

from lit_rl.league.match import games_of, match_players
from lit_rl.league.matchmaking import (
    Pool,
    draw_shares,
    inverse_standing,
    load_matchmaker,
    pfsp,
    role_weights,
    rungs,
    skill_matched,
    uniform,
)
from lit_rl.league.players import NetworkPlayer
from lit_rl.league.policies import TablePolicy
from lit_rl.league.ratings import mean_interval
from lit_rl.run.errors import ConfigError


def pool(win_rates, games=1e9, roles=None, rating=None, **learner):
    w = np.asarray(win_rates, dtype=float)
    k = len(w)
    rating = np.full(k, 1500.0) if rating is None else np.asarray(rating, dtype=float)
    names = tuple(f"m{i}" for i in range(k))
    each = np.full(k, float(games))  # won by 1 or lost by 1
    return Pool(names, tuple(roles or ["past"] * k), w * games, each, (2 * w - 1) * games, each, rating, **learner)


def test_the_documents_table():
    """93 % -> 4 %, 72 % -> 16 % with a floor of 5 %: weights 0.07 and 0.28 among weights that sum to 1.75."""
    shares = inverse_standing(pool([0.93, 0.72, 0.45, 0.15]), floor=0.05)
    assert shares == pytest.approx([0.04, 0.16, 0.55 / 1.75, 0.85 / 1.75])
    assert [f"{s:.0%}" for s in shares[:2]] == ["4%", "16%"]


def test_the_floor_is_one_of_weights_not_of_shares():
    """A member that always loses keeps a weight of 5 %, whatever share that makes; min_share is a true floor."""
    beaten = pool([1.0, 0.5, 0.5, 0.5])
    assert inverse_standing(beaten, floor=0.05)[0] == pytest.approx(0.05 / 1.55)
    assert inverse_standing(pool([1.0, 1.0]), floor=0.05) == pytest.approx([0.5, 0.5])
    assert inverse_standing(beaten, floor=0.0)[0] == pytest.approx(0.0, abs=1e-7)
    assert inverse_standing(beaten, floor=0.0, min_share=0.1) == pytest.approx([0.1, 0.3, 0.3, 0.3])
    with pytest.raises(ConfigError, match=r"min_share=0.3 x 4 members > 1; use at most 0.25"):
        inverse_standing(beaten, min_share=0.3)


def test_few_games_count_little():
    """(wins + 8) / (games + 16), as in the documents."""
    won = np.array([0.0, 10.0])
    few = Pool(("a", "b"), ("past",) * 2, won, won, won, won, np.full(2, 1500.0))
    assert few.win_rate() == pytest.approx([0.5, 18 / 26])
    shares = inverse_standing(few)
    assert shares[1] == pytest.approx((1 - 18 / 26) / (0.5 + 1 - 18 / 26))


def test_pfsp():
    p = pool([0.9, 0.5, 0.1])
    assert pfsp(p, "hard", 2) == pytest.approx(np.array([0.01, 0.25, 0.81]) / 1.07, abs=1e-6)
    assert pfsp(p, "variance", 1) == pytest.approx(np.array([0.09, 0.25, 0.09]) / 0.43, abs=1e-6)
    assert pfsp(pool([1.0, 1.0]), "hard", prior_games=0) == pytest.approx([0.5, 0.5])  # nobody is hard: all alike


def of_returns(mean, deviation=0.3, games=20_000, win_rates=0.5):
    """A pool of which mean returns and deviation of a game are in units of the largest; hands won tell nothing."""
    mean = np.asarray(mean, dtype=float)
    k, each = len(mean), np.full(len(mean), float(games))
    return Pool(
        tuple(f"m{i}" for i in range(k)), ("past",) * k, win_rates * each, each, mean * each,
        (mean**2 + deviation**2) * each, np.full(k, 1500.0),
    )  # fmt: skip


def test_what_is_earned_decides_not_hands_won():
    """An exploiter that wins half of the hands and still earns 0.13 of Leduc's 13 chips is hard; who wins more hands
    than we and earns nothing is not."""
    hard = pfsp(of_returns([-0.01, 0.0, 0.0, 0.0], win_rates=np.array([0.5, 0.3, 0.5, 0.7])))
    assert hard[0] > 0.5 and hard[1:] == pytest.approx([hard[1]] * 3)
    shares = inverse_standing(of_returns([0.2, 0.0, -0.2]))
    assert shares == pytest.approx(np.array([0.05, 0.5, 0.95]) / 1.5)


def test_returns_that_may_be_chance_decide_nothing():
    """Fifty games whose interval holds 0 leave all alike; intervals shrink with the games."""
    assert pfsp(of_returns([-0.01, 0.005, 0.0], games=50)) == pytest.approx([1 / 3] * 3)
    sure = [of_returns([-0.01, 0.01], games=games).sure_return() for games in (1_000, 10_000, 1_000_000)]
    assert sure[0] == pytest.approx([0, 0]) and sure[2] == pytest.approx([-0.01, 0.01], abs=1e-3)
    assert sure[1] == pytest.approx([-0.01 + 1.96 * 0.3 / 100, 0.01 - 1.96 * 0.3 / 100], abs=2e-4)
    assert sure[1] == pytest.approx(np.array([-1, 1]) * mean_interval(100.0, 901.0, 10_000)[0], abs=2e-4)
    assert of_returns([-0.01], games=0).standing() == pytest.approx([0.5])


def test_an_exact_best_response_is_met_more_often(leduc, leduc_tree):
    """Near an equilibrium of Leduc it wins half of the hands, and the same matches say that it earns."""
    ours = leduc_tree.cfr_plus(40)
    assert 0.09 < leduc_tree.evaluate(ours).nash_conv < 0.1
    tables = {"mirror": ours, "best response": leduc_tree.best_response(ours)}
    players = {name: NetworkPlayer(TablePolicy.of(leduc_tree, table)) for name, table in tables.items()}
    matches = [match_players(games_of(leduc), players["mirror"], players[name], 150_000, seed=4) for name in tables]
    assert abs(matches[1].win_rate - 0.5) < 0.03
    counts = [
        [(m.wins + m.draws / 2).sum(), m.games.sum(), m.returns.sum() / 13, m.squares.sum() / 169] for m in matches
    ]
    shares = pfsp(Pool(tuple(tables), ("past", "exploiter"), *np.array(counts, dtype=float).T, np.full(2, 1500.0)))
    assert shares[1] > 0.7


def test_role_weights():
    p = pool([0.5] * 4, roles=["past", "past", "exploiter", "random"])
    assert role_weights(p, {"past": 0.5, "exploiter": 0.5}) == pytest.approx([0.25, 0.25, 0.5, 0])
    assert role_weights(p, {"past": 0.5, "heuristic": 0.5}) == pytest.approx([0.5, 0.5, 0, 0])  # no heuristic there
    with pytest.raises(ConfigError, match="unknown role 'ghost'; use some of main, past"):
        role_weights(p, {"ghost": 1.0})


def test_skill_matched():
    p = pool([0.5] * 3, rating=[1500, 1700, 1900], learner_rating=1500.0, learner_games=100.0)
    assert skill_matched(p) == pytest.approx(np.exp([0, -0.5, -2]) / np.exp([0, -0.5, -2]).sum())
    new = dict(learner_rating=1500.0, learner_games=19.0)
    for rating, met in (
        ([1650, 1750, 2000], [True, False, False]),  # within 200
        ([1750, 1890, 2000], [True, True, False]),  # nobody within 200: 400
        ([2000, 2200, 2400], [True, True, False]),  # nobody within 400: 800
        ([2400, 2500, 2600], [True, True, True]),  # anybody
    ):
        assert ((skill_matched(pool([0.5] * 3, rating=rating, **new)) > 0) == met).all()
    assert skill_matched(pool([0.5] * 2, rating=[9000, 9500])) == pytest.approx([0.5, 0.5])  # no weight left: all alike


def test_rungs():
    def met(rung, others=0.0, ladder=("m2", "m0", "m1")):
        return rungs(pool([0.5] * 4, rung=rung), ladder, others)

    assert met(0) == pytest.approx([0, 0, 1, 0]) and met(1.3) == pytest.approx([0.7, 0.3, 0, 0])
    assert met(2) == pytest.approx([0, 1, 0, 0]) == met(9)  # the last rung is held
    assert met(0.5, others=0.4) == pytest.approx([0.3, 0, 0.3, 0.4])
    assert met(0.5, 0.4, ("m0", "m1", "m2", "m3")) == pytest.approx([0.5, 0.5, 0, 0])  # there are no others
    with pytest.raises(ConfigError, match=r"^ladder: 'm7' is no member; there are m0, m1, m2, m3$"):
        met(0, ladder=("m0", "m7"))
    assert load_matchmaker("rungs", {"ladder": ["a", "b"]}, ["a", "b", "c"]).keywords == {"ladder": ["a", "b"]}


def test_by_name_or_path_with_options():
    p = pool([0.9, 0.1])
    assert load_matchmaker("uniform")(p) == pytest.approx([0.5, 0.5])
    by_path = load_matchmaker("lit_rl.league.matchmaking.pfsp", {"weighting": "variance", "power": 1})
    assert by_path(p) == pytest.approx(pfsp(p, "variance", 1))
    assert uniform(p).sum() == 1


@pytest.mark.parametrize(
    ("path", "options", "message"),
    [
        ("pfps", {}, "matchmaker='pfps': no such function; use uniform, role_weights"),
        ("my_pkg.mine", {}, "matchmaker='my_pkg.mine': no such function"),
        ("pfsp", {"powr": 2}, "pfsp has no 'powr'; it has weighting, power, prior_games"),
        ("pfsp", {"power": -1}, "power=-1: must be positive"),
        ("pfsp", {"weighting": "easy"}, "weighting='easy': unknown; use hard or variance"),
        ("inverse_standing", {"floor": 1.5}, r"floor=1.5: must lie in \[0, 1\]"),
        ("skill_matched", {"sigma": float("nan")}, "sigma=nan"),
        ("role_weights", {}, "give it in matchmaker_options"),
        ("role_weights", {"weights": {"past": -1.0}}, r"weights\[past\]=-1.0"),
        ("rungs", {"ladder": []}, r"ladder=\[\]: needs somebody, and nobody twice"),
        ("rungs", {"ladder": ["a", "a"]}, r"ladder=\['a', 'a'\]: needs somebody, and nobody twice"),
        ("rungs", {"ladder": ["probe"], "others": 2.0}, r"others=2.0: must lie in \[0, 1\]"),
    ],
)
def test_bad_matchmakers_are_refused_by_name(path, options, message):
    with pytest.raises(ConfigError, match=message):
        load_matchmaker(path, options)


def test_what_a_matchmaker_returns_is_checked():
    with pytest.raises(ConfigError, match="must sum to 1"):
        draw_shares(lambda p: np.ones(2), pool([0.5, 0.5]))
    with pytest.raises(ConfigError, match="shape"):
        draw_shares(lambda p: np.ones(1), pool([0.5, 0.5]))
