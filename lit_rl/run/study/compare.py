"""The `litrl compare` command: runs and seeds side by side, in one table and one picture.

    litrl compare runs/seeds/kuhn_ppo runs/seeds/kuhn_rnad        all runs in these folders, together by configuration
    litrl compare runs/a/version_0 runs/b/version_0 --metric eval/exploitability

The line is the median over the runs of a configuration, the band reaches from the smallest to the largest: of n runs it
holds the true median with probability 1 - 2^(1 - n), whatever the distribution.
"""

import argparse
import math
import statistics
from collections.abc import Sequence
from pathlib import Path

from lit_rl.run.figures import new_figure, save_figure
from lit_rl.run.study.door import guarded
from lit_rl.run.study.runs import Group, find_runs, group, lower_is_better, worst

COLOURS = ("#1f5fa8", "#b3541e", "#2e7d4f", "#7b4ea3", "#8a6d1a", "#a8324a", "#2a8c94", "#666666")
LABELS = {
    "eval/nash_conv": "NashConv (reward units per game)",
    "eval/exploitability": "exploitability (reward units per game)",
    "eval/return/worst": "return against the worst opponent (reward units per game)",
    "eval/win_rate/worst": "win rate against the worst opponent",
}


HEAD = ("algorithm", "game", "decisions", "seconds", "metric", "median", "worst", "n", "configuration")
NUMBERS = (2, 3, 5, 6, 7)  # columns of numbers


def cells(of: Group) -> tuple[str, ...]:
    """What the table says of a configuration."""
    seconds = [run.seconds for run in of.runs if run.seconds is not None]
    finals, running = of.finals(), sum(run.state != "finished" for run in of.runs)
    return (
        of.runs[0].algorithm, of.game,
        f"{statistics.median(run.decisions for run in of.runs):,.0f}",
        f"{statistics.median(seconds):,.0f}" if seconds else "-",
        of.metric.removeprefix("eval/"), f"{statistics.median(finals):.5f}", f"{worst(of.metric, finals):.5f}",
        str(len(finals)), of.label + (f" ({running} not finished)" if running else ""),
    )  # fmt: skip


def table(groups: Sequence[Group]) -> str:
    """One line for each configuration, numbers to the right."""
    lines = [HEAD, *map(cells, groups)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(HEAD))]
    return "\n".join(
        "  ".join(f"{cell:{'>' if i in NUMBERS else '<'}{w}}" for i, (cell, w) in enumerate(zip(line, widths))).rstrip()
        for line in lines
    )


def draw(groups: Sequence[Group], path: Path) -> None:
    """Median and band of each configuration over decisions, beside each other where games or metrics differ."""
    from matplotlib.ticker import EngFormatter, FuncFormatter

    panels = list(dict.fromkeys((each.game, each.metric) for each in groups))
    columns = min(len(panels), 3)
    rows = math.ceil(len(panels) / columns)
    figure = new_figure(7 * columns if columns == 1 else 5.4 * columns, 4.2 * rows)
    for at, (game, metric) in enumerate(panels):
        axes = figure.add_subplot(rows, columns, at + 1)
        shown = [each for each in groups if (each.game, each.metric) == (game, metric)]
        lowest, decades = math.inf, 0.0
        for each, colour in zip(shown, COLOURS * len(shown)):
            xs, low, middle, high = each.band()
            runs = f"{len(each.runs)} run{'s' * (len(each.runs) > 1)}"
            axes.plot(
                xs, middle, color=colour, linewidth=1.8, marker="o", markersize=3,
                label=f"{each.label}, {runs}: {middle[-1]:.4g}" if xs else None,
            )  # fmt: skip
            if len(each.runs) > 1:
                axes.fill_between(xs, low, high, color=colour, alpha=0.18, linewidth=0)
            lowest = min([lowest, *low])
            decades = max([decades, *(math.log10(max(high) / min(low)) for _ in xs[:1] if min(low) > 0)])
        if lower_is_better(metric) and 0 < lowest < math.inf:
            axes.set_yscale("log")
            if decades < 1:  # else the axis would have no number at all, or too long ones
                for set_formatter in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
                    set_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
        axes.xaxis.set_major_formatter(EngFormatter(sep=" "))
        axes.set_xlabel("decisions sampled")
        axes.set_ylabel(LABELS.get(metric, metric))
        axes.set_title(f"{game}: median, smallest to largest")
        axes.grid(True, which="both", alpha=0.2)
        axes.legend(frameon=False, fontsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    save_figure(path, figure)


def command_line() -> argparse.ArgumentParser:
    """What `litrl compare` takes."""
    parser = argparse.ArgumentParser(
        "litrl compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", nargs="+", type=Path, help="a run folder, or a folder that holds some")
    parser.add_argument("--metric", help="of metrics.csv; else each configuration's headline")
    parser.add_argument("--picture", type=Path, default=Path("compare.png"), help="where it goes; default compare.png")
    return parser


@guarded
def main(args: list[str] | None = None) -> None:
    """Run the command line."""
    parsed = command_line().parse_args(args)
    groups = group(find_runs(parsed.run), parsed.metric)
    print(table(groups))
    draw(groups, parsed.picture)
    print(f"picture: {parsed.picture}")
