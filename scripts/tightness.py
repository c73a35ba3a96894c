"""How much of the exact gain a trained exploiter finds: `python scripts/tightness.py`, after scripts/benchmark.py.

Where exact evaluation is out of reach, a trained exploiter gives a lower bound: in a game of two players and zero sum
its mean return over the seats, on fresh games and with an interval, is at most the exploitability of its victim. How
close it comes is known where both can be had. Each victim is a policy of the benchmark (the last checkpoint of a row),
each exploiter one `litrl fit` by configs/benchmark/exploiter.yaml, begun as its victim; like the benchmark it keeps
what was measured and goes on where it was stopped.

    python scripts/tightness.py --games liars_dice_1x6 goofspiel_4 --algorithms magnet ppo --decisions 3 --seeds 101

The share is (what the exploiter gets, exactly) / (what the best response gets), both in games that the exact evaluator
adds up; the bound is what 20,000 fresh games say, with 95 %.
"""

import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from lit_rl.run.checkpoint_files import replace_file  # noqa: E402
from lit_rl.run.job import Job  # noqa: E402
from scripts import benchmark  # noqa: E402
from scripts.benchmark import Row, command_line, measure, rows_of  # noqa: E402


@dataclass(frozen=True)
class Exploiter:
    """Against the policy that a row of the benchmark ended with."""

    leaves, wanted = "verdict.json", "share"

    victim: Row
    run: Path  # folder of the victim's run

    @property
    def name(self) -> str:
        return f"against {self.victim.name}"

    @property
    def configs(self) -> list[Path]:
        return [benchmark.CONFIGS / "exploiter.yaml"]

    def folder(self, root: Path) -> Path:
        return self.victim.folder(root / "exploiters")

    def arguments(self) -> list[str]:
        checkpoint = self.run / "checkpoints" / "last.ckpt"
        network = yaml.safe_load((self.run / "config.yaml").read_text())["model"]["init_args"]["network"]
        found = [f"--config={path}" for path in self.configs]
        found += [f"--data.game=envs.{self.victim.game}", f"--seed_everything={self.victim.seed}"]
        found += ["--data.opponents", json.dumps([str(checkpoint)]), "--model.network", json.dumps(network)]
        return [*found, "--trainer.callbacks+=StartFrom", f"--trainer.callbacks.policy={checkpoint}"]

    def line(self, facts: dict) -> str:
        low, high = facts["return_interval"]
        return (
            f"{self.name:64} exploitability >= {facts['return']:.4f} [{low:.4f}, {high:.4f}]  exact "
            f"{facts['best_return']:.4f}  share {facts['share']:.3f}"
        )


def victims(rows: Sequence[Row], root: Path) -> list[Exploiter]:
    """Those rows of the benchmark that have ended."""
    found = [(row, Job(row.folder(root)).run_file("summary.json")) for row in rows]
    return [Exploiter(row, summary.parent) for row, summary in found if summary is not None]


def table(found: dict[Exploiter, dict]) -> str:
    """Markdown: a line for each game and algorithm."""
    lines = [
        "| game | victim | seeds | exploitability, exact | exploiter, fresh games [95 %] | share, median (worst) |"
    ]
    lines.append("|" + "---|" * 6)
    for group in dict.fromkeys((each.victim.game, each.victim.algorithm, each.victim.millions) for each in found):
        some = [
            facts for each, facts in found.items()
            if (each.victim.game, each.victim.algorithm, each.victim.millions) == group
        ]  # fmt: skip
        middle = sorted(some, key=lambda facts: facts["share"])[len(some) // 2]
        low, high = middle["return_interval"]
        shares = [facts["share"] for facts in some]
        lines.append(
            f"| {group[0]} | {group[1]}, {group[2]:g} M | {len(some)} | {middle['best_return']:.4f} | "
            f"{middle['return']:.4f} [{low:.4f}, {high:.4f}] | {statistics.median(shares):.3f} ({min(shares):.3f}) |"
        )
    return "\n".join(lines)


def main(args: Sequence[str] | None = None) -> None:
    parser = command_line(__doc__)
    given = parser.parse_args(args)
    root = given.folder.absolute()
    exploiters = victims(rows_of(parser, given), root)
    if not exploiters:
        parser.error(f"--folder {given.folder}: holds none of these rows; run scripts/benchmark.py first")
    found = measure(exploiters, root, given.jobs, given.nice)
    if found:
        print(table(found))
        replace_file(given.folder / "tightness.md", (table(found) + "\n").encode())


if __name__ == "__main__":
    main()
