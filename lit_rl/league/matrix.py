"""Matrices of results: who gains from whom in a league, as a table of facts and as a picture; win rates by seat."""

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
    figure.colorbar(image, ax=axes, shrink=0.8).ax.tick_params(labelsize=8)
    save_figure(path, figure)


SEATS = ("first", "second", "third", "fourth")


def draw_win_rates(matches: Mapping[str, Mapping[str, Match]], title: str, path: Path) -> None:
    """A heat map of win rates with half the width of Wilson's interval: opponents x ways to play and seats.

    Args:
        matches: way to play -> opponent -> how the first player fared.
    """
    names, plays = list(next(iter(matches.values()))), list(matches)
    seats = len(next(iter(matches[plays[0]].values())).games)
    labels = [*(SEATS[s] if s < len(SEATS) else f"{s + 1}th" for s in range(seats)), "all seats"]
    labels[-1] = "both" if seats == 2 else labels[-1]
    scores, games = (np.zeros((len(names) + 1, len(plays), seats + 1)) for _ in range(2))  # the last: mean, all seats
    for j, how in enumerate(plays):
        for i, name in enumerate(names):
            match = matches[how][name]
            scores[i, j, :-1], games[i, j, :-1] = match.wins + 0.5 * match.draws, match.games
    scores[:, :, -1], games[:, :, -1] = scores.sum(-1), games.sum(-1)
    scores[-1], games[-1] = scores.sum(0), games.sum(0)
    rates = (scores / games).reshape(len(names) + 1, -1)
    columns = rates.shape[1]
    figure = new_figure(2.8 + 0.72 * columns, 1.7 + 0.42 * len(rates))
    axes = figure.subplots()
    image = axes.imshow(rates, cmap="RdBu", vmin=0.0, vmax=1.0, aspect="auto")
    for (i, column), rate in np.ndenumerate(rates):
        played = games.reshape(rates.shape)[i, column]
        low, high = wilson_interval(rate * played, played)
        colour = "white" if abs(rate - 0.5) > 0.3 else "black"
        text = f"{rate:.3f}\n±{(high - low) / 2:.3f}"
        axes.text(column, i, text, ha="center", va="center", fontsize=7, linespacing=1.1, color=colour)
    for j in range(1, len(plays)):
        axes.axvline(j * (seats + 1) - 0.5, color="white", linewidth=5)
    axes.axhline(len(names) - 0.5, color="white", linewidth=5)
    axes.set_xticks(range(columns), labels * len(plays), fontsize=8)
    axes.set_yticks(range(len(rates)), [*names, "all of them"], fontsize=8)
    axes.tick_params(length=0)
    for j, how in enumerate(plays):
        axes.text((j + 0.5) / len(plays), 1.02, how, transform=axes.transAxes, ha="center", fontsize=9, weight="bold")
    axes.set_title(f"{title}\nwin rate by seat, draws half, ± 95 %", fontsize=9, pad=20)
    axes.spines[:].set_visible(False)
    figure.colorbar(image, ax=axes, shrink=0.8).ax.tick_params(labelsize=8)
    save_figure(path, figure)
