"""Where the time of a training goes, and which settings would make it shorter: measured, never guessed.

    litrl profile --config configs/leduc_rnad.yaml
    litrl profile --config configs/leduc_rnad.yaml --model.clip 0.1 --seconds 30 --only merge_rows precision

The training itself runs for a short while, in processes of its own, with all its callbacks, in windows that lie evenly
over the run, since schedules change what an iteration costs. One setting at a time is changed, at as many decisions per
iteration as before, between two measurements of the run as it stands. What gained is put together, and measured anew
against the run as it stands, in turns: that gain is the one that is told. Starting and compiling are not in it.
"""

import argparse
import json
import math
import os
import shlex
import statistics
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lit_rl.run.errors import ArtefactError, ConfigError
from lit_rl.run.study.door import guarded
from lit_rl.run.study.seeds import fit_command, fit_environment

AXES = ("threads", "num_threads", "envs_steps", "merge_rows", "precision")
WORTH = 1.03  # as fast as this, or what was seen may be noise
BUSY = 0.85  # of a core; below it, something else had the machine


@dataclass(frozen=True)
class Measurement:
    """What a Stopwatch wrote of one short run (`callbacks.stopwatch`)."""

    facts: dict

    @property
    def settings(self) -> dict:
        return self.facts["settings"]

    def iterations(self, window: dict) -> float:
        """How many iterations of the whole run a window stands for."""
        total = self.facts["iterations"] or sum(w["iterations"] for w in self.facts["windows"])
        return total / len(self.facts["windows"])

    @property
    def validation(self) -> float:
        """Seconds of all validations of the whole run."""
        return self.facts["validation"]["seconds"] * self.facts["validation"]["times"]

    @property
    def seconds(self) -> float:
        """Of the whole run, as this short one lets expect."""
        windows = self.facts["windows"]
        return self.validation + sum(self.iterations(w) * w["seconds"] / w["iterations"] for w in windows)

    @property
    def decisions(self) -> float:
        """Of the whole run."""
        return sum(self.iterations(w) * w["decisions"] / w["iterations"] for w in self.facts["windows"])

    def shares(self) -> dict[str, list[float]]:
        """Part -> its share of each window, and of the whole run, validations included, as the last one."""
        windows, whole = self.facts["windows"], self.seconds
        found = {}
        for name in windows[0]["parts"]:
            spent = sum(self.iterations(w) * w["parts"][name] / w["iterations"] for w in windows)
            found[name] = [*(w["parts"][name] / w["seconds"] for w in windows), spent / whole]
        return found | {"validation": [0.0] * len(windows) + [self.validation / whole]}


@dataclass(frozen=True)
class Change:
    """One or several settings that are otherwise: options of litrl fit, by their names without dashes."""

    axes: tuple[str, ...]
    options: dict[str, str]
    learns_otherwise: bool = False  # and not only faster

    def arguments(self) -> list[str]:
        return [f"--{name}={value}" for name, value in self.options.items()]

    def __str__(self) -> str:
        return "  ".join(self.arguments()) or "as it stands"


def changes(start: Measurement, only: Sequence[str], clock: str) -> tuple[list[Change], list[str]]:
    """What to try, and a line for each thing that cannot be."""
    found, left, settings = [], [], start.settings
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    on_cpu = start.facts["device"] == "cpu"
    counts = sorted({1 << i for i in range(cores.bit_length()) if 1 << i <= cores} | {cores})
    for axis, option in (("threads", "threads"), ("num_threads", "data.num_threads")):
        if axis not in only or (axis == "threads" and not on_cpu):
            continue
        if clock == "cpu":
            left.append(f"{axis}: not tried, since seconds of the CPU (--clock cpu) cannot judge threads")
        elif cores == 1:
            left.append(f"{axis}: not tried, since there is one core")
        else:
            found += [Change((axis,), {option: str(n)}) for n in counts if n != settings[option]]
    if "envs_steps" in only:
        moving = [name for name in ("data.num_envs", "data.num_steps") if name in start.facts["scheduled"]]
        if moving:
            left.append(f"envs_steps: not tried, since a schedule sets {moving[0]}")
        else:
            envs, steps = settings["data.num_envs"], settings["data.num_steps"]
            for factor in (4, 2):
                if steps % factor == 0 and steps > factor:
                    found.append(_sizes(envs * factor, steps // factor))
                if envs % factor == 0 and envs > factor:
                    found.append(_sizes(envs // factor, steps * factor))
    if "merge_rows" in only:
        merges = settings["model.minibatches.merge_rows"]
        if merges is None:
            left.append(f"merge_rows: not tried, since {start.facts['algorithm']} has no minibatches.merge_rows")
        else:
            found.append(Change(("merge_rows",), {"model.minibatches.merge_rows": str(not merges).lower()}))
    if "precision" in only:
        others = [name for name in ("32-true", "bf16-mixed") if name != settings["trainer.precision"]]
        found += [Change(("precision",), {"trainer.precision": name}, True) for name in others]
    return found, left


def _sizes(envs: int, steps: int) -> Change:
    return Change(("envs_steps",), {"data.num_envs": str(envs), "data.num_steps": str(steps)}, True)


@dataclass
class Profile:
    """The measurements of one configuration, taken one after the other.

    Args:
        arguments: of litrl fit.
        seconds: of each measurement.
        clock: wall or cpu.
    """

    arguments: list[str]
    seconds: float
    clock: str
    trials: list[tuple[Change, float]] = field(default_factory=list)  # and how many times as fast it was

    def measure(self, change: Change) -> Measurement:
        """Raises ConfigError: litrl fit refuses it, in its words. ArtefactError: it broke off in another way."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "stopwatch.json"
            watch = {"path": path, "seconds": self.seconds, "clock": self.clock}
            command = fit_command(
                *self.arguments, *change.arguments(), "--trainer.callbacks+=Stopwatch",
                *(f"--trainer.callbacks.{name}={value}" for name, value in watch.items()),
                "--trainer.default_root_dir", folder, "--without", "[RunSummary, RunProgress]",
            )  # fmt: skip
            done = subprocess.run(command, env=fit_environment(), capture_output=True, text=True)
            said = (done.stderr.strip().splitlines() or ["nothing"])[-1]
            if done.returncode == 2:
                raise ConfigError(f"litrl fit says {said}")
            if done.returncode != 0 or not path.exists():
                raise ArtefactError(f"a short run ended with exit code {done.returncode}: {said}")
            facts = json.loads(path.read_text())
        if not facts["windows"]:
            raise ConfigError("trainer.max_epochs: the run is too short to be measured; 20 iterations will do")
        return Measurement(facts)

    def try_each(self, start: Measurement, what: Sequence[Change]) -> list[tuple[Change, float]]:
        """How many times as fast the whole run would be with each change, against the runs as it stands around it."""
        before = start
        for i, change in enumerate(what):
            changed = self.measure(change)
            after = self.measure(NOTHING) if i % 2 or i + 1 == len(what) else before
            gain = math.sqrt(before.seconds * after.seconds) / changed.seconds
            self.trials.append((change, gain))
            print(f"  {change!s:60} {gain:5.2f} x as fast{note(change)}", flush=True)
            before = after
        return self.trials

    def confirm(self, change: Change, times: int) -> list[float]:
        """How many times as fast, measured anew, in turns."""
        return [self.measure(NOTHING).seconds / self.measure(change).seconds for _ in range(times)]


NOTHING = Change((), {})


def note(change: Change) -> str:
    return "   learns otherwise" if change.learns_otherwise else ""


def together(trials: Sequence[tuple[Change, float]]) -> Change:
    """The best change of each axis that is worth it."""
    best: dict[tuple[str, ...], tuple[float, Change]] = {}
    for change, gain in trials:
        if gain >= WORTH and gain > best.get(change.axes, (0.0,))[0]:
            best[change.axes] = gain, change
    chosen = [change for _, change in best.values()]
    options = {name: value for change in chosen for name, value in change.options.items()}
    axes = tuple(axis for change in chosen for axis in change.axes)
    return Change(axes, options, any(change.learns_otherwise for change in chosen))


def lines_of(start: Measurement, clock: str) -> list[str]:
    """What a run takes, and into what it goes."""
    facts, windows = start.facts, start.facts["windows"]
    unit = "s" if clock == "wall" else "s of CPU"
    lines = [
        f"{facts['game']}, {facts['algorithm']}: {start.decisions:,.0f} decisions in {start.seconds:,.1f} {unit}, "
        f"without starting: {facts['iterations']:,} iterations, {facts['validation']['times']} validations of "
        f"{facts['validation']['seconds']:.3f} {unit}",
    ]
    if clock == "wall" and (busy := min(window["busy"] for window in windows)) < BUSY:
        lines.append(f"  the machine is busy: this process got {busy:.2f} of a core. --clock cpu is disturbed less")
    heads = [f"at {window['iteration']:,}" for window in windows] + ["whole run"]
    lines.append(f"  {'ms per iteration':26}" + "".join(f"{head:>12}" for head in heads))
    costs = [1000 * window["seconds"] / window["iterations"] for window in windows]
    lines.append(f"  {'':26}" + "".join(f"{cost:12.2f}" for cost in costs))
    for name, shares in start.shares().items():
        lines.append(f"  {name:26}" + "".join(f"{100 * share:10.1f} %" for share in shares))
    return lines


def command_line() -> argparse.ArgumentParser:
    """What `litrl profile` takes besides the arguments of `litrl fit`."""
    parser = argparse.ArgumentParser(
        "litrl profile", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--config", action="append", required=True, help="of litrl fit, as are all arguments not below")
    parser.add_argument(
        "--seconds", type=float, default=12.0, help="of each measurement, without its start; default 12"
    )
    parser.add_argument("--repeats", type=int, default=3, help="measurements of what is recommended; default 3")
    parser.add_argument("--only", nargs="*", choices=AXES, default=AXES, help="what to try; nothing: where time goes")
    parser.add_argument(
        "--clock", choices=("wall", "cpu"), default="wall", help="cpu on a busy machine; it cannot judge threads"
    )
    return parser


@guarded
def main(args: list[str] | None = None) -> None:
    """Run the command line."""
    parsed, rest = command_line().parse_known_args(args)
    if not (parsed.seconds > 0 and math.isfinite(parsed.seconds)):
        raise ConfigError(f"--seconds {parsed.seconds}: needs a number above 0")
    if parsed.repeats < 1:
        raise ConfigError(f"--repeats {parsed.repeats}: needs at least 1")
    given = [word for config in parsed.config for word in ("--config", config)] + rest
    profile = Profile(given, parsed.seconds, parsed.clock)
    start = profile.measure(NOTHING)
    print("\n".join(lines_of(start, parsed.clock)), flush=True)
    what, left = changes(start, parsed.only, parsed.clock)
    if what:
        print("tried, one at a time, the whole run against the run as it stands:")
    trials = profile.try_each(start, what)
    for line in left:
        print(f"  {line}")
    if not what:
        return
    best = together(trials)
    if not best.options:
        print(f"recommended: nothing; no change made it {WORTH} x as fast")
        return
    gains = profile.confirm(best, parsed.repeats)
    gain = statistics.median(gains)
    if gain < WORTH:
        print(f"recommended: nothing; {best} was {gain:.2f} x as fast when measured anew")
        return
    print(f"recommended: {best}")
    print(f"  {gain:.2f} x as fast ({min(gains):.2f} to {max(gains):.2f}, measured anew {len(gains)} times in turns)")
    if best.learns_otherwise:
        print("  it may learn otherwise, too: see with litrl seeds what it learns")
    print(f"  litrl fit {shlex.join([*given, *best.arguments()])}")
