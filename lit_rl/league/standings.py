"""Standings: who is how good in a league, as a table and as a picture over a run."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from lit_rl.league.league import Member, Payoff
from lit_rl.league.ratings import Rating
from lit_rl.run.figures import new_figure, save_figure

LEARNER, COMMANDER, FIXED = "#b3541e", "#1f5fa8", "#555555"  # colours
GAP = 0.035  # between two names, as a share of the picture's height

Line = Sequence[tuple[int, Rating]]  # (iteration, rating), in order


def standings_table(members: Sequence[Member], payoffs: Mapping[tuple[str, str], Payoff]) -> str:
    """A line for each member, the best by conservative rating (rating - 2 deviations) first.

    Args:
        payoffs: (member, opponent) -> what the first got, as `League.payoffs` says.
    """
    played: dict[str, list[float]] = {}
    for (name, _), payoff in payoffs.items():
        entry = played.setdefault(name, [0.0, 0])
        entry[0] += payoff.score
        entry[1] += payoff.games
    wide = max([len(m.name) for m in members] + [6])
    lines = [f"{'member':<{wide}}  {'role':<9}  {'state':<11}  rating  deviation  conservative   games  score"]
    for m in sorted(members, key=lambda m: (-m.rating.conservative, m.name)):
        score, games = played.get(m.name, (0.0, 0))
        share = f"{score / games:.3f}" if games else "    -"
        lines.append(
            f"{m.name:<{wide}}  {m.role:<9}  {m.state:<11}  {m.rating.rating:>6.0f}  {m.rating.deviation:>9.0f}  "
            f"{m.rating.conservative:>12.0f}  {games:>6,}  {share}"
        )
    return "\n".join(lines) + "\n"


def draw_standings(
    learner: Line, commanders: Mapping[str, Line], fixed: Mapping[str, Line], others: Line, title: str, path: Path
) -> None:
    """Ratings over the iterations of a run, the learner's with a band of two deviations.

    Args:
        commanders: name -> of those who were promoted; a line ends where its member is retired.
        fixed: name -> of those who are always there.
        others: candidates who were not promoted.
    """
    figure = new_figure(9, 5)
    axes = figure.subplots()
    names: list[tuple[float, str, str]] = []
    last = max([line[-1][0] for line in (learner, *commanders.values(), *fixed.values()) if line], default=1)
    for lines, colour, style, width in ((fixed, FIXED, "--", 1.2), (commanders, COMMANDER, "-", 1.0)):
        for name, line in lines.items():
            if not line:
                continue
            axes.plot(*_xy(line), style, color=colour, linewidth=width, alpha=0.8, marker=".", markersize=4)
            if line[-1][0] == last:
                names.append((line[-1][1].rating, name, colour))
    if learner:
        x, y = _xy(learner)
        low, high = ([r.rating + sign * 2 * r.deviation for _, r in learner] for sign in (-1, 1))
        axes.fill_between(x, low, high, color=LEARNER, alpha=0.15, linewidth=0)
        axes.plot(x, y, color=LEARNER, linewidth=2.2, label="the learner, as its last candidate was rated")
        names.append((y[-1], "the learner", LEARNER))
    if others:
        axes.plot(*_xy(others), "x", color=COMMANDER, markersize=6, label="candidates that were not promoted")
    axes.set(xlabel="iteration", ylabel="Glicko-2 rating; band: two deviations", title=title)
    axes.set_xlim(right=last + 0.001)
    bottom, top = axes.get_ylim()
    for y, (rating, name, colour) in zip(_spread([n[0] for n in sorted(names)], GAP * (top - bottom)), sorted(names)):
        axes.annotate(
            f"{name} {rating:.0f}", (last, rating), xytext=(1.02, (y - bottom) / (top - bottom)),
            textcoords="axes fraction", fontsize=8, color=colour, va="center", annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.5, "alpha": 0.6},
        )  # fmt: skip
    axes.set_ylim(bottom, top)
    if others:
        axes.legend(fontsize=8, frameon=False)
    axes.grid(True, alpha=0.2)
    axes.spines[["top", "right"]].set_visible(False)
    save_figure(path, figure)


def _xy(line: Line) -> tuple[list[int], list[float]]:
    return [x for x, _ in line], [rating.rating for _, rating in line]


def _spread(heights: Sequence[float], gap: float) -> list[float]:
    """The heights, in order, moved as little apart as leaves `gap` between any two: the mean of both ways to push."""
    up, down = list(heights), list(heights)
    for i in range(1, len(up)):
        up[i] = max(up[i], up[i - 1] + gap)
    for i in range(len(down) - 2, -1, -1):
        down[i] = min(down[i], down[i + 1] - gap)
    return [(a + b) / 2 for a, b in zip(up, down)]
