"""A matrix of results: who gains from whom in a league, as a table of facts and as a page."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from lit_rl.league.league import Payoff
from lit_rl.league.match import Match
from lit_rl.league.ratings import mean_interval, wilson_interval
from lit_rl.run.figures import new_figure, save_figure

Cell = dict  # win_rate, mean_return (reward units per game), an interval (95 %) of each, and games of the row's member


def cell_of(match: Match) -> tuple[Cell, Cell]:
    """How the first player of a match fared, and how the other did."""
    games = int(match.games.sum())
    mine = {
        "win_rate": match.win_rate, "win_rate_interval": list(match.win_interval()), "games": games,
        "mean_return": match.mean_return, "return_interval": list(match.return_interval()),
    }  # fmt: skip
    low, high = mine["win_rate_interval"]
    theirs = {
        "win_rate": 1 - match.win_rate, "win_rate_interval": [1 - high, 1 - low], "games": games,
        "mean_return": float(match.others.sum() / games),
        "return_interval": list(mean_interval(match.others.sum(), match.other_squares.sum(), games)),
    }  # fmt: skip
    return mine, theirs


def result_matrix(
    learner: str, own: Mapping[str, tuple[Cell, Cell]], payoffs: Mapping[tuple[str, str], Payoff]
) -> tuple[list[str], list[list[Cell | None]]]:
    """Names, the learner's first, and a row of cells for each; None where two have not met.

    Args:
        own: member -> how the learner fared against it, and it against the learner.
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
                row.append(own[b][0])
            elif b == learner:
                row.append(own[a][1])
            else:
                row.append(None if payoff is None else _cell_of_payoff(payoff))
        matrix.append(row)
    return names, matrix


def _cell_of_payoff(payoff: Payoff) -> Cell:
    win_rate_interval = list(wilson_interval(payoff.score, payoff.games))
    cell = {"win_rate": payoff.score / payoff.games, "win_rate_interval": win_rate_interval, "games": payoff.games}
    return_interval = list(mean_interval(payoff.total_return, payoff.total_square, payoff.games))
    return cell | {"mean_return": payoff.total_return / payoff.games, "return_interval": return_interval}


def draw_matrix(names: Sequence[str], matrix: Sequence[Sequence[Cell | None]], title: str, path: Path) -> None:
    """A heat map of mean returns, row against column, with half the width of the interval, and win rates under them."""
    returns = np.array([[np.nan if cell is None else cell["mean_return"] for cell in row] for row in matrix])
    n, largest = len(names), max(float(np.nanmax(np.abs(returns), initial=0.0)), 1e-9)
    figure = new_figure(2.4 + 0.82 * n, 1.8 + 0.5 * n)
    axes = figure.subplots()
    image = axes.imshow(returns, cmap="RdBu", vmin=-largest, vmax=largest, aspect="auto")
    for i, row in enumerate(matrix):
        for j, cell in enumerate(row):
            if cell is not None:
                half = (cell["return_interval"][1] - cell["return_interval"][0]) / 2
                colour = "white" if abs(cell["mean_return"]) > 0.6 * largest else "black"
                text = f"{cell['mean_return']:+.2f} ±{half:.2f}\nwins {100 * cell['win_rate']:.0f} %"
                axes.text(j, i, text, ha="center", va="center", fontsize=7, color=colour)
    axes.set_xticks(range(n), names, rotation=45, ha="right", fontsize=8)
    axes.set_yticks(range(n), names, fontsize=8)
    axes.set_title(f"mean return per game of row against column\n{title}", fontsize=9)
    figure.colorbar(image, ax=axes, shrink=0.8)
    save_figure(path, figure)
