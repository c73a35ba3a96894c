"""The `litrl board` command: runs as one page to look at, an HTML file that needs nothing else.

    litrl board runs/leduc_league/version_0                 board.html: curves, schedules, league, replays
    litrl board runs/seeds/kuhn_ppo runs/seeds/kuhn_rnad    several configurations, medians with bands

No server, nothing is loaded from elsewhere: send the file, or open it years later. What was read from files is shown as
text and never as markup.
"""

import argparse
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from itertools import groupby
from pathlib import Path

import torch

from envs.game import Game, Interface, action_names, load_game, load_interface
from lit_rl.league.league import League, Payoff
from lit_rl.league.ratings import Rating, Score, rate_period
from lit_rl.run.allowed import check_name, trust
from lit_rl.run.checkpoint_files import replace_file
from lit_rl.run.errors import ArtefactError, ConfigError
from lit_rl.run.own_code import import_from
from lit_rl.run.replay import Position, check_rules, refusing
from lit_rl.run.replay_file import read
from lit_rl.run.study.charts import Line, line_chart, rating_chart
from lit_rl.run.study.compare import COLOURS, HEAD, LABELS, NUMBERS, cells
from lit_rl.run.study.door import guarded
from lit_rl.run.study.runs import Group, Run, find_runs, group, lower_is_better, value_at

SECTIONS = (  # of metrics, by the first word of their names; the last one takes what is left
    ("eval", "Evaluation"),
    ("schedule", "Schedules"),
    ("train", "Learning"),
    ("perf", "Throughput"),
    ("league", "League, as logged"),
    ("episode", "Games"),
    ("", "Other"),
)
FIRST = ("train/grad_norm", "train/grad_norm_clipped")  # before all others of their section
CLOCK = ("epoch", "step", "decisions")
POINTS = 300  # of a line; about as many as a chart has columns of pixels for
MATRIX = 30  # members at most in a win-rate matrix


def board(runs: Sequence[Run], metric: str | None = None, games: int = 12) -> str:
    """The whole page.

    Raises:
        ConfigError, ArtefactError: as `group`; a league or a replay that cannot be trusted, in one line.
    """
    groups = group(runs, metric)
    colours = {each.label: colour for each, colour in zip(groups, COLOURS * len(groups))}
    title = ", ".join(dict.fromkeys(f"{each.game}: {each.runs[0].algorithm}" for each in groups))
    body = [f"<h1>{escape(title)}</h1>", _legend(groups, colours), _table(groups)]
    body += _headlines(groups, colours) + _metrics(groups, colours)
    for run in runs:
        body += _league(run) + _replay(run, games)
    page = (Path(__file__).parent / "page.html").read_text(encoding="utf-8")
    head, rest = page.replace("{{title}}", escape(title), 1).split("{{body}}")
    return head + "\n".join(body) + rest


def _legend(groups: Sequence[Group], colours: dict[str, str]) -> str:
    items = []
    for each in groups:
        said = escape(f"{each.label}, {len(each.runs)} run{'s' * (len(each.runs) > 1)}")
        items.append(f'<li><span style="background:{colours[each.label]}"></span>{said}</li>')
    note = '<p class="note">lines: median over the runs; bands: smallest to largest</p>'
    return f'<ul class="legend">{"".join(items)}</ul>{note if any(len(g.runs) > 1 for g in groups) else ""}'


def _table(groups: Sequence[Group]) -> str:
    return html_table(HEAD, [cells(each) for each in groups], NUMBERS)


def html_table(head: Sequence[str], rows: Iterable[Sequence[str]], numbers: Iterable[int] = ()) -> str:
    """A <table> of texts, the columns `numbers` to the right."""
    css = [' class="n"' if i in set(numbers) else "" for i in range(len(head))]
    top = "".join(f"<th{c}>{escape(text)}</th>" for c, text in zip(css, head))
    lines = ["<tr>" + "".join(f"<td{c}>{escape(text)}</td>" for c, text in zip(css, row)) + "</tr>" for row in rows]
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'


def _lines(groups: Sequence[Group], metric: str, colours: dict[str, str]) -> list[Line]:
    found = []
    for each in groups:
        xs, *bands = each.band(metric)
        keep = (
            range(len(xs))
            if len(xs) <= POINTS
            else sorted({round(i * (len(xs) - 1) / POINTS) for i in range(POINTS + 1)})
        )
        low, middle, high = ([band[i] for i in keep] for band in bands)
        if xs:
            band = (low, high) if len(each.runs) > 1 else ((), ())
            found.append(Line(each.label, colours[each.label], [xs[i] for i in keep], middle, *band))
    return found


def _headlines(groups: Sequence[Group], colours: dict[str, str]) -> list[str]:
    body = []
    for game, metric in dict.fromkeys((each.game, each.metric) for each in groups):
        lines = _lines([g for g in groups if (g.game, g.metric) == (game, metric)], metric, colours)
        name, is_log = LABELS.get(metric, metric), lower_is_better(metric)
        body.append(f'<h2>{escape(game)}</h2><div class="card"><h3>{escape(name)}</h3>')
        body.append(
            line_chart(lines, name, 1000, 330, is_log, "wide") + line_chart(lines, name, 360, 260, is_log, "narrow")
        )
        body.append("</div>")
    return body


def _metrics(groups: Sequence[Group], colours: dict[str, str]) -> list[str]:
    """A section of charts for each kind of metric that was logged."""
    headlines = {each.metric for each in groups}
    names = sorted({name for g in groups for run in g.runs for name in run.metrics} - headlines - {*CLOCK})
    names.sort(key=lambda name: (FIRST.index(name) if name in FIRST else len(FIRST), name))
    body = []
    for start, title in SECTIONS:
        mine = [name for name in names if name.split("/")[0] == start or not start]
        names = [name for name in names if name not in mine]
        cards = []
        for name in mine:
            lines = _lines(groups, name, colours)
            if lines:
                cards.append(f'<div class="card"><h3>{escape(name)}</h3>{line_chart(lines, name)}</div>')
        if cards:
            body.append(f'<details open><summary>{title}</summary><div class="grid">{"".join(cards)}</div></details>')
    return body


def _game(run: Run, path, load: Callable[[str], Interface]) -> Interface:
    """The game that a run, or a file of it, names: that of its config, or one that files may name."""
    code, named = run.config.get("code"), value_at(run.config, "data.init_args.game")
    import_from(Path(code) if isinstance(code, str) else None)
    trust([named] if isinstance(named, str) else [])
    try:
        return load(check_name(path, str(run.folder)))
    except ValueError as error:
        raise ArtefactError(f"{run.folder}: {error}") from None


# The league.


def _league(run: Run) -> list[str]:
    """Members, ratings and who gains from whom; nothing where the run has no league in its folder."""
    path = run.folder / "league" / "league.sqlite"
    if not path.is_file():
        return []
    named = value_at(run.config, "data.init_args.game")
    if named is None:
        return [f'<h2>League of {escape(str(run.folder))}</h2><p class="note">no config.yaml says of which game</p>']
    league = League(path, _game(run, named, load_interface))
    try:
        members, games, payoffs, results = league.members(), league.games(), league.payoffs(), league.results()
    finally:
        league.close()
    members = sorted(members, key=lambda m: -m.rating.rating)
    rows = [
        (
            m.name, m.role, m.state, f"{m.rating.rating:.0f}", f"{2 * m.rating.deviation:.0f}",
            f"{games.get(m.name, 0):,}", f"{m.birth:,}", m.parent or "",
        )
        for m in members
    ]  # fmt: skip
    head = ("member", "role", "state", "rating", "± 2 deviations", "games", "born after decisions", "parent")
    rated = [(m.name, m.rating.rating, m.rating.deviation) for m in members if games.get(m.name)]
    shown = [m.name for m in members if games.get(m.name)][:MATRIX]
    body = [f"<h2>League of {escape(str(run.folder))}</h2>", html_table(head, rows, range(3, 7)), '<div class="grid">']
    body.append(f'<div class="card"><h3>Glicko-2 ratings, ± 2 deviations</h3>{rating_chart(rated)}</div>')
    lines = [
        Line(name, COLOURS[i % len(COLOURS)], *zip(*timeline))
        for i, (name, timeline) in enumerate(ratings_over_time(results, [m.name for m in members]).items())
        if name in shown
    ]
    chart = line_chart(lines, "ratings over batches of results", unit="batches of results")
    names = "".join(f'<li><span style="background:{x.colour}"></span>{escape(x.name)}</li>' for x in lines)
    chart += f'<ul class="legend">{names}</ul>'
    body.append(f'<div class="card"><h3>Ratings over batches of results, rated anew</h3>{chart}</div></div>')
    return body + ([_matrix(shown, payoffs)] if shown else [])


def _matrix(names: Sequence[str], payoffs: Mapping[tuple[str, str], Payoff]) -> str:
    """Win rates of all pairs, the better the greener, each with its games as a hint."""
    head = "".join(f'<th class="n">{escape(name)}</th>' for name in names)
    lines = []
    for a in names:
        row = f"<th>{escape(a)}</th>"
        for b in names:
            payoff = payoffs.get((a, b))
            if payoff is None or not payoff.games:
                row += "<td></td>"
                continue
            share = payoff.score / payoff.games
            colour = "46,125,79" if share >= 0.5 else "179,84,30"
            shade = f"rgba({colour},{min(1.0, 2 * abs(share - 0.5)):.2f})"
            hint = escape(f"{a} against {b}: {share:.3f} of {payoff.games:,} games")
            row += f'<td class="n" style="background:{shade}" title="{hint}">{100 * share:.0f}</td>'
        lines.append(f"<tr>{row}</tr>")
    title = "<h2>Win rates in percent, the row's member against the column's; draws count half</h2>"
    table = f"<table><thead><tr><th></th>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
    return f'{title}<div class="scroll">{table}</div>'


def ratings_over_time(results: Sequence[tuple], names: Sequence[str]) -> dict[str, list[tuple[float, float]]]:
    """member -> (number of the batch, rating) after each batch of results that it played in.

    Args:
        results: of `League.results`: (run, iteration, source, result), a batch being those of equal first three.
    """
    ratings, found = dict.fromkeys(names, Rating()), {name: [] for name in names}
    for number, (_, batch) in enumerate(groupby(results, key=lambda row: row[:3]), start=1):
        scores = [Score(r.member, r.opponent, r.wins + 0.5 * r.draws, r.games) for *_, r in batch if r.games]
        for name, rating in rate_period(ratings, scores).items():
            ratings[name] = rating
            found[name].append((float(number), rating.rating))
    return {name: timeline for name, timeline in found.items() if timeline}


# Replays.


def _replay(run: Run, most: int) -> list[str]:
    """The newest games of replay.jsonl, the last one first, to be stepped through; nothing where there is none."""
    path = run.folder / "replay.jsonl"
    if not path.is_file() or most == 0:
        return []
    game, kept = None, []
    for number, record in read(path):  # to the end: a broken file is refused, wherever it is broken
        if number == 1:
            game = _game(run, record.get("game"), load_game)
        else:
            kept = [*kept, (number, record)][-most:]
    games = []
    for number, record in reversed(kept):
        with refusing(path, number):
            check_rules(game, record)
            games.append({"title": _title(record, game), "frames": frames(game, record)})
    if not games:
        return []
    buttons = "".join(
        f'<button class="{css}" aria-label="{said}">{sign}</button>'
        for css, said, sign in (
            ("first", "to the beginning", "|◀"), ("back", "one move back", "◀"),
            ("on", "one move on", "▶"), ("last", "to the end", "▶|"),
        )
    )  # fmt: skip
    return [
        f'<h2>Games of {escape(str(run.folder))}</h2><div class="card replay">'
        f'<div class="controls"><select aria-label="game"></select>{buttons}'
        '<input type="range" min="0" value="0" aria-label="move"></div>'
        '<p aria-live="polite"></p><pre></pre>'
        f'<script type="application/json">{as_script(games)}</script></div>'
    ]


def as_script(content) -> str:
    """JSON that can stand in a <script>: nothing in it ends the element, whatever the texts hold."""
    text = json.dumps(content)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _title(record: dict, game: Game) -> str:
    returns = [sum(move["rewards"][p] for move in record["moves"]) for p in range(game.num_players)]
    said = " ".join(f"{value:+g}" for value in returns)
    return f"game {record['index']}, after {int(record['decisions']):,} decisions: {said}"


def frames(game: Game, record: dict) -> list[dict[str, str]]:
    """One for the start and one after every action of players and chance: what was done, and the position as text.

    Of the learner's own decisions also the probabilities that it had and the value that it saw.
    """
    position, moves = Position(game), iter(record["moves"])
    found = [{"said": "the start", "board": game.render(position.state)}]
    for action in record["history"]:
        if position.player < 0:
            said = f"chance: {game.chance_names[action] if game.chance_names else action}"
        else:
            move = next(moves)
            said = f"player {move['player']}: {' '.join(action_names(game, position.state, action)[:2])}"
            if "logits" in move:
                probs = torch.softmax(torch.tensor(move["logits"], dtype=torch.float64), -1).tolist()
                likely = sorted(zip(probs, move["legal"]), reverse=True)[:6]
                told = ", ".join(f"{action_names(game, position.state, a)[0]} {p:.3f}" for p, a in likely)
                said += f"   ({told}{', …' if len(probs) > 6 else ''}; value {move['value']:+.3f})"
        position.play(action)
        found.append({"said": said, "board": game.render(position.state)})
    return found


def command_line() -> argparse.ArgumentParser:
    """What `litrl board` takes."""
    parser = argparse.ArgumentParser(
        "litrl board", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", nargs="+", type=Path, help="a run folder, or a folder that holds some")
    parser.add_argument("--metric", help="of metrics.csv; else each configuration's headline")
    parser.add_argument("--games", type=int, default=12, help="of each run's replay, the newest; default 12")
    parser.add_argument("--page", type=Path, default=Path("board.html"), help="where it goes; default board.html")
    return parser


@guarded
def main(args: list[str] | None = None) -> None:
    """Run the command line."""
    parsed = command_line().parse_args(args)
    if parsed.games < 0:
        raise ConfigError(f"--games {parsed.games}: needs at least 0")
    page = board(find_runs(parsed.run), parsed.metric, parsed.games).encode("utf-8", "backslashreplace")
    parsed.page.parent.mkdir(parents=True, exist_ok=True)
    replace_file(parsed.page, page)
    print(f"page: {parsed.page} ({len(page) / 1000:,.0f} kB)")
