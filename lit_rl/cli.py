"""The `litrl` command: LightningCLI with the game written once, one-line errors and a run folder that holds it all."""

import logging
import sys
import warnings
from pathlib import Path

import lightning as L
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger, Logger
from lightning.pytorch.utilities.exceptions import MisconfigurationException

# Imported so that the CLI knows them by their short names.
from callbacks.episode_stats import EpisodeStats
from callbacks.finite_guard import FiniteGuard
from callbacks.grad_norm import GradNorm
from callbacks.run_progress import RunProgress
from callbacks.run_summary import RunSummary
from callbacks.scalar_schedule import ScalarSchedule
from callbacks.throughput import Throughput
from datamodules.self_play import SelfPlayDataModule
from lit_rl.errors import ConfigError, one_line
from lit_rl.ppo import PPO
from lit_rl.rnad import RNaD

__all__ = ["PPO", "EpisodeStats", "GradNorm", "RNaD", "ScalarSchedule", "SelfPlayDataModule", "main"]

ALWAYS = (FiniteGuard, Throughput, RunProgress, RunSummary)  # unless the config lists the class itself
QUIET = (
    ".*LeafSpec.*",  # torch 2.13 with lightning 2.6.6 warns of its own internals at every fit
    ".*in eval mode at the start of training.*",  # averages and frozen networks are meant to be
    ".*does not have many workers.*",  # our loaders are no DataLoaders
    ".*is smaller than the logging interval.*",  # we log per iteration, not per batch
)


CHATTER = ("💡", "`weights_only` was not set", "TPU available", "GPU available")


class Parser(LightningArgumentParser):
    """Raises where argparse would print its usage and exit; `main` says it in one line."""

    def error(self, message: str, ex: Exception | None = None):
        raise ConfigError(message) from ex


class LitRLCLI(LightningCLI):
    """`litrl fit|validate|test|predict` for any algorithm (`datamodules.self_play.Algorithm`), by class path."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.link_arguments("data.init_args.game", "model.init_args.game")
        parser.link_arguments("seed_everything", "data.init_args.seed", compute_fn=int)

    def _parse_ckpt_path(self) -> None:
        """Leave the configuration alone: Lightning would let the checkpoint's hyper-parameters win over it."""

    def before_instantiate_classes(self) -> None:
        path = self._get(self.config, "ckpt_path")
        if path and path not in ("last", "best", "hpc") and not Path(path).is_file():
            raise ConfigError(f"ckpt_path={path!r}: no such file; give the path of a .ckpt below <run>/checkpoints")

    def instantiate_classes(self) -> None:
        try:
            super().instantiate_classes()
        except (ValueError, TypeError, MisconfigurationException) as error:
            raise ConfigError(str(error)) from error

    def instantiate_trainer(self, **kwargs) -> L.Trainer:
        """Lightning's, with a CSV log and the run folder <default_root_dir>/version_<n> whatever other loggers ask."""
        trainer = self._get(self.config_init, "trainer")
        if trainer.logger is not False and not trainer.fast_dev_run:
            given = trainer.logger if isinstance(trainer.logger, list) else [trainer.logger]
            csv = CSVLogger(trainer.default_root_dir or "runs", name="", flush_logs_every_n_steps=1)
            kwargs["logger"] = [csv, *(x for x in given if isinstance(x, Logger) and not isinstance(x, CSVLogger))]
        listed = {type(callback) for callback in trainer.callbacks or []}
        if trainer.enable_progress_bar is False:
            listed.add(RunProgress)
        self.trainer_defaults["callbacks"] = [make() for make in ALWAYS if make not in listed]
        return super().instantiate_trainer(**kwargs)


def main(args: list[str] | None = None) -> None:
    """Run the command line; exits with 2 and one line on stderr where the configuration cannot work."""
    if "" not in sys.path:
        sys.path.insert(0, "")  # classes and games of the user lie in the current folder
    for message in QUIET:
        warnings.filterwarnings("ignore", message)
    for name in ("utilities.rank_zero", "trainer.connectors.checkpoint_connector"):
        logger = logging.getLogger(f"lightning.pytorch.{name}")
        logger.addFilter(lambda record: not record.getMessage().startswith(CHATTER))
    try:
        LitRLCLI(
            L.LightningModule,
            L.LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            auto_configure_optimizers=False,
            seed_everything_default=0,
            trainer_defaults={
                "max_epochs": 100,
                "num_sanity_val_steps": 0,
                "log_every_n_steps": 10,
                "enable_model_summary": False,
            },
            save_config_kwargs={"overwrite": True},
            parser_class=Parser,
            args=args,
        )
    except ConfigError as error:
        print(f"error: {one_line(str(error))}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
