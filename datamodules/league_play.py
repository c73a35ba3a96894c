"""League play: the learner in some seats, members of a league in the others, drawn per game."""

import copy
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jsonargparse.typing import ClosedUnitInterval, NonNegativeInt, PositiveFloat, PositiveInt

from datamodules.self_play import REMEDY, SelfPlayDataModule
from envs.rng import derive_key
from lit_rl.league.league import League, Member, Result
from lit_rl.league.matchmaking import Pool, draw_shares, load_matchmaker
from lit_rl.league.players import RANDOM, HeuristicPlayer, NetworkPlayer, Player, load_policy
from lit_rl.league.seating import DRAWS, LEARNER_RETURN, LOSSES, MEMBER_RETURN, WINS, Seating
from lit_rl.rollout import Rollout
from lit_rl.run.checkpoint_io import replace_file
from lit_rl.run.errors import ArtefactError, ConfigError, check_ranges
from lit_rl.run.resume import of_every_rank

LEAGUE_STREAM = 7


class LeagueDataModule(SelfPlayDataModule):
    """Rollouts against the members of a league; only the learner's decisions train.

    In a game the learner has one seat, which alternates, and a member each of the others; in the share
    `self_play_share` of the games it has all seats, as in self-play. Every `refresh_every` iterations the results since
    then go into the league's file, which shares them with other processes, the roster is read from it and the
    matchmaker says whom to meet. What it decides by, the learner's own results with each member, is part of the
    checkpoint, and so is who sits where; which members a run saw at which iteration stands in the league. So a resumed
    run plays the same games. Without any member there is self-play, and one warning. For algorithms that go by
    `Rollout.learner`, as PPO and R-NaD do; ARMAC brings past policies of its own (`datamodules.retrospective`).

    Args:
        game: import path of a module that ends with GAME = Game(...), such as envs.leduc_poker.
        league: the league's file, made if there is none; null: <run folder>/league/league.sqlite.
        opponents: members who are always there: import paths of heuristics, player files, checkpoints, or random.
        matchmaker: import path of a function of `lit_rl.league.matchmaking`, whose own go by their bare names.
        matchmaker_options: its arguments by name.
        self_play_share: share of the games in which the current policy has all seats.
        refresh_every: iterations between two looks at the league.
        memory_games: results with a member count as this many games at most, the newer ones the more.
        run: the learner's name in the league; null: main, or in a league outside the run folder a name of its own.
        num_envs: games played side by side, per device.
        num_steps: decisions per game and iteration; num_envs * num_steps make one rollout.
        seed: of dealing, seating, sampling and shuffling (the CLI copies it from seed_everything).
        num_threads: threads of the environment; more than one pays from some ten thousand games.
        truncate_after: cut games off after so many decisions; null plays all to the end.
        max_tree_nodes: evaluate exactly if the game tree has no more histories than this; 0 never does.
        restart_games: go on from a checkpoint with new games instead of the saved ones, which another num_envs or
            number of devices asks for; not bit-exact.
    """

    fixed_during_fit = (*SelfPlayDataModule.fixed_during_fit, "refresh_every")

    def __init__(
        self,
        game: str,
        league: str | None = None,
        opponents: Sequence[str] = (),
        matchmaker: str = "pfsp",
        matchmaker_options: dict[str, Any] | None = None,
        self_play_share: ClosedUnitInterval = 0.5,
        refresh_every: PositiveInt = 20,
        memory_games: PositiveFloat = 1000.0,
        run: str | None = None,
        num_envs: PositiveInt = 1024,
        num_steps: PositiveInt = 16,
        seed: NonNegativeInt = 0,
        num_threads: PositiveInt = 1,
        truncate_after: PositiveInt | None = None,
        max_tree_nodes: NonNegativeInt = 2_000_000,
        restart_games: bool = False,
    ):
        check_ranges(LeagueDataModule.__init__, locals())
        super().__init__(game, num_envs, num_steps, seed, num_threads, truncate_after, max_tree_nodes, restart_games)
        if self.game.num_players < 2:
            raise ConfigError(f"game={game}: a league needs a game of two players or more")
        self.league_file, self.run, self.opponents = league, run, list(opponents)
        self.matchmaker = load_matchmaker(matchmaker, matchmaker_options)
        self.self_play_share, self.refresh_every = self_play_share, refresh_every
        self.memory_games = float(memory_games)
        self.settings |= {"matchmaker": matchmaker, "refresh_every": int(refresh_every)}
        self.settings |= {"memory_games": float(memory_games)}
        self.league: League | None = None  # open on the first rank of a fit, where there is a file
        self.seating: Seating | None = None
        self.shares: dict[str, float] = {}  # of the games against members, by name, as of the last refresh
        self.counts: dict[str, list[float]] = {}  # name -> the learner's [score, games] against it, fading
        self.fixed = [_fixed_member(spec) for spec in self.opponents]
        for member in self.fixed:
            if member.path:
                HeuristicPlayer(member.path, self.game)  # refuses what is none
        if twice := {m.name for m in self.fixed if [n.name for n in self.fixed].count(m.name) > 1}:
            raise ConfigError(f"opponents: {', '.join(sorted(twice))} is listed twice")
        self._place: Path | None = None  # the league's folder, where members' files are looked for
        self._members: dict[str, dict] = {}  # name -> how it plays, of everybody met
        self._unmet = False  # the players of a checkpoint are yet to be loaded
        self._share = 1.0  # of self-play, as of the last refresh
        self._refreshed = -1  # iteration of the last look at the league
        self._warned = False

    def setup(self, stage: str) -> None:
        if stage == "fit" and self.seating is None:
            self._open_league()
        super().setup(stage)

    def _open_league(self) -> None:
        trainer = self.trainer
        folder = Path(trainer.log_dir) if trainer.logger is not None and trainer.log_dir else None  # on every rank
        path = Path(self.league_file) if self.league_file else folder and folder / "league" / "league.sqlite"
        if path is None and not self.opponents:
            raise ConfigError("data.league=null needs a run folder to lie in; give data.league a path")
        run = self.run or ("main" if self.league_file is None else None)
        if trainer.is_global_zero:
            self.run = run or _name_in(folder)
            if path is not None:
                self.league = League(path, self.game)
                self.league.add(Member(self.run, "main"))
                for member in self.fixed:
                    self.league.add(member)
        self.run = trainer.strategy.broadcast(self.run)
        self._place = None if path is None else path.parent

    def teardown(self, stage: str) -> None:
        if self.league is not None:
            self.league.close()
            self.league = None

    @property
    def folder(self) -> Path:
        """Where player files of this league are kept.

        Raises:
            ConfigError: there is no league file.
        """
        if self.league is None:
            raise ConfigError("this needs a league file: set data.league, or let the run have a folder")
        return self.league.path.parent / "members"

    def _restore(self) -> None:
        """The base class calls this once there is an env."""
        if self.seating is None and self.env is not None:
            self.seating = Seating(self.env, derive_key(self.seed, LEAGUE_STREAM, self.trainer.global_rank))
        super()._restore()

    def _take_over(self, saved: dict) -> None:
        super()._take_over(saved)
        league = saved["league"]
        try:
            self.seating.load(league["ranks"][self.trainer.global_rank])
        except ValueError as error:
            raise ConfigError(f"data.num_envs: {error}; {REMEDY}") from None
        self.counts = {name: list(count) for name, count in league["counts"].items()}
        self.shares, self._refreshed = dict(league["shares"]), int(league["refreshed"])
        self._members = {name: dict(member) for name, member in league["members"].items()}
        self._share, self._unmet = float(league["self_play_share"]), True

    def state_dict(self) -> dict:
        state = super().state_dict()
        if not state:
            return state
        league = {
            "ranks": of_every_rank(self.trainer, self.seating.save()),
            "counts": self.counts,
            "shares": self.shares,
            "self_play_share": float(self._share),
            "members": self._members,
            "refreshed": self._refreshed,
        }
        return state | {"league": league}

    def collect(self, previous: Rollout | None) -> Rollout:
        if self._unmet:  # now that the learner is where it will stay
            self._meet_again()
        iteration = self.trainer.current_epoch
        if self._refreshed < 0 or iteration >= self._refreshed + self.refresh_every:
            first = self._refreshed < 0
            self.refresh(iteration)
            if first:
                self.seating.begin_anew()
        return super().collect(previous)

    def refresh(self, iteration: int) -> None:
        """Hand in the results since the last time, read the roster, and ask the matchmaker; on every rank."""
        trainer, names = self.trainer, self.seating.names
        tally = torch.from_numpy(self.seating.take_tally())
        if trainer.world_size > 1:
            # Ranks meet members in the same order, since all of them learn of one at the same refresh.
            tally = trainer.strategy.reduce(tally.to(trainer.strategy.root_device), reduce_op="sum").cpu()
        results = [
            Result(
                self.run, name, seat, int(row[WINS]), int(row[DRAWS]), int(row[LOSSES]), float(row[LEARNER_RETURN]),
                float(row[MEMBER_RETURN]),
            )
            for name, seats in zip(names, tally.tolist()) for seat, row in enumerate(seats)
        ]  # fmt: skip
        self.remember(results)
        roster = self._roster(iteration, results) if trainer.is_global_zero else None
        members, own, own_games = trainer.strategy.broadcast(roster)
        for name, how in members.items():
            self._meet(name, how)
        shares = []
        if members:
            count = np.array([self.counts.get(name, [0.0, 0.0]) for name in members])
            pool = Pool(
                tuple(members), tuple(m["role"] for m in members.values()), count[:, 0], count[:, 1],
                np.array([m["rating"] for m in members.values()]), own, own_games,
            )  # fmt: skip
            shares = draw_shares(self.matchmaker, pool).tolist()
        elif not self._warned and trainer.is_global_zero:
            warnings.warn("the league has nobody to play against yet: self-play until it has", stacklevel=2)
        self._warned = True
        self.shares, self._refreshed = dict(zip(members, shares)), iteration
        self._share = float(self.self_play_share)
        self.seating.draw_from(list(members), shares, self._share)

    def remember(self, results: Sequence[Result]) -> None:
        """Let the matchmaker know of results of the learner's, on every rank alike; old ones fade."""
        for r in results:
            if r.games:
                count = self.counts.setdefault(r.opponent, [0.0, 0.0])
                count[0] += r.wins + 0.5 * r.draws
                count[1] += r.games
        for count in self.counts.values():
            fade = min(1.0, self.memory_games / max(count[1], 1.0))
            count[:] = [fade * x for x in count]

    def _roster(self, iteration: int, results: list[Result]) -> tuple[dict[str, dict], float, float]:
        """On the first rank: name -> how it plays and its rating, of those who can; the learner's rating and games."""
        if self.league is None:
            return {m.name: _how(m) for m in self.fixed}, 1500.0, 0.0
        self.league.record(self.run, iteration, "train", results)
        roster = self.league.roster(self.run, iteration, int(self.trainer.lightning_module.decisions))
        members = {}
        for name, rating in roster.members.items():
            how = _how(self.league.find(name)) | {"rating": rating.rating}
            try:
                self._meet(name, how)
            except (ArtefactError, ConfigError) as error:
                if name in [m.name for m in self.fixed]:
                    raise
                self.league.quarantine(name, str(error))
                continue
            members[name] = how
        return members, roster.own.rating, float(roster.own_games)

    def _meet(self, name: str, how: dict) -> None:
        """Load the player, unless it is there already."""
        names, known = self.seating.names, self._members.get(name, {})
        there = name in names and self.seating.players[names.index(name)] is not None
        if not there or known.get("sha256") != how["sha256"]:
            self.seating.meet(name, self._load(how))
        self._members[name] = {key: how[key] for key in ("role", "file", "sha256", "path")}

    def _meet_again(self) -> None:
        """Load those who sit in the games of a checkpoint, or may be drawn."""
        for name in dict.fromkeys([*self.shares, *self.seating.seated()]):
            try:
                self.seating.meet(name, self._load(self._members[name]))
            except (ArtefactError, ConfigError) as error:
                raise ArtefactError(f"{name} plays in the checkpoint's games and is lost: {error}; {REMEDY}") from None
        self.seating.draw_from(list(self.shares), list(self.shares.values()), self._share)
        self._unmet = False

    def _load(self, how: dict) -> Player:
        if how["path"]:
            return HeuristicPlayer(how["path"], self.game)
        file = Path(how["file"])  # an absolute one stays as it is
        return self.player_in(file if self._place is None else self._place / file, how["sha256"])

    def player(self, name: str) -> Player:
        """How the member `name`, met before, plays.

        Raises:
            KeyError: nobody of that name was met. ArtefactError: its file is lost.
        """
        known = self.seating.names.index(name) if name in self.seating.names else None
        if known is not None and self.seating.players[known] is not None:
            return self.seating.players[known]
        return self._load(self._members[name])

    def player_in(self, file: Path, sha256: str | None = None) -> NetworkPlayer:
        """Who plays as the player file says, on the learner's device. Raises ArtefactError, see `load_policy`."""
        module = self.trainer.lightning_module
        policy = load_policy(file, self.game, sha256, lambda: _like(module))
        return NetworkPlayer(policy, module.device, getattr(module, "merge_rows", False))


def _like(module) -> torch.nn.Module:
    """A network of the same make as the learner's, for its weights to be replaced."""
    return copy.deepcopy(module.export_policy())


def _how(member: Member) -> dict:
    path = RANDOM if member.role == "random" else member.path
    how = {"role": member.role, "file": member.file, "sha256": member.sha256, "path": path}
    return how | {"rating": member.rating.rating}


def _fixed_member(spec: str) -> Member:
    if spec == "random":
        return Member("random", "random", permanent=True)
    if spec.endswith((".pt", ".ckpt")):
        path = Path(spec).absolute()
        if not path.is_file():
            raise ConfigError(f"opponents: {spec!r}: no such player file or checkpoint")
        run = path.parents[1] if path.parent.name == "checkpoints" else None
        name = path.stem if run is None else f"{run.parent.name}-{run.name}-{path.stem}"
        return Member(name, "external", file=str(path), permanent=True)
    return Member(spec.rpartition(".")[2], "heuristic", path=spec, permanent=True)


def _name_in(folder: Path | None) -> str:
    """The name of the run in that folder, in leagues outside of it: chosen once, kept beside its checkpoints."""
    path = None if folder is None else folder / "league_name"
    if path is not None and path.exists():
        return path.read_text().strip()
    name = f"{folder.parent.name}-{folder.name}-{os.urandom(3).hex()}" if folder else f"run-{os.urandom(4).hex()}"
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, f"{name}\n".encode())
    return name
