"""Damaged leagues: refused in words that name the file and the remedy, or read as they were written."""

import json
import random
import shutil
import sqlite3
from contextlib import closing

import pytest
from league_damage import content, damage, make_league, write_something

from lit_rl.league import league_file
from lit_rl.league.league import League, Member, Result
from lit_rl.league.league_file import LeagueFile
from lit_rl.league.ratings import Rating
from lit_rl.run.errors import ArtefactError, ConfigError


@pytest.fixture(scope="module")
def sound(tmp_path_factory, kuhn):
    """(folder, what it holds): a league that nobody has harmed."""
    folder = tmp_path_factory.mktemp("sound")
    return folder, make_league(folder, kuhn)


def outcome(path, kuhn, held):
    """refused, or whole; raises whatever else comes out of it."""
    try:
        league = League(path, kuhn)
        try:
            assert content(league) == held, "other content in silence"
            write_something(league)
        finally:
            league.close()
    except ArtefactError as error:
        said = str(error)
        assert said.startswith(f"league {path}: ") and ";" in said and len(said) < 1000 and "\n" not in said
        return "refused"
    return "whole"


def tally(sound, tmp_path, kuhn, count, seed=0):
    folder, held = sound
    found = {"refused": 0, "whole": 0}
    for i in range(count):
        path, rng = tmp_path / f"{i}.sqlite", random.Random(1000 * seed + i)
        shutil.copy(folder / "league.sqlite", path)
        kind = damage(path, rng)
        try:
            found[outcome(path, kuhn, held)] += 1
        except Exception as error:
            raise AssertionError(f"damage {i}, {kind}") from error
        for left in tmp_path.glob(f"{i}.sqlite*"):
            left.unlink()
    print(f"\n{count} damaged leagues: {found['refused']} refused, {found['whole']} unharmed, 0 bare, 0 silent")
    return found


def test_40_damages_give_no_bare_error_and_no_other_content(sound, tmp_path, kuhn):
    found = tally(sound, tmp_path, kuhn, 40)
    assert found["refused"] > 20 and found["whole"] > 0  # a byte that nobody uses may be anything


@pytest.mark.slow
def test_1000_damages_give_no_bare_error_and_no_other_content(sound, tmp_path, kuhn):
    assert tally(sound, tmp_path, kuhn, 1000, seed=1)["refused"] > 500


def damaged_under_a_reader(sound, tmp_path, kuhn, count):
    """The file is harmed while a league is open: how often that was noticed."""
    folder, held = sound
    noticed = 0
    for i in range(count):
        path = tmp_path / f"{i}.sqlite"
        shutil.copy(folder / "league.sqlite", path)
        league = League(path, kuhn)
        damage(path, random.Random(5000 + i))
        try:
            assert content(league) == held
        except ArtefactError as error:
            assert str(error).startswith(f"league {path}: ")
            noticed += 1
        finally:
            league.close()
    return noticed


def test_a_file_that_is_damaged_while_open_gives_errors_of_ours(sound, tmp_path, kuhn):
    damaged_under_a_reader(sound, tmp_path, kuhn, 15)


@pytest.mark.slow
def test_many_files_that_are_damaged_while_open(sound, tmp_path, kuhn):
    print(f"\n300 leagues damaged while open: {damaged_under_a_reader(sound, tmp_path, kuhn, 300)} noticed, 0 silent")


def damaged_logs(sound, tmp_path, kuhn, count):
    """The -wal is harmed: as by a power cut, the last transactions may be gone, all others are there."""
    folder, held = sound
    refused = 0
    for i in range(count):
        place = tmp_path / str(i)
        shutil.copytree(folder / "open", place)
        damage(place / "league.sqlite-wal", random.Random(9000 + i))
        (place / "league.sqlite-shm").unlink(missing_ok=True)
        try:
            league = League(place / "league.sqlite", kuhn)
        except ArtefactError as error:
            assert str(error).startswith(f"league {place / 'league.sqlite'}: ")
            refused += 1
        else:
            results = league.results()
            assert results == held[1][: len(results)]
            league.close()
        shutil.rmtree(place)
    return refused


def test_a_damaged_write_ahead_log_loses_its_end_at_most(sound, tmp_path, kuhn):
    damaged_logs(sound, tmp_path, kuhn, 12)


@pytest.mark.slow
def test_many_damaged_write_ahead_logs(sound, tmp_path, kuhn):
    print(
        f"\n200 damaged logs: {damaged_logs(sound, tmp_path, kuhn, 200)} refused, the others a beginning of the truth"
    )


def test_an_empty_file_and_a_log_without_its_file_are_no_new_league(tmp_path, kuhn):
    path = tmp_path / "league.sqlite"
    path.write_bytes(b"")
    with pytest.raises(ArtefactError, match="is empty; take a copy from before"):
        League(path, kuhn)
    path.unlink()
    (tmp_path / "league.sqlite-wal").write_bytes(b"x" * 100)
    with pytest.raises(ArtefactError, match="is gone, and its last changes are left in"):
        League(path, kuhn)
    assert not path.exists()


CHANGES = {
    "a rating": "UPDATE members SET rating = 2400 WHERE name = 'past1'",
    "a path": "UPDATE members SET path = 'os.system' WHERE name = 'search'",
    "a file": "UPDATE members SET file = '/etc/passwd' WHERE name = 'past2'",
    "a result": "UPDATE results SET wins = wins + 1 WHERE rowid = 7",
    "a type": "UPDATE results SET wins = 'many' WHERE rowid = 7",
    "a batch": "UPDATE batches SET source = 'arena' WHERE id = 3",
    "a roster": "UPDATE rosters SET roster = '[{}, [1500, 350, 0.06], 0]' WHERE iteration = 5",
    "a result less": "DELETE FROM results WHERE rowid = 7",
    "a member less": "DELETE FROM members WHERE name = 'past9'",
    "a fact": "UPDATE facts SET value = '\"1.1\"' WHERE name = 'version'",
    "a digest": "UPDATE digests SET digest = digest + 1 WHERE name = 'results'",
    "no digest": "DELETE FROM digests",
    "a trigger": "CREATE TRIGGER t AFTER INSERT ON results BEGIN DELETE FROM members; END",
    "a view": "DROP TABLE rosters; CREATE VIEW rosters AS SELECT 'learner' AS run, 0 AS iteration, '[]' AS roster",
    "a column": "ALTER TABLE members ADD COLUMN more TEXT",
    "text that is none": "UPDATE members SET reason = CAST(x'ff00fe' AS TEXT) WHERE name = 'past1'",
    "enormous arguments": "UPDATE members SET init_args = zeroblob(70000000) WHERE name = 'search'",
}


@pytest.mark.parametrize("name", CHANGES)
def test_rows_that_others_have_changed_are_refused(sound, tmp_path, kuhn, name):
    path = tmp_path / "league.sqlite"
    shutil.copy(sound[0] / "league.sqlite", path)
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(CHANGES[name])
        connection.commit()
    with pytest.raises(ArtefactError, match=r"league.sqlite: is damaged .*; take a copy from before"):
        League(path, kuhn)


FORGED = [
    {"role": "ghost"}, {"state": "asleep"}, {"birth": -1}, {"permanent": 7}, {"init_args": "[]"}, {"init_args": "{"},
    {"notes": "3"}, {"notes": "[" * 5000}, {"init_args": '{"a": "' + "x" * 200_000 + '"}'}, {"deviation": 0.0},
    {"rating": 1e308, "volatility": -1.0}, {"file": "a\0b"},
]  # fmt: skip


@pytest.mark.parametrize("columns", FORGED, ids=lambda x: next(iter(x)))
def test_rows_with_right_hashes_that_mean_nothing_are_refused(sound, tmp_path, kuhn, columns):
    path = tmp_path / "league.sqlite"
    shutil.copy(sound[0] / "league.sqlite", path)
    file = LeagueFile(path, {})
    with file.transaction():
        (row,) = file.rows("members", "WHERE name = 'past3'")
        row = dict(zip(league_file._columns()["members"], row)) | columns
        file.update("members", tuple(row.values()))
    file.close()
    with pytest.raises(ArtefactError, match=r"member 'past3' is not as it should be") as caught:
        League(path, kuhn)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("roster", ["[]", "7", '[{"nobody": [1500, 350, 0.06]}, [1500, 350, 0.06], 0]', "[" * 9999])
def test_rosters_that_mean_nothing_are_refused(sound, tmp_path, kuhn, roster):
    path = tmp_path / "league.sqlite"
    shutil.copy(sound[0] / "league.sqlite", path)
    league = League(path, kuhn)
    with league._rows.transaction():
        league._rows.insert("rosters", ("learner", 999, roster))
    with pytest.raises(ArtefactError, match="the roster of 'learner', iteration 999, is not as it should be"):
        league.roster("learner", 999, 0)
    league.close()


def test_what_no_league_can_keep_is_refused_before_it_is_written(sound, tmp_path, kuhn):
    path = tmp_path / "league.sqlite"
    shutil.copy(sound[0] / "league.sqlite", path)
    league = League(path, kuhn)
    before = content(league)
    for member in (
        Member("n", "random", notes={"x": "y" * 200_000}), Member("n", "random", rating=Rating(float("nan"))),
        Member("n", "random", birth=-3),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match="n: is no member"):
            league.add(member)
    for result in (Result("learner", "calls", 0, 1, 0, 0, float("inf")), Result("learner", "calls", 0, 2**70, 0, 0)):
        with pytest.raises(ValueError, match="must be finite, and fit into 64 bits"):
            league.record("learner", 777, "train", [result], rate=None)
    assert content(league) == before
    league.close()
    assert outcome(path, kuhn, before) == "whole" and json.dumps(before[4])
