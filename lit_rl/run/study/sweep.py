"""The `litrl sweep` command: search hyper-parameters with Optuna; several processes may share one study.

    litrl sweep space.yaml --trials 40 --folder runs/sweep        start it as often as there are cores

space.yaml says what to train and what to try:

    config: leduc_ppo                                   # as for litrl fit --config
    metric: eval/nash_conv                              # of metrics.csv, the default
    fixed: {trainer.max_epochs: 500, trainer.check_val_every_n_epoch: 50}
    space:                                              # options of litrl fit, by their full names
      model.clip: {uniform: [0.05, 0.3]}
      model.optimizer.init_args.lr: {log_uniform: [1.0e-4, 1.0e-2]}
      model.minibatches.update_epochs: {int: [1, 4]}
      data.num_envs: {choice: [64, 128, 256]}
    startup_trials: 5                                   # so many before any is pruned
    warmup: 2                                           # validations of a trial before it may be pruned

A trial whose headline is worse than the median of the others' at the same validation is stopped (pruned), so let all
trials make about as many decisions between validations. A process that is killed loses nothing: the same command
takes its trial up again, from its last checkpoint. Each trial has its own seed, its number.
"""

import argparse
import ctypes
import fcntl
import json
import math
import re
import shlex
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from lit_rl.run.arguments import load_yaml
from lit_rl.run.errors import ArtefactError, ConfigError
from lit_rl.run.study.door import guarded
from lit_rl.run.study.runs import lower_is_better, read_metrics, read_run
from lit_rl.run.study.seeds import fit_command, fit_environment, newest_version

if TYPE_CHECKING:
    import optuna

PR_SET_PDEATHSIG = 1  # of linux/prctl.h
POLL_SECONDS = 0.5
FIELDS = {"config", "metric", "fixed", "space", "startup_trials", "warmup"}
KINDS = ("uniform", "log_uniform", "int", "choice")
RESERVED = ("seed_everything", "trainer.default_root_dir", "ckpt_path", "config")  # the sweep sets them itself


def import_optuna():
    """Raises ConfigError: it is not installed."""
    try:
        import optuna
    except ModuleNotFoundError as error:
        if error.name != "optuna":
            raise
        raise ConfigError("litrl sweep needs Optuna, which is not installed: pip install 'lit-rl[sweep]'") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


@dataclass(frozen=True)
class Plan:
    """What a space.yaml says: what is trained, what is tried, and when a trial is given up."""

    config: str
    space: dict[str, tuple[str, list]]  # option -> (kind, arguments)
    metric: str = "eval/nash_conv"
    fixed: dict | None = None
    startup_trials: int = 5
    warmup: int = 2

    def arguments(self, values: dict) -> list[str]:
        """Of litrl fit."""
        given = (self.fixed or {}) | values
        return ["--config", self.config, *(f"--{name}={_typed(value)}" for name, value in given.items())]

    def first(self) -> dict:
        """The lowest value, or the first, of everything that is tried."""
        return {name: arguments[0] for name, (_, arguments) in self.space.items()}

    def draw(self, trial: "optuna.Trial") -> dict:
        """What this trial is to try: drawn now, or when it was first begun."""
        return {name: _draw(trial, name, kind, arguments) for name, (kind, arguments) in self.space.items()}


def _draw(trial: "optuna.Trial", name: str, kind: str, arguments: list):
    if kind == "choice":  # as text, since Optuna keeps no lists
        return json.loads(trial.suggest_categorical(name, [json.dumps(value) for value in arguments]))
    if kind == "int":
        return trial.suggest_int(name, *arguments)
    return trial.suggest_float(name, *arguments, log=kind == "log_uniform")


def _typed(value) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def read_plan(path: Path) -> Plan:
    """Raises ConfigError: names the field that is wrong, its value and what is right."""
    try:
        content = load_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: is no YAML ({' '.join(str(error).split())[:200]})") from None
    if not isinstance(content, dict) or not isinstance(content.get("config"), str):
        raise ConfigError(f"{path}: needs config: <a YAML for litrl fit>, and space: {{<option>: {{<kind>: [...]}}}}")
    if unknown := sorted(str(name) for name in content.keys() - FIELDS):
        raise ConfigError(f"{path}: {unknown[0]} means nothing; known are {', '.join(sorted(FIELDS))}")
    space, fixed = content.get("space"), content.get("fixed") or {}
    if not isinstance(space, dict) or not space:
        raise ConfigError(f"{path}: space={space}: needs at least one {{<option>: {{<kind>: [...]}}}}")
    if not isinstance(fixed, dict):
        raise ConfigError(f"{path}: fixed={fixed}: needs {{<option>: <value>}}")
    for name in [*space, *fixed]:
        if not isinstance(name, str) or not re.fullmatch(r"[\w.]+", name) or name in RESERVED:
            raise ConfigError(f"{path}: {name}: is no option of litrl fit that a sweep may set")
    if both := sorted(space.keys() & fixed.keys()):
        raise ConfigError(f"{path}: {both[0]}: stands in space and in fixed; leave one of them out")
    metric = content.get("metric", Plan.metric)
    if not isinstance(metric, str):
        raise ConfigError(f"{path}: metric={metric}: needs a name in metrics.csv, such as eval/nash_conv")
    for name in ("startup_trials", "warmup"):
        if type(content.get(name, 0)) is not int or content.get(name, 0) < 0:
            raise ConfigError(f"{path}: {name}={content[name]}: needs a whole number of at least 0")
    checked = {name: _checked(path, name, what) for name, what in space.items()}
    return Plan(**content | {"space": checked, "fixed": fixed, "metric": metric})


def _checked(path: Path, name: str, what) -> tuple[str, list]:
    where = f"{path}: space.{name}"
    if not isinstance(what, dict) or len(what) != 1 or next(iter(what)) not in KINDS:
        raise ConfigError(f"{where}={what}: needs one of {', '.join(KINDS)}, as {{uniform: [0.05, 0.3]}}")
    kind, arguments = next(iter(what.items()))
    if not isinstance(arguments, list) or (len(arguments) < 1 if kind == "choice" else len(arguments) != 2):
        needs = "values to choose from" if kind == "choice" else "the smallest and the largest value"
        raise ConfigError(f"{where}.{kind}={arguments}: needs a list of {needs}")
    if kind == "choice":
        return kind, arguments
    try:
        low, high = ends = [int(str(x)) if kind == "int" else float(x) for x in arguments]
    except (TypeError, ValueError):
        raise ConfigError(f"{where}.{kind}={arguments}: needs two numbers") from None
    if not (math.isfinite(low) and math.isfinite(high) and low <= high) or (kind == "log_uniform" and low <= 0):
        above = ", both above 0" if kind == "log_uniform" else ""
        raise ConfigError(f"{where}.{kind}={arguments}: needs the smaller number first{above}")
    return kind, ends


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Within it no other process holds `path`; the operating system gives it back whatever happens to this one."""
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


class Sweep:
    """The part that one process takes in a study.

    The study is <folder>/study.sqlite, the run folders of a trial lie in <folder>/trial_<n>. Who works on a trial holds
    a lock there, and so does its training: a trial that the study calls running and nobody holds was killed.

    Raises:
        ConfigError: Optuna is missing, or the folder holds another sweep.
    """

    def __init__(self, plan: Plan, folder: Path, trials: int, seed: int = 0):
        self.optuna, self.plan, self.folder, self.num_trials, self.seed = import_optuna(), plan, folder, trials, seed
        folder.mkdir(parents=True, exist_ok=True)
        said = json.dumps([plan.config, plan.metric, plan.fixed, plan.space])
        with locked(folder / "lock"), self._errors():
            is_new = not (folder / "study.sqlite").exists()
            if is_new:
                self._try_arguments()
            storage = self.optuna.storages.RDBStorage(
                f"sqlite:///{(folder / 'study.sqlite').absolute()}", engine_kwargs={"connect_args": {"timeout": 60}}
            )
            self.study = self.optuna.create_study(
                storage=storage,
                study_name="sweep",
                load_if_exists=True,
                direction="minimize" if lower_is_better(plan.metric) else "maximize",
                pruner=self.optuna.pruners.MedianPruner(plan.startup_trials, plan.warmup),
            )
            before = self.study.user_attrs.get("plan", said)
            if before != said:
                raise ConfigError(f"{folder}: holds a sweep of another space.yaml; choose another --folder")
            self.study.set_user_attr("plan", said)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        from sqlalchemy.exc import SQLAlchemyError  # Optuna's own, so it is there

        try:
            yield
        except (SQLAlchemyError, self.optuna.exceptions.StorageInternalError) as error:
            said = " ".join(str(error).split())[:200]
            raise ArtefactError(f"{self.folder / 'study.sqlite'}: cannot be used ({said}); move it away") from None

    def _try_arguments(self) -> None:
        """Refuse options that litrl fit does not know before the study is made."""
        command = fit_command(*self.plan.arguments(self.plan.first()), "--print_config")
        tried = subprocess.run(command, env=fit_environment(), capture_output=True, text=True)
        if tried.returncode != 0:
            raise ConfigError(
                "space and fixed: litrl fit says " + (tried.stderr.strip().splitlines() or ["nothing"])[-1]
            )

    def work(self) -> None:
        """Trial after trial, until all are done; waits for those of other processes, whose death it would notice.

        Raises:
            ArtefactError, ConfigError: a training failed in a way that another trial would, too. Its trial stays open.
        """
        while True:
            with locked(self.folder / "lock"), self._errors():
                claim = self._claim()
            if claim is None:
                if not self._running():
                    return
                time.sleep(POLL_SECONDS)
                continue
            trial, lock = claim
            with lock, self._errors():
                self._train(trial, lock.fileno())

    def _running(self) -> list["optuna.trial.FrozenTrial"]:
        return self.study.get_trials(deepcopy=False, states=(self.optuna.trial.TrialState.RUNNING,))

    def _claim(self) -> tuple | None:
        """(trial, its open lock): one that was left behind, else a new one; None when there is none to begin."""
        for left in self._running():
            lock = self._lock(left.number)
            if lock is not None:
                print(f"trial {left.number}: goes on, its process is gone", flush=True)
                return self.optuna.trial.Trial(self.study, left._trial_id), lock
        number = len(self.study.get_trials(deepcopy=False))
        if number >= self.num_trials:
            return None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # constant_liar is called experimental
            self.study.sampler = self.optuna.samplers.TPESampler(  # its seed: no two processes draw alike
                seed=(self.seed * 1_000_003 + number) % 2**32, constant_liar=True
            )
        trial = self.study.ask()
        return trial, self._lock(trial.number)

    def _lock(self, number: int):
        """The open lock of a trial; None if somebody holds it."""
        self.trial_folder(number).mkdir(exist_ok=True)
        file = (self.trial_folder(number) / "worker.lock").open("a")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return None
        return file

    def trial_folder(self, number: int) -> Path:
        return self.folder / f"trial_{number}"

    def _train(self, trial: "optuna.Trial", lock: int) -> None:
        """Train, report each validation, and tell the study how it ended."""
        values, root, state = self.plan.draw(trial), self.trial_folder(trial.number), self.optuna.trial.TrialState
        tried = "  ".join(
            f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}" for name, value in values.items()
        )
        print(f"trial {trial.number}: {tried}", flush=True)
        code, pruned, log = 0, False, root / "log"
        if newest_version(root, "summary.json") is None:
            code, pruned = self._fit(trial, values, root, lock, log)
        reported = self._report(trial, root)
        if pruned:
            self.study.tell(trial, state=state.PRUNED)
            print(f"trial {trial.number}: pruned at {reported[-1]:.5f}", flush=True)
            return
        if code in (2, 4):
            said = (log.read_text(errors="replace").strip().splitlines() or [""])[-1]
            self.study.tell(trial, state=state.FAIL)
            print(f"trial {trial.number}: failed, {said}", flush=True)
            if code == 2 and not self.study.get_trials(deepcopy=False, states=(state.COMPLETE, state.PRUNED)):
                raise ConfigError(f"trial {trial.number} failed and none has succeeded yet: {said}")
            return
        if code != 0:
            raise ArtefactError(
                f"trial {trial.number} ended with exit code {code}, see {log}; the same command goes on"
            )
        run = read_run(newest_version(root, "summary.json"))
        value = run.final(self.plan.metric)
        if value is None:
            raise ConfigError(f"metric={self.plan.metric}: is not logged; {run.folder} has {', '.join(run.metrics)}")
        self.study.tell(trial, value)
        print(f"trial {trial.number}: {value:.5f}", flush=True)

    def _fit(self, trial: "optuna.Trial", values: dict, root: Path, lock: int, log: Path) -> tuple[int, bool]:
        """(exit code, pruned) of the training, which goes on from its last checkpoint if it was begun before."""
        begun = newest_version(root, "config.yaml")
        if begun is not None and (begun / "lock").exists():
            arguments = ["--config", str(begun / "config.yaml"), "--ckpt_path", "last"]
        else:
            arguments = [*self.plan.arguments(values), "--trainer.default_root_dir", str(root)]
            arguments += ["--seed_everything", str(trial.number)]
        with log.open("ab") as said:
            process = subprocess.Popen(
                fit_command(*arguments), env=fit_environment(), stdout=said, stderr=said, stdin=subprocess.DEVNULL,
                pass_fds=(lock,), preexec_fn=_end_with_parent if sys.platform == "linux" else None,
            )  # fmt: skip
        try:
            while True:
                try:
                    return process.wait(POLL_SECONDS), False
                except subprocess.TimeoutExpired:
                    self._report(trial, root)
                    if trial.should_prune():
                        process.send_signal(signal.SIGTERM)  # a run ends well by it, and keeps its checkpoint
                        code = process.wait()
                        return code, code != 0
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()

    def _report(self, trial: "optuna.Trial", root: Path) -> list[float]:
        """Tell the study of all validations that it does not know yet; returns all."""
        run = newest_version(root, "metrics.csv")
        rows = read_metrics(run / "metrics.csv") if run else []
        found = [row[self.plan.metric] for row in rows if math.isfinite(row.get(self.plan.metric, math.nan))]
        known = self.study._storage.get_trial(trial._trial_id).intermediate_values
        for step, value in enumerate(found, start=1):
            if step not in known:
                trial.report(value, step)
        return found

    def tell(self) -> str:
        """The best trials, and how the best is trained again."""
        trials, state = self.study.get_trials(deepcopy=False), self.optuna.trial.TrialState
        done = sorted((t for t in trials if t.state == state.COMPLETE), key=lambda t: t.value)
        done = done if lower_is_better(self.plan.metric) else done[::-1]
        counts = {kind: sum(t.state == kind for t in trials) for kind in (state.COMPLETE, state.PRUNED, state.FAIL)}
        said = ", ".join(f"{count} {kind.name.lower()}" for kind, count in counts.items())
        lines = [f"{len(trials)} trials: {said}"]
        for trial in done[:5]:
            values = "  ".join(f"{n}={v:.4g}" if isinstance(v, float) else f"{n}={v}" for n, v in trial.params.items())
            lines.append(f"  trial {trial.number:>4}  {self.plan.metric} {trial.value:.5f}  {values}")
        if done:
            best = {n: json.loads(v) if self.plan.space[n][0] == "choice" else v for n, v in done[0].params.items()}
            lines.append("best:  litrl fit " + shlex.join(self.plan.arguments(best)))
            lines.append("one seed each: train the best over fresh seeds before you believe it (litrl seeds)")
        return "\n".join(lines)


def _end_with_parent() -> None:
    """Between fork and exec: a training ends, as by SIGTERM, with the process that asked for it."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def command_line() -> argparse.ArgumentParser:
    """What `litrl sweep` takes."""
    parser = argparse.ArgumentParser(
        "litrl sweep", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("space", type=Path, help="a YAML of config, space, metric, fixed")
    parser.add_argument("--trials", type=int, default=40, help="of the whole study, all processes together; default 40")
    parser.add_argument("--folder", type=Path, help="of the study; default runs/sweep/<name of the YAML>")
    parser.add_argument("--seed", type=int, default=0, help="of what is tried")
    return parser


@guarded
def main(args: list[str] | None = None) -> None:
    """Run the command line."""
    parsed = command_line().parse_args(args)
    if parsed.trials < 1:
        raise ConfigError(f"--trials {parsed.trials}: needs at least 1")
    plan = read_plan(parsed.space)
    sweep = Sweep(plan, parsed.folder or Path("runs/sweep") / parsed.space.stem, parsed.trials, parsed.seed)
    sweep.work()
    print(sweep.tell())
    print(f"trials side by side: litrl compare {shlex.quote(str(sweep.folder))}")
