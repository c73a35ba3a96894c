"""The floors in the headers of the configs: the last entropy coefficient is found, and the header says its floor."""

import re
from pathlib import Path

import pytest
import yaml

from scripts.aqre import last_entropy, main

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.mark.parametrize(
    ("name", "entropy"), [("kuhn_ppo", 0.04), ("leduc_ppo", 0.15), ("leduc_rnad", 0.08), ("leduc_rnad_neurd", 0.07)]
)
def test_the_last_entropy_of_a_config(name, entropy):
    assert last_entropy(yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())) == entropy


def test_a_fixed_entropy_and_none():
    assert last_entropy({"model": {"init_args": {"entropy_coef": 0.1}}, "trainer": {}}) == 0.1
    with pytest.raises(ValueError, match=r"names no model\.entropy_coef"):
        last_entropy({"model": {"init_args": {}}, "trainer": {}})


def test_headers_say_their_floor(capsys):
    """Of every config of a game with a tree and with an entropy schedule, what the script prints for it."""
    paths = [p for p in sorted(CONFIGS.glob("*.yaml")) if "model.entropy_coef" in p.read_text()]
    # Its opponent does not learn; their trees are too large; who plays alone has nothing to rest in; its obs forgets.
    without = ("leduc_exploiter", "beasty", "shogi", "vgc", "echelon", "recall", "last_card")
    paths = [p for p in paths if not p.stem.startswith(without)]
    assert len(paths) >= 10
    main([str(p) for p in paths])
    for path, line in zip(paths, capsys.readouterr().out.splitlines(), strict=True):
        floor = float(line.split()[-1])
        said = re.search(r"# Floor .*?(0\.\d+)\.?$", path.read_text(), re.M)
        assert said and float(said[1]) == pytest.approx(floor, abs=0.0006), (path.name, line)


def test_needs_configs_or_a_game(capsys):
    with pytest.raises(SystemExit):
        main([])
    assert "give configs, or --game and --entropy" in capsys.readouterr().err
