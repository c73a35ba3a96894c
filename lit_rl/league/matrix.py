"""A matrix of win rates: who beats whom in a league, as a table of facts and as a page."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from lit_rl.league.league import Payoff
from lit_rl.league.match import Match
from lit_rl.league.ratings import wilson_interval
from lit_rl.run.figures import new_figure, save_figure

Cell = dict  # win_rate, interval (95 %), games, mean_return (reward units per game) of the row's member


def cell_of(match: Match) -> Cell:
    """How the first player of a match fared."""
    games = int(match.games.sum())
    return {
        "win_rate": match.win_rate, "interval": list(match.win_interval()), "games": games,
        "mean_return": match.mean_return, "mean_return_of_other": float(match.others.sum() / games),
    }  # fmt: skip


def win_rate_matrix(
    learner: str, own: Mapping[str, Cell], payoffs: Mapping[tuple[str, str], Payoff]
) -> tuple[list[str], list[list[Cell | None]]]:
    """Names, the learner's first, and a row of cells for each; None where two have not met.

    Args:
        own: member -> how the learner fared against it.
        payoffs: (member, opponent) -> what the first got, of the members among themselves.
    """
    names = [learner, *own]
    matrix: list[list[Cell | None]] = []
    for a in names:
        row: list[Cell | None] = []
        for b in names:
            payoff = payoffs.get((a, b))
            if a == b:
                row.append(None)
            elif a == learner:
                row.append(own[b])
            elif b == learner:
                row.append(_from_the_other_side(own[a]))
            else:
                row.append(None if payoff is None else _cell_of_payoff(payoff))
        matrix.append(row)
    return names, matrix


def _from_the_other_side(cell: Cell) -> Cell:
    low, high = cell["interval"]
    flipped = {"win_rate": 1 - cell["win_rate"], "interval": [1 - high, 1 - low]}
    return cell | flipped | {"mean_return": cell["mean_return_of_other"], "mean_return_of_other": cell["mean_return"]}


def _cell_of_payoff(payoff: Payoff) -> Cell:
    interval = list(wilson_interval(payoff.score, payoff.games))
    cell = {"win_rate": payoff.score / payoff.games, "interval": interval, "games": payoff.games}
    return cell | {"mean_return": payoff.total_return / payoff.games}


def draw_matrix(names: Sequence[str], matrix: Sequence[Sequence[Cell | None]], title: str, path: Path) -> None:
    """A heat map of win rates, row against column; the half-width of the interval stands under each."""
    rates = np.array([[np.nan if cell is None else cell["win_rate"] for cell in row] for row in matrix])
    n = len(names)
    figure = new_figure(2.4 + 0.62 * n, 1.8 + 0.5 * n)
    axes = figure.subplots()
    image = axes.imshow(rates, cmap="RdBu", vmin=0, vmax=1, aspect="auto")
    for i, row in enumerate(matrix):
        for j, cell in enumerate(row):
            if cell is not None:
                half = (cell["interval"][1] - cell["interval"][0]) / 2
                colour = "white" if abs(cell["win_rate"] - 0.5) > 0.3 else "black"
                text = f"{100 * cell['win_rate']:.0f}\n±{100 * half:.1f}"
                axes.text(j, i, text, ha="center", va="center", fontsize=7, color=colour)
    axes.set_xticks(range(n), names, rotation=45, ha="right", fontsize=8)
    axes.set_yticks(range(n), names, fontsize=8)
    axes.set_title(f"win rate in % of row against column\n{title}", fontsize=9)
    figure.colorbar(image, ax=axes, shrink=0.8)
    save_figure(path, figure)
