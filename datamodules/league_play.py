"""League play: the learner in some seats, members of a league in the others, drawn per game. Wiring alone."""

import copy
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from jsonargparse.typing import ClosedUnitInterval, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from datamodules.self_play import REMEDY, SelfPlayDataModule
from envs.env import Env
from envs.rng import derive_key
from lit_rl.algorithm import collecting_of
from lit_rl.evaluation import Evaluation
from lit_rl.league.league import League
from lit_rl.league.matchmaking import load_matchmaker
from lit_rl.league.opposition import Opposition, permanent_members
from lit_rl.league.players import Player, Spec, load_player
from lit_rl.league.seating import Seating
from lit_rl.run.checkpoint_files import replace_file
from lit_rl.run.errors import ArtefactError, ConfigError, check_ranges

LEAGUE_STREAM = 7


class LeagueDataModule(SelfPlayDataModule):
    """Rollouts against the members of a league; only the learner's decisions train.

    In a game the learner has one seat (a team of the game), which alternates, and a member each of the others; in the
    share `self_play_share` of the games it has all seats, as in self-play. Every `refresh_every` iterations results and
    roster are exchanged with the league's file, and the matchmaker says whom to meet (`lit_rl.league.opposition`). A
    resumed run plays the same games. Without any member there is self-play, and one warning. For algorithms that go by
    `Rollout.learner`, as PPO and R-NaD do; ARMAC brings past policies of its own (`datamodules.retrospective`).

    Args:
        game: import path of a module that ends with GAME = Game(...), such as envs.leduc_poker.
        league: the league's file, made if there is none; null: <run folder>/league/league.sqlite.
        opponents: members who are always there: random, player files, checkpoints, import paths of heuristics or of
            classes of players, {class_path, init_args} (`lit_rl.league.players`).
        matchmaker: import path of a function of `lit_rl.league.matchmaking`, whose own go by their bare names.
        matchmaker_options: its arguments by name.
        rung: where on a ladder the learner stands, for the matchmaker `rungs`; a curriculum is a schedule of it.
        self_play_share: share of the games in which the current policy has all seats.
        refresh_every: iterations between two looks at the league.
        memory_games: results with a member count as this many games at most, the newer ones the more.
        rate_training: ratings follow from these games; false where matches rate the members (`Promotion`).
        run: the learner's name in the league; null: main, or in a league outside the run folder a name of its own.
        num_envs: games played side by side, per device.
        num_steps: decisions per game and iteration; num_envs * num_steps make one rollout.
        evaluation: what to measure of the exported policy, see `lit_rl.evaluation`; null: Exact where the game is small
            enough; [] for nothing.
        bonus_coef: weight of the game's bonus, if it has one, in what is learned from.
        team_share: so much of what a player learns from is the mean of its team's rewards.
        seed: of dealing, seating, sampling and shuffling (the CLI copies it from seed_everything).
        num_threads: threads of the environment; more than one pays from some ten thousand games.
        truncate_after: cut games off after so many decisions; null plays all to the end.
        restart_games: go on from a checkpoint with new games instead of the saved ones, which another num_envs or
            number of devices asks for; not bit-exact.
    """

    fixed_during_fit = (*SelfPlayDataModule.fixed_during_fit, "refresh_every")

    def __init__(
        self,
        game: str,
        league: str | None = None,
        opponents: Sequence[str | dict[str, Any]] = (),
        matchmaker: str = "pfsp",
        matchmaker_options: dict[str, Any] | None = None,
        rung: NonNegativeFloat = 0.0,
        self_play_share: ClosedUnitInterval = 0.5,
        refresh_every: PositiveInt = 20,
        memory_games: PositiveFloat = 1000.0,
        rate_training: bool = True,
        run: str | None = None,
        num_envs: PositiveInt = 1024,
        num_steps: PositiveInt = 16,
        evaluation: Sequence[Evaluation] | None = None,
        bonus_coef: float = 0.0,
        team_share: ClosedUnitInterval = 0.0,
        seed: NonNegativeInt = 0,
        num_threads: PositiveInt = 1,
        truncate_after: PositiveInt | None = None,
        restart_games: bool = False,
    ):
        check_ranges(LeagueDataModule.__init__, locals())
        super().__init__(
            game, num_envs, num_steps, evaluation, bonus_coef, team_share, seed, num_threads, truncate_after,
            restart_games,
        )  # fmt: skip
        if self.game.num_teams < 2:
            raise ConfigError(f"game={game}: a league needs a game of two players or teams, or more")
        self.league_file, self.run = league, run
        self.permanent = permanent_members(opponents, self.game)
        self.matchmaker = load_matchmaker(matchmaker, matchmaker_options, [m.name for m in self.permanent])
        self.rung, self.self_play_share, self.refresh_every = rung, self_play_share, refresh_every
        self.memory_games, self.rate_training = float(memory_games), rate_training
        self.settings |= {"matchmaker": matchmaker, "refresh_every": int(refresh_every)}
        self.settings |= {"memory_games": float(memory_games)}

    @staticmethod
    def of(trainer: L.Trainer, who: str) -> "LeagueDataModule":
        """The trainer's datamodule, whose opposition has a league's file on the first rank; `who` asks for it.

        Raises:
            ConfigError: it is no LeagueDataModule, or has no file.
        """
        data = trainer.datamodule
        if not isinstance(data, LeagueDataModule):
            raise ConfigError(
                f"{who}: plays in a league; use data.class_path=LeagueDataModule, not {type(data).__name__}"
            )
        if trainer.is_global_zero:
            _ = data.opposition.members_folder
        return data

    @property
    def opposition(self) -> Opposition:
        """The opponents of a fit, which are there once it is set up."""
        return self.opponents

    def make_opponents(self, env: Env) -> Opposition:
        """The opposition in the games of `env`, its league open on the first rank."""
        trainer = self.trainer
        folder = Path(trainer.log_dir) if trainer.logger is not None and trainer.log_dir else None  # on every rank
        path = Path(self.league_file) if self.league_file else folder and folder / "league" / "league.sqlite"
        if path is None and not self.permanent:
            raise ConfigError("data.league=null needs a run folder to lie in; give data.league a path")
        name = self.run or ("main" if self.league_file is None else None)
        if name is None and trainer.is_global_zero:
            name = _name_in(folder)
        self.run = trainer.strategy.broadcast(name)
        opposition = Opposition(
            Seating(env, derive_key(self.seed, LEAGUE_STREAM, trainer.global_rank)),
            self.matchmaker,
            self.load_player,
            permanent=self.permanent,
            run=self.run,
            league=League(path, self.game) if path is not None and trainer.is_global_zero else None,
            folder=None if path is None else path.parent,
            memory_games=self.memory_games,
            rate_training=self.rate_training,
            sum_over_ranks=self._sum_over_ranks,
            from_first_rank=trainer.strategy.broadcast,
        )
        return opposition

    def before_rollout(self, iteration: int) -> None:
        """Exchange results and roster with the league where it is time."""
        opposition = self.opposition
        try:
            opposition.load_missing_players()  # here, since now the learner is on the device where it will stay
        except ArtefactError as error:
            raise ArtefactError(f"{error}; {REMEDY}") from None
        if opposition.refreshed < 0 or iteration >= opposition.refreshed + self.refresh_every:
            decisions = int(self.trainer.lightning_module.decisions)
            opposition.refresh(iteration, decisions, float(self.self_play_share), float(self.rung))

    def load_player(self, spec: Spec, sha256: str | None = None) -> Player:
        """Who plays as `spec` says, on the learner's device; a file that does not say its network has the learner's."""
        module = self.trainer.lightning_module
        return load_player(
            spec, self.game, sha256=sha256, make=lambda: copy.deepcopy(module.export_policy()), device=module.device,
            merge_rows=collecting_of(module).merge_rows,
        )  # fmt: skip

    def _sum_over_ranks(self, tally: np.ndarray) -> np.ndarray:
        strategy = self.trainer.strategy
        if self.trainer.world_size == 1:
            return tally
        return strategy.reduce(torch.from_numpy(tally).to(strategy.root_device), reduce_op="sum").cpu().numpy()

    def teardown(self, stage: str) -> None:
        if self.opponents is not None:
            self.opposition.close()


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
