"""Where the time of a training goes: what `litrl profile` has a run measure of itself."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import lightning as L
import torch
from jsonargparse.typing import PositiveFloat, PositiveInt

from callbacks.scalar_schedule import ScalarSchedule
from lit_rl.run.errors import check_ranges
from lit_rl.run.run_folder import write_json

# Each second is charged to one of these; what runs within another part is not charged to that one as well.
PARTS = (
    "env",  # rules, observations, chance, sampling of actions that the env does itself
    "opponents",  # in the other seats
    "rollout forward",  # the policy, asked for what it plays
    "rollout rest",  # sampling, and keeping what was seen
    "batches",  # advantages and minibatches out of a rollout
    "forward and loss",
    "backward",
    "optimizer",  # clipping of gradients included
    "validation",
    "Lightning and callbacks",  # all that is left
)
WARM = 3  # iterations before a window opens: compiling, caches, games that are all at their beginning
REST = PARTS[-1]


class Stopwatch(L.Callback):
    """Measure a run in a few windows and end it: nothing is learned worth keeping.

    Schedules change what an iteration costs, so the windows lie evenly over the run: it jumps from the middle of one
    part of its iterations to that of the next, and whatever is a function of the iteration jumps with it. The weights
    are those of a beginner throughout. On a GPU each stamp waits for it.

    Args:
        path: JSON file of what was measured.
        seconds: of all windows together.
        windows: how many.
        clock: wall, or cpu: seconds of this process on all cores, which other processes disturb less.
    """

    def __init__(
        self, path: str, seconds: PositiveFloat = 12.0, windows: PositiveInt = 3, clock: Literal["wall", "cpu"] = "wall"
    ):
        check_ranges(Stopwatch.__init__, locals())
        self.path, self.seconds, self.windows, self.clock = Path(path), float(seconds), int(windows), clock
        self.now: Callable[[], float] = time.process_time if clock == "cpu" else time.perf_counter
        self.found: list[dict] = []
        self._stack, self._spent, self._stamp = [REST], dict.fromkeys(PARTS, 0.0), 0.0
        self._iterations, self._decisions, self._begun_at = 0, 0, 0
        self._cpu, self._wall = 0.0, 0.0  # when the window opened
        self._collecting, self._cuda = False, False

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Within it time is charged to a part, and not to the one around it."""
        self._push(name)
        try:
            yield
        finally:
            self._pop(name)

    def _charge(self) -> None:
        if self._cuda:
            torch.cuda.synchronize()
        now = self.now()
        self._spent[self._stack[-1]] += now - self._stamp
        self._stamp = now

    def _push(self, name: str) -> None:
        self._charge()
        self._stack.append(name)

    def _pop(self, name: str) -> None:
        if self._stack[-1] == name:
            self._charge()
            self._stack.pop()

    def _timed(self, owner, method: str, name: str) -> None:
        """Let the time within a method of this one object be charged to a part."""
        inner = getattr(owner, method)

        def outer(*args, **kwargs):
            with self.part(name):
                return inner(*args, **kwargs)

        setattr(owner, method, outer)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        data, self._cuda = trainer.datamodule, pl_module.device.type == "cuda"
        self._timed(data.env, "step", "env")
        for method in ("act", "stepped", "extras"):
            if data.opponents is not None:
                self._timed(data.opponents, method, "opponents")
        self._timed(data, "collect", "rollout rest")
        collect = data.collect

        def collecting(*args):
            self._collecting = True
            try:
                return collect(*args)
            finally:
                self._collecting = False

        data.collect = collecting
        pl_module.policy.register_forward_pre_hook(self._forward_begins)
        pl_module.policy.register_forward_hook(lambda *_: self._pop("rollout forward"))
        make_batches = pl_module.make_batches

        def batches(*args, **kwargs):
            with self.part("batches"):
                made = iter(make_batches(*args, **kwargs))
            while True:
                with self.part("batches"):
                    batch = next(made, None)
                if batch is None:
                    return
                yield batch

        pl_module.make_batches = batches
        self._timed(pl_module, "training_step", "forward and loss")
        clip = pl_module.configure_gradient_clipping  # the last thing before the optimizer's own work

        def clipping(*args, **kwargs):
            self._push("optimizer")
            clip(*args, **kwargs)

        pl_module.configure_gradient_clipping = clipping
        for optimizer in trainer.optimizers:
            optimizer.register_step_post_hook(lambda *_: self._pop("optimizer"))
        self._jump(trainer, 0)
        self._open(trainer, pl_module)

    def _forward_begins(self, *_) -> None:
        if self._collecting:
            self._push("rollout forward")

    def on_before_backward(self, trainer: L.Trainer, pl_module: L.LightningModule, loss) -> None:
        self._push("backward")

    def on_after_backward(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._pop("backward")

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._push("validation")

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._pop("validation")

    def _jump(self, trainer: L.Trainer, window: int) -> None:
        """To the first iteration of a window, if the run is not past it."""
        if (trainer.max_epochs or -1) > 0:
            target = int(trainer.max_epochs * (window + 0.5) / self.windows)
            progress = trainer.fit_loop.epoch_progress.current
            ahead = max(target - WARM - progress.processed, 0)
            for name in ("ready", "started", "processed", "completed"):
                setattr(progress, name, getattr(progress, name) + ahead)
        self._iterations = -WARM

    def _open(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """From here on it counts."""
        self._spent, self._stack = dict.fromkeys(PARTS, 0.0), [REST]
        self._stamp, self._cpu = self.now(), time.process_time()
        self._wall, self._begun_at = time.perf_counter(), trainer.fit_loop.epoch_progress.current.processed
        self._decisions = int(pl_module.decisions)

    def _close(self, pl_module: L.LightningModule) -> None:
        self._charge()
        seconds = {name: spent for name, spent in self._spent.items() if name != "validation"}
        self.found.append(
            {
                "iteration": self._begun_at,
                "iterations": self._iterations,
                "decisions": int(pl_module.decisions) - self._decisions,
                "seconds": sum(seconds.values()),
                "busy": (time.process_time() - self._cpu) / max(time.perf_counter() - self._wall, 1e-9),
                "parts": seconds,
            }
        )

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._iterations += 1
        if self._iterations == 0:
            self._open(trainer, pl_module)
            return
        self._charge()
        spent = sum(self._spent.values()) - self._spent["validation"]
        if self._iterations < 2 or spent < self.seconds / self.windows:
            return
        self._close(pl_module)
        if len(self.found) == self.windows or trainer.current_epoch + WARM + 2 > (trainer.max_epochs or 1 << 62):
            trainer.should_stop = True
        else:
            self._jump(trainer, len(self.found))

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._iterations > 0 and len(self.found) < self.windows and not trainer.should_stop:
            self._close(pl_module)  # a run shorter than its windows
        every, total = trainer.check_val_every_n_epoch, trainer.max_epochs or 0
        times = -(-total // every) if every and trainer.limit_val_batches and total > 0 else 0
        judged = 0.0
        for job in trainer.datamodule.evaluation if times else ():
            job(pl_module.export_policy())  # the first compiles
            began = self.now()
            job(pl_module.export_policy())
            judged += self.now() - began
        data, merging = trainer.datamodule, (pl_module.hparams.get("minibatches") or {}).get("merge_rows")
        scheduled = [callback.target for callback in trainer.callbacks if isinstance(callback, ScalarSchedule)]
        write_json(
            self.path,
            {
                "game": data.game.name,
                "algorithm": type(pl_module).__name__,
                "iterations": total,
                "windows": self.found,
                "validation": {"seconds": judged, "times": times},
                "settings": {
                    "threads": torch.get_num_threads(),
                    "data.num_threads": int(data.num_threads),
                    "data.num_envs": int(data.num_envs),
                    "data.num_steps": int(data.num_steps),
                    "model.minibatches.merge_rows": merging,
                    "trainer.precision": str(trainer.precision),
                },
                "scheduled": scheduled,
                "device": pl_module.device.type,
            },
        )
