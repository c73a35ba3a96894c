"""The league study: every way is a config that runs, with the decisions it promises."""

import argparse
import json
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]


def arguments(**changes):
    args = dict(
        decisions=400_000, self_play_share=0.5, snapshots=4, exploiters=2, exploiter_share=0.4, start="main",
        folder=Path("runs/league_study"), game="envs.leduc_poker", entropy=None, learner_decisions=None,
    )  # fmt: skip
    return argparse.Namespace(**args | changes)


@pytest.mark.parametrize("algorithm", ["PPO", "R-NaD"])
@pytest.mark.parametrize("way", ["self-play", "past", "pfsp", "exploiters", "oracle"])
def test_a_way_spends_the_decisions_it_has(algorithm, way):
    from scripts.league_study import config_of, decisions_per_iteration

    config = yaml.safe_load(config_of(algorithm, way, arguments()))
    own = config["trainer"]["max_epochs"] * decisions_per_iteration(config)
    theirs = 0
    for callback in config["trainer"]["callbacks"]:
        if isinstance(callback, dict) and callback["class_path"] == "ExploiterSpawner":
            (epochs,) = [int(x.split("=")[1]) for x in callback["init_args"]["arguments"] if "max_epochs" in x]
            exploiter = yaml.safe_load((ROOT / "configs" / "leduc_exploiter.yaml").read_text())
            turns = config["trainer"]["max_epochs"] // callback["init_args"]["every"]
            theirs = turns * epochs * decisions_per_iteration(exploiter)
    assert own + theirs == pytest.approx(400_000, rel=0.05)
    assert (theirs > 0) == (way == "exploiters")
    assert config["data"]["class_path"] == ("SelfPlayDataModule" if way == "self-play" else "LeagueDataModule")


@pytest.mark.parametrize("way", ["self-play", "pfsp"])
def test_equal_decisions_to_learn_from(way):
    """Where half of the games are against members, the learner makes three quarters of the decisions."""
    from scripts.league_study import config_of, decisions_per_iteration

    args = arguments(game="envs.biased_rps", entropy=0.001, learner_decisions=90_000)
    config = yaml.safe_load(config_of("PPO", way, args))
    made = config["trainer"]["max_epochs"] * decisions_per_iteration(config)
    assert made * (1.0 if way == "self-play" else 0.75) == pytest.approx(90_000, rel=0.01)
    assert (
        config["data"]["init_args"]["game"] == "envs.biased_rps" and config["model"]["init_args"]["ema_decay"] is None
    )
    schedules = [c["init_args"]["schedule"] for c in config["trainer"]["callbacks"] if "ScalarSchedule" in str(c)]
    assert {"class_path": "Constant", "init_args": {"value": 0.001}} in schedules
    assert "scripts.league_study.AveragePolicy" in [
        c["class_path"] for c in config["trainer"]["callbacks"] if c != str(c)
    ]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("way", ["past", "oracle"])
def test_ways_run_on_a_small_budget_and_are_not_repeated(way, tmp_path, monkeypatch):
    from lit_rl.cli import main
    from scripts import league_study

    runs = []

    def run(config, seed, folder, extra):
        runs.append(seed)
        main([
            "fit", "--config", config, "--seed_everything", str(seed), "--data.num_envs", "32",
            "--trainer.default_root_dir", str(folder / f"seed_{seed}"), *extra,
        ])  # fmt: skip

    monkeypatch.setattr(league_study, "run", run)
    args = arguments(decisions=40_000, folder=tmp_path)
    first = league_study.measure("R-NaD", way, 1, args)
    assert league_study.measure("R-NaD", way, 1, args) == first and runs == [1]
    assert 0 < first["nash_conv"] < 6 and first["total_decisions"] == first["decisions"]
    (folder,) = tmp_path.glob("*/*/seed_1/version_0")
    names = sorted(p.stem for p in (folder / "league" / "members").glob("*.pt"))
    assert sum("oracle" in name for name in names) == (2 if way == "oracle" else 0)
    assert sum("oracle" not in name for name in names) >= 4
    assert json.loads((folder / "summary.json").read_text())["nash_conv"] == first["nash_conv"]
