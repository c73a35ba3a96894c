"""A league: who exists, who beat whom, who stands where. One SQLite file, which several processes may use at once.

Every change is one transaction in write-ahead mode. What `record`, `add` and the others have returned from survives the
death of the process, and of all others; a power cut may take the last transactions, never the file. Members are
never deleted: retired ones stay as history, those that cannot be loaded are quarantined and the others play on.

The league is of one game and one version of its rules, with one interface (shape and type of obs, number of actions
and players); what else a run is configured with does not matter.
"""

import json
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import NamedTuple

from envs.game import Interface
from lit_rl.league.league_file import REMEDY, LeagueFile
from lit_rl.league.matchmaking import ROLES
from lit_rl.league.player_file import interface_of, sha256_of
from lit_rl.league.ratings import Rating, Score, rate_period, to_retire
from lit_rl.run.errors import ArtefactError, ConfigError

STATES = ("active", "retired", "quarantined")
NEEDS = {"heuristic": ("path",), "past": ("file",), "exploiter": ("file",), "external": ("file", "path")}  # one of them
IMPOSSIBLE = (
    "min(seat, wins, draws, losses, member_square, opponent_square) < 0 "
    "OR max(abs(member_return), abs(opponent_return), member_square, opponent_square) > 1e300"
)
LONGEST_JSON = 100_000  # characters of init_args and of notes
Rate = Callable[[Mapping[str, Rating], Iterable[Score]], dict[str, Rating]]  # ratings before -> those of who played


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
    """Games of `member`, sitting in `seat`, against `opponent`; returns, and squares of a game's return, are sums over
    the games, in reward units.

    The table has a seat for each team of the game: where everybody plays alone, a seat is a player. A team's return is
    the mean over its players, and whose return is larger has won. A game among more than two teams counts once for each
    of the others: `member` against that team alone, whatever the rest got. Ratings take these pairs as they are, so a
    game among four weighs as much as three games of two. In a match (`match_players`) one opponent has all other seats,
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
    member_square: float = 0.0
    opponent_square: float = 0.0

    @property
    def games(self) -> int:
        return self.wins + self.draws + self.losses


class Payoff(NamedTuple):
    """What one member got against another over all results, both ways round."""

    score: float  # wins + draws / 2
    games: int
    total_return: float
    total_square: float  # of each game's return


class Roster(NamedTuple):
    """Whom a run may meet, and where they and itself stood when it was drawn up."""

    members: dict[str, Rating]
    own: Rating
    own_games: int


class League:
    """The league in the file `path`, which is created if there is none.

    Raises:
        ConfigError: the file is another game's league, or another version's of its rules.
        ArtefactError: the file is no league, or damaged (`lit_rl.league.league_file`). StorageError: it cannot be
            opened there.
    """

    def __init__(self, path: str | Path, game: Interface):
        self.path, self.game = Path(path), game
        whose = {"game": game.name, "version": game.version, "interface": interface_of(game)}
        self._rows = LeagueFile(self.path, whose)
        try:
            self._refuse_others(whose)
            self.members()  # of which each is looked at
            if odd := self._rows.query(f"SELECT member, opponent FROM results WHERE {IMPOSSIBLE} LIMIT 1"):
                raise ArtefactError(f"league {self.path}: a result of {str(odd[0])[:200]} cannot be; {REMEDY}")
        except BaseException:
            self.close()
            raise

    def _refuse_others(self, whose: dict) -> None:
        with self._well_formed("facts"):
            facts = {name: json.loads(value) for name, value in self._rows.rows("facts")}
            differs = [name for name, value in whose.items() if facts[name] != value]
            if differs:
                raise ConfigError(
                    f"league {self.path}: is of {str(facts['game'])[:200]} (rules {str(facts['version'])[:200]}), this "
                    f"run plays {self.game.name} (rules {self.game.version}), and their {differs[0]} differs; use "
                    "another file"
                )

    @contextmanager
    def _well_formed(self, part: str) -> Iterator[None]:
        """Whatever a row that means nothing makes us stumble over becomes an ArtefactError."""
        try:
            yield
        except ConfigError:
            raise
        except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
            what = f"{type(error).__name__}: {str(error)[:200]}"
            raise ArtefactError(f"league {self.path}: {part} is not as it should be ({what}); {REMEDY}") from error

    def close(self) -> None:
        self._rows.close()

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
        try:
            _member(_row(member))
        except (TypeError, ValueError, AttributeError, RecursionError) as error:
            raise ConfigError(f"{member.name[:200]}: is no member ({str(error)[:200]})") from error
        with self._rows.transaction():
            old = self.find(member.name)
            if old is None:
                self._rows.insert("members", _row(member))
            elif how_it_plays(old) != how_it_plays(member):
                if not replace or old.role != member.role:
                    raise ConfigError(f"name={member.name!r}: the league has a different member of that name")
                new = {
                    name: getattr(member, name) for name in ("file", "sha256", "path", "birth", "init_args", "state")
                }
                self._rows.update("members", _row(old._replace(**new, reason="")))
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
        members = []
        for row in self._rows.rows("members", where, values):
            with self._well_formed(f"member {row[0][:200]!r}"):
                members.append(_member(row))
        return members

    def set_state(self, state: str, reasons: Mapping[str, str]) -> None:
        """Make the members named in `reasons` active, retired or quarantined; permanent ones are never retired."""
        if state not in STATES:
            raise ConfigError(f"state={state!r}: unknown; use one of {', '.join(STATES)}")
        with self._rows.transaction():
            for member in self.members():
                if member.name in reasons and not (state == "retired" and member.permanent):
                    self._rows.update("members", _row(member._replace(state=state, reason=reasons[member.name])))

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

    def record(
        self, run: str, iteration: int, source: str, results: Iterable[Result], rate: Rate | None = rate_period
    ) -> bool:
        """Take in a batch of results, and settle it as a rating period; False if this batch is there already.

        A run that is resumed plays its last iterations again, so a batch is known by run, iteration and source.

        Args:
            rate: how ratings follow from it, a function of `ratings`; None leaves them as they are.

        Raises:
            ConfigError: a name that is no member. ValueError: negative counts.
        """
        results = [r for r in results if r.games > 0]
        for r in results:
            if min(r.wins, r.draws, r.losses) < 0:
                raise ValueError(f"{r}: counts must not be negative")
        with self._rows.transaction():
            members = {m.name: m for m in self.members()}
            for name in {name for r in results for name in r[:2]} - members.keys():
                raise ConfigError(f"results of {name!r}: the league has no such member; add it first")
            if self.has_batch(run, iteration, source):
                return False
            ((batch,),) = self._rows.query("SELECT coalesce(max(id), 0) + 1 FROM batches")
            self._rows.insert("batches", (batch, run, iteration, source))
            self._rows.insert("results", *((batch, *r) for r in results))
            if rate is not None:
                scores = [Score(r.member, r.opponent, r.wins + 0.5 * r.draws, r.games) for r in results]
                after = rate({name: m.rating for name, m in members.items()}, scores)
                for name, rating in after.items():
                    if rating != members[name].rating:
                        self._rows.update("members", _row(members[name]._replace(rating=rating)))
        return True

    def has_batch(self, run: str, iteration: int, source: str) -> bool:
        """Whether this batch of results has been taken in."""
        where = "WHERE run = ? AND iteration = ? AND source = ?"
        return bool(self._rows.rows("batches", where, (run, iteration, source)))

    def set_rating(self, name: str, rating: Rating) -> None:
        """Rate the member `name` as somebody else is who plays as it does.

        Raises:
            ConfigError: no such member.
        """
        with self._rows.transaction():
            member = self.find(name)
            if member is None:
                raise ConfigError(f"rating of {name!r}: the league has no such member; add it first")
            self._rows.update("members", _row(member._replace(rating=rating)))

    def results(self) -> list[tuple[str, int, str, Result]]:
        """All of them: (run, iteration, source, result)."""
        rows = self._rows.query(
            "SELECT run, iteration, source, member, opponent, seat, wins, draws, losses, member_return, "
            "opponent_return, member_square, opponent_square FROM results JOIN batches ON batches.id = results.batch "
            "ORDER BY results.rowid"
        )
        return [(*row[:3], Result(*row[3:])) for row in rows]

    def payoffs(self, source: str | None = None) -> dict[tuple[str, str], Payoff]:
        """(member, opponent) -> what the first got against the second, over all results or those of one source."""
        table: dict[tuple[str, str], list[float]] = {}
        where = "WHERE source = ?" if source else ""
        for member, opponent, wins, draws, losses, *sums in self._rows.query(
            "SELECT member, opponent, sum(wins), sum(draws), sum(losses), sum(member_return), sum(opponent_return), "
            "sum(member_square), sum(opponent_square) "
            f"FROM results JOIN batches ON batches.id = results.batch {where} GROUP BY member, opponent",
            [source] if source else [],
        ):
            for pair, won, side in (((member, opponent), wins, 0), ((opponent, member), losses, 1)):
                entry = table.setdefault(pair, [0.0, 0, 0.0, 0.0])
                more = (won + 0.5 * draws, wins + draws + losses, sums[side], sums[2 + side])
                entry[:] = (x + y for x, y in zip(entry, more))
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
        with self._rows.transaction():
            where = "WHERE run = ? AND iteration = ?"
            rows = self._rows.rows("rosters", where, (run, iteration))
            if not rows:
                members = {
                    m.name: m.rating for m in self.members("active")
                    if m.role != "main" and not (m.notes.get("run") == run and m.birth > birth)
                }  # fmt: skip
                own = self.find(run)
                content = [members, Rating() if own is None else own.rating, self.games().get(run, 0)]
                rows = [(run, iteration, json.dumps(content))]
                self._rows.insert("rosters", rows[0])
        return self._roster(*rows[0])

    def rosters(self, run: str) -> dict[int, Roster]:
        """iteration -> what `run` was offered from then on, in order: how ratings went over the run."""
        rows = sorted(self._rows.rows("rosters", "WHERE run = ?", [run]), key=lambda row: row[1])
        return {iteration: self._roster(run, iteration, content) for _, iteration, content in rows}

    def _roster(self, run: str, iteration: int, content: str) -> Roster:
        with self._well_formed(f"the roster of {run[:200]!r}, iteration {iteration},"):
            members, own, games = json.loads(content)
            known = {m.name for m in self.members()}
            if unknown := members.keys() - known:
                raise ValueError(f"{min(unknown)[:200]!r} is no member")
            return Roster({name: _rating(x) for name, x in members.items()}, _rating(own), int(games))


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
    """Of a row of the table, in the columns' order.

    Raises:
        ValueError, TypeError, AttributeError: the row says what no member can be.
    """
    name, role, state, birth, parent, file, sha256, path, init_args, permanent, created, reason, notes, *rating = row
    for column, value, known in (("role", role, ROLES), ("state", state, STATES), ("permanent", permanent, (0, 1))):
        if value not in known:
            raise ValueError(f"{column}={str(value)[:200]!r}: unknown")
    if birth < 0:
        raise ValueError(f"birth={birth}: must not be negative")
    if max(len(init_args), len(notes)) > LONGEST_JSON:
        raise ValueError(f"init_args or notes have more than {LONGEST_JSON} characters")
    if "\0" in (file or ""):
        raise ValueError("file has a zero byte in its name")
    init_args, notes = json.loads(init_args), json.loads(notes)
    for column, value in (("init_args", init_args), ("notes", notes)):
        if not isinstance(value, dict):
            raise ValueError(f"{column} is a {type(value).__name__}, not a dictionary")
    return Member(
        name, role, state, birth, parent, file, sha256, path, init_args, bool(permanent), created, reason, notes,
        _rating(rating),
    )  # fmt: skip


def _rating(values: list) -> Rating:
    rating = Rating(*map(float, values))
    if not (all(map(math.isfinite, rating)) and rating.deviation > 0 and rating.volatility > 0):
        raise ValueError(f"rating={list(rating)}: must be finite, deviation and volatility positive")
    return rating
