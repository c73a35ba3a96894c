"""What README and config headers promise exists."""

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))


def test_files_named_in_the_readme_exist():
    readme = (ROOT / "README.md").read_text()
    named = set(re.findall(r"(?:configs|envs|lit_rl|datamodules|scripts|callbacks|tests)/[\w/]+\.(?:py|yaml)", readme))
    assert len(named) > 8
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_every_config_has_a_header(path):
    assert path.read_text().startswith("# ")
    config = yaml.safe_load(path.read_text())
    if "model" in config:
        header = path.read_text().split("model:")[0]
        for word in ("litrl fit --config", "NashConv", "median", "worst", "seeds", "decisions", "s per run", "core"):
            assert word in header, word


def test_pins_are_exact():
    lines = [x for x in (ROOT / "constraints.txt").read_text().splitlines() if x and not x.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.+]+", line) for line in lines)
