"""Run folders as they are read for a comparison: config.yaml, summary.json, status.json and metrics.csv, no Lightning.

Every file may be damaged, half written, or missing; what cannot be read is refused in one line that names it.
"""

import csv
import io
import json
import math
import re
import statistics
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import yaml

from lit_rl.run.errors import ArtefactError, ConfigError

HEADLINES = ("eval/nash_conv", "eval/return/worst", "eval/win_rate/worst")
LOWER = ("nash_conv", "exploitability", "loss")  # ends of names of what is better when it is lower
WHERE = ("seed_everything", "trainer.default_root_dir", "ckpt_path", "code", "threads", "debug")  # not what is trained


@dataclass(frozen=True)
class Run:
    """One run folder.

    Attributes:
        config: of config.yaml; {} of a run from Python.
        summary: of summary.json; {} until the run has ended.
        state: of status.json: running, finished, stopped ...; "unknown" without one.
        rows: of metrics.csv, each without the names that it has no number for.
    """

    folder: Path
    config: dict
    summary: dict
    state: str
    rows: list[dict[str, float]]

    @property
    def algorithm(self) -> str:
        return str(self.summary.get("algorithm") or value_at(self.config, "model.class_path") or "unknown").split(".")[
            -1
        ]

    @property
    def game(self) -> str:
        named = self.summary.get("game") or value_at(self.config, "data.init_args.game") or "unknown"
        return str(named).removeprefix("envs.")

    @property
    def seed(self) -> int | None:
        return self.summary.get("seed", self.config.get("seed_everything"))

    @property
    def seconds(self) -> float | None:
        """Of the whole run, from summary.json."""
        return _number(self.summary.get("seconds"))

    @property
    def decisions(self) -> float:
        """Made by the end, as far as it was logged."""
        return max([_number(self.summary.get("decisions")) or 0.0, *(row.get("decisions", 0.0) for row in self.rows)])

    @property
    def metrics(self) -> list[str]:
        """Names that metrics.csv has numbers for."""
        return sorted({name for row in self.rows for name in row})

    @cached_property
    def _clock(self) -> tuple[list[float], list[float]]:
        """(epoch + 1, decisions made by its end), both rising: rows of validations say only their epoch."""
        known = {row["epoch"] + 1: row["decisions"] for row in self.rows if "decisions" in row and "epoch" in row}
        times = sorted(known)
        return [0.0, *times], [0.0, *(known[time] for time in times)]

    def series(self, metric: str) -> tuple[list[float], list[float]]:
        """(decisions, values) of a metric, in order; values that are not finite are left out."""
        found = {}
        for row in self.rows:
            if metric in row and math.isfinite(row[metric]):
                measured = row.get("eval/decisions") if metric.startswith("eval/") else None  # done beside training
                at = row.get("decisions", measured)
                at = interpolated(*self._clock, row.get("epoch", 0.0) + 1) if at is None else at
                found[at] = row[metric]
        end = self._summarised(metric)
        if end is not None:
            found[self.decisions] = end
        return sorted(found), [found[at] for at in sorted(found)]

    def final(self, metric: str) -> float | None:
        """What summary.json says of the metric; else the last one that was logged."""
        values = self.series(metric)[1]
        return values[-1] if values else None

    def _summarised(self, metric: str) -> float | None:
        return _number(self.summary.get(metric.removeprefix("eval/")))


def _number(value) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and math.isfinite(value) else None


def value_at(config: dict, path: str):
    """The value at a dotted path of a configuration; None where there is none."""
    for name in path.split("."):
        config = config.get(name) if isinstance(config, dict) else None
    return config


def interpolated(xs: Sequence[float], ys: Sequence[float], x: float) -> float:
    """The value at `x` of the line through the points, `xs` rising; beyond the ends it stays level."""
    i = bisect_left(xs, x)
    if 0 < i < len(xs):
        return ys[i - 1] + (x - xs[i - 1]) / (xs[i] - xs[i - 1]) * (ys[i] - ys[i - 1])
    return ys[min(i, len(ys) - 1)]


def read_run(folder: Path) -> Run:
    """Raises ArtefactError: a file of it is not one that a run writes."""
    config, summary, status = _mapping(folder / "config.yaml"), _mapping(folder / "summary.json"), {}
    status = _mapping(folder / "status.json")
    return Run(folder, config, summary, str(status.get("state", "unknown")), read_metrics(folder / "metrics.csv"))


def _mapping(path: Path) -> dict:
    if not path.is_file():
        return {}
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        raise ArtefactError(f"{path}: cannot be read ({' '.join(str(error).split())[:200]})") from None
    if not isinstance(content, dict):
        raise ArtefactError(f"{path}: is no mapping of names to values")
    return content


def read_metrics(path: Path) -> list[dict[str, float]]:
    """Rows of a metrics.csv as far as they are whole; a killed run, or one that goes on, may leave half a line.

    Raises:
        ArtefactError: a value that is no number, or a row that is longer than the header.
    """
    if not path.is_file():
        return []
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ArtefactError(f"{path}: is no UTF-8") from None
    rows = []
    for number, row in enumerate(csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1])), start=2):
        if None in row:
            raise ArtefactError(f"{path}, line {number}: has more values than the first line has names")
        try:
            rows.append({name: float(value) for name, value in row.items() if value})
        except ValueError as error:
            raise ArtefactError(f"{path}, line {number}: {error}") from None
    return rows


def find_runs(folders: Iterable[Path]) -> list[Run]:
    """The runs in these folders: each a run's own, or one that holds run folders, however deep.

    Raises:
        ConfigError: a folder without any. ArtefactError: as `read_run`.
    """
    found: dict[Path, Path] = {}
    for folder in folders:
        inside = [folder] if (folder / "metrics.csv").is_file() else [p.parent for p in folder.rglob("metrics.csv")]
        if not inside:
            raise ConfigError(f"{folder}: holds no run, a folder with metrics.csv; name one such as runs/x/version_0")
        found |= {path.resolve(): path for path in sorted(inside, key=_in_order)}
    return [read_run(path) for path in found.values()]


def _in_order(path: Path) -> list:
    """version_10 after version_9."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", str(path))]


def headline_of(run: Run) -> str | None:
    """The metric that says most: what the config keeps the best checkpoint by, else what evaluations call so."""
    callbacks = value_at(run.config, "trainer.callbacks")
    monitors = [value_at(callback, "init_args.monitor") for callback in callbacks or [] if isinstance(callback, dict)]
    for name in [m for m in monitors if isinstance(m, str) and m.startswith("eval/")] + list(HEADLINES):
        if run.series(name)[0]:
            return name
    return None


def lower_is_better(metric: str) -> bool:
    return metric.endswith(LOWER)


def worst(metric: str, values: Sequence[float]) -> float:
    return max(values) if lower_is_better(metric) else min(values)


def flat(config: dict, before: str = "") -> dict[str, object]:
    """A configuration as {dotted name: value}, without what stands in `WHERE` and without loggers."""
    found = {}
    for name, value in config.items():
        path = f"{before}{name}"
        if path in WHERE or path == "trainer.logger":
            continue
        if isinstance(value, list) and any(isinstance(item, dict) for item in value):
            value = {str(_name_of(item, i)): item for i, item in enumerate(value)}
        if isinstance(value, dict) and value:
            found |= flat(value, f"{path}.")
        else:
            found[path] = value
    return found


def _name_of(item, index: int) -> str:
    """ScalarSchedule(model.clip), say: what tells an entry of a list from the others."""
    target = value_at(item, "init_args.target")
    kind = str(value_at(item, "class_path") or index).split(".")[-1]
    return f"{kind}({target})" if target else kind


@dataclass(frozen=True)
class Group:
    """Runs of one configuration, which differ in their seed.

    Attributes:
        label: what tells it from the others in a picture.
        metric: the headline.
    """

    label: str
    metric: str
    runs: list[Run]

    @property
    def game(self) -> str:
        return self.runs[0].game

    def finals(self) -> list[float]:
        return [value for run in self.runs if (value := run.final(self.metric)) is not None]

    def band(self, metric: str | None = None) -> tuple[list[float], list[float], list[float], list[float]]:
        """(decisions, smallest, median, largest) where all runs have been, at every point that one of them has.

        Of the headline, or of another metric, over the runs that have logged it.
        """
        curves = [curve for run in self.runs if (curve := run.series(metric or self.metric))[0]]
        if not curves:
            return [], [], [], []
        first, last = max(xs[0] for xs, _ in curves), min(xs[-1] for xs, _ in curves)
        grid = sorted({x for xs, _ in curves for x in xs if first <= x <= last})
        rows = [[interpolated(xs, ys, x) for xs, ys in curves] for x in grid]
        return grid, [min(r) for r in rows], [statistics.median(r) for r in rows], [max(r) for r in rows]


def group(runs: Sequence[Run], metric: str | None = None) -> list[Group]:
    """Runs of equal configuration together, seeds and folders aside, in the order they come.

    Raises:
        ConfigError: `metric`, or any headline where none is named, was not logged by a run.
    """
    groups: dict[str, list[Run]] = {}
    for run in runs:
        key = json.dumps([run.algorithm, run.game, flat(run.config)], sort_keys=True, default=str)
        groups.setdefault(key, []).append(run)
    labels = _labels(list(groups.values()))
    found = []
    for label, members in zip(labels, groups.values()):
        named = metric or next((name for run in members if (name := headline_of(run))), None)
        missing = next((run for run in members if named is None or not run.series(named)[0]), None)
        if missing is not None:
            evaluated = [name for name in missing.metrics if name.startswith("eval/")] or missing.metrics
            what = f"has no {named}" if named else "has none of " + ", ".join(HEADLINES)
            logged = f"it has {', '.join(evaluated)}" if evaluated else "it has nothing at all yet"
            raise ConfigError(f"{missing.folder}: metrics.csv {what}; {logged}; name one by --metric, or leave it out")
        found.append(Group(label, named, members))
    return found


def _labels(groups: list[list[Run]]) -> list[str]:
    """The algorithm, and what the configuration says that those of others of that algorithm do not."""
    labels = []
    for runs in groups:
        rivals = [other for other in groups if (other[0].algorithm, other[0].game) == (runs[0].algorithm, runs[0].game)]
        configs = [flat(other[0].config) for other in rivals]
        mine = flat(runs[0].config)
        differing = [name for name in mine if any(config.get(name) != mine[name] for config in configs)]
        own = ", ".join(f"{name.split('.')[-1]}={mine[name]}" for name in differing)
        label = f"{runs[0].algorithm} {own}".strip()
        labels.append(
            label if len(label) <= 60 and (own or len(rivals) == 1) else f"{runs[0].algorithm} {_place(runs)}"
        )
    twice = {label for label in labels if labels.count(label) > 1}
    return [f"{label} ({_place(runs)})" if label in twice else label for label, runs in zip(labels, groups)]


def _place(runs: list[Run]) -> str:
    """The folder that a configuration's runs share: runs/kuhn_ppo of runs/kuhn_ppo/version_0."""
    folder = runs[0].folder
    return str(folder.parent if folder.name.startswith("version_") and str(folder.parent) != "." else folder)
