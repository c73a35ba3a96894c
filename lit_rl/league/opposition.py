"""The opposition: whom the learner plays against, in each game of its env.

A league says who exists, a matchmaker how often each is met, a seating who sits where; an `Opposition` holds the three
together. It is the `Opponents` of `lit_rl.rollout.collect` and knows no Trainer. Letters: K members, S seats.
"""

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from envs.env import ALL_ROWS, Env
from envs.game import Interface
from lit_rl.league.league import League, Member, Result, how_it_plays
from lit_rl.league.matchmaking import Matchmaker, Pool, draw_shares
from lit_rl.league.players import (
    RANDOM,
    Player,
    Remembering,
    Spec,
    load_player,
    name_of,
    names_a_file,
    path_and_arguments,
    player_class,
)
from lit_rl.league.ratings import rate_period
from lit_rl.league.seating import DRAWS, LEARNER_RETURN, LOSSES, WINS, Seating
from lit_rl.run.allowed import check_code, trust, trust_named_in
from lit_rl.run.errors import ArtefactError, ConfigError
from lit_rl.run.saved_values import need, saved_dict, saved_float, saved_int, saved_list

LoadPlayer = Callable[[Spec, str | None], Player]  # (spec, sha256 of its file) -> who plays so
IN_CHECKPOINTS = ("role", "file", "sha256", "path", "init_args")  # of a member: how it plays


class Candidates(NamedTuple):
    """Whom the learner may meet from an iteration on, and where it stands itself."""

    members: list[Member]  # with their ratings as the roster has them
    rating: float = 1500.0
    games: float = 0.0


class Opposition:
    """The members of a league in the seats that the learner leaves them.

    Every `refresh` hands the results since then to the league's file, which shares them with other processes, reads
    from it who is there, and asks the matchmaker whom to meet. The matchmaker decides by the learner's own results with
    each member, which stand in `state_dict`, as does who sits where; whom the league offered at which iteration stands
    in the league. So a resumed run plays the same games.

    Args:
        seating: of the env that the learner plays in.
        matchmaker: Pool -> shares [K].
        load: builds a member's player; raises ConfigError or ArtefactError where it cannot.
        permanent: members who are always there, also without a league.
        run: the learner's name in the league.
        league: on the rank that reads and writes it; None on the others, or where there is no file.
        folder: what members' files are relative to, on every rank.
        memory_games: results with a member count as this many games at most, the newer ones the more.
        rate_training: the league's ratings follow from these games, too.
        sum_over_ranks: tally [K, S, 7] float64 -> the sum of all ranks' tallies; identity for one process.
        from_first_rank: value -> the first rank's value, on every rank; identity for one process.

    Attributes:
        counts: name -> the learner's [score, games, returns, squares] against the member, fading: what a `Pool` says.
        members: name -> everybody met, as it played when it was met last.
        refreshed: iteration of the last refresh; -1 before the first.
    """

    def __init__(
        self,
        seating: Seating,
        matchmaker: Matchmaker,
        load: LoadPlayer,
        *,
        permanent: Sequence[Member] = (),
        run: str = "main",
        league: League | None = None,
        folder: Path | None = None,
        memory_games: float = 1000.0,
        rate_training: bool = True,
        sum_over_ranks: Callable[[np.ndarray], np.ndarray] = lambda tally: tally,
        from_first_rank: Callable[[Any], Any] = lambda value: value,
    ):
        self.seating, self.matchmaker, self.load = seating, matchmaker, load
        self.permanent, self.run, self.league, self.folder = list(permanent), run, league, folder
        self.memory_games, self.rate_training = float(memory_games), rate_training
        self.sum_over_ranks, self.from_first_rank = sum_over_ranks, from_first_rank
        self.counts: dict[str, list[float]] = {}
        self.members: dict[str, Member] = {}
        self.refreshed = -1
        self._memories: dict[str, dict] = {}  # of a checkpoint's players who are yet to be loaded
        if league is not None:
            league.add(Member(run, "main"))
            for member in self.permanent:
                league.add(member)

    @property
    def shares(self) -> dict[str, float]:
        """name -> share of the games against members, as of the last refresh."""
        return self.seating.shares

    @property
    def members_folder(self) -> Path:
        """Where player files of this league are kept.

        Raises:
            ConfigError: there is no league file.
        """
        if self.league is None:
            raise ConfigError("this needs a league file: set data.league, or let the run have a folder")
        return self.league.path.parent / "members"

    def close(self) -> None:
        """Let go of the league's file."""
        if self.league is not None:
            self.league.close()
            self.league = None

    # What collect asks.

    def learner_moves(self, env: Env) -> np.ndarray:
        return self.seating.learner_moves(env)

    def act(self, env: Env, probs: np.ndarray, part: slice = ALL_ROWS) -> None:
        self.seating.act(env, probs, part)

    def extras(self, env: Env) -> dict[str, Tensor]:
        return self.seating.extras(env)

    def stepped(self, env: Env) -> None:
        self.seating.stepped(env)

    # What happens between rollouts.

    def refresh(self, iteration: int, decisions: int, self_play_share: float, rung: float = 0.0) -> None:
        """Hand in the results since the last time, read who is there, ask the matchmaker; on every rank.

        Args:
            decisions: that the run has sampled so far.
            self_play_share: share of the games to come in which the learner takes all seats.
            rung: what the matchmaker is told of the learner's place on a ladder.

        Raises:
            ConfigError: the matchmaker's shares are none. ArtefactError: a permanent member cannot be loaded.
        """
        first = self.refreshed < 0
        results = self._take_results()
        self.remember(results)
        found = self.from_first_rank(self._candidates(iteration, decisions, results))
        for member in found.members:
            self._meet(member)
        shares = draw_shares(self.matchmaker, self._pool(found, rung)).tolist() if found.members else []
        if first and not found.members and self.league is not None:
            warnings.warn("the league has nobody to play against yet: self-play until it has", stacklevel=2)
        self.seating.draw_from({m.name: share for m, share in zip(found.members, shares)}, self_play_share)
        self.refreshed = iteration
        if first:
            self.seating.seat_all_rows()

    def remember(self, results: Sequence[Result]) -> None:
        """Let the matchmaker know of results of the learner's, on every rank alike; old ones fade."""
        for r in results:
            if r.games:
                count = self.counts.setdefault(r.opponent, [0.0] * 4)
                largest = self.seating.env.game.max_return
                more = (r.wins + 0.5 * r.draws, r.games, r.member_return / largest, r.member_square / largest**2)
                count[:] = (x + y for x, y in zip(count, more))
        for count in self.counts.values():
            fade = min(1.0, self.memory_games / max(count[1], 1.0))
            count[:] = [fade * x for x in count]

    def load_missing_players(self) -> None:
        """After `load_state_dict`: load those who sit in the saved games, or may be drawn.

        Raises:
            ArtefactError: one of them is lost; names it.
        """
        for name in self.seating.needed():
            if self.seating.player(name) is None:
                try:
                    player = self._load(self.members[name])
                except (ArtefactError, ConfigError) as error:
                    raise ArtefactError(f"{name} plays in the checkpoint's games and is lost: {error}") from None
                self.seating.meet(name, player)
                if name in self._memories:
                    player.load_state_dict(self._memories[name])
        self._memories = {}

    def player(self, name: str) -> Player:
        """A player of its own who plays as the member `name`: those in the seats may have memories.

        Raises:
            KeyError: there is nobody of that name. ArtefactError: its file is lost, or another by now.
        """
        member = self.members.get(name) or (self.league and self.league.find(name))
        if member is None:
            raise KeyError(name)
        return self._load(member)

    def state_dict(self) -> dict:
        """All that the games to come depend on, but for the league's and the players' files; of this rank."""
        members = {name: {key: getattr(m, key) for key in IN_CHECKPOINTS} for name, m in self.members.items()}
        memories = dict(self._memories)
        for name, player in zip(self.seating.names, self.seating.players):
            if isinstance(player, Remembering) and (memory := player.state_dict()):
                memories[name] = memory
        return {
            "seating": self.seating.state_dict(),
            "counts": {name: list(count) for name, count in self.counts.items()},
            "members": members,
            "memories": memories,
            "refreshed": self.refreshed,
        }

    def load_state_dict(self, state: dict) -> None:
        """Go on where `state` was taken; the players come with `load_missing_players`, before the next step.

        Raises:
            ValueError: it was saved with another number of rows or seats. ArtefactError: it is damaged.
        """
        saved_dict(state, "opposition", ("seating", "counts", "members", "memories", "refreshed"))
        self.seating.load_state_dict(state["seating"])
        counts, members = saved_dict(state["counts"], "counts"), saved_dict(state["members"], "members")
        for count in counts.values():
            score, games, returns, squares = (saved_float(x, "counts") for x in saved_list(count, "counts", 4))
            need(0 <= score <= games and squares >= 0, "counts has a score outside of its games")
            need(abs(returns) <= 1.001 * games, "counts has more than the largest return in each game")
        for how in members.values():
            saved_dict(how, "members", IN_CHECKPOINTS)
            for name in ("role", "file", "sha256", "path"):
                need(how[name] is None or isinstance(how[name], str), f"members: {name} is no text")
            saved_dict(how["init_args"], "members: init_args")
        lost = sorted({*self.seating.names, *state["memories"]} - members.keys())
        need(not lost, f"members does not say how {[name[:50] for name in lost[:5]]} play")
        self.counts = {name: list(count) for name, count in counts.items()}
        self.members = {name: Member(name, **how) for name, how in members.items()}
        self.refreshed = saved_int(state["refreshed"], "refreshed", -1)
        self._memories = dict(saved_dict(state["memories"], "memories"))

    def _take_results(self) -> list[Result]:
        """Of the learner's games, on all ranks, since they were last taken."""
        # Ranks meet members in the same order, since all of them learn of one at the same refresh.
        tally = self.sum_over_ranks(self.seating.take_tally())
        return [
            Result(
                self.run, name, seat, int(row[WINS]), int(row[DRAWS]), int(row[LOSSES]), *row[LEARNER_RETURN:]
            )
            for name, seats in zip(self.seating.names, tally.tolist()) for seat, row in enumerate(seats)
        ]  # fmt: skip

    def _candidates(self, iteration: int, decisions: int, results: list[Result]) -> Candidates:
        """Those who can play here; others are quarantined. Without a league the permanent members."""
        if self.league is None:
            return Candidates(self.permanent)
        self.league.record(self.run, iteration, "train", results, rate_period if self.rate_training else None)
        roster = self.league.roster(self.run, iteration, decisions)
        members = []
        for name, rating in roster.members.items():
            member = self.league.find(name)._replace(rating=rating)
            try:
                self._meet(member)
            except (ArtefactError, ConfigError) as error:
                if name in [m.name for m in self.permanent]:
                    raise
                self.league.quarantine(name, str(error))
                continue
            members.append(member)
        return Candidates(members, roster.own.rating, float(roster.own_games))

    def _pool(self, found: Candidates, rung: float) -> Pool:
        count = np.array([self.counts.get(m.name, [0.0] * 4) for m in found.members])
        return Pool(
            names=tuple(m.name for m in found.members),
            roles=tuple(m.role for m in found.members),
            score=count[:, 0],
            games=count[:, 1],
            returns=count[:, 2],
            squares=count[:, 3],
            rating=np.array([m.rating.rating for m in found.members]),
            learner_rating=found.rating,
            learner_games=found.games,
            rung=rung,
        )

    def _meet(self, member: Member) -> None:
        """Load its player, unless the very same is there already."""
        known = self.members.get(member.name)
        if self.seating.player(member.name) is None or known is None or how_it_plays(known) != how_it_plays(member):
            self.seating.meet(member.name, self._load(member))
        self.members[member.name] = member

    def _load(self, member: Member) -> Player:
        if member.file:
            file = Path(member.file)  # an absolute one stays as it is
            return self.load(file if self.folder is None else self.folder / file, member.sha256)
        spec = {"class_path": RANDOM if member.role == "random" else member.path, "init_args": member.init_args}
        check_code(spec, f"member {member.name[:200]} of the league")  # the league or checkpoint may be a stranger's
        return self.load(spec, None)


def permanent_members(specs: Sequence[Spec], game: Interface) -> list[Member]:
    """The members that `data.opponents` names (`lit_rl.league.players`), heuristics tried on the game.

    Raises:
        ConfigError: nothing of that name, no player, no heuristic for this game, or one that is listed twice.
    """
    members = [_permanent_member(spec, game) for spec in specs]
    names = [m.name for m in members]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"opponents: {', '.join(twice)} is listed twice")
    return members


def _permanent_member(spec: Spec, game: Interface) -> Member:
    name = name_of(spec)
    if names_a_file(spec):
        path = Path(spec).absolute()
        if not path.is_file():
            raise ConfigError(f"opponents: {str(spec)!r}: no such player file or checkpoint")
        return Member(name, "external", file=str(path), permanent=True)
    if spec == "random":
        return Member(name, "random", permanent=True)
    path, arguments = path_and_arguments(spec)
    trust([path])
    trust_named_in(arguments)
    role = "external"
    if player_class(path) is None:
        load_player(spec, game)  # refuses what is no heuristic
        role = "heuristic"
    return Member(name, role, path=path, init_args=arguments, permanent=True)
