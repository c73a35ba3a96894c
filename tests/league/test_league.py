"""The population file: what goes in stays in, whoever dies; what does not fit is named and set aside."""

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from league_runs import with_file

from lit_rl.league.league import League, Member, Result
from lit_rl.league.player_file import sha256_of
from lit_rl.league.ratings import Rating, Score, rate_matches, rate_period
from lit_rl.run.errors import ArtefactError, ConfigError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def league(tmp_path, kuhn):
    league = League(tmp_path / "league.sqlite", kuhn)
    yield league
    league.close()


def hammer(folder, kuhn, writers, each, kills):
    """Writers killed at random: how many kills; everything that was acknowledged is there, once, and the file whole."""
    path = folder / "league.sqlite"
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "ignore", str(ROOT / "tests" / "league_writers.py"), str(path)]
    done = subprocess.run(
        [*command, *map(str, (writers, each, kills))], env=env, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-2000:]
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()
    league = League(path, kuhn)
    found = sorted((run, iteration, r) for run, iteration, _, r in league.results())
    expected = sorted(
        (f"writer {w}", i, Result(f"a{w}", "b", i % 2, 1 + i % 3, 0, 2, i, -i))
        for w in range(writers) for i in range(each)
    )  # fmt: skip
    assert found == expected  # none lost, none twice
    league.close()
    return int(done.stdout)


def test_eight_writers_of_500_results_killed_at_random_lose_nothing(tmp_path, kuhn):
    kills = hammer(tmp_path, kuhn, 8, 500, 40)
    print(f"\n8 processes x 500 results, {kills} kill -9: 0 lost, 0 twice")
    assert kills >= 10


def test_members_and_their_files(league, tmp_path, kuhn):
    first = with_file(league, "p1", birth=1000, parent="main", notes={"run": "main"})
    assert first.sha256 == sha256_of(tmp_path / "p1.pt") and first.file == "p1.pt" and first.created
    assert with_file(league, "p1", birth=1000) == first  # once more changes nothing
    league.add(Member("calls", "heuristic", path="envs.leduc_heuristics.always_call", permanent=True))
    other = League(league.path, kuhn)  # what one has written another reads
    assert [m.name for m in other.members()] == ["p1", "calls"]
    other.close()
    (tmp_path / "p1.pt").write_bytes(b"another")
    with pytest.raises(ConfigError, match="name='p1': the league has a different member of that name"):
        league.add(Member("p1", "past", file="p1.pt"))
    replaced = league.add(Member("p1", "past", file="p1.pt", birth=5), replace=True)
    assert replaced.sha256 != first.sha256 and replaced.birth == 5


def test_members_of_a_class_with_other_arguments_are_others(league):
    first = league.add(Member("search", "external", path="my_pkg.MySearch", init_args={"depth": 2}))
    assert league.find("search") == first and first.init_args == {"depth": 2}
    with pytest.raises(ConfigError, match="a different member of that name"):
        league.add(Member("search", "external", path="my_pkg.MySearch", init_args={"depth": 3}))


@pytest.mark.parametrize(
    ("member", "error", "message"),
    [
        (Member("x", "ghost"), ConfigError, "role='ghost' of x: unknown; use one of main, past"),
        (Member("x", "past", state="lost"), ConfigError, "state='lost'"),
        (Member("", "random"), ConfigError, "name=''"),
        (Member("x", "past"), ConfigError, "x: a member of role past needs a file"),
        (Member("x", "heuristic"), ConfigError, "x: a member of role heuristic needs a path"),
        (Member("x", "external"), ConfigError, "x: a member of role external needs a file or path"),
        (Member("x", "external", file="nowhere.pt"), ArtefactError, "nowhere.pt of x: no such file"),
    ],
)
def test_bad_members_are_refused_by_name(league, member, error, message):
    with pytest.raises(error, match=message):
        league.add(member)
    assert league.members() == []


def test_retired_and_quarantined_members_stay_as_history(league):
    for name in ("p1", "p2"):
        with_file(league, name)
    league.add(Member("anchor", "random", permanent=True))
    league.set_state("retired", {"p1": "old", "anchor": "old"})
    with pytest.warns(UserWarning, match="p2 is quarantined: no such file; the others play on"):
        league.quarantine("p2", "no such file")
    assert {m.name: (m.state, m.reason) for m in league.members()} == {
        "p1": ("retired", "old"), "p2": ("quarantined", "no such file"), "anchor": ("active", ""),
    }  # fmt: skip


def test_results_count_for_both_and_move_both_ratings(league):
    for name in ("a", "b"):
        league.add(Member(name, "random"))
    assert league.record(
        "run",
        10,
        "train",
        [Result("a", "b", 0, 6, 2, 2, 5.0, -5.0, 40.0, 40.0), Result("b", "a", 1, 1, 0, 0, 1.0, 0.0, 1.0)],
    )
    payoffs = league.payoffs()
    assert payoffs["a", "b"] == (7.0, 11, 5.0, 40.0) and payoffs["b", "a"] == (4.0, 11, -4.0, 41.0)
    expected = rate_period({"a": Rating(), "b": Rating()}, [Score("a", "b", 7, 10), Score("b", "a", 1, 1)])
    assert {m.name: m.rating for m in league.members()} == expected
    assert not league.record("run", 10, "train", [Result("a", "b", 0, 6, 2, 2)])  # a resumed run comes by again
    assert league.payoffs() == payoffs and league.games() == {"a": 11, "b": 11}
    with pytest.raises(ConfigError, match="results of 'c': the league has no such member"):
        league.record("run", 11, "train", [Result("a", "b", 0, 1, 0, 0), Result("a", "c", 0, 1, 0, 0)])
    assert league.games() == {"a": 11, "b": 11}  # all or nothing


def test_excess_is_retired_by_rating(league):
    for i in range(5):
        with_file(league, f"p{i}", permanent=i == 0)
    league.add(Member("x", "random"))
    results = [Result(f"p{i}", "x", 0, 10 * i, 0, 40 - 10 * i) for i in range(4)]
    league.record("run", 0, "train", results)  # p4 has too few games to be judged
    assert league.retire_excess("past", keep_top=3) == ["p1", "p2"]  # p0, the worst, is permanent
    assert [m.name for m in league.members("active")] == ["p0", "p3", "p4", "x"]


def test_ratings_by_matches_and_over_a_run(league):
    """A batch is rated as the caller says, or not at all; rosters tell how ratings went."""
    with_file(league, "p")
    league.add(Member("x", "random"))
    league.add(Member("run", "main"))
    league.roster("run", 0, 0)
    results = [Result("p", "x", 0, 150, 0, 50), Result("p", "x", 1, 150, 0, 50)]
    assert not league.has_batch("run", 0, "matches")
    league.record("run", 0, "matches", results, rate_matches)
    expected = rate_matches({"p": Rating(), "x": Rating()}, [Score("p", "x", 300, 400)])
    assert league.has_batch("run", 0, "matches") and not league.has_batch("run", 1, "matches")
    assert league.find("p").rating == pytest.approx(expected["p"])
    before = league.find("p").rating
    league.record("run", 1, "train", results, None)
    assert league.find("p").rating == before and league.games()["p"] == 800
    league.set_rating("run", before)
    league.roster("run", 1, 0)
    over = league.rosters("run")
    assert list(over) == [0, 1] and over[0].own == Rating() and over[1].own == before == over[1].members["p"]
    assert league.rosters("another") == {}
    with pytest.raises(ConfigError, match="rating of 'ghost': the league has no such member"):
        league.set_rating("ghost", before)


def test_a_resumed_run_meets_the_same_members(league):
    with_file(league, "run-1", birth=100, notes={"run": "run"})
    with_file(league, "other-9", birth=900, notes={"run": "other"})
    league.add(Member("run", "main"))
    first = league.roster("run", 5, birth=150)
    assert list(first.members) == ["run-1", "other-9"] and first.own == Rating() and first.own_games == 0
    with_file(league, "run-2", birth=200, notes={"run": "run"})
    with_file(league, "spy", role="exploiter")
    league.set_state("retired", {"run-1": "old"})
    league.record("run", 5, "train", [Result("run", "other-9", 0, 10, 0, 0)])
    assert league.roster("run", 5, birth=150) == first  # as it was then
    later = league.roster("run", 6, birth=150)
    assert list(later.members) == ["other-9", "spy"]  # its own run-2 is not born yet
    assert later.own.rating > 1500 > later.members["other-9"].rating and later.own_games == 10
    assert list(league.roster("run", 7, birth=200).members) == ["other-9", "run-2", "spy"]


def test_a_league_is_of_one_game(league, tmp_path, leduc):
    with pytest.raises(ConfigError, match=r"is of kuhn_poker \(rules .*\), this run plays leduc_poker"):
        League(league.path, leduc)
    (tmp_path / "text").write_text("no database at all, but long enough to be looked at by SQLite" * 20)
    with pytest.raises(ArtefactError, match="is no league file"):
        League(tmp_path / "text", leduc)
    with sqlite3.connect(tmp_path / "other.sqlite") as connection:
        connection.execute("CREATE TABLE t (x)")
    connection.close()
    with pytest.raises(ArtefactError, match="an SQLite file of something else"):
        League(tmp_path / "other.sqlite", leduc)
