"""Self-play: the current policy in every seat. One Lightning epoch = one iteration = one rollout and its updates."""

import itertools
import warnings
from collections.abc import Iterator
from dataclasses import fields
from typing import Protocol

import lightning as L
import torch
from jsonargparse.typing import NonNegativeInt, PositiveInt
from torch import Tensor, nn

from envs.exact import GameTooLargeError, GameTree
from envs.game import load_game
from envs.rng import derive_key
from envs.vector_env import VectorEnv
from lit_rl.rollout import Collecting, Opponents, Rollout, collect
from lit_rl.run.errors import ArtefactError, ConfigError, check_ranges
from lit_rl.run.resume import of_every_rank, warn_of, well_formed

SHUFFLE_STREAM = 3
REMEDY = "use the run's own, or set data.restart_games=true (not bit-exact)"


class Algorithm(Protocol):
    """What a datamodule needs of a LightningModule that learns from rollouts."""

    policy: nn.Module  # (obs, legal) -> PolicyOutput; plays
    decisions: Tensor  # scalar int64 buffer: decisions sampled so far
    sampling_temperature: float
    whole_games: bool  # carry unfinished games over to the next rollout
    merge_rows: bool
    batches_per_iteration: int

    def export_policy(self) -> nn.Module: ...  # (obs, legal) -> PolicyOutput; what is evaluated and shipped

    def make_batches(self, rollout: Rollout, generator: torch.Generator) -> Iterator: ...

    # Optional: collecting (Collecting); observe_all (bool), whether rollouts need histories; prepare(iteration, seed),
    # called on every rank before each rollout.


class RolloutLoader:
    """The sized loader of a fit: each `iter()` collects one rollout and yields the algorithm's batches of it.

    Its state (rollout and cursor) is saved by the datamodule, so a run resumed in mid-iteration goes on with the same
    batches; their order is a function of seed, rank and iteration.

    Sized, because Lightning prefetches an unsized loader, whose first rollout would then be one update stale.
    """

    def __init__(self, data: "SelfPlayDataModule"):
        self.data = data
        self.rollout: Rollout | None = None  # of the running iteration; callbacks look at it
        self.cursor = 0  # batches of it that were handed out
        self.resumed = False  # rollout and cursor are those of a checkpoint

    def __len__(self) -> int:
        return self.data.trainer.lightning_module.batches_per_iteration

    def state_dict(self) -> dict:
        return {"cursor": self.cursor}  # tells Lightning that this loader can resume

    def load_state_dict(self, state_dict: dict) -> None:
        """Nothing to do: the datamodule has put rollout and cursor back together with the games they belong to."""

    def finish(self) -> None:
        """The iteration is over, whatever of its batches was left out (trainer.limit_train_batches, max_steps)."""
        self.cursor = len(self)

    def __iter__(self) -> Iterator:
        algorithm: Algorithm = self.data.trainer.lightning_module
        if not self.resumed or self.rollout is None or self.cursor >= len(self):
            iteration = self.data.trainer.current_epoch
            if hasattr(algorithm, "prepare"):
                algorithm.prepare(iteration, self.data.seed)
            self.data.before_rollout(iteration)
            self.rollout, self.cursor = self.data.collect(self.rollout), 0
        self.resumed = False
        key = derive_key(self.data.seed, SHUFFLE_STREAM, self.data.trainer.global_rank, self.data.trainer.current_epoch)
        batches = algorithm.make_batches(self.rollout, torch.Generator().manual_seed(key >> 1))
        for batch in itertools.islice(batches, self.cursor, None):
            self.cursor += 1  # before the batch is out: a checkpoint after it finds it done
            yield batch


class EvaluationJobs(list):
    """What `validation_step` gets, one by one. (Lightning would take a plain list for a list of loaders.)"""


class SelfPlayDataModule(L.LightningDataModule):
    """Rollouts of the current policy against itself; validation is exact NashConv where the game is small enough.

    Args:
        game: import path of a module that ends with GAME = Game(...), such as envs.leduc_poker.
        num_envs: games played side by side, per device.
        num_steps: decisions per game and iteration; num_envs * num_steps make one rollout.
        seed: of dealing, sampling and shuffling (the CLI copies it from seed_everything).
        num_threads: threads of the environment; more than one pays from some ten thousand games.
        truncate_after: cut games off after so many decisions; null plays all to the end.
        max_tree_nodes: evaluate exactly if the game tree has no more histories than this; 0 never does.
        restart_games: go on from a checkpoint with new games instead of the saved ones, which another num_envs or
            number of devices asks for; not bit-exact.
    """

    fixed_during_fit = ("num_envs", "seed", "num_threads", "truncate_after", "max_tree_nodes")  # the env is built once

    def __init__(
        self,
        game: str,
        num_envs: PositiveInt = 1024,
        num_steps: PositiveInt = 16,
        seed: NonNegativeInt = 0,
        num_threads: PositiveInt = 1,
        truncate_after: PositiveInt | None = None,
        max_tree_nodes: NonNegativeInt = 2_000_000,
        restart_games: bool = False,
    ):
        check_ranges(SelfPlayDataModule.__init__, locals())
        super().__init__()
        self.game = load_game(game)
        self.num_envs, self.num_steps, self.seed = num_envs, num_steps, seed
        self.num_threads, self.truncate_after, self.max_tree_nodes = num_threads, truncate_after, max_tree_nodes
        self.restart_games = restart_games
        settings = {"num_steps": num_steps, "truncate_after": truncate_after, "num_threads": num_threads}
        self.settings = {name: None if x is None else int(x) for name, x in settings.items()}  # plain, to be saved
        self.env: VectorEnv | None = None
        self.seating: Opponents | None = None  # the current policy sits in every seat
        self.opponents: Opponents | None = None
        self.loader = RolloutLoader(self)
        self.tree: GameTree | None = None
        self._restored: dict | None = None  # of a checkpoint, until the env is there to take it

    def __repr__(self) -> str:  # Lightning's own would collect a rollout to describe the loader
        return f"{type(self).__name__}({self.game.name}, num_envs={self.num_envs}, num_steps={self.num_steps})"

    __str__ = __repr__

    def setup(self, stage: str) -> None:
        if self.trainer.precision in ("bf16-true", "16-true"):
            raise ConfigError(f"trainer.precision={self.trainer.precision}: use bf16-mixed or 16-mixed")
        if stage == "fit" and self.env is None:
            minibatches = getattr(self.trainer.lightning_module, "num_minibatches", 1)
            if (self.num_envs * self.num_steps) % minibatches:
                raise ConfigError(
                    f"num_envs={self.num_envs} times num_steps={self.num_steps} is not divisible by "
                    f"num_minibatches={minibatches}; use a divisor of {self.num_envs * self.num_steps}"
                )
            rank_seed = derive_key(self.seed, self.trainer.global_rank)
            record = any(getattr(callback, "records_games", False) for callback in self.trainer.callbacks)
            observe_all = self._collecting().observe_all
            try:
                self.env = VectorEnv(
                    self.game, self.num_envs, rank_seed, self.truncate_after, self.num_threads, record, observe_all
                )
            except (MemoryError, ValueError) as error:
                raise ConfigError(f"num_envs={self.num_envs}: more games than the memory holds ({error})") from None
            self.opponents = self.make_opponents(self.env)
            self._restore()
        if self.tree is None and self.max_tree_nodes:
            try:
                self.tree = GameTree(self.game, self.max_tree_nodes)
            except GameTooLargeError as error:
                if stage != "fit":
                    raise ConfigError(f"nothing to {stage} by: {error}; raise data.max_tree_nodes") from None
                warnings.warn(f"no exact validation: {error}", stacklevel=2)

    def collect(self, previous: Rollout | None) -> Rollout:
        """The rollout after `previous`, by the policy as it is now, in the Trainer's precision."""
        algorithm: Algorithm = self.trainer.lightning_module
        with self.trainer.precision_plugin.forward_context():
            rollout = collect(
                self.env,
                algorithm.policy,
                self.num_steps,
                opponents=self.seating if self.opponents is None else self.opponents,
                previous=previous if algorithm.whole_games else None,
                temperature=algorithm.sampling_temperature,
                exploration=self._exploration(),
                merge_rows=self._collecting().merge_rows,
            )
        algorithm.decisions += rollout.num_decisions * self.trainer.world_size
        return rollout

    def make_opponents(self, env: VectorEnv) -> Opponents | None:
        """Who sits in the other seats; called once, in the setup of a fit."""
        return None

    def before_rollout(self, iteration: int) -> None:
        """Called before every rollout."""

    def _collecting(self) -> Collecting:
        algorithm = self.trainer.lightning_module
        merged = Collecting(merge_rows=getattr(algorithm, "merge_rows", False))
        return getattr(algorithm, "collecting", merged)

    def _exploration(self) -> Tensor | None:
        """[B, P]: how often each player explores."""
        collecting = self._collecting()
        if collecting.explorers == "one" and self.num_envs % self.game.num_players:
            raise ConfigError(
                f"num_envs={self.num_envs}: players explore in turns, row by row; use a multiple of "
                f"{self.game.num_players}"
            )
        return collecting.explores(self.num_envs, self.game.num_players)

    def state_dict(self) -> dict:
        """Games, random streams, rollout and cursor of every rank; called on all ranks, since it gathers."""
        if self.env is None:
            return {}
        rollout = self.loader.rollout
        mine = {
            "env": self.env.save(),
            "rollout": None if rollout is None else {f.name: getattr(rollout, f.name) for f in fields(rollout)},
            "cursor": self.loader.cursor,
        }
        ranks = of_every_rank(self.trainer, mine)
        whose = {
            "game": self.game.name,
            "version": self.game.version,
            "seed": int(self.seed),
            "settings": self.settings,
        }
        if self.opponents is not None:
            whose["opponents"] = of_every_rank(self.trainer, self.opponents.state_dict())
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
            self._take_over(saved)

    def _take_over(self, saved: dict) -> None:
        there = (saved["game"], saved["version"])
        if there != (self.game.name, self.game.version):
            raise ArtefactError(
                "checkpoint is of {} (rules {}), this run plays {} (rules {}); use the config.yaml beside it".format(
                    *there, self.game.name, self.game.version
                )
            )
        if len(saved["ranks"]) != self.trainer.world_size:
            raise ConfigError(
                f"trainer.devices: the checkpoint is of a run on {len(saved['ranks'])} device(s), this one has "
                f"{self.trainer.world_size}; {REMEDY}"
            )
        mine = saved["ranks"][self.trainer.global_rank]
        try:
            self.env.load(mine["env"])
        except ValueError as error:
            raise ConfigError(f"data.num_envs: {error}; {REMEDY}") from None
        if self.opponents is not None:
            self.opponents.load_state_dict(saved["opponents"][self.trainer.global_rank])
        warn_of("data was", saved["settings"] | {"seed": saved["seed"]}, self.settings | {"seed": self.seed})
        self.seed = int(saved["seed"])  # the run's shuffling goes on, too
        self.loader.rollout = None if mine["rollout"] is None else Rollout(**mine["rollout"])
        self.loader.cursor, self.loader.resumed = int(mine["cursor"]), True

    def train_dataloader(self) -> RolloutLoader:
        return self.loader

    def val_dataloader(self) -> "EvaluationJobs":
        return EvaluationJobs([] if self.tree is None else [self.tree])

    test_dataloader = predict_dataloader = val_dataloader
