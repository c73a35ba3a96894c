"""What READMEs and config headers promise exists and runs."""

import importlib
import re
import shlex
import sys
from pathlib import Path

import pytest
import yaml

from envs.contract import main as check_contract
from lit_rl.__main__ import COMMANDS
from lit_rl.cli import main
from scripts.replay import main as replay

ROOT = Path(__file__).parent.parent
ROOMS = ("envs", "lit_rl", "datamodules", "callbacks", "configs", "scripts", "tests")
READMES = [ROOT / "README.md", *sorted(path for room in ROOMS for path in (ROOT / room).rglob("README.md"))]


@pytest.mark.parametrize("path", READMES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_links_of_a_readme_lead_somewhere(path):
    links = [x for x in re.findall(r"\]\(([^)#\s]+)\)", path.read_text()) if not x.startswith("http")]
    assert [link for link in links if not (path.parent / link).exists()] == []


def test_the_front_page_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


@pytest.mark.parametrize("path", READMES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_files_named_in_a_readme_exist(path):
    named = set(re.findall(rf"(?<![\w/])(?:{'|'.join(ROOMS)})/[\w/]+\.(?:py|yaml|md)", path.read_text()))
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


def blocks(text, language):
    """The fenced blocks of that language, "" for none; language None: what stands outside of all of them."""
    found, outside, inside = [], [], None
    for line in text.splitlines():
        if line.startswith("```"):
            inside, mine = (line[3:], []) if inside is None else (None, None)
            if inside == language and mine is not None:
                found.append(mine)
        elif inside is None:
            outside.append(line)
        elif inside == language:
            found[-1].append(line)
    return ["\n".join(lines) + "\n" for lines in ([outside] if language is None else found)]


def names(path):
    return path.relative_to(ROOT).as_posix()


def command_lines():
    """The commands of all READMEs, in blocks and in running text, each once; not those within Python, which are run."""
    found = set()
    for path in READMES:
        text = path.read_text()
        lines = [line for block in blocks(text, "") for line in block.splitlines()]
        lines += re.findall(r"`((?:\w+=\w+ )?litrl [^`]*)`", blocks(text, None)[0])
        for line in lines:
            line = re.split(r"\s{3,}#| \| ", line)[0]
            found.update(re.findall(r"(?:litrl(?:-replay)?|python -m [\w.]+|pip install|pytest) .*?(?= && |$)", line))
    return sorted(found)


def filled_in(command):
    for placeholder, value in (
        ("<run>/config.yaml", "configs/kuhn_ppo.yaml"), ("fit … ", "fit --config configs/kuhn_ppo.yaml "),
        ("fit …", "fit --config configs/kuhn_ppo.yaml"), ("<run>", "runs/leduc_ppo/version_0"), ("<file>", "last.ckpt"),
    ):  # fmt: skip
        command = command.replace(placeholder, value)
    return shlex.split(command)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("command", [c for c in command_lines() if c.startswith("litrl ") and "$" not in c])
def test_a_command_of_a_readme_is_one(command, monkeypatch, capsys):
    """It parses as it stands, the config that it names included. (What holds variables is part of a script.)"""
    monkeypatch.chdir(ROOT)
    words = filled_in(command)[1:]
    if words[0] in COMMANDS and words[1] != "--help":
        assert importlib.import_module(COMMANDS[words[0]]).command_line().parse_args(words[1:])
        return
    if words[0] in COMMANDS:
        with pytest.raises(SystemExit, match=r"^0$"):
            importlib.import_module(COMMANDS[words[0]]).main(words[1:])
        return
    shows = [] if any(word.endswith("help") for word in words) else ["--print_config"]
    with pytest.raises(SystemExit) as end:
        main([*words, *shows])
    assert end.value.code == 0, capsys.readouterr().err


def test_the_other_commands_of_readmes_are_known(capsys, monkeypatch):
    """What is installed and tested on a clean clone stands in .ci/run; replays are refused for want of a file alone."""
    gate = (ROOT / ".ci" / "run").read_text()
    others = [command for command in command_lines() if not command.startswith("litrl ")]
    assert len(others) > 5 and len(command_lines()) > 25
    for command in others:
        words = filled_in(command)
        if words[0] == "litrl-replay":
            with pytest.raises(SystemExit):
                replay(words[1:])
            assert "no such file" in capsys.readouterr().err
        elif words[0] == "python":
            assert words[2] == "envs.contract" and check_contract(words[3:]) == 0
        elif words[0] == "pip":
            assert command.removeprefix("pip install ") in gate or ".[peers]" in words
        else:
            assert words == ["pytest", "-n", "2"]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("path", [p for p in READMES if blocks(p.read_text(), "yaml")], ids=names)
def test_yaml_of_a_readme_can_be_laid_over_a_config(path, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(ROOT)
    for block in blocks(path.read_text(), "yaml"):
        assert isinstance(yaml.safe_load(block), dict)
        (tmp_path / "block.yaml").write_text(block)
        with pytest.raises(SystemExit) as end:
            main(
                ["fit", "--config", "configs/kuhn_ppo.yaml", "--config", str(tmp_path / "block.yaml"), "--print_config"]
            )
        assert end.value.code == 0, capsys.readouterr().err


def shortened(code):
    """The same with a few iterations instead of hundreds."""
    code = re.sub(r"max_epochs=(\d+)00\b", lambda found: f"max_epochs={found[1]}", code)
    return re.sub(r"check_val_every_n_epoch=\d+", "check_val_every_n_epoch=2", code)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("path", [p for p in READMES if blocks(p.read_text(), "python")], ids=names)
def test_python_of_a_readme_runs(path, monkeypatch, tmp_path, capsys):
    """Block after block from an empty folder; those that name a file are put there, and their commands run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    scope, ran = {}, 0
    for block in blocks(path.read_text(), "python"):
        name = re.match(r"# (\w+\.py)\n", block)
        if name is None:
            exec(compile(shortened(block), str(path), "exec"), scope)
            continue
        (tmp_path / name[1]).write_text(block)
        monkeypatch.delitem(sys.modules, name[1].removesuffix(".py"), raising=False)
        for command in re.findall(r"^# ((?:litrl|python -m) .*)$", block, re.MULTILINE):
            words, ran = shlex.split(command), ran + 1
            if words[0] == "python":
                assert words[2] == "envs.contract" and check_contract(words[3:]) == 0
            else:
                main([*words[1:], "--trainer.max_epochs", "2", "--trainer.check_val_every_n_epoch", "1"])
                assert "NashConv" in capsys.readouterr().out
    assert ran >= len(re.findall(r"^# my_\w+\.py$", path.read_text(), re.MULTILINE))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda p: p.stem)
def test_the_header_of_a_config_has_its_command_and_a_number(path, monkeypatch, capsys):
    """The command names this config and parses as it stands."""
    lines = path.read_text().splitlines()
    header = lines[: next(i for i, line in enumerate(lines) if not line.startswith("#"))]
    commands = [line.strip("# ") for line in header if line.strip("# ").startswith("litrl fit")]
    assert commands, "no command"
    assert re.search(r"\d\.\d\d", "\n".join(header)), "no number"
    monkeypatch.chdir(ROOT)
    arguments = shlex.split(re.split(r"\s{3,}", commands[0])[0])[1:]
    assert f"configs/{path.name}" in arguments
    with pytest.raises(SystemExit) as end:
        main([*arguments, "--print_config"])
    assert end.value.code == 0, capsys.readouterr().err


def test_pins_are_exact():
    lines = [x for x in (ROOT / "constraints.txt").read_text().splitlines() if x and not x.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.+]+", line) for line in lines)
