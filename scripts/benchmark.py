"""Strength on games that nobody tuned on: `python scripts/benchmark.py [--games ...] [--algorithms ...] [--seeds ...]`.

A row is one `litrl fit`: an algorithm by its one config, configs/benchmark/<algorithm>.yaml, on a game, from a seed,
for so many decisions. Each runs in a process of its own, in a folder of its own, and prints its exploitability of the
policy exported at its end; the table has the median and the worst of the seeds. A row that was measured is kept, one
that was stopped goes on where it was, so the same command, started again, does what is left. A config that has changed
since gives its rows anew.

    python scripts/benchmark.py --games liars_dice_1x6 goofspiel_5 --decisions 3 --seeds 101 102 103 --jobs 1 --nice 10

Exploitability is NashConv / 2, in the game's reward units (Leduc: chips; else games won), worked out exactly.
"""

import argparse
import hashlib
import json
import math
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from lit_rl.run.checkpoint_files import replace_file  # noqa: E402
from lit_rl.run.errors import ArtefactError, ConfigError  # noqa: E402
from lit_rl.run.job import Job  # noqa: E402

CONFIGS = ROOT / "configs" / "benchmark"
TUNED_ON = ("leduc_poker", "liars_dice_1x4")
GAMES = (
    *TUNED_ON, "liars_dice_1x5", "liars_dice_1x6", "liars_dice_2x3", "liars_dice_2x5", "goofspiel_4", "goofspiel_5",
    "phantom_tic_tac_toe", "dark_hex_3x3", "phantom_tic_tac_toe_abrupt", "dark_hex_3x3_abrupt",
)  # fmt: skip
ALGORITHMS = ("ppo", "magnet", "rnad", "armac")
ABRUPT = {"max_seconds": 600, "max_bytes": 12 << 30}  # of Exact, where its own limits are too narrow
POLL = 0.5  # seconds


class Measured(Protocol):
    """A row: one `litrl fit`, whose run folder then holds the file `leaves`, with `wanted` among its facts."""

    leaves: str
    wanted: str

    @property
    def name(self) -> str: ...

    @property
    def configs(self) -> list[Path]: ...

    def folder(self, root: Path) -> Path: ...

    def arguments(self) -> list[str]:
        """Of litrl fit, the configs first, but for the folder."""
        ...

    def line(self, facts: dict) -> str: ...


@dataclass(frozen=True)
class Row:
    """An algorithm on a game, from a seed."""

    leaves, wanted = "summary.json", "exploitability"

    algorithm: str
    game: str
    millions: float
    seed: int

    @property
    def name(self) -> str:
        return f"{self.algorithm} {self.game} {self.millions:g} M seed {self.seed}"

    def folder(self, root: Path) -> Path:
        return root / self.algorithm / self.game / f"{self.millions:g}m" / f"seed_{self.seed}"

    @property
    def configs(self) -> list[Path]:
        """The algorithm's, and over it what stands in its folder for games that begin with the file's name."""
        base = CONFIGS / f"{self.algorithm}.yaml"
        if not base.is_file():
            raise ConfigError(f"--algorithms {self.algorithm}: there is no {base}")
        fitting = [path for path in (CONFIGS / self.algorithm).glob("*.yaml") if self.game.startswith(path.stem)]
        return [base, *sorted(fitting, key=lambda path: len(path.stem))[-1:]]

    def arguments(self) -> list[str]:
        epochs = math.ceil(1e6 * self.millions / decisions_per_iteration(self.configs))
        found = [f"--config={path}" for path in self.configs]
        found += [f"--data.game=envs.{self.game}", f"--trainer.max_epochs={epochs}", f"--seed_everything={self.seed}"]
        if self.game.endswith("abrupt"):
            found += ["--data.evaluation", json.dumps([{"class_path": "Exact", "init_args": ABRUPT}])]
        return found

    def line(self, facts: dict) -> str:
        return (
            f"{self.name:56} exploitability {facts['exploitability']:.4f}  {facts['decisions']:>10,} decisions  "
            f"{facts['seconds'] / 60:6.1f} min"
        )


def decisions_per_iteration(configs: Sequence[Path]) -> float:
    """As the last of the configs says that says so; num_steps may rise in a line."""
    envs = steps = None
    for path in configs:
        config = yaml.safe_load(path.read_text())
        given = config.get("data", {}).get("init_args", {})
        envs, steps = given.get("num_envs", envs), given.get("num_steps", steps)
        for callback in config.get("trainer", {}).get("callbacks") or []:
            arguments = callback.get("init_args", {}) if isinstance(callback, dict) else {}
            if arguments.get("target") == "data.num_steps":
                line = arguments["schedule"]["init_args"]
                steps = (line["start"] + line["end"]) / 2
    if not envs or not steps:
        raise ConfigError(f"{configs[0]}: needs data.init_args.num_envs and num_steps")
    return envs * steps


class Running:
    """One row's process: begun, taken up again, or found measured already."""

    def __init__(self, row: Measured, root: Path, niceness: int):
        self.row, self.job = row, Job(row.folder(root))
        arguments = row.arguments()
        text = "\n".join([*arguments[len(row.configs) :], *(path.read_text() for path in row.configs)])
        identity = hashlib.sha256(text.encode()).hexdigest()
        if self.job.exists and self.job.facts.get("identity") != identity:
            self.job.move_aside()
        if not self.job.exists:
            self.job.create(identity=identity)
        self.kept = self.job.run_file(row.leaves) is not None
        if not self.kept and not self.job.alive:
            command = self.job.fit_command(
                row.configs[0], [*arguments[1:], f"--trainer.default_root_dir={self.job.folder}"]
            )
            self.job.start(command, niceness)

    @property
    def ended(self) -> bool:
        return self.kept or not self.job.alive

    def result(self) -> dict:
        """Raises ArtefactError: it left no such file."""
        path = self.job.run_file(self.row.leaves)
        if path is None:
            raise ArtefactError(f"{self.row.name}: {self.job.last_word()}; see {self.job.folder / 'log'}")
        facts = json.loads(path.read_text())
        if self.row.wanted not in facts:
            raise ArtefactError(f"{self.row.name}: {path} has no {self.row.wanted}; see {self.job.folder / 'log'}")
        return facts


def measure(rows: Sequence[Measured], root: Path, jobs: int, niceness: int) -> dict[Measured, dict]:
    """What every row leaves, `jobs` side by side; one that fails is said and left out."""
    waiting, running, found = list(rows), [], {}
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                running.append(Running(waiting.pop(0), root, niceness))
            for each in [each for each in running if each.ended]:
                running.remove(each)
                try:
                    found[each.row] = each.result()
                    print(each.row.line(found[each.row]) + "  (kept)" * each.kept, flush=True)
                except ArtefactError as error:
                    print(f"failed: {error}", file=sys.stderr, flush=True)
            if running:
                time.sleep(POLL)
    except BaseException:
        for each in running:
            each.job.stop()  # it checkpoints, and goes on next time
        raise
    return found


def table(found: dict[Row, dict]) -> str:
    """Markdown: a line for each game, algorithm and length."""
    lines = [
        "| game | algorithm | decisions | seeds | exploitability, median (worst) | minutes, median |",
        "|" + "---|" * 6,
    ]
    groups = dict.fromkeys((row.game, row.algorithm, row.millions) for row in found)
    for game, algorithm, millions in groups:
        some = [found[row] for row in found if (row.game, row.algorithm, row.millions) == (game, algorithm, millions)]
        values = [summary["exploitability"] for summary in some]
        minutes = statistics.median(summary["seconds"] for summary in some) / 60
        note = " (tuned on)" if game in TUNED_ON else ""
        lines.append(
            f"| {game}{note} | {algorithm} | {millions:g} M | {len(some)} | {statistics.median(values):.4f} "
            f"({max(values):.4f}) | {minutes:.1f} |"
        )
    return "\n".join(lines)


def command_line(about: str | None = __doc__) -> argparse.ArgumentParser:
    """What this command takes, and scripts/tightness.py."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--games", nargs="+", default=list(GAMES), choices=GAMES, metavar="GAME", help=", ".join(GAMES))
    parser.add_argument(
        "--algorithms", nargs="+", default=list(ALGORITHMS), help="files of configs/benchmark, without .yaml"
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[101, 102, 103, 104, 105])
    parser.add_argument("--decisions", nargs="+", type=float, default=[3.0, 10.0], help="millions of them")
    parser.add_argument("--jobs", type=int, default=1, help="processes side by side")
    parser.add_argument("--nice", type=int, default=0, help="added to this process's niceness")
    parser.add_argument("--folder", type=Path, default=Path("runs/benchmark"), help="where run folders and table.md go")
    return parser


def rows_of(parser: argparse.ArgumentParser, given: argparse.Namespace) -> list[Row]:
    """What was asked for; ends the program where it is wrong, before anything runs."""
    if given.jobs < 1:
        parser.error(f"--jobs {given.jobs}: needs at least 1")
    if any(millions <= 0 for millions in given.decisions):
        parser.error(f"--decisions {min(given.decisions):g}: needs more than 0 million")
    rows = [
        Row(algorithm, game, millions, seed)
        for millions in given.decisions
        for seed in given.seeds
        for game in given.games
        for algorithm in given.algorithms
    ]
    try:
        for row in rows:
            row.arguments()
    except ConfigError as error:
        parser.error(str(error))
    return rows


def main(args: Sequence[str] | None = None) -> None:
    parser = command_line()
    given = parser.parse_args(args)
    found = measure(rows_of(parser, given), given.folder.absolute(), given.jobs, given.nice)
    if found:
        print(table(found))
        replace_file(given.folder / "table.md", (table(found) + "\n").encode())


if __name__ == "__main__":
    main()
