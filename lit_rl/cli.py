"""The `litrl` command: LightningCLI with the game written once, one-line errors and a run folder that holds it all.

Exit codes: 0 the run reached its end, 2 configuration, 3 checkpoint, 4 numerics, 5 storage, 128 + n stopped by signal n
(130 SIGINT, 143 SIGTERM), 1 anything else. The last line on stderr says why; a traceback comes with --debug, and lies
in <run>/crash/.
"""

import ctypes
import inspect
import os
import pydoc
import signal
import sys
import traceback
from datetime import timedelta
from pathlib import Path

import lightning as L
import yaml
from jsonargparse import Namespace
from jsonargparse.typing import PositiveInt
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.strategies.ddp import default_pg_timeout
from lightning.pytorch.utilities.rank_zero import rank_zero_only

# Imported so that the CLI knows them by their short names.
from callbacks.arena import Arena
from callbacks.episode_stats import EpisodeStats
from callbacks.exploiter_spawner import ExploiterSpawner
from callbacks.exploiter_verdict import ExploiterVerdict
from callbacks.grad_norm import GradNorm
from callbacks.last_checkpoint import LastCheckpoint
from callbacks.mix_lambda import MixLambda
from callbacks.oracle_exploiter import OracleExploiter
from callbacks.promotion import Promotion
from callbacks.replay import Replay
from callbacks.scalar_schedule import ScalarSchedule
from callbacks.snapshot import Snapshot
from callbacks.start_from import StartFrom
from callbacks.stopwatch import Stopwatch
from callbacks.trainer import ALWAYS, DEFAULTS, ROOT, always_on, own_loggers, with_whole_checkpoints
from callbacks.validations import Validations
from datamodules.league_play import LeagueDataModule
from datamodules.retrospective import RetrospectiveDataModule
from datamodules.self_play import SelfPlayDataModule
from lit_rl.algorithm import check_algorithm
from lit_rl.armac.armac import ARMAC
from lit_rl.evaluation import Exact, Ladder, Matches
from lit_rl.imitation import Imitation
from lit_rl.ppo import PPO
from lit_rl.rnad import RNaD
from lit_rl.run import own_code
from lit_rl.run.allowed import trust, trust_named_in
from lit_rl.run.arguments import check_arguments, find_own_code, options, with_packaged_configs
from lit_rl.run.checkpoint_files import newest_verified, replace_file, verify
from lit_rl.run.checkpoint_io import VerifiedCheckpointIO
from lit_rl.run.display import undying
from lit_rl.run.errors import LARGEST_FLOAT, LARGEST_INT, ArtefactError, ConfigError, exit_code, out_of_memory
from lit_rl.run.freed_memory import keep_freed_memory
from lit_rl.run.messages import one_line
from lit_rl.run.quiet import quiet
from lit_rl.run.remote_log import close_remote_logs, open_remote_log
from lit_rl.run.resume import check_fits
from lit_rl.run.run_folder import (
    move_aside,
    open_run,
    release_run_folders,
    without_checkpoint,
)
from lit_rl.run.signals import Stopped, requests
from lit_rl.run.threads import use_threads

__all__ = [
    "ARMAC",
    "PPO",
    "Arena",
    "EpisodeStats",
    "Exact",
    "ExploiterSpawner",
    "ExploiterVerdict",
    "GradNorm",
    "Imitation",
    "Ladder",
    "LastCheckpoint",
    "LeagueDataModule",
    "Matches",
    "MixLambda",
    "OracleExploiter",
    "Promotion",
    "RNaD",
    "Replay",
    "RetrospectiveDataModule",
    "ScalarSchedule",
    "SelfPlayDataModule",
    "Snapshot",
    "StartFrom",
    "Stopwatch",
    "Validations",
    "main",
]  # fmt: skip

PR_SET_PDEATHSIG = 1  # of linux/prctl.h


ABOUT = (
    "Train, judge and use policies of games: litrl fit --config leduc_ppo. Besides, litrl play <run> sits you opposite "
    "one, litrl usi <run> is an engine for shogi boards, litrl showdown-bot <run> plays on a Pokémon server, litrl "
    "compare sets runs side by side, board makes a page of them, seeds trains several seeds, sweep searches "
    "hyper-parameters, profile says where a run's time goes and what would be faster, litrl-replay looks at recorded "
    "games, litrl --version says what is installed."
)


class Parser(LightningArgumentParser):
    """Raises where argparse would print its usage and exit; `main` says it in one line."""

    def __init__(self, *args, description: str = ABOUT, **kwargs):
        super().__init__(*args, description=description, **kwargs)

    def error(self, message: str, ex: Exception | None = None):
        raise ConfigError(message) from ex


class SaveConfig(SaveConfigCallback):
    """Write <run>/config.yaml, ready to run again; atomically, and only once a checkpoint to go on from has fitted.

    Another config.yaml that lies there is moved aside, and so is what a run has logged that begins anew in its folder.
    """

    starts_over = False

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Lightning would write it here, before the checkpoint is loaded."""

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        log_dir = trainer.log_dir  # on every rank: Lightning broadcasts it
        if log_dir is not None and trainer.is_global_zero:
            Path(log_dir).mkdir(parents=True, exist_ok=True)
            path, text = Path(log_dir) / self.config_filename, self.parser.dump(self.config, skip_none=False).encode()
            if path.exists() and path.read_bytes() != text:
                move_aside(path)
            replace_file(path, text)
            for name in ("metrics.csv", "replay.jsonl") if self.starts_over else ():
                move_aside(Path(log_dir) / name)


class LitRLCLI(LightningCLI):
    """`litrl fit|validate|test|predict` for any algorithm (`lit_rl.algorithm.Algorithm`), by class path."""

    given: frozenset[str] = frozenset()  # options of the command line
    run_folder: Path | None = None  # of the run that --ckpt_path last goes on with
    origin: str | None = None  # the checkpoint that run began with
    starts_over: bool = False  # it has not got as far as a checkpoint of its own

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.link_arguments("data.init_args.game", "model.init_args.game")
        parser.link_arguments("seed_everything", "data.init_args.seed", compute_fn=int)
        parser.add_argument(
            "--ddp_timeout",
            type=PositiveInt,
            default=300,
            help="Seconds without a word from another device's process until the job ends.",
        )
        parser.add_argument(
            "--allow",
            type=list[str],
            default=[],
            help="Packages that checkpoints, player files and leagues may name code of, besides those of this config.",
        )
        parser.add_argument(
            "--code",
            type=str | None,
            default=None,
            help="Folder of your own classes and games, beside the current one; a run that uses some remembers it.",
        )
        parser.add_argument(
            "--without",
            type=str | list[str],
            default=[],
            help=f"Callbacks to leave out, of those that are always on: {', '.join(make.__name__ for make in ALWAYS)}.",
        )
        parser.add_argument(
            "--threads",
            type=PositiveInt | None,
            default=None,
            help="Threads of torch's operations (null: OMP_NUM_THREADS, or one: small networks gain nothing by more).",
        )
        parser.add_argument("--debug", action="store_true", help="Show the traceback of an error.")

    def parse_arguments(self, parser: LightningArgumentParser, args) -> None:
        super().parse_arguments(parser, args)
        seed = self.config[self.config.subcommand].get("seed_everything")
        if not isinstance(seed, bool) and seed is not None and not 0 <= seed < 2**32:
            raise ConfigError(f"seed_everything={seed}: needs 0 to {2**32 - 1}")

    def _parse_ckpt_path(self) -> None:
        """Leave the configuration alone: Lightning would let the checkpoint's hyper-parameters win over it."""

    def before_instantiate_classes(self) -> None:
        config = self.config[self.subcommand]
        if config.trainer.check_val_every_n_epoch is not None and config.trainer.check_val_every_n_epoch < 1:
            raise ConfigError(
                f"trainer.check_val_every_n_epoch={config.trainer.check_val_every_n_epoch}: needs at least 1; "
                "trainer.limit_val_batches=0 switches validation off"
            )
        self._remember_own_code(config)
        self._refuse_values_of_schedules(config)
        threads = use_threads(config.get("threads"))
        keep_freed_memory()
        if self.subcommand == "fit" and rank_zero_only.rank == 0:
            print(f"torch threads: {threads} of {os.cpu_count()} cores (--threads)")
        trust(config.get("allow") or [])
        for part in (config.get("model"), config.get("data")):
            trust_named_in(part.as_dict() if isinstance(part, Namespace) else part)
        clip, every = config.trainer.gradient_clip_val, config.trainer.log_every_n_steps
        if clip is not None and not 0 <= clip <= LARGEST_FLOAT:
            raise ConfigError(f"trainer.gradient_clip_val={clip:.4g}: needs at least 0; null does not clip")
        if every is not None and not 0 <= every <= LARGEST_INT:
            raise ConfigError(f"trainer.log_every_n_steps={every}: needs at least 1; 0 logs nothing")
        path = config.get("ckpt_path")
        if path == "last":
            self.run_folder = _folder_of(config.get("config"))
            self.origin = yaml.safe_load((self.run_folder / "config.yaml").read_text()).get("ckpt_path")
            newest = self._newest_checkpoint(self.run_folder)
            config["ckpt_path"], self.starts_over = newest or self.origin, newest is None
        elif path is not None:
            verify(Path(path))

    def _remember_own_code(self, config: Namespace) -> None:
        """Write the current folder into the configuration, as `code`, if the run uses code of the user's there."""
        names = own_code.named_in(config.as_dict())
        if "code" not in self.given and (both := own_code.in_both(names)):
            raise ConfigError(
                f"{both[0]}: lies in {config.code}, where this run began, and here, in {Path.cwd()}; "
                "say which one is meant: --code <folder>"
            )
        if own_code.own_folder() is not None:
            config.code = str(own_code.own_folder())
        elif own_code.lying_in(Path.cwd(), names):
            config.code = str(Path.cwd())

    def _refuse_values_of_schedules(self, config: Namespace) -> None:
        """A number that a ScalarSchedule sets in every iteration cannot be given besides.

        The class's own default and the value that the schedule begins with contradict nothing, and may stand there.
        """
        scheduled: dict[str, Namespace] = {}
        for callback in config.trainer.callbacks or []:
            if callback.class_path == "callbacks.scalar_schedule.ScalarSchedule":
                target = callback.init_args.target
                if target in scheduled:
                    raise ConfigError(f"trainer.callbacks: two schedules set {target}; leave one of them out")
                scheduled[target] = callback.init_args.schedule
        for target, schedule in scheduled.items():
            scope, _, name = target.partition(".")
            part = config.get(scope)
            values = part.get("init_args") if part else None
            if values is None or name not in values:
                continue
            default = inspect.signature(pydoc.locate(part.class_path)).parameters[name].default
            start = (schedule.get("init_args") or {}).get("start")
            explicit = {f"{scope}.{name}", f"{scope}.init_args.{name}"} & self.given
            if values[name] not in ((start,) if explicit else (default, start)):
                raise ConfigError(
                    f"{target}={values[name]}: has no effect, since a ScalarSchedule sets it in every iteration; "
                    "leave one of the two out"
                )

    def before_fit(self) -> None:
        """Refuse a checkpoint of something else before anything is compiled; so do validate, test and predict."""
        path = self._get(self.config_init, "ckpt_path")
        if path is not None:
            check_algorithm(self.model)
            checkpoint = VerifiedCheckpointIO().load_checkpoint(path, map_location="cpu")
            check_fits(self.model, checkpoint, resumes=self.subcommand == "fit")

    before_validate = before_test = before_predict = before_fit

    def _newest_checkpoint(self, run_folder: Path) -> str | None:
        newest, refused = newest_verified(run_folder / "checkpoints")
        for reason in refused:
            print(f"passed over: {reason}", file=sys.stderr)
        reason = "" if newest else "none can be trusted" if refused else without_checkpoint(run_folder)
        if reason:
            raise ArtefactError(
                f"ckpt_path=last: no checkpoint in {run_folder / 'checkpoints'} to go on from, and {reason}; nothing "
                "was changed: put the checkpoints back, or begin a new run without ckpt_path"
            )
        start = newest or f"{self.origin or 'the beginning'}: {run_folder} holds no checkpoint yet"
        print(f"going on from {start}")
        return newest and str(newest)

    def instantiate_classes(self) -> None:
        try:
            super().instantiate_classes()
        except (ArtefactError, OSError):
            raise
        except (ValueError, TypeError) as error:
            raise ConfigError(str(error)) from error
        for name, built in (("model", self.model), ("data", self.datamodule)):
            if type(built) in (L.LightningModule, L.LightningDataModule):
                raise ConfigError(
                    f"{name}: needs a class_path, such as {'PPO' if name == 'model' else 'SelfPlayDataModule'}"
                )

    def instantiate_trainer(self, **kwargs) -> L.Trainer:
        """Lightning's, with a CSV log and the run folder <default_root_dir>/version_<n> whatever other loggers ask."""
        trainer = self._get(self.config_init, "trainer")
        has_folder = trainer.logger is not False and not trainer.fast_dev_run
        keeps = has_folder and trainer.enable_checkpointing is not False
        without = self._get(self.config, "without")
        without = [without] if isinstance(without, str) else without
        known = [make.__name__ for make in ALWAYS]
        if wrong := [name for name in without if name not in known]:
            raise ConfigError(f"without={wrong[0]}: is not always on; those that are: {', '.join(known)}")
        if trainer.callbacks:
            trainer.callbacks = [each for each in trainer.callbacks if type(each).__name__ not in without]
        if has_folder:
            given = trainer.logger if isinstance(trainer.logger, list) else [trainer.logger]
            for logger in given:
                if isinstance(logger, WandbLogger) and rank_zero_only.rank == 0 and self.subcommand == "fit":
                    open_remote_log(logger)
            root = Path(trainer.default_root_dir or ROOT)
            own = [open_run(root, self.run_folder)] if self.subcommand == "fit" else []
            kwargs["logger"] = own + own_loggers(given, Path(own[0].log_dir) if own else None)
        kwargs["plugins"] = with_whole_checkpoints(trainer.plugins)
        bar = trainer.enable_progress_bar is not False
        self.trainer_defaults["callbacks"] = always_on(trainer.callbacks, keeps, bar, without)
        if self.run_folder is not None:
            self.config[self.subcommand]["ckpt_path"] = self.origin  # config.yaml describes the run, not its rescue
        keys = [c.state_key for c in trainer.callbacks or [] if type(c).state_dict is not L.Callback.state_dict]
        if twice := {key.split("{")[0] for key in keys if keys.count(key) > 1}:
            raise ConfigError(f"trainer.callbacks: {', '.join(twice)} is listed twice, and a checkpoint could hold one")
        built = super().instantiate_trainer(**kwargs)
        for callback in built.callbacks:
            if isinstance(callback, SaveConfig):
                callback.starts_over = self.starts_over
        if isinstance(built.strategy, DDPStrategy) and built.strategy._timeout == default_pg_timeout:
            built.strategy._timeout = timedelta(seconds=self._get(self.config, "ddp_timeout"))
        return built


def _folder_of(configs: list | None) -> Path:
    """The run folder that the last --config of a run lies in; overlays may stand around it."""
    for path in reversed([Path(str(config)).absolute() for config in configs or []]):
        if path.name == "config.yaml" and (path.parent / "lock").exists():
            return path.parent
    raise ConfigError(
        f"ckpt_path=last: goes on with the run whose folder holds a config, {configs and configs[-1]} lies in none; "
        "give --config <run>/config.yaml, or the path of a checkpoint"
    )


@undying()
@quiet()
def main(args: list[str] | None = None) -> None:
    """Run the command line; exits as the module's docstring says."""
    words = with_packaged_configs(sys.argv[1:] if args is None else args)
    if args is None:
        sys.argv[1:] = words
    else:
        args = words
    if "LOCAL_RANK" in os.environ and sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # no rank outlives the process that started it
    begun = True  # or ended by what the user can mend, and then a run folder in which nothing has begun goes
    try:
        requests.install()
        check_arguments(words)
        find_own_code(words)
        LitRLCLI.given = frozenset(name for name, _ in options(words))
        LitRLCLI(
            L.LightningModule,
            L.LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            auto_configure_optimizers=False,
            seed_everything_default=0,
            trainer_defaults=dict(DEFAULTS),
            save_config_callback=SaveConfig,
            parser_class=Parser,
            args=args,
        )
        close_remote_logs()
    except Stopped as stop:
        begun = False
        print(stop, file=sys.stderr)
        sys.exit(stop.exit_code)
    except Exception as error:
        code = exit_code(error)
        begun = code == 1
        if "--debug" in words:
            traceback.print_exception(error)
        what = one_line(str(error), list(options(words)))
        if out_of_memory(error):
            what = f"more memory than there is ({what or type(error).__name__}); lower data.num_envs, data.num_steps"
            what += " or the sizes of model.network"
        if code == 1:
            what = f"{type(error).__name__}: {what}; --debug shows where, and so does <run>/crash/"
        close_remote_logs()
        print(f"error[{code}]: {what}", file=sys.stderr)
        sys.exit(code)
    finally:
        release_run_folders(keep=begun)
        requests.restore()
