"""What READMEs and config headers promise exists and runs."""

import re
import shlex
from pathlib import Path

import pytest

from lit_rl.cli import main

ROOT = Path(__file__).parent.parent
ROOMS = ("envs", "lit_rl", "datamodules", "callbacks", "configs", "scripts", "tests")
READMES = [ROOT / "README.md", *sorted(path for room in ROOMS for path in (ROOT / room).rglob("README.md"))]


@pytest.mark.parametrize("path", READMES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_files_named_in_a_readme_exist(path):
    named = set(re.findall(rf"(?<![\w/])(?:{'|'.join(ROOMS)})/[\w/]+\.(?:py|yaml|md)", path.read_text()))
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


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
