"""Writes chosen games, move by move, to <run>/replay.jsonl; `litrl-replay` verifies and shows them."""

import copy
import hashlib
import itertools
import warnings
from collections.abc import Iterable
from pathlib import Path

import lightning as L
import torch
from jsonargparse.typing import PositiveInt

from envs.game import Game
from envs.rng import derive_key
from lit_rl.algorithm import collecting_of, is_log_iteration, rollout_of
from lit_rl.rollout import Collecting, Rollout, collect
from lit_rl.run.errors import ArtefactError, ConfigError, check_ranges
from lit_rl.run.replay import finished_games, game_record, weights_hash
from lit_rl.run.replay_file import ReplayWriter, read
from lit_rl.run.saved_values import saved_dict, saved_int, saved_text

REPLAY_STREAM = 4


class Replay(L.Callback):
    """Record games of the run, and at its end some with the final weights, which `checkpoints/last.ckpt` can verify.

    The games of iteration i were played by the weights at its start: those of the checkpoint at the end of i - 1. A
    resumed run cuts off what was written after its checkpoint and goes on, so no game appears twice; in another folder
    it begins a new file that names the one before. Recording draws no random number of the run. Logs replay/games
    (written so far) and replay/dropped: chosen games that were lost, to a full disk or as not finite.
    With several devices: the first one's games. What the rollout keeps besides (`Rollout.extras`) is recorded as well.

    Args:
        every: record in every so many iterations, the first included.
        games: in such an iteration, the first so many games that end; at the run's end, as many again.
    """

    records_games = True  # the datamodule asks, since its env has to know from the first game on

    def __init__(self, every: PositiveInt = 100, games: PositiveInt = 4):
        check_ranges(Replay.__init__, locals())
        self.every, self.games = every, games
        self.path: Path | None = None
        self._writer: ReplayWriter | None = None  # on the first rank, where there is a run folder
        self._closed = False  # the disk is full
        self._policy: torch.nn.Module | None = None
        self._state = {"run": "", "iteration": -1, "dropped": 0} | ReplayWriter.nothing

    def state_dict(self) -> dict:
        """Where the file stood after the last iteration, and the hash of the weights that are saved with it."""
        if self._writer is not None:
            self._guarded(self._writer.sync, 0)
        return self._state | {"weights": "" if self._policy is None else weights_hash(self._policy)}

    def load_state_dict(self, state_dict: dict) -> None:
        saved_dict(state_dict, "Replay", (*self._state, "weights"))
        for name, value in self._state.items():
            where = f"Replay.{name}"
            saved_text(state_dict[name], where) if isinstance(value, str) else saved_int(state_dict[name], where, -1)
        self._state = {name: state_dict[name] for name in self._state}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin the file or go on with it; not called, so nothing is cut off, where a resumed run is over already."""
        log_dir = trainer.log_dir  # on every rank: Lightning broadcasts it
        self._policy, self._closed = pl_module.policy, False
        if log_dir is None or not trainer.is_global_zero:
            return
        self.path, data, state = Path(log_dir) / "replay.jsonl", trainer.datamodule, self._state
        if not isinstance(data.game, Game):
            raise ConfigError(
                f"Replay: plays games again by their rules, and {data.game.name} has none here: leave it out"
            )
        if not data.env.record:
            raise ConfigError("Replay: the datamodule's env was built without it and does not record; use a new one")
        if state["games"] and self.path.exists():
            self._writer = ReplayWriter(self.path)
            self._writer.load_state_dict(state)
            return
        if not state["run"]:  # the same run started over gets the same id
            words = (data.game.name, data.game.version, data.seed, data.num_envs, weights_hash(pl_module.policy))
            state["run"] = hashlib.sha256(repr(words).encode()).hexdigest()[:16]
        begun = self.path.exists() and self.path.stat().st_size > 0
        if begun and next(read(self.path))[1].get("run") != state["run"]:
            raise ArtefactError(f"{self.path}: holds games of another run; move it away or choose another run folder")
        self._writer = ReplayWriter(self.path)
        header = {
            "run": state["run"], "continues": state["sha256"], "game": data.game_path,
            "name": data.game.name, "version": data.game.version, "seed": data.seed,
        }  # fmt: skip
        self._guarded(lambda: self._writer.begin(header), 0)
        self._state |= self._writer.state_dict()

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, batch, batch_idx: int) -> None:
        iteration = trainer.current_epoch
        if batch_idx or iteration <= self._state["iteration"] or self._writer is None:
            return
        self._state["iteration"] = iteration
        if iteration % self.every == 0:
            rollout = rollout_of(trainer)
            games = itertools.islice(finished_games(rollout), self.games)
            self._record(trainer, pl_module, rollout, games, trainer.precision)
            self._state |= self._writer.state_dict()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if is_log_iteration(trainer):
            for name in ("games", "dropped"):
                self.log(f"replay/{name}", float(self._state[name]), rank_zero_only=True)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """One game of each row of a small env of its own; a run that goes on cuts them off again: not in the state."""
        if self._writer is None:
            return
        data, policy = trainer.datamodule, copy.deepcopy(pl_module.policy)  # a run's own may remember what it was asked
        limit = data.truncate_after or data.game.max_steps
        env = data.make_env(self.games, derive_key(data.seed, REPLAY_STREAM), record=True)
        collecting = Collecting(temperature=collecting_of(pl_module).temperature)
        policy.eval()
        with torch.autocast(next(policy.parameters()).device.type, enabled=False):
            steps = min(limit, data.game.max_steps)
            rollout = collect(env, policy, steps, collecting=collecting, keep_logits=True)
        games = (game for game in finished_games(rollout) if game[1] == 0)
        precision = "32-true" if next(policy.parameters()).dtype == torch.float32 else trainer.precision
        self._record(trainer, pl_module, rollout, games, precision)

    def _record(
        self, trainer: L.Trainer, pl_module: L.LightningModule, rollout: Rollout, games: Iterable, precision: str
    ) -> None:
        facts = {
            "iteration": trainer.current_epoch, "decisions": int(pl_module.decisions), "precision": str(precision),
            "weights": weights_hash(pl_module.policy),
        }  # fmt: skip
        for game in games:
            record = facts | game_record(trainer.datamodule.game, rollout, *game)
            self._guarded(lambda record=record: self._writer.append(record), 1)

    def _guarded(self, write, games: int) -> None:
        """Storage must not stop a training: the file stays as it was after the last whole game."""
        try:
            if not self._closed:
                write()
                return
        except OSError as error:
            self._closed = True
            warnings.warn(f"{self.path}: closed after the last whole game: {error}", stacklevel=2)
        except ValueError:  # not finite: whether training stops there is the finite guard's to say
            pass
        self._state["dropped"] += games
