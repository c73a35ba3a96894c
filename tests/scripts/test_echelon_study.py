"""The study of Echelon: every variant is a config that says what it should, one of them runs, and the table."""

import json
from pathlib import Path

import pytest
import yaml


@pytest.mark.parametrize("name", ["base", "MLP", "flat", "batch", "none", "share 0", "share 1", "uniform"])
def test_variants_change_one_part(name):
    from scripts.echelon_study import VARIANTS, config_of

    assert set(VARIANTS) == {"base", "MLP", "flat", "batch", "none", "share 0", "share 1", "uniform"}
    base, other = (yaml.safe_load(config_of(n, "envs.echelon.two", 3, 2)) for n in ("base", name))
    data = other["data"]["init_args"]
    assert data["game"] == "envs.echelon.two" and other["trainer"]["max_epochs"] == 3
    assert data["evaluation"][0]["init_args"]["games"] == 2
    assert data["matchmaker"] == ("uniform" if name == "uniform" else "pfsp")
    differs = {
        key
        for part in ("model", "data")
        for key, value in base[part]["init_args"].items()
        if value != other[part]["init_args"].get(key)
    }
    expected = {
        "base": set(), "MLP": {"network", "minibatches"}, "flat": {"network"},
        "uniform": {"matchmaker", "matchmaker_options"},
    }  # fmt: skip
    own = {"team_share"} if name.startswith("share") else {"normalize_advantages"}
    assert differs == expected.get(name, own) and base["trainer"] == other["trainer"]


def test_the_table():
    from scripts.echelon_study import table

    def summary(a, b):
        return {"win_rate": (a + b) / 2, "against": {"random": {"win_rate": a}, "idle": {"win_rate": b}}}

    text = table({"base": [summary(0.5, 0.7), summary(0.6, 0.8)], "MLP": [summary(0.5, 0.5), summary(0.5, 0.7)]})
    lines = text.splitlines()
    assert lines[0].split() == ["variant", "mean", "random", "idle", "mean", "above", "base"]
    assert lines[1].split()[:4] == ["base", "0.650", "0.550", "0.750"]
    assert lines[2].endswith("-0.100 [-0.100, -0.100]")


@pytest.mark.slow
def test_a_variant_runs_and_is_not_repeated(tmp_path, capsys):
    from scripts.echelon_study import main

    arguments = ["--game", "envs.echelon.two", "--iterations", "1", "--games", "2", "--seeds", "211", "--jobs", "1"]
    for _ in range(2):
        main([*arguments, "--only", "base", "MLP", "--folder", str(tmp_path)])
    assert len(list(Path(tmp_path).glob("*/*/seed_211/version_*/summary.json"))) == 2
    found = json.loads(next(Path(tmp_path).glob("MLP/*/seed_211/version_0/summary.json")).read_text())
    out = capsys.readouterr().out
    assert out.count("variant") == 2 and f"{found['win_rate']:.3f}" in out
