"""The documents' league: candidates are rated by matches, the best are promoted to commanders, the worst retired."""

import hashlib
import warnings
from pathlib import Path

import lightning as L
import numpy as np
from jsonargparse.typing import NonNegativeInt, PositiveFloat, PositiveInt

from callbacks.snapshot import Snapshot
from datamodules.league_play import LeagueDataModule
from envs.rng import derive_key
from lit_rl.league.league import Member, Result
from lit_rl.league.match import match_players
from lit_rl.league.matchmaking import Pool, skill_matched
from lit_rl.league.opposition import Opposition
from lit_rl.league.player_file import network_of, save_player
from lit_rl.league.ratings import Rating, promoted, rate_matches
from lit_rl.league.standings import draw_standings, standings_table
from lit_rl.run.checkpoint_files import replace_file
from lit_rl.run.errors import ArtefactError, ConfigError, check_ranges

PROMOTION_STREAM = 14
WAITING = "candidate"  # reason why a member that is yet to be judged is out of play


class Promotion(L.Callback):
    """Every so many iterations rate the exported policy by matches, and promote it if it is good enough.

    The candidate is a member of role past, <run>-<iteration>, new to the ratings. In each of its rating periods it
    plays so many games against members in play who are about as good (`skill_matched`, with the cold start's widening
    windows), every seat equally often. All ratings of a period follow from those at its start (`rate_matches`). By
    conservative rating (rating - 2 deviations) in the top `keep_top` of commanders and itself, it is a commander: in
    play from now on. Else it is retired, and so are the lowest commanders beyond `keep_top`, but for those with few
    games. Permanent members (`data.opponents`) are rated and never retired.

    Logs league/rating, league/deviation, league/commanders; writes <run>/ratings.txt and ratings.png. Draws no random
    number of the run's. A resumed run plays no match a second time.

    Args:
        every: iterations between two candidates.
        games: of a period, at least; the documents' ten tell nothing.
        periods: of a candidate. In the first one all it meets may be far from its strength.
        keep_top: commanders in play.
        min_games: who has fewer is not retired, and is matched within the cold start's windows.
        sigma: rating points by which opponents differ.
    """

    def __init__(
        self, every: PositiveInt = 100, games: PositiveInt = 200, periods: PositiveInt = 2, keep_top: PositiveInt = 20,
        min_games: NonNegativeInt = 20, sigma: PositiveFloat = 200.0,
    ):  # fmt: skip
        check_ranges(Promotion.__init__, locals())
        self.every, self.games, self.periods = int(every), int(games), int(periods)
        self.keep_top, self.min_games, self.sigma = int(keep_top), int(min_games), float(sigma)
        self._log_dir: Path | None = None

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if stage == "fit":
            LeagueDataModule.of(trainer, "Promotion")
            log_dir = trainer.log_dir  # on every rank: Lightning broadcasts it
            self._log_dir = Path(log_dir) if trainer.logger is not None and log_dir else None

    def check_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Called by the datamodule before anything is compiled.

        Raises:
            ConfigError: other ratings or other snapshots would get in the way.
        """
        if any(isinstance(callback, Snapshot) for callback in trainer.callbacks):
            raise ConfigError("trainer.callbacks: Promotion and Snapshot both add the run's past; leave one out")
        if getattr(trainer.datamodule, "rate_training", False):
            raise ConfigError("data.rate_training=true: Promotion rates by matches alone; set it to false")

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        iteration = trainer.current_epoch + 1
        if iteration % self.every:
            return
        data: LeagueDataModule = trainer.datamodule
        found = self._rate(pl_module, data, iteration) if trainer.is_global_zero else None
        rating, commanders = trainer.strategy.broadcast(found)
        self.log("league/rating", rating.rating, rank_zero_only=True)
        self.log("league/deviation", rating.deviation, rank_zero_only=True)
        self.log("league/commanders", float(commanders), rank_zero_only=True)

    def _rate(self, pl_module: L.LightningModule, data: LeagueDataModule, iteration: int) -> tuple[Rating, int]:
        """On the first rank: the candidate's rating after its periods, and how many commanders there are."""
        opposition = data.opposition
        league, candidate = opposition.league, self._candidate(pl_module, data, iteration)
        for period in range(self.periods):
            source = f"matches {period + 1}"
            if not league.has_batch(opposition.run, iteration, source):
                results = self._period(data, candidate, iteration, period)
                league.record(opposition.run, iteration, source, results, rate_matches)
        member = league.find(candidate)
        if member.state == "retired" and member.reason in ("", WAITING):
            self._judge(opposition, member)
        if self._log_dir is not None:
            self._write(data, iteration)
        commanders = [m for m in league.members("active") if m.role == "past"]
        return league.find(candidate).rating, len(commanders)

    def _candidate(self, pl_module: L.LightningModule, data: LeagueDataModule, iteration: int) -> str:
        """Add the exported policy to the league, out of play; its name."""
        opposition = data.opposition
        name = f"{opposition.run}-{iteration:07d}"
        file = opposition.members_folder / f"{name}.pt"
        sha256 = save_player(file, pl_module.export_policy(), data.game, network_of(pl_module))
        member = Member(
            name, "past", "retired", birth=int(pl_module.decisions), parent=opposition.run, file=str(file.absolute()),
            sha256=sha256, reason=WAITING, notes={"run": opposition.run, "iteration": iteration},
        )  # fmt: skip
        opposition.league.add(member, replace=True)
        return name

    def _period(self, data: LeagueDataModule, candidate: str, iteration: int, period: int) -> list[Result]:
        """Results of the candidate's matches, by the ratings as they are."""
        opposition, results = data.opposition, []
        own = opposition.league.find(candidate)
        field = [
            m for m in opposition.league.members("active")
            if m.role != "main" and m.name != candidate
            and not (m.notes.get("run") == opposition.run and m.birth > own.birth)
        ]  # fmt: skip
        first = opposition.player(candidate)
        for member, games in zip(field, self._games(field, own, opposition.league.games().get(candidate, 0))):
            if games == 0:
                continue
            try:
                second = opposition.player(member.name)
            except ArtefactError as error:
                warnings.warn(f"Promotion: goes without {member.name}: {error}", stacklevel=2)
                continue
            pair = int.from_bytes(hashlib.sha256(f"{candidate}\n{member.name}".encode()).digest()[:8])
            seed = derive_key(data.seed, PROMOTION_STREAM, iteration, period, pair)
            results += match_players(data.make_env, first, second, games, seed).results(candidate, member.name)
        return results

    def _games(self, field: list[Member], own: Member, played: int) -> list[int]:
        """How many games are played against each of the field: `skill_matched`, rounded up to whole tables of seats."""
        if not field:
            return []
        pool = Pool(
            tuple(m.name for m in field), tuple(m.role for m in field), *np.zeros((4, len(field))),
            np.array([m.rating.rating for m in field]), own.rating.rating, float(played),
        )  # fmt: skip
        shares = skill_matched(pool, self.sigma, self.min_games)
        shares[shares < min(1.0 / self.games, shares.max())] = 0.0  # less than a game
        return np.ceil(self.games * shares / shares.sum()).astype(int).tolist()

    def _judge(self, opposition: Opposition, candidate: Member) -> None:
        """Promote the candidate or leave it retired; retire whom it replaces. The learner is as good as it."""
        league = opposition.league
        ratings = {m.name: m.rating for m in league.members()}
        commanders = [m.name for m in league.members("active") if m.role == "past"]
        if promoted(candidate.name, commanders, ratings, self.keep_top):
            league.set_state("active", {candidate.name: ""})
            league.retire_excess("past", self.keep_top, self.min_games)
        else:
            league.set_state("retired", {candidate.name: f"not promoted: not among the top {self.keep_top}"})
        league.set_rating(opposition.run, candidate.rating)

    def _write(self, data: LeagueDataModule, iteration: int) -> None:
        """Table and picture of how things stand now."""
        opposition = data.opposition
        league, run = opposition.league, opposition.run
        rosters, members = league.rosters(run), league.members()
        replace_file(self._log_dir / "ratings.txt", standings_table(members, league.payoffs()).encode())
        earlier = [(at, roster.own) for at, roster in rosters.items() if self.every <= at < iteration]
        lines: dict[str, list[tuple[int, Rating]]] = {m.name: [] for m in members}
        for at, roster in rosters.items():
            for name, rating in roster.members.items():
                lines[name].append((at, rating))
        for m in members:
            if m.state == "active" and (not lines[m.name] or lines[m.name][-1][0] < iteration):
                lines[m.name].append((iteration, m.rating))
        own = [m for m in members if m.role == "past" and m.notes.get("run") == run]
        refused = [(m.notes["iteration"], m.rating) for m in own if m.reason.startswith("not promoted")]
        draw_standings(
            learner=[*earlier, (iteration, league.find(run).rating)],
            commanders={m.name: lines[m.name] for m in members if m.role == "past" and lines[m.name]},
            fixed={m.name: lines[m.name] for m in members if m.role != "past" and m.name != run},
            others=refused,
            title=f"{data.game.name}: {self.games * self.periods} games and more of each candidate",
            path=self._log_dir / "ratings.png",
        )
