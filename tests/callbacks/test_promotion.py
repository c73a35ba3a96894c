"""Promotion: candidates are rated by matches, promoted, retired; and a resumed run has the same league."""

import numpy as np
import pytest
from league_runs import HEURISTICS, digest, league_data, league_fit, open_league, same, with_file

from callbacks.promotion import Promotion
from callbacks.snapshot import Snapshot
from lit_rl.league.league import League, Member, Payoff
from lit_rl.league.ratings import Rating, Score, promoted, rate_matches
from lit_rl.league.standings import _spread, standings_table
from lit_rl.run.errors import ConfigError

PERMANENT = ["random", *HEURISTICS]
NAMES = ["random", "always_call", "always_raise", "hand_strength"]


def data(**options):
    kept = dict(opponents=PERMANENT, matchmaker="skill_matched", rate_training=False, self_play_share=0.5)
    return league_data(**(kept | options))


def content(league):
    return league.results(), [m._replace(created="") for m in league.members()]


def test_candidates_are_rated_promoted_and_retired(tmp_path, leduc):
    folder = tmp_path / "run"
    promotion = Promotion(every=2, games=200, periods=2, keep_top=2)
    league_fit(data(), callbacks=[promotion], folder=folder, max_epochs=10)
    league = open_league(folder, leduc)
    members = {m.name: m for m in league.members()}
    past = [m for m in members.values() if m.role == "past"]
    assert [m.name for m in past] == [f"main-{i:07d}" for i in (2, 4, 6, 8, 10)]
    assert sum(m.state == "active" for m in past) == 2
    below = "not among the top 2"
    assert {m.reason for m in past if m.state == "retired"} <= {below, f"not promoted: {below}"}
    assert all(members[name].state == "active" and members[name].permanent for name in NAMES)
    assert league.games()["main-0000002"] >= 400 and members["main"].rating == past[-1].rating != Rating()

    # All of it again from the results alone: two-phase periods, in order, of matches alone.
    ratings, batches = {}, {}
    for _, iteration, source, result in league.results():
        batches.setdefault((iteration, source), []).append(result)
    assert {source for _, source in batches} == {"train", "matches 1", "matches 2"}
    active, judged = [], []
    for (iteration, source), results in batches.items():
        if source == "train":
            continue
        name = f"main-{iteration:07d}"
        games = {r.opponent: 0 for r in results}
        for r in results:
            games[r.opponent] += r.games
        assert {r.member for r in results} == {name} and sum(games.values()) >= 200
        assert {r.seat for r in results} == {0, 1} and set(games) <= {*NAMES, *active}
        near = [other for other in games if abs(ratings.get(other, Rating()).rating - 1500) <= 200]
        assert source != "matches 1" or len(near) == len(games)  # the cold start's window
        before = {m: ratings.get(m, Rating()) for m in members}
        scores = [Score(r.member, r.opponent, r.wins + 0.5 * r.draws, r.games) for r in results]
        ratings |= rate_matches(before, scores)
        if source == "matches 2":
            judged.append(name)
            if promoted(name, active, ratings | {name: ratings[name]}, 2):
                active = sorted([*active, name], key=lambda m: ratings[m].conservative)[-2:]
    assert sorted(active) == sorted(m.name for m in past if m.state == "active") and len(judged) == 5
    for name, rating in ratings.items():
        assert members[name].rating == pytest.approx(rating)
    text = (folder / "ratings.txt").read_text().splitlines()
    assert len(text) == 1 + len(members) and text[0].split()[0] == "member"
    order = [members[line.split()[0]].rating.conservative for line in text[1:]]
    assert order == sorted(order, reverse=True) and (folder / "ratings.png").stat().st_size > 10_000
    league.close()


def test_a_resumed_run_has_the_same_league_and_weights(tmp_path, leduc):
    promotion = [Promotion(every=2, games=40, periods=1, keep_top=1)]
    _, whole = league_fit(data(), callbacks=promotion, folder=tmp_path / "whole", max_epochs=8)
    first, _ = league_fit(data(), callbacks=promotion, folder=tmp_path / "run", max_epochs=5)
    first.save_checkpoint(tmp_path / "half.ckpt")
    for _ in range(2):  # the first came to its end and was lost
        _, resumed = league_fit(
            data(), callbacks=promotion, folder=tmp_path / "run", max_epochs=8, ckpt_path=tmp_path / "half.ckpt"
        )
    assert same(digest(whole), digest(resumed))
    leagues = [open_league(tmp_path / name, leduc) for name in ("whole", "run")]
    assert content(leagues[0]) == content(leagues[1])
    for league in leagues:
        league.close()


def test_matching_by_skill_with_a_cold_start():
    promotion = Promotion(games=200, min_games=20)
    field = [Member(str(r), "past", rating=Rating(r, 50)) for r in (1500, 1650, 1750, 2600)]
    own = Member("me", "past", rating=Rating(1500))
    cold, warm = promotion._games(field, own, 0), promotion._games(field, own, 20)
    assert cold[2:] == [0, 0] and min(cold[:2]) > 0 and 200 <= sum(cold) <= 202
    assert warm[2] > 0 and warm[3] == 0 and warm == sorted(warm, reverse=True) and 200 <= sum(warm) <= 204
    assert promotion._games([], own, 0) == []


@pytest.mark.parametrize(
    ("callbacks", "options", "message"),
    [
        ([Promotion(), Snapshot()], {}, "Promotion and Snapshot both add the run's past; leave one out"),
        ([Promotion()], {"rate_training": True}, "data.rate_training=true: Promotion rates by matches alone"),
    ],
)
def test_what_gets_in_the_way_is_refused(tmp_path, callbacks, options, message):
    with pytest.raises(ConfigError, match=message):
        league_fit(data(**options), callbacks=callbacks, folder=tmp_path / "run")


def test_a_game_too_few_is_refused():
    with pytest.raises(ConfigError, match="games=0"):
        Promotion(games=0)


def test_the_table_and_its_order(tmp_path, leduc):
    league = League(tmp_path / "l.sqlite", leduc)
    with_file(league, "sure", rating=Rating(1600, 50))
    with_file(league, "unsure", rating=Rating(1700, 300))
    lines = standings_table(league.members(), {("sure", "unsure"): Payoff(3.0, 4, 0.0, 0.0)}).splitlines()
    assert [line.split()[0] for line in lines] == ["member", "sure", "unsure"]
    assert lines[1].split()[3:] == ["1600", "50", "1500", "4", "0.750"] and lines[2].split()[-1] == "-"
    league.close()


def test_names_in_the_picture_keep_their_distance():
    spread = _spread([0.0, 0.1, 0.2, 5.0], 1.0)
    assert min(np.diff(spread)) >= 1.0 - 1e-9 and spread[-1] == pytest.approx(5.0)
    assert _spread([0.0, 2.0], 1.0) == [0.0, 2.0]
