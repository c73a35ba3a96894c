"""Charts as SVG text, drawn by hand: lines with bands, and ratings with their intervals. All text is escaped."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

LEFT, RIGHT, TOP, BOTTOM = 52, 12, 10, 34  # margins in the chart's own units, about a pixel each
GREY = "#888888"
MOST_DOTS = 25  # a line of more points has one at its end alone


@dataclass(frozen=True)
class Line:
    """A line over decisions, with a band where several runs stand behind it."""

    name: str
    colour: str
    xs: Sequence[float]
    middle: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()


def short(value: float) -> str:
    """20000 -> 20k, 0.000012 -> 1.2e-05: what fits beside an axis."""
    size = abs(value)
    for least, unit, name in ((1e9, 1e9, "G"), (1e6, 1e6, "M"), (1e4, 1e3, "k")):
        if size >= least:
            return f"{value / unit:.3g}{name}"
    return f"{value:.4g}" if size >= 1000 else f"{value:.3g}"


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round numbers from `low` to `high`, `most` or fewer."""
    step = 10 ** math.floor(math.log10((high - low) / most))
    step *= next(m for m in (1, 2, 5, 10, 20) if (high - low) / (step * m) <= most)
    first = math.ceil(low / step - 1e-9)
    return [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """1, 2, 5, 10 ... between them; the powers of ten alone where there are many, and round numbers where none are."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1, 2, 5) if len(powers) <= 4 else (1,)
    found = [m * 10.0**p for p in powers for m in steps if low <= m * 10.0**p <= high]
    return found if len(found) >= 2 else ticks(low, high)


def line_chart(
    lines: Sequence[Line],
    name: str,
    width: int = 360,
    height: int = 210,
    logarithmic: bool = False,
    kind: str = "",
    unit: str = "decisions",
) -> str:
    """An <svg> of class `kind`, of lines over decisions or another `unit`; logarithmic where all values allow it."""
    points = [y for line in lines for ys in (line.middle, line.low, line.high) for y in ys]
    last = max((x for line in lines for x in line.xs), default=0.0)
    first = min((x for line in lines for x in line.xs), default=0.0)
    if not points:
        return '<p class="note">nothing logged</p>'
    low, high = min(points), max(points)
    logarithmic = logarithmic and low > 0
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        pad = abs(low) / 2 or 1.0
        low, high = low - pad, high + pad
    first, last = (first, last) if last > first else (first - 1, last + 1)
    scale = math.log if logarithmic else float
    bottom, top = scale(low), scale(high)
    bottom, top = bottom - 0.04 * (top - bottom), top + 0.04 * (top - bottom)

    def at(x: float, y: float) -> str:
        right = LEFT + (x - first) / (last - first) * (width - LEFT - RIGHT)
        down = TOP + (top - scale(y)) / (top - bottom) * (height - TOP - BOTTOM)
        return f"{right:.1f},{down:.1f}"

    css = f' class="{escape(kind)}"' if kind else ""
    parts = [f'<svg{css} viewBox="0 0 {width} {height}" role="img" aria-label="{escape(name)}">']
    for y in log_ticks(low, high) if logarithmic else ticks(low, high):
        right, down = at(first, y).split(",")
        parts.append(f'<line x1="{right}" y1="{down}" x2="{width - RIGHT}" y2="{down}" stroke="#e4e4e4"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{float(down) + 4:.1f}" text-anchor="end">{short(y)}</text>')
    for x in ticks(first, last, most=4):
        right = at(x, low).split(",")[0]
        parts.append(f'<text x="{right}" y="{height - BOTTOM + 16}" text-anchor="middle">{short(x)}</text>')
    base = height - BOTTOM
    parts.append(f'<path d="M{LEFT},{TOP}V{base}H{width - RIGHT}" fill="none" stroke="{GREY}"/>')
    parts.append(
        f'<text x="{(LEFT + width - RIGHT) / 2:.0f}" y="{height - 4}" text-anchor="middle">{escape(unit)}</text>'
    )
    for line in lines:
        said = f"<title>{escape(line.name)}</title>"
        if line.low and len(line.xs) > 1:
            area = [at(x, y) for x, y in zip(line.xs, line.high)] + [at(x, y) for x, y in zip(line.xs, line.low)][::-1]
            parts.append(f'<polygon points="{" ".join(area)}" fill="{line.colour}" fill-opacity=".16">{said}</polygon>')
        route = [at(x, y) for x, y in zip(line.xs, line.middle)]
        path = f'points="{" ".join(route)}" fill="none" stroke="{line.colour}" stroke-width="1.8"'
        parts.append(f"<polyline {path}>{said}</polyline>")
        dots = list(zip(line.xs, line.middle, route))
        for x, y, point in dots if len(dots) <= MOST_DOTS else dots[-1:]:
            right, down = point.split(",")
            value = escape(f"{line.name}: {y:.5g} after {x:,.0f} {unit}")
            dot = f'cx="{right}" cy="{down}" r="2.6" fill="{line.colour}"'
            parts.append(f"<circle {dot}><title>{value}</title></circle>")
    return "".join([*parts, "</svg>"])


def rating_chart(members: Sequence[tuple[str, float, float]], width: int = 360) -> str:
    """An <svg> of (name, rating, deviation), one line each: a dot, and two deviations to both sides."""
    if not members:
        return '<p class="note">nobody is rated</p>'
    row, names = 18, 130
    height = row * len(members) + 26
    low, high = min(r - 2 * d for _, r, d in members), max(r + 2 * d for _, r, d in members)
    low, high = (low, high) if high > low else (low - 1, high + 1)

    def across(rating: float) -> float:
        return names + (rating - low) / (high - low) * (width - names - RIGHT)

    parts = [f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="ratings">']
    for rating in ticks(low, high, most=4):
        x = across(rating)
        parts.append(f'<line x1="{x:.1f}" y1="2" x2="{x:.1f}" y2="{height - 20}" stroke="#e4e4e4"/>')
        parts.append(f'<text x="{x:.1f}" y="{height - 6}" text-anchor="middle">{rating:.0f}</text>')
    for i, (name, rating, deviation) in enumerate(members):
        y = row * i + row / 2 + 2
        label = name if len(name) <= 20 else f"{name[:19]}…"
        said = escape(f"{name}: {rating:.0f} ± {2 * deviation:.0f}")
        parts.append(
            f'<text x="{names - 6}" y="{y + 4:.1f}" text-anchor="end">{escape(label)}<title>{said}</title></text>'
        )
        ends = f'x1="{across(rating - 2 * deviation):.1f}" x2="{across(rating + 2 * deviation):.1f}"'
        parts.append(f'<line {ends} y1="{y:.1f}" y2="{y:.1f}" stroke="#1f5fa8" stroke-opacity=".5" stroke-width="2"/>')
        parts.append(
            f'<circle cx="{across(rating):.1f}" cy="{y:.1f}" r="3.4" fill="#1f5fa8"><title>{said}</title></circle>'
        )
    return "".join([*parts, "</svg>"])
