"""A league: who exists, who beat whom, who stands where. One SQLite file, which several processes may use at once.

Every change is one transaction in write-ahead mode. What `record`, `add` and the others have returned from survives the
death of the process, and of all others; a power cut may take the last transactions, never the file. Members are
never deleted: retired ones stay as history, those that cannot be loaded are quarantined and the others play on.

The league is of one game and one version of its rules, with one interface (shape and type of obs, number of actions
and players); what else a run is configured with does not matter.
"""

import json
import sqlite3
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import NamedTuple

from envs.game import Interface
from lit_rl.league.matchmaking import ROLES
from lit_rl.league.player_file import interface_of, sha256_of
from lit_rl.league.ratings import Rating, Score, rate_period, to_retire
from lit_rl.run.errors import ArtefactError, ConfigError, StorageError

STATES = ("active", "retired", "quarantined")
BUSY_SECONDS = 60.0  # how long to wait for another process's transaction
APPLICATION_ID, SCHEMA_VERSION = 0x4C52_4C31, 2  # "LRL1"
NEEDS = {"heuristic": ("path",), "past": ("file",), "exploiter": ("file",), "external": ("file", "path")}  # one of them
SCHEMA = """
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS members (
    name TEXT PRIMARY KEY, role TEXT NOT NULL, state TEXT NOT NULL, birth INTEGER NOT NULL, parent TEXT, file TEXT,
    sha256 TEXT, path TEXT, init_args TEXT NOT NULL, permanent INTEGER NOT NULL, created TEXT NOT NULL,
    reason TEXT NOT NULL, notes TEXT NOT NULL, rating REAL NOT NULL, deviation REAL NOT NULL, volatility REAL NOT NULL);
CREATE TABLE IF NOT EXISTS batches (
    id INTEGER PRIMARY KEY, run TEXT NOT NULL, iteration INTEGER NOT NULL, source TEXT NOT NULL,
    UNIQUE (run, iteration, source));
CREATE TABLE IF NOT EXISTS results (
    batch INTEGER NOT NULL REFERENCES batches (id), member TEXT NOT NULL REFERENCES members (name),
    opponent TEXT NOT NULL REFERENCES members (name), seat INTEGER NOT NULL, wins INTEGER NOT NULL,
    draws INTEGER NOT NULL, losses INTEGER NOT NULL, member_return REAL NOT NULL, opponent_return REAL NOT NULL);
CREATE INDEX IF NOT EXISTS results_of ON results (member, opponent);
CREATE TABLE IF NOT EXISTS rosters (
    run TEXT NOT NULL, iteration INTEGER NOT NULL, roster TEXT NOT NULL, PRIMARY KEY (run, iteration));
"""


class Member(NamedTuple):
    """One agent of the league, and how it plays: a player file, an import path (`lit_rl.league.players`), or at random.

    The one record of a member: the file's rows, the roster that a run was offered and what a checkpoint says of those
    who sit in its games are all `Member`s.
    """

    name: str
    role: str
    state: str = "active"
    birth: int = 0  # decisions its run had sampled
    parent: str | None = None  # name of the member it comes from, or was trained against
    file: str | None = None  # of `lit_rl.league.player_file`, relative to the league's folder where it lies inside
    sha256: str | None = None
    path: str | None = None  # import path of a heuristic or of a class of players
    init_args: dict = {}  # noqa: RUF012 (never written to): of such a class, after the game
    permanent: bool = False  # never retired
    created: str = ""  # YYYY-MM-DD
    reason: str = ""  # why it is retired or quarantined
    notes: dict = {}  # noqa: RUF012 (never written to)
    rating: Rating = Rating()


class Result(NamedTuple):
    """Games of `member`, sitting in `seat`, against `opponent`; returns are sums over the games, in reward units.

    The table has a seat for each team of the game: where everybody plays alone, a seat is a player. A team's return is
    the mean over its players, and whose return is larger has won. A game among more than two teams counts once for each
    of the others: `member` against that team alone, whatever the rest got. Ratings take these pairs as they are, so a
    game among four weighs as much as three games of two. In a match (`play_match`) one opponent has all other seats,
    and a game counts once, against their mean.
    """

    member: str
    opponent: str
    seat: int  # the team's number in the game
    wins: int
    draws: int
    losses: int
    member_return: float = 0.0  # of its team, a player's mean
    opponent_return: float = 0.0

    @property
    def games(self) -> int:
        return self.wins + self.draws + self.losses


class Payoff(NamedTuple):
    """What one member got against another over all results, both ways round."""

    score: float  # wins + draws / 2
    games: int
    total_return: float


class Roster(NamedTuple):
    """Whom a run may meet, and where they and itself stood when it was drawn up."""

    members: dict[str, Rating]
    own: Rating
    own_games: int


class League:
    """The league in the file `path`, which is created if there is none.

    Raises:
        ConfigError: the file is another game's league, or another version's of its rules.
        ArtefactError: the file is no league. StorageError: it cannot be opened there.
    """

    def __init__(self, path: str | Path, game: Interface):
        self.path, self.game = Path(path), game
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None)
            self._open()
        except sqlite3.OperationalError as error:
            raise StorageError(
                f"league {self.path}: cannot be opened ({error}); choose a file you may write"
            ) from error
        except sqlite3.DatabaseError as error:
            raise ArtefactError(f"league {self.path}: is no league file ({error}); move it away") from error
        except OSError as error:
            raise StorageError(f"league {self.path}: cannot be created ({error.strerror})") from error

    def _open(self) -> None:
        until = time.monotonic() + BUSY_SECONDS
        while True:  # SQLite does not wait by itself where two processes switch to write-ahead mode at once
            try:
                self._connection.execute("PRAGMA journal_mode = WAL").fetchone()
                break
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > until:
                    raise
                time.sleep(0.01)
        self._connection.execute("PRAGMA synchronous = NORMAL")
        found = self._connection.execute("PRAGMA application_id").fetchone()[0]
        tables = self._connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if found != APPLICATION_ID and tables:
            raise ArtefactError(f"league {self.path}: an SQLite file of something else; choose another file")
        whose = {"game": self.game.name, "version": self.game.version, "interface": interface_of(self.game)}
        with self._transaction():
            if not self._rows("SELECT name FROM sqlite_master WHERE name = 'facts'"):
                for statement in SCHEMA.split(";"):
                    self._connection.execute(statement)
                self._connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                facts = {"schema": SCHEMA_VERSION} | whose
                self._many("INSERT INTO facts VALUES (?, ?)", [(k, json.dumps(v)) for k, v in facts.items()])
            facts = {name: json.loads(value) for name, value in self._rows("SELECT name, value FROM facts")}
        if facts.pop("schema") != SCHEMA_VERSION:
            raise ArtefactError(
                f"league {self.path}: written by another version of lit-rl; export it there, import here"
            )
        for name, value in whose.items():
            if facts[name] != value:
                raise ConfigError(
                    f"league {self.path}: is of {facts['game']} (rules {facts['version']}), this run plays "
                    f"{self.game.name} (rules {self.game.version}), and their {name} differs; use another file"
                )

    def close(self) -> None:
        self._connection.close()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """All or nothing; waits for other processes' transactions."""
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    def _rows(self, query: str, values: Iterable = ()) -> list[tuple]:
        return self._connection.execute(query, tuple(values)).fetchall()

    def _many(self, statement: str, rows: Iterable[tuple]) -> None:
        self._connection.executemany(statement, rows)

    def resolve(self, file: str) -> Path:
        """Where a member's file lies."""
        return self.path.parent / file  # an absolute one stays as it is

    def add(self, member: Member, replace: bool = False) -> Member:
        """Take in a new member; `sha256` is computed where its file is given without. Once more changes nothing.

        Args:
            replace: one of the same name gets the new file (the same run came by again); its results stay.

        Raises:
            ConfigError: unknown role or state, a name in use by a different member, or neither file nor path where the
                role needs one. ArtefactError: no such file.
        """
        if member.role not in ROLES:
            raise ConfigError(f"role={member.role!r} of {member.name}: unknown; use one of {', '.join(ROLES)}")
        if member.state not in STATES:
            raise ConfigError(f"state={member.state!r} of {member.name}: unknown; use one of {', '.join(STATES)}")
        if not member.name:
            raise ConfigError("name='': a member needs one")
        if member.state == "active" and (lack := what_it_lacks(member)):
            raise ConfigError(f"{member.name}: a member of role {member.role} needs a {lack}")
        if member.file is not None:
            where = self.resolve(member.file)
            if member.sha256 is None:
                if not where.is_file():
                    raise ArtefactError(f"file={where} of {member.name}: no such file")
                member = member._replace(sha256=sha256_of(where))
            member = member._replace(file=self._relative(where))
        member = member._replace(created=member.created or date.today().isoformat())
        with self._transaction():
            old = self.find(member.name)
            if old is None:
                self._many(f"INSERT INTO members VALUES ({', '.join('?' * 16)})", [_row(member)])
            elif how_it_plays(old) != how_it_plays(member):
                if not replace or old.role != member.role:
                    raise ConfigError(f"name={member.name!r}: the league has a different member of that name")
                new = {"file": member.file, "sha256": member.sha256, "path": member.path, "birth": member.birth}
                new |= {"init_args": json.dumps(member.init_args), "state": member.state, "reason": ""}
                values = ", ".join(f"{column} = ?" for column in new)
                self._many(f"UPDATE members SET {values} WHERE name = ?", [(*new.values(), member.name)])
        return self.find(member.name)

    def _relative(self, where: Path) -> str:
        where, folder = where.absolute(), self.path.parent.absolute()
        return str(where.relative_to(folder)) if where.is_relative_to(folder) else str(where)

    def find(self, name: str) -> Member | None:
        return next(iter(self._members("WHERE name = ?", [name])), None)

    def members(self, *states: str) -> list[Member]:
        """All members, or those in one of `states`, in the order they came."""
        marks = ", ".join("?" * len(states))
        return self._members(f"WHERE state IN ({marks})" if states else "", states)

    def _members(self, where: str, values: Iterable) -> list[Member]:
        return [_member(row) for row in self._rows(f"SELECT * FROM members {where} ORDER BY rowid", values)]

    def set_state(self, state: str, reasons: Mapping[str, str]) -> None:
        """Make the members named in `reasons` active, retired or quarantined; permanent ones are never retired."""
        if state not in STATES:
            raise ConfigError(f"state={state!r}: unknown; use one of {', '.join(STATES)}")
        kept = " AND NOT permanent" if state == "retired" else ""
        with self._transaction():
            self._many(
                f"UPDATE members SET state = ?, reason = ? WHERE name = ?{kept}",
                [(state, reason, name) for name, reason in reasons.items()],
            )

    def quarantine(self, name: str, reason: str) -> None:
        """Take a member that cannot be loaded out of play, with a warning; the others play on."""
        self.set_state("quarantined", {name: reason})
        warnings.warn(f"league {self.path}: {name} is quarantined: {reason}; the others play on", stacklevel=3)

    def retire_excess(self, role: str, keep_top: int, min_games: int = 20) -> list[str]:
        """Retire the lowest rated active members of `role` beyond `keep_top` (see `ratings.to_retire`)."""
        members = [m for m in self.members("active") if m.role == role]
        games, ratings = self.games(), {m.name: m.rating for m in members}
        names = to_retire(ratings, ratings, games, keep_top, min_games, [m.name for m in members if m.permanent])
        self.set_state("retired", dict.fromkeys(names, f"not among the top {keep_top}"))
        return names

    def keep_newest(self, role: str, run: str, keep: int) -> None:
        """Retire all but the `keep` newest members of `role` that the run `run` brought in."""
        own = [m for m in self.members("active") if m.role == role and m.notes.get("run") == run]
        own.sort(key=lambda m: (m.birth, m.name))
        self.set_state("retired", {m.name: f"not among the {keep} newest" for m in own[: max(0, len(own) - keep)]})

    def record(self, run: str, iteration: int, source: str, results: Iterable[Result], rate: bool = True) -> bool:
        """Take in a batch of results, and settle it as a rating period; False if this batch is there already.

        A run that is resumed plays its last iterations again, so a batch is known by run, iteration and source.

        Raises:
            ConfigError: a name that is no member. ValueError: negative counts.
        """
        results = [r for r in results if r.games > 0]
        for r in results:
            if min(r.wins, r.draws, r.losses) < 0:
                raise ValueError(f"{r}: counts must not be negative")
        with self._transaction():
            ratings = {m.name: m.rating for m in self.members()}
            for name in {name for r in results for name in r[:2]} - ratings.keys():
                raise ConfigError(f"results of {name!r}: the league has no such member; add it first")
            try:
                cursor = self._connection.execute(
                    "INSERT INTO batches (run, iteration, source) VALUES (?, ?, ?)", (run, iteration, source)
                )
            except sqlite3.IntegrityError:
                return False
            self._many(
                "INSERT INTO results VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", [(cursor.lastrowid, *r) for r in results]
            )
            if rate:
                scores = [Score(r.member, r.opponent, r.wins + 0.5 * r.draws, r.games) for r in results]
                after = rate_period(ratings, scores)
                self._many(
                    "UPDATE members SET rating = ?, deviation = ?, volatility = ? WHERE name = ?",
                    [(*rating, name) for name, rating in after.items()],
                )
        return True

    def results(self) -> list[tuple[str, int, str, Result]]:
        """All of them: (run, iteration, source, result)."""
        rows = self._rows(
            "SELECT run, iteration, source, member, opponent, seat, wins, draws, losses, member_return, "
            "opponent_return FROM results JOIN batches ON batches.id = results.batch ORDER BY results.rowid"
        )
        return [(*row[:3], Result(*row[3:])) for row in rows]

    def payoffs(self, source: str | None = None) -> dict[tuple[str, str], Payoff]:
        """(member, opponent) -> what the first got against the second, over all results or those of one source."""
        table: dict[tuple[str, str], list[float]] = {}
        where = "WHERE source = ?" if source else ""
        for member, opponent, wins, draws, losses, mine, theirs in self._rows(
            "SELECT member, opponent, sum(wins), sum(draws), sum(losses), sum(member_return), sum(opponent_return) "
            f"FROM results JOIN batches ON batches.id = results.batch {where} GROUP BY member, opponent",
            [source] if source else [],
        ):
            for pair, won, total in (((member, opponent), wins, mine), ((opponent, member), losses, theirs)):
                entry = table.setdefault(pair, [0.0, 0, 0.0])
                entry[0] += won + 0.5 * draws
                entry[1] += wins + draws + losses
                entry[2] += total
        return {pair: Payoff(*entry) for pair, entry in table.items()}

    def games(self) -> dict[str, int]:
        """Games played by each member that has played."""
        games: dict[str, int] = {}
        for (name, _), payoff in self.payoffs().items():
            games[name] = games.get(name, 0) + payoff.games
        return games

    def roster(self, run: str, iteration: int, birth: int) -> Roster:
        """Who may be met by `run` from `iteration` on: the active members, main ones and its own unborn ones left out.

        Asked again for the same iteration, as a resumed run does, the answer is the first one.

        Args:
            birth: decisions of the run so far; its own snapshots that came later are of a time to come.
        """
        with self._transaction():
            rows = self._rows("SELECT roster FROM rosters WHERE run = ? AND iteration = ?", (run, iteration))
            if not rows:
                members = {
                    m.name: m.rating for m in self.members("active")
                    if m.role != "main" and not (m.notes.get("run") == run and m.birth > birth)
                }  # fmt: skip
                own = self.find(run)
                content = [members, Rating() if own is None else own.rating, self.games().get(run, 0)]
                rows = [(json.dumps(content),)]
                self._many("INSERT INTO rosters VALUES (?, ?, ?)", [(run, iteration, rows[0][0])])
        members, own, games = json.loads(rows[0][0])
        return Roster({name: Rating(*rating) for name, rating in members.items()}, Rating(*own), games)


def what_it_lacks(member: Member) -> str:
    """What its role needs and the member does not have, such as "file"; "" if nothing."""
    needs = NEEDS.get(member.role, ())
    return "" if not needs or any(getattr(member, name) for name in needs) else " or ".join(needs)


def how_it_plays(member: Member) -> tuple:
    """Two members for whom this is the same play the same."""
    return member.role, member.sha256, member.path, member.init_args


def _row(member: Member) -> tuple:
    """In the columns' order."""
    init_args, notes = json.dumps(member.init_args), json.dumps(member.notes)
    return (
        *member[:8], init_args, int(member.permanent), member.created, member.reason, notes, *member.rating
    )  # fmt: skip


def _member(row: tuple) -> Member:
    """Of a row of the table, in the columns' order."""
    init_args, permanent, created, reason, notes, *rating = row[8:]
    return Member(
        *row[:8], json.loads(init_args), bool(permanent), created, reason, json.loads(notes), Rating(*rating)
    )  # fmt: skip
