"""`litrl board`: a page that stands by itself, holds what the run's files say, and believes none of it to be markup."""

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml

from envs.game import load_game
from lit_rl.league.league import Result
from lit_rl.run.study import board, charts
from lit_rl.run.study.runs import find_runs

EVIL = "</script><img src=x onerror=alert(1)>&\"'"
BROWSER = next((path for name in ("chromium", "google-chrome", "chrome") if (path := shutil.which(name))), None)
VOID = {"meta", "input", "br", "img", "link"}


class Page(HTMLParser):
    """The elements of a page: (name, attributes), those that are not closed, and the texts that are not in scripts."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.texts, self.scripts = [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        (self.scripts if self.open[-1:] == ["script"] else self.texts).append(data)

    def of(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory, litrl):
    """A short run of the league config with a replay."""
    root = tmp_path_factory.mktemp("board")
    arguments = [
        "fit", "--config", str(Path(__file__).parents[3] / "configs" / "kuhn_ppo.yaml"), "--trainer.max_epochs", "6",
        "--trainer.check_val_every_n_epoch", "2", "--trainer.log_every_n_steps", "1", "--trainer.default_root_dir",
        str(root), "--trainer.callbacks+=Replay", "--trainer.callbacks.every", "2", "--trainer.callbacks.games", "2",
    ]  # fmt: skip
    assert litrl(arguments, root / "log") == 0, (root / "log").read_text()[-2000:]
    return root / "version_0"


def page_of(folder, **options):
    text = board.board(find_runs([folder]), **options)
    page = Page(text)
    assert page.open == []
    return text, page


def test_the_page_stands_by_itself(run_folder):
    text, page = page_of(run_folder)
    assert page.of("link") == page.of("img") == [] and not any("src" in script for script in page.of("script"))
    assert "http" not in re.sub(r'http-equiv="[^"]*"', "", text)
    assert page.of("meta")[1] == {"name": "viewport", "content": "width=device-width, initial-scale=1"}
    assert {"(min-width: 760px)", "(min-width: 1500px)"} <= set(re.findall(r"@media (\([^)]*\))", text))


def test_it_shows_what_was_logged(run_folder):
    text, page = page_of(run_folder)
    summary = json.loads((run_folder / "summary.json").read_text())
    for name in ("train/grad_norm", "schedule/entropy_coef", "perf/decisions_per_second", "perf/collect_share"):
        assert name in page.texts
    assert f"{summary['nash_conv']:.5f}" in page.texts and "768" in page.texts
    assert [x["class"] for x in page.of("svg") if "class" in x] == ["wide", "narrow"]
    for drawing in re.findall(r"<svg.*?</svg>", text):
        ElementTree.fromstring(drawing)


def test_games_are_stepped_through_move_by_move(run_folder):
    _, page = page_of(run_folder, games=3)
    games = json.loads(page.scripts[0])
    assert len(games) == 3 and all(game["frames"][0]["said"] == "the start" for game in games)
    last = games[-1]["frames"]
    assert last[1]["said"].startswith("chance: deal ") and re.match(
        r"player 0: (pass|bet)   \(.*value", last[3]["said"]
    )
    assert len({frame["board"] for frame in last}) == len(last)
    assert page_of(run_folder, games=0)[1].of("select") == []


def test_nothing_from_files_becomes_markup(run_folder, tmp_path):
    """Names of metrics, of the algorithm and of folders that would be markup are texts of the page."""
    folder = tmp_path / "a&b<i>" / "version_0"
    shutil.copytree(run_folder, folder)
    lines = (folder / "metrics.csv").read_text().splitlines()
    name = "train/" + EVIL.replace('"', "").replace(",", "")
    lines[0] = lines[0].replace("train/entropy", name)
    (folder / "metrics.csv").write_text("\n".join(lines) + "\n")
    summary = json.loads((folder / "summary.json").read_text())
    (folder / "summary.json").write_text(json.dumps(summary | {"algorithm": EVIL}))
    config = yaml.safe_load((folder / "config.yaml").read_text())
    text, page = page_of(folder)
    assert page.of("img") == [] and page.of("i") == [] and "<img" not in text
    assert name in page.texts and any(EVIL in said for said in page.texts)
    assert any("a&b<i>" in said for said in page.texts)
    assert config["data"]["init_args"]["game"] == "envs.kuhn_poker"


def test_a_script_holds_texts_of_any_kind():
    content = [EVIL, "<!--", "\u2028"]
    text = board.as_script(content)
    assert not set("<>&") & set(text) and text.isascii() and json.loads(text) == content


def test_a_damaged_replay_is_refused(run_folder, tmp_path, capsys):
    folder = tmp_path / "version_0"
    shutil.copytree(run_folder, folder)
    (folder / "replay.jsonl").write_bytes((folder / "replay.jsonl").read_bytes().replace(b'"row":', b'"raw":', 1))
    with pytest.raises(SystemExit) as end:
        board.main([str(folder), "--page", str(tmp_path / "x.html")])
    assert end.value.code == 3 and "replay.jsonl, line 2: changed" in capsys.readouterr().err
    assert not (tmp_path / "x.html").exists()


def test_a_league_has_its_table_ratings_and_matrix(run_folder, tmp_path):
    from lit_rl.league.league import League, Member

    folder = tmp_path / "version_0"
    shutil.copytree(run_folder, folder)
    league = League(folder / "league" / "league.sqlite", load_game("envs.kuhn_poker"))
    for name in ("strong", "weak", EVIL[:20]):
        league.add(Member(name, "heuristic", path="random"))
    for iteration in range(3):
        league.record("main", iteration, "arena", [Result("strong", "weak", 0, wins=30, draws=0, losses=10)])
    ratings = {member.name: member.rating.rating for member in league.members()}
    league.close()
    text, page = page_of(folder)
    assert "Glicko-2 ratings, ± 2 deviations" in page.texts and "<img" not in text
    assert f"{ratings['strong']:.0f}" in page.texts and "75" in page.texts and "25" in page.texts
    assert "batches of results" in page.texts


def test_ratings_over_time_end_where_the_league_stands(tmp_path):
    from lit_rl.league.league import League, Member

    league = League(tmp_path / "league.sqlite", load_game("envs.kuhn_poker"))
    for name in ("a", "b", "idle"):
        league.add(Member(name, "heuristic", path="random"))
    for iteration in range(4):
        league.record("main", iteration, "arena", [Result("a", "b", 0, wins=3 + iteration, draws=1, losses=4)])
    over_time = board.ratings_over_time(league.results(), ["a", "b", "idle"])
    standing = {member.name: member.rating.rating for member in league.members()}
    league.close()
    assert [number for number, _ in over_time["a"]] == [1.0, 2.0, 3.0, 4.0] and "idle" not in over_time
    assert over_time["a"][-1][1] == standing["a"] and over_time["b"][-1][1] == standing["b"]


@pytest.mark.parametrize(
    ("low", "high", "found"),
    [
        (0.0, 1.0, [0.0, 0.2, 0.4, 0.6, 0.8, 1.0][:6]),
        (-3.0, 3.0, [-2.0, 0.0, 2.0]),
        (0.0, 5120.0, [0.0, 2000.0, 4000.0]),
    ],
)
def test_ticks_are_round(low, high, found):
    assert charts.ticks(low, high) == pytest.approx(found)


def test_a_flat_line_and_a_single_point_are_drawn():
    for xs, ys in (([1.0, 2.0], [0.0, 0.0]), ([5.0], [0.3]), ([0.0, 1.0], [1e-300, 1e300])):
        for logarithmic in (False, True):
            drawing = charts.line_chart([charts.Line("x", "#000", xs, ys)], "x", logarithmic=logarithmic)
            assert "nan" not in drawing and ElementTree.fromstring(drawing).findall("polyline")


@pytest.mark.skipif(BROWSER is None, reason="no headless browser here: needs chromium or google-chrome")
@pytest.mark.parametrize("width", [400, 1600])
def test_a_browser_shows_the_page(run_folder, tmp_path, width):
    """A screenshot, and the page after its scripts have run: the first game is shown, nothing is wider than it."""
    text, _ = page_of(run_folder)
    probe = "<script>document.title = document.documentElement.scrollWidth + ' of ' + innerWidth;</script></body>"
    (tmp_path / "page.html").write_text(text.replace("</body>", probe))
    flags = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    size = [f"--window-size={width},1200", f"--screenshot={tmp_path / 'page.png'}", "--hide-scrollbars"]
    done = subprocess.run(
        [BROWSER, *flags, *size, "--dump-dom", f"file://{tmp_path / 'page.html'}"], capture_output=True, text=True,
        timeout=120,
    )  # fmt: skip
    assert "the start" in done.stdout, done.stderr[-2000:]
    wide, of = re.search(r"<title>(\d+) of (\d+)</title>", done.stdout).groups()
    assert int(wide) <= int(of)
