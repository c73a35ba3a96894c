"""One progress bar for the whole run: iterations, decisions/s, entropy, the headline of the evaluation."""

import sys
import time
from collections.abc import Sequence

import lightning as L
from lightning.pytorch.callbacks import ProgressBar
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

WIDE = 100  # columns of a terminal from which on there is room for a bar


class RunProgress(ProgressBar):
    """Progress of `fit` in iterations; a line every tenth of the run where the output is no terminal."""

    def __init__(self) -> None:
        super().__init__()
        self._enabled = True
        self._bar: Progress | None = None
        self._task = None
        self._room = 0  # characters of a line that are left for metrics
        self._shown: tuple[float, int] | None = None  # time and decisions when the rate was last worked out
        self._rate = 0.0

    def disable(self) -> None:
        self._enabled = False

    def enable(self) -> None:
        self._enabled = True

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._shown = None
        if self._enabled and sys.stdout.isatty():
            console = Console()
            total = trainer.max_epochs if trainer.max_epochs and trainer.max_epochs > 0 else None
            wide = [BarColumn(bar_width=24), TimeElapsedColumn(), TextColumn("<")] if console.width >= WIDE else []
            self._bar = Progress(
                TextColumn("iteration"), MofNCompleteColumn(), *wide, TimeRemainingColumn(),
                TextColumn("{task.fields[metrics]}"), refresh_per_second=4, console=console,
            )  # fmt: skip
            self._room = console.width - len(f"iteration {total}/{total} 0:00:00 ") - (36 if wide else 0)
            self._task = self._bar.add_task("", total=total, completed=trainer.current_epoch, metrics="")
            self._bar.start()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        done = trainer.current_epoch + 1
        if self._shown is None:  # the first iteration compiled
            self._shown = (time.perf_counter(), int(pl_module.decisions))
        if self._bar is not None:
            self._bar.update(self._task, completed=done, metrics=self._metrics(trainer, pl_module, self._room))
        elif self._enabled and (done % max(1, (trainer.max_epochs or 0) // 10) == 0 or done == 1):
            print(f"iteration {done}/{trainer.max_epochs}  {self._metrics(trainer, pl_module)}", flush=True)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._stop()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self._stop()

    def print(self, *args, **kwargs) -> None:
        (self._bar.console if self._bar else Console()).print(*args, **kwargs)

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _metrics(self, trainer: L.Trainer, pl_module: L.LightningModule, room: int = 1000) -> str:
        """As much as fits into so many characters; the headline goes last."""
        now, decisions = time.perf_counter(), int(pl_module.decisions)
        if now - self._shown[0] > 1.0:
            self._rate = (decisions - self._shown[1]) / (now - self._shown[0])
            self._shown = (now, decisions)
        parts = [f"{_short(decisions)} decisions"] + ([f"{_short(self._rate)}/s"] if self._rate else [])
        headlines = [(job.headline, job.short) for job in trainer.datamodule.evaluation[:1]]
        for name, label in [("train/entropy", "entropy"), *headlines]:
            if name in trainer.callback_metrics:
                parts.append(f"{label} {float(trainer.callback_metrics[name]):.3f}")
        return fitting(parts, room)


def fitting(parts: Sequence[str], room: int) -> str:
    """Those of `parts` that fit into `room` characters, in their order; the last one is the one to keep."""
    kept, used = set(), 0
    for i in [len(parts) - 1, *range(len(parts) - 1)] if parts else []:
        used += len(parts[i]) + (2 if kept else 0)
        if used > room:
            break
        kept.add(i)
    return "  ".join(part for i, part in enumerate(parts) if i in kept)


def _short(number: float) -> str:
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return f"{number:.0f}"
