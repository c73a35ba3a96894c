"""Self-play: the current policy in every seat. One Lightning epoch = one iteration = one rollout and its updates."""

import contextlib
import itertools
import math
import os
import warnings
from collections.abc import Callable, Iterator, Sequence

import lightning as L
import numpy as np
import torch
from jsonargparse.typing import ClosedUnitInterval, NonNegativeInt, PositiveInt

from envs.env import Env, RulesError, SavedGamesError
from envs.exact import GameTree
from envs.game import Game, load_interface
from envs.openspiel import OpenSpielEnv, OpenSpielGame
from envs.rng import derive_key
from envs.vector_env import VectorEnv, rehearse
from lit_rl.algorithm import (
    Algorithm,
    after_iteration,
    before_rollout,
    check_algorithm,
    check_start,
    collecting_of,
    games_are_recorded,
)
from lit_rl.evaluation import Evaluation, Exact, check_monitors, open_evaluation
from lit_rl.rollout import Opponents, Rollout, collect
from lit_rl.run.errors import ArtefactError, ConfigError, check_ranges
from lit_rl.run.resume import of_every_rank, warn_of, well_formed
from lit_rl.run.saved_rollout import rollout_of_state
from lit_rl.run.saved_values import need, saved_dict, saved_int, saved_list, saved_text

SHUFFLE_STREAM = 3
REMEDY = "use the run's own, or set data.restart_games=true (not bit-exact)"


class RolloutLoader:
    """The sized loader of a fit: each `iter()` collects one rollout and yields the algorithm's batches of it.

    Its state (rollout and cursor) is saved by the datamodule, so a run resumed in mid-iteration goes on with the same
    batches; their order is a function of seed, rank and iteration.

    Sized, because Lightning prefetches an unsized loader, whose first rollout would then be one update stale.
    """

    def __init__(self, data: "SelfPlayDataModule"):
        self.data = data
        self.rollout: Rollout | None = None  # of the running iteration; callbacks ask `lit_rl.algorithm.rollout_of`
        self.cursor = 0  # batches of it that were handed out
        self.resumed = False  # rollout and cursor are those of a checkpoint
        self.finished = False  # nobody looks at the rollout any more

    def __len__(self) -> int:
        return self.data.trainer.lightning_module.batches_per_iteration

    def state_dict(self) -> dict:
        return {"cursor": self.cursor}  # tells Lightning that this loader can resume

    def load_state_dict(self, state_dict: dict) -> None:
        """The datamodule has put rollout and cursor back, together with the games they belong to; both say the same."""
        there = saved_dict(state_dict, "the loader's state", ("cursor",))["cursor"]
        need(not self.resumed or there == self.cursor, f"cursor is {self.cursor} of the games, {there} of the loader")

    def finish(self) -> None:
        """The iteration is over, whatever of its batches was left out (trainer.limit_train_batches, max_steps)."""
        self.cursor, self.finished = len(self), True
        after_iteration(self.data.trainer.lightning_module)

    def __iter__(self) -> Iterator:
        algorithm: Algorithm = self.data.trainer.lightning_module
        iteration = self.data.trainer.current_epoch
        if not self.resumed or self.rollout is None or self.cursor >= len(self):
            before_rollout(algorithm, iteration, int(self.data.seed))
            self.rollout, self.cursor = self.data.collect(self.rollout), 0
            self.finished = False
        doubt = well_formed("its rollout") if self.resumed else contextlib.nullcontext()
        self.resumed = False
        key = derive_key(self.data.seed, SHUFFLE_STREAM, self.data.trainer.global_rank, iteration)
        with doubt:
            batches = algorithm.make_batches(self.rollout, torch.Generator().manual_seed(key >> 1))
            for batch in itertools.islice(batches, self.cursor, None):
                self.cursor += 1  # before the batch is out: a checkpoint after it finds it done
                yield batch


class EvaluationJobs:
    """What `validation_step` gets, one by one, as it is by then. (Lightning takes a plain list for several loaders.)"""

    def __init__(self, jobs: Callable[[], Sequence[Evaluation]]):
        self.jobs = jobs

    def __len__(self) -> int:
        return len(self.jobs())

    def __iter__(self) -> Iterator[Evaluation]:
        return iter(self.jobs())


class SelfPlayDataModule(L.LightningDataModule):
    """Rollouts of the current policy against itself, and what is evaluated.

    Args:
        game: import path of a module that ends with GAME = Game(...), such as envs.leduc_poker; or openspiel:<name>, a
            game of OpenSpiel.
        num_envs: games played side by side, per device.
        num_steps: decisions per game and iteration; num_envs * num_steps make one rollout.
        evaluation: what to measure of the exported policy, see `lit_rl.evaluation`; null: Exact where the game is small
            enough; [] for nothing.
        bonus_coef: weight of the game's bonus, if it has one, in what is learned from.
        team_share: so much of what a player learns from is the mean of its team's rewards.
        seed: of dealing, sampling and shuffling (the CLI copies it from seed_everything).
        num_threads: threads of the environment; more than one pays from some ten thousand games.
        truncate_after: cut games off after so many decisions; null plays all to the end.
        restart_games: go on from a checkpoint with new games instead of the saved ones, which another num_envs or
            number of devices asks for; not bit-exact.
    """

    fixed_during_fit = ("num_envs", "seed", "num_threads", "truncate_after")  # the env is built once

    def __init__(
        self,
        game: str,
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
        check_ranges(SelfPlayDataModule.__init__, locals())
        super().__init__()
        self.game, self.game_path = load_interface(game), game
        self.num_envs, self.num_steps, self.seed = num_envs, num_steps, seed
        self.bonus_coef, self.team_share = bonus_coef, team_share
        self.num_threads, self.truncate_after, self.restart_games = num_threads, truncate_after, restart_games
        settings = {"num_steps": num_steps, "truncate_after": truncate_after, "num_threads": num_threads}
        self.settings = {name: None if x is None else int(x) for name, x in settings.items()}  # plain, to be saved
        self.env: Env | None = None
        self.opponents: Opponents | None = None  # None: the current policy sits in every seat
        self.loader = RolloutLoader(self)
        self.evaluation: list[Evaluation] = []  # once opened
        self.answers: list[Evaluation] = []  # of these jobs, done beside training, which the next validation logs
        self._asked = evaluation
        self._records = False  # a callback wants to replay games
        self._restored: dict | None = None  # of a checkpoint, until the env is there to take it

    def __repr__(self) -> str:  # Lightning's own would collect a rollout to describe the loader
        return f"{type(self).__name__}({self.game.name}, num_envs={self.num_envs}, num_steps={self.num_steps})"

    __str__ = __repr__

    @property
    def exact(self) -> Exact | None:
        """Exact evaluation, if there is."""
        return next((job for job in self.evaluation if isinstance(job, Exact)), None)

    @property
    def tree(self) -> GameTree | None:
        """The game tree, if exact evaluation has one."""
        return None if self.exact is None else self.exact.tree

    def make_env(self, num_envs: int, seed: int, *, record: bool = False, observe_all: bool = False) -> Env:
        """The env that is played in. Overridden by games that are no `Game`.

        record: keep what a replay needs; observe_all: keep every player's infostate, too.
        """
        if isinstance(self.game, OpenSpielGame):
            return OpenSpielEnv(self.game, num_envs, seed, self.truncate_after, observe_all)
        if not isinstance(self.game, Game):
            raise ConfigError(f"data.game: {self.game.name} has no rules here; use the datamodule that makes its env")
        return VectorEnv(self.game, num_envs, seed, self.truncate_after, self.num_threads, observe_all)

    def make_opponents(self, env: Env) -> Opponents | None:
        """Who sits in the seats that are not the learner's, once per fit. Overridden by leagues."""
        return None

    def before_rollout(self, iteration: int) -> None:
        """Called on every rank before each rollout; overridden by leagues."""

    def setup(self, stage: str) -> None:
        module = self.trainer.lightning_module
        if self.trainer.precision in ("bf16-true", "16-true"):
            raise ConfigError(f"trainer.precision={self.trainer.precision}: use bf16-mixed or 16-mixed")
        if stage == "fit" and self.env is None:
            check_algorithm(module)
            monitors = check_start(self.trainer)
            jobs = [Exact()] if self._asked is None else self._asked
            check_monitors(self.trainer, jobs, self.game, monitors)
            collecting = collecting_of(module)
            collecting.check_steps(int(self.num_steps))
            if self.truncate_after is not None and not collecting.truncation:
                raise ConfigError(
                    f"data.truncate_after={self.truncate_after}: {type(module).__name__} learns from games that are "
                    "played to their end; use null"
                )
            if (self.bonus_coef or self.team_share) and not collecting.shaping:
                raise ConfigError(
                    f"data.bonus_coef={self.bonus_coef}, data.team_share={self.team_share}: {type(module).__name__} "
                    "learns from outcomes alone; use 0 for both"
                )
            self._records = games_are_recorded(self.trainer)
            self._check_memory()
            try:
                if isinstance(self.game, Game):
                    rehearse(
                        self.game, truncate_after=self.truncate_after,
                        observe_all=collecting.observe_all,
                    )  # fmt: skip
                self.env = self.make_env(
                    self.num_envs, derive_key(self.seed, self.trainer.global_rank), record=self._records,
                    observe_all=collecting.observe_all,
                )  # fmt: skip
            except ConfigError:
                raise
            except RulesError as error:
                raise ConfigError(f"data.game={self.game_path}: {error}") from None
            except (MemoryError, ValueError) as error:
                raise ConfigError(f"num_envs={self.num_envs}: more games than the memory holds ({error})") from None
            self.opponents = self.make_opponents(self.env)
            self._restore()
        if not self.evaluation:
            self.evaluation = open_evaluation(
                self._asked, self.game, int(self.seed), self.make_env, needed=stage != "fit"
            )

    def _check_memory(self) -> None:
        game = self.game
        row = (
            math.prod(game.obs_shape) * np.dtype(game.obs_dtype).itemsize + game.num_actions / 8 + 8 * game.num_players
        )
        needed = int(self.num_envs) * int(self.num_steps) * row
        there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        if needed > there:
            raise ConfigError(
                f"data.num_envs={self.num_envs}, data.num_steps={self.num_steps}: a rollout of at least "
                f"{needed / 1e9:,.0f} GB, this machine has {there / 1e9:,.0f} GB; lower one of them"
            )

    def collect(self, previous: Rollout | None) -> Rollout:
        """The rollout after `previous`, by the policy as it is now, in the Trainer's precision."""
        algorithm: Algorithm = self.trainer.lightning_module
        self._check_memory()  # again, since num_steps may follow a schedule
        self.before_rollout(self.trainer.current_epoch)
        with self.trainer.precision_plugin.forward_context():
            rollout = collect(
                self.env,
                algorithm.policy,
                self.num_steps,
                collecting=collecting_of(algorithm),
                opponents=self.opponents,
                previous=previous,
                bonus_coef=self.bonus_coef,
                team_share=self.team_share,
                keep_logits=self._records,
                notes=getattr(algorithm, "notes", None),
            )
        algorithm.decisions += rollout.num_decisions * self.trainer.world_size
        return rollout

    def state_dict(self) -> dict:
        """Games, random streams, rollout, cursor and opponents of every rank; called on all ranks, since it gathers.

        Of a rollout that is learned from only what the next one needs is left: its unfinished games.
        """
        if self.env is None:
            return {}
        rollout = self.loader.rollout
        if rollout is not None and self.loader.finished:
            rollout = rollout.tail()
        mine = {
            "env": self.env.state_dict(),
            "rollout": None if rollout is None else rollout.state_dict(),
            "cursor": self.loader.cursor,
            "opponents": None if self.opponents is None else self.opponents.state_dict(),
        }
        ranks = of_every_rank(self.trainer, mine)
        whose = {
            "game": self.game.name,
            "version": self.game.version,
            "seed": int(self.seed),
            "settings": self.settings,
        }
        return whose | {"ranks": ranks}

    def load_state_dict(self, state_dict: dict) -> None:
        self._restored = state_dict
        self._restore()

    def _restore(self) -> None:
        """Take over the state of a checkpoint as soon as both it and the env are there."""
        if self.env is None or not self._restored:
            return
        saved, self._restored = self._restored, None
        if self.restart_games:
            warnings.warn("data.restart_games: going on with new games, which is not bit-exact", stacklevel=2)
            return
        with well_formed("the datamodule's state"):
            self._load_games(saved)

    def _load_games(self, saved: dict) -> None:
        saved_dict(saved, "the datamodule's state", ("game", "version", "seed", "settings", "ranks"))
        there = (saved_text(saved["game"], "game"), saved_text(saved["version"], "version"))
        if there != (self.game.name, self.game.version):
            raise ArtefactError(
                "checkpoint is of {} (rules {}), this run plays {} (rules {}); use the config.yaml beside it".format(
                    *there, self.game.name, self.game.version
                )
            )
        if len(saved_list(saved["ranks"], "ranks")) != self.trainer.world_size:
            raise ConfigError(
                f"trainer.devices: the checkpoint is of a run on {len(saved['ranks'])} device(s), this one has "
                f"{self.trainer.world_size}; {REMEDY}"
            )
        mine = saved_dict(saved["ranks"][self.trainer.global_rank], "rank", ("env", "rollout", "cursor", "opponents"))
        settings = saved_dict(saved["settings"], "settings")
        for name, value in settings.items():
            plain = value is None or type(value) in (bool, int, float) or (type(value) is str and len(value) < 500)
            need(plain, f"settings.{name[:50]} is {type(value).__name__}, needs a number or a text")
        if (mine["opponents"] is None) != (self.opponents is None):
            raise ConfigError(f"data: opponents are not what the checkpoint ran with; {REMEDY}")
        if settings.get("truncate_after") != self.settings["truncate_after"]:
            raise ConfigError(
                f"data.truncate_after: the checkpoint ran with {settings.get('truncate_after')}; {REMEDY}"
            )
        try:
            self.env.load_state_dict(mine["env"])
            if self.opponents is not None:
                self.opponents.load_state_dict(mine["opponents"])
        except ConfigError:
            raise
        except SavedGamesError as error:
            raise ArtefactError(f"checkpoint: {error}") from None
        except ValueError as error:
            raise ConfigError(f"data.num_envs: {error}; {REMEDY}") from None
        algorithm = self.trainer.lightning_module
        rollout, most = None, algorithm.batches_per_iteration
        if mine["rollout"] is not None:
            rollout = rollout_of_state(
                mine["rollout"], self.env, collecting_of(algorithm), getattr(algorithm.policy, "state_shape", ()),
                everybody_learns=self.opponents is None,
            )  # fmt: skip
        seed = saved_int(saved["seed"], "seed", 0, 2**64 - 1)
        self.loader.rollout, self.loader.cursor = rollout, saved_int(mine["cursor"], "cursor", 0, most)
        self.loader.resumed = True
        warn_of("data was", settings, self.settings)
        if seed != self.seed and self.trainer.is_global_zero:
            print(f"  seed={self.seed} has no effect: the random streams are the checkpoint's, of seed={seed}")
        self.seed = seed  # the run's shuffling goes on, too

    def train_dataloader(self) -> RolloutLoader:
        return self.loader

    def val_dataloader(self) -> EvaluationJobs:
        return EvaluationJobs(lambda: self.answers or self.evaluation)

    test_dataloader = val_dataloader

    def predict_dataloader(self) -> EvaluationJobs:
        return EvaluationJobs(lambda: [job for job in self.evaluation if isinstance(job, Exact)])
