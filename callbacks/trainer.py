"""Lightning's Trainer with what every run has: a folder, a picture, whole checkpoints, no chatter.

The command line builds Lightning's own Trainer out of a config and completes it with the same parts.
"""

import signal
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins.io import CheckpointIO
from lightning.pytorch.loggers import CSVLogger, Logger

from callbacks.finite_guard import FiniteGuard
from callbacks.last_checkpoint import LastCheckpoint
from callbacks.run_progress import RunProgress
from callbacks.run_summary import RunSummary
from callbacks.throughput import Throughput
from callbacks.validations import Validations
from lit_rl.run.checkpoint_io import VerifiedCheckpointIO
from lit_rl.run.errors import ConfigError
from lit_rl.run.quiet import quiet
from lit_rl.run.resume import check_fits
from lit_rl.run.run_folder import RunTensorBoard, open_run, release_run_folders
from lit_rl.run.signals import Stopped, requests
from lit_rl.run.threads import use_threads

# Unless the user lists the class itself, or says --without.
ALWAYS = (FiniteGuard, Throughput, Validations, RunProgress, RunSummary, LastCheckpoint)
DEFAULTS = {"max_epochs": 100, "num_sanity_val_steps": 0, "log_every_n_steps": 10, "enable_model_summary": False}
ROOT = "runs"  # where run folders lie unless somebody says otherwise


def always_on(
    listed: Iterable[L.Callback] | None, checkpoints: bool, bar: bool, without: Sequence[str] = ()
) -> list[L.Callback]:
    """New callbacks of `ALWAYS`, without those whose class is among the `listed` ones.

    checkpoints: the run keeps some; bar: it shows how far it is; without: names of classes.
    """
    left_out = {type(callback) for callback in listed or []}
    left_out |= (set() if checkpoints else {LastCheckpoint}) | (set() if bar else {RunProgress})
    return [make() for make in ALWAYS if make not in left_out and make.__name__ not in without]


def own_loggers(given: Logger | Iterable[Logger] | bool | None, run_folder: Path | None) -> list[Logger]:
    """The loggers that the user gave, but for CSV loggers: every run has its own metrics.csv.

    TensorBoard's files go into the run folder; where there is none, they are not written.
    """
    listed = given if isinstance(given, Iterable) else [given]
    kept = [logger for logger in listed if isinstance(logger, Logger) and not isinstance(logger, CSVLogger)]
    for logger in kept:
        if isinstance(logger, RunTensorBoard) and run_folder is not None:
            logger.run_folder = run_folder
    return [logger for logger in kept if run_folder is not None or not isinstance(logger, RunTensorBoard)]


def with_whole_checkpoints(plugins: Any) -> list:
    """The plugins, and one that writes checkpoints whole or not at all, unless there is another that writes them."""
    listed = list(plugins) if isinstance(plugins, list | tuple) else [] if plugins is None else [plugins]
    if any(isinstance(plugin, CheckpointIO) for plugin in listed):
        return listed
    return [*listed, VerifiedCheckpointIO()]


class Trainer(L.Trainer):
    """Lightning's Trainer for one run, as the command line has it.

    `fit` claims the run folder <default_root_dir>/version_<n>: metrics.csv, checkpoints/last.ckpt, status.json,
    summary.json and learning_curve.png. One epoch is one iteration. Ctrl-C stops the run after its minibatch, saves a
    checkpoint and comes out as a KeyboardInterrupt.

    Args:
        max_epochs: how many iterations.
        default_root_dir: where run folders lie.
        callbacks: besides those that are always on (`ALWAYS`); one of the same class takes the place of ours.
        logger: loggers besides metrics.csv; False for no run folder at all, and then no checkpoints.
        plugins: as Lightning's.
        threads: of torch's operations while it fits; None for what OMP_NUM_THREADS says, or one, which small networks
            are fastest with.
        options: all other arguments of Lightning's Trainer.
    """

    def __init__(
        self,
        *,
        max_epochs: int = DEFAULTS["max_epochs"],
        default_root_dir: str | Path = ROOT,
        callbacks: Sequence[L.Callback] | L.Callback | None = None,
        logger: Logger | Iterable[Logger] | bool | None = None,
        plugins: Any = None,
        threads: int | None = None,
        **options: Any,
    ):
        if threads is not None and threads < 1:
            raise ConfigError(f"threads={threads}: needs at least 1")
        self._threads = threads
        listed = [callbacks] if isinstance(callbacks, L.Callback) else list(callbacks or [])
        self._has_folder = logger is not False and not options.get("fast_dev_run")
        self._log: Logger | None = None  # of the run, once it has begun
        self._loggers = logger
        checkpoints = self._has_folder and options.get("enable_checkpointing") is not False
        bar = options.get("enable_progress_bar") is not False
        if not checkpoints:
            options["enable_checkpointing"] = False
        with quiet():
            super().__init__(
                **DEFAULTS | {"max_epochs": max_epochs} | options,
                default_root_dir=default_root_dir,
                callbacks=[*always_on(listed, checkpoints, bar), *listed],
                logger=False,  # the run's own has a place only once it begins
                plugins=with_whole_checkpoints(plugins),
            )

    @property
    def run_folder(self) -> Path | None:
        """The folder of the run; None before `fit`, and where there is none."""
        return None if self._log is None else Path(self._log.log_dir)

    def fit(
        self,
        model: L.LightningModule,
        datamodule: L.LightningDataModule,
        *,
        ckpt_path: str | Path | None = None,
    ) -> None:
        """Train `model` on `datamodule`; `ckpt_path` goes on from a checkpoint, in a new run folder.

        Raises:
            ConfigError: no datamodule, one of another game, or this trainer has had its run.
            ArtefactError: a checkpoint that cannot be trusted, or does not fit.
            KeyboardInterrupt: Ctrl-C. SystemExit: another signal.
        """
        if self._log is not None:
            raise ConfigError(
                f"Trainer: has had its run ({self.run_folder}); make a new one, and give fit a ckpt_path to go on"
            )
        _check_pair(model, datamodule, "fit")
        _check_checkpoint(model, ckpt_path, resumes=True)
        before = torch.get_num_threads()
        with quiet(), _signals_end_the_run():
            try:
                use_threads(self._threads)
                if self._has_folder:
                    self._log = open_run(Path(self.default_root_dir))
                    self.loggers = [self._log, *own_loggers(self._loggers, self.run_folder)]
                super().fit(model, datamodule=datamodule, ckpt_path=ckpt_path)
            finally:
                release_run_folders(keep=False)
                torch.set_num_threads(before)

    def validate(
        self,
        model: L.LightningModule,
        datamodule: L.LightningDataModule,
        *,
        ckpt_path: str | Path | None = None,
    ) -> list[dict[str, float]]:
        """Do the datamodule's evaluations of `model`, or of its weights in a checkpoint, and print them.

        Raises:
            ConfigError, ArtefactError: as `fit`.
        """
        _check_pair(model, datamodule, "validate")
        _check_checkpoint(model, ckpt_path, resumes=False)
        with quiet():
            return super().validate(model, datamodule=datamodule, ckpt_path=ckpt_path, verbose=False)

    def test(self, *args: Any, **kwargs: Any) -> list[dict[str, float]]:
        """The same by Lightning's other name."""
        with quiet():
            return super().test(*args, **{"verbose": False} | kwargs)

    def predict(self, *args: Any, **kwargs: Any) -> list[torch.Tensor]:
        """Action probabilities [R, A] at every infostate of a small game; also as the file policy.csv."""
        with quiet():
            return super().predict(*args, **kwargs)


def _check_pair(model: L.LightningModule, data: L.LightningDataModule, what: str) -> None:
    """Raise ConfigError where `data` is no datamodule, or of another game than the model."""
    if not isinstance(data, L.LightningDataModule):
        raise ConfigError(f"{what}: needs a datamodule such as SelfPlayDataModule(game), got a {type(data).__name__}")
    games = [getattr(getattr(part, "game", None), "name", None) for part in (model, data)]
    if None not in games and games[0] != games[1]:
        raise ConfigError(f"{what}: the model plays {games[0]}, the datamodule {games[1]}; give both the same game")


def _check_checkpoint(model: L.LightningModule, ckpt_path: str | Path | None, resumes: bool) -> None:
    """Raise ArtefactError where a checkpoint is named that cannot be trusted, is none of a run, or not of this one."""
    if ckpt_path is not None:
        check_fits(model, VerifiedCheckpointIO().load_checkpoint(ckpt_path, map_location="cpu"), resumes)


@contextmanager
def _signals_end_the_run() -> Iterator[None]:
    """Within it SIGINT, SIGTERM and SIGHUP ask a run to stop; after it they do what they did before."""
    requests.install()
    try:
        yield
    except Stopped as stop:
        if stop.signum == signal.SIGINT:
            raise KeyboardInterrupt from None
        raise SystemExit(stop.exit_code) from None
    finally:
        requests.restore()
