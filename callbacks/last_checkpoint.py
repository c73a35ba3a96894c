"""Keeps checkpoints/last.ckpt: every so often, when a signal asks the run to stop, and at its end."""

import math
import time
import traceback
import warnings
from pathlib import Path

import lightning as L
import torch
from jsonargparse.typing import NonNegativeFloat
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from lit_rl.algorithm import nobody_looks_at_the_rollout
from lit_rl.run.checkpoint_files import remove_stages
from lit_rl.run.checkpoint_io import VerifiedCheckpointIO
from lit_rl.run.errors import StorageError, exit_code
from lit_rl.run.resume import well_formed
from lit_rl.run.run_folder import RunLogger, read_status, write_json
from lit_rl.run.saved_optimizers import take_training_state
from lit_rl.run.saved_values import need, saved_dict, saved_int, saved_text
from lit_rl.run.signals import Stopped, requests


def _check_best(state: dict, monitor: str | None) -> None:
    """ModelCheckpoint deletes the files that its state names: all of them must be checkpoints in the folder it names.

    Raises:
        ArtefactError: names what is not as it should be.
    """
    where = "callbacks.ModelCheckpoint"
    scores = ("best_model_score", "current_score", "kth_value")
    paths = ("best_model_path", "kth_best_model_path", "last_model_path")
    saved_dict(state, where, ("monitor", "dirpath", "best_k_models", *scores, *paths))
    need(state["monitor"] == monitor, f"{where}.monitor is not {monitor}")
    folder = Path(saved_text("" if state["dirpath"] is None else state["dirpath"], f"{where}.dirpath", 4096))
    best = saved_dict(state["best_k_models"], f"{where}.best_k_models")
    for path in (*best, *(saved_text(state[name], f"{where}.{name}", 4096) for name in paths)):
        ours = not path or (Path(path).parent == folder and path.endswith(".ckpt"))
        need(ours, f"{where} names {path[:100]}, which is no checkpoint in {str(folder)[:100]}")
    for score in (*best.values(), *(state[name] for name in scores)):
        ok = score is None or (isinstance(score, torch.Tensor) and score.ndim == 0)
        need(ok and (score is None or not torch.isnan(score)), f"{where} has a score that is no number")
    need(None not in (state["kth_value"], *best.values()), f"{where} lacks a score")
    need((state["best_model_score"] is None) == (not state["best_model_path"]), f"{where} lacks the best score")


class LastCheckpoint(Checkpoint):
    """Save <run>/checkpoints/last.ckpt where a run can go on from bit by bit, and say in status.json how it stands.

    At the border of an iteration, the first included, and after a signal also between two of its minibatches. SIGTERM,
    SIGINT, SIGHUP and SIGUSR1 stop the run there, with exit code 128 + their number; a second signal, or four seconds
    without reaching that point, ends it with the checkpoint it has. The one before stays as last.previous.ckpt. Rows of
    metrics.csv that were logged after the checkpoint a run goes on from are dropped, since they are logged again.

    A run that trainer.max_steps or max_time ends within an iteration leaves the rest of that iteration out: if it goes
    on later, it begins a new one.

    Args:
        every_seconds: how long to wait between two saves; 0 saves at every border.
    """

    def __init__(self, every_seconds: NonNegativeFloat = 60.0):
        self.every_seconds = float(every_seconds)
        self._folder: Path | None = None
        self._saved_at = -math.inf  # seconds of the monotonic clock
        self._at_start = True  # no batch has been trained since the start
        self._rows = 0  # of metrics.csv at the checkpoint this run goes on from
        self._steps: int | None = None  # Lightning's count of batches, for the next one to begin with
        self._log: RunLogger | None = None
        self._begun = False  # the run folder is this run's to write in
        self._checkpointed = True  # what status.json says of this folder; see `lit_rl.run.run_folder`
        self._ended_at: int | None = None  # max_epochs of the run, if it has reached its end

    @classmethod
    def of(cls, trainer: L.Trainer) -> "LastCheckpoint | None":
        """The one that this run has, if it has one."""
        return next((callback for callback in trainer.checkpoint_callbacks if isinstance(callback, cls)), None)

    def path(self, name: str) -> Path:
        """Of a checkpoint of this run."""
        return self._folder / "checkpoints" / name

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        self._folder = Path(trainer.log_dir or trainer.default_root_dir)  # on every rank: Lightning broadcasts it
        self._log = next((logger for logger in trainer.loggers if isinstance(logger, RunLogger)), None)
        if trainer.is_global_zero:
            for name in remove_stages(self._folder / "checkpoints"):
                print(f"removed {name}, left half-written by a run that was killed")
            known = [self._folder / name for name in ("config.yaml", "status.json", "checkpoints")]
            if self._log is not None and not any(path.exists() for path in known):
                self._begun, self._checkpointed = True, False  # a new folder: says so before config.yaml lies there
                self._write_status(trainer, pl_module, "starting")

    def state_dict(self) -> dict:
        rows = self._log.experiment.num_rows() if self._log is not None and rank_zero_only.rank == 0 else 0
        return {"rows": rows, "steps": self._steps, "ended_at": self._ended_at}

    def load_state_dict(self, state_dict: dict) -> None:
        names = ("rows", "steps", "ended_at")
        saved_dict(state_dict, "LastCheckpoint", names)
        self._rows = saved_int(state_dict["rows"], "LastCheckpoint.rows")
        self._steps, self._ended_at = (
            None if state_dict[name] is None else saved_int(state_dict[name], f"LastCheckpoint.{name}", -1)
            for name in names[1:]
        )

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict) -> None:
        checkpoint["quiescent"] = self._steps is not None  # this callback's own saves, of which there are no better

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict) -> None:
        """Look at what Lightning will load without looking, and let ModelCheckpoint know its files again where the run
        folder was moved."""
        if trainer.state.fn == "fit":
            with well_formed("the optimizers' state"):
                take_training_state(checkpoint, pl_module)
        states = saved_dict(checkpoint.get("callbacks"), "callbacks")
        need(trainer.state.fn != "fit" or self.state_key in states, f"callbacks has no {self.state_key}")
        for callback in trainer.checkpoint_callbacks:
            state = states.get(callback.state_key, {})
            if isinstance(callback, ModelCheckpoint) and callback.state_key in states:
                _check_best(state, callback.monitor)
            old, new = state.get("dirpath"), getattr(callback, "dirpath", None)
            if old and new and old != new and (Path(new) / Path(state["best_model_path"]).name).exists():
                state["dirpath"] = new
                for key in ("best_model_path", "kth_best_model_path", "last_model_path"):
                    state[key] = state[key].replace(old, new, 1)
                state["best_k_models"] = {k.replace(old, new, 1): v for k, v in state["best_k_models"].items()}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._log is not None:
            self._log.experiment.keep(self._rows)
        self._at_start = True
        if self._ended_at == trainer.max_epochs:  # by EarlyStopping, say: it has nothing more to do
            trainer.should_stop = True
        self._ended_at = None
        requests.install()  # again, since Lightning has put its own handler in front
        requests.last_words = lambda signum: self._write_status(
            trainer, pl_module, "stopped", exit_code=128 + signum, error="asked to stop twice: left at once"
        )
        self._begun = True
        self._checkpointed = read_status(self._folder).get("checkpointed") is not False
        writer = trainer.strategy.checkpoint_io
        if isinstance(writer, VerifiedCheckpointIO):
            writer.after_visible = lambda: self._after_first(trainer, pl_module)
        else:
            self._checkpointed = True
        self._write_status(trainer, pl_module, "running")

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._at_start:
            return
        signum, due = self._asked(trainer)
        if signum or due:
            self.save(trainer)
        if signum:
            raise Stopped(signum)

    def on_train_batch_start(self, trainer: L.Trainer, *args) -> None:
        if self._steps is not None:  # Lightning counts one too many where the first iteration is one that validates
            trainer.fit_loop.epoch_loop._batches_that_stepped = self._steps
            self._steps = None

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args) -> None:
        self._at_start, requests.deferred = False, True
        signum, _ = self._asked(trainer)
        loop = trainer.fit_loop.epoch_loop
        # Not at the last minibatch, after which the border comes; not within accumulated gradients, which no checkpoint
        # has; not where a validation is due, which would be left out.
        index = loop.total_batch_idx if trainer.check_val_every_n_epoch is None else loop.batch_idx
        busy = loop._should_accumulate() or (index + 1) % trainer.val_check_batch == 0
        if signum and not loop.batch_progress.is_last_batch and not busy:
            self._write(trainer, loop._batches_that_stepped + 1)
            raise Stopped(signum)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        requests.clear_alarm()
        self._ended_at = trainer.max_epochs
        self.save(trainer)
        if getattr(trainer.strategy.checkpoint_io, "failures", 0):
            raise StorageError(f"the final checkpoint could not be written to {self._folder / 'checkpoints'}")
        requests.deferred = False

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._write_status(trainer, pl_module, "finished", exit_code=0)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        requests.clear_alarm()
        if not self._begun:
            return  # nothing has changed in the run folder, which may be another run's
        stopped = isinstance(exception, Stopped)
        code = exception.exit_code if stopped else exit_code(exception)
        if stopped and (self._folder / "config.yaml").exists():
            exception.folder = self._folder
        try:
            if not stopped:
                path = self._folder / "crash" / f"traceback-rank{trainer.global_rank}.txt"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text("".join(traceback.format_exception(exception)), errors="backslashreplace")
            state = "stopped" if stopped else "failed"
            self._write_status(trainer, pl_module, state, exit_code=code, error=str(exception))
        except OSError:
            pass  # the exception on its way says more than a full disk

    def save(self, trainer: L.Trainer, name: str = "last.ckpt") -> None:
        """Save at the border of an iteration: in on_train_epoch_start or on_train_end, on every rank."""
        # Lightning's loops still count the batches of the last iteration here, and a run that went on would skip the
        # next one; they reset these counters themselves as soon as it begins.
        loop, iterations = trainer.fit_loop.epoch_loop, trainer.fit_loop.epoch_progress
        for progress in (loop.batch_progress, loop.scheduler_progress, loop.automatic_optimization.optim_progress):
            progress.reset_on_run()
        loop.val_loop.batch_progress.total.reset()
        nobody_looks_at_the_rollout(trainer)
        # In on_train_epoch_start Lightning counts the next iteration as ready; where it goes on from such a checkpoint
        # it counts it once in the total and not at all in what is under way, and misjudges the checkpoints after that.
        counts = (iterations.total, iterations.current)
        ready = [count.ready for count in counts]
        for count in counts:
            count.ready = count.completed
        try:
            self._write(trainer, loop._batches_that_stepped, name)
        finally:
            for count, number in zip(counts, ready):
                count.ready = number

    def _write(self, trainer: L.Trainer, steps: int, name: str = "last.ckpt") -> None:
        self._steps, writer = steps, trainer.strategy.checkpoint_io
        writer.forgiving = True
        trainer.save_checkpoint(self.path(name))
        writer.forgiving = False
        self._steps = None
        if name == "last.ckpt":
            self._saved_at = time.monotonic()

    def _after_first(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """From now on the run has a checkpoint. Not a moment earlier: a run killed in between could neither go on nor
        begin anew."""
        if not self._checkpointed:
            self._checkpointed = True
            try:
                self._write_status(trainer, pl_module, "running")
            except OSError as error:
                self._checkpointed = False
                warnings.warn(
                    f"status.json not written ({error.strerror or error}); the next save tries again", stacklevel=2
                )

    def _asked(self, trainer: L.Trainer) -> tuple[int, bool]:
        """(signal number or 0, it is time to save), the same on every rank."""
        due = time.monotonic() - self._saved_at >= self.every_seconds
        if trainer.world_size == 1:
            return requests.received, due
        asked = torch.tensor([requests.received, int(due)], device=trainer.strategy.root_device)
        signum, due = trainer.strategy.reduce(asked, reduce_op="max").tolist()
        return int(signum), bool(due)

    def _write_status(self, trainer: L.Trainer, pl_module: L.LightningModule, state: str, **more) -> None:
        if trainer.is_global_zero:
            self._folder.mkdir(parents=True, exist_ok=True)
            progress = {
                "iteration": trainer.current_epoch,
                "of": trainer.max_epochs,
                "decisions": int(pl_module.decisions),
            }
            progress["checkpointed"] = self._checkpointed
            write_json(self._folder / "status.json", {"state": state} | progress | more)
