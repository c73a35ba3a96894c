"""The ablation: each variant is a config that runs, and a finished run is not repeated."""

import argparse
import json
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
LEDUC = ROOT / "configs" / "leduc_rnad.yaml"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["plain PPO", "single reference", "portfolio diverse", "portfolio mixture"])
def test_variants_run(name, tmp_path):
    from lit_rl.cli import main
    from scripts.ablation import VARIANTS, with_overlay

    path = tmp_path / "config.yaml"
    path.write_text(with_overlay(LEDUC, VARIANTS[name], None))
    main([
        "fit", "--config", str(path), "--data.game", "envs.kuhn_poker", "--data.num_envs", "32", "--trainer.max_epochs",
        "2", "--trainer.check_val_every_n_epoch", "2", "--trainer.default_root_dir", str(tmp_path),
        "--trainer.enable_progress_bar", "false",
    ])  # fmt: skip
    used = yaml.safe_load((tmp_path / "version_0" / "config.yaml").read_text())
    entropy = [
        c["init_args"]["schedule"]["class_path"] for c in used["trainer"]["callbacks"]
        if c.get("init_args", {}).get("target") == "model.entropy_coef"
    ]  # fmt: skip
    assert [x.split(".")[-1] for x in entropy] == ["Constant" if name == "plain PPO" else "PowerLaw"]
    assert used["model"]["init_args"]["reference_coef"] == (0.0 if name == "plain PPO" else 1.0)


def test_a_finished_run_is_not_repeated_unless_its_config_changed(tmp_path, monkeypatch):
    from scripts import ablation

    runs = []

    def run(config, seed, folder, extra):
        runs.append(seed)
        version = folder / f"seed_{seed}" / f"version_{len(runs)}"
        version.mkdir(parents=True)
        summary = {"nash_conv": float(len(runs)), "seconds": 1.0}
        (version / "summary.json").write_text(json.dumps(summary))
        return summary

    monkeypatch.setattr(ablation, "run", run)
    args = argparse.Namespace(folder=tmp_path, config=LEDUC, iterations=None, variants=ablation.VARIANTS)
    assert [ablation.measure("magnet", seed, args)["nash_conv"] for seed in (1, 2, 1)] == [1.0, 2.0, 1.0]
    other = tmp_path / "other.yaml"
    other.write_text(LEDUC.read_text().replace("clip: 0.2", "clip: 0.1"))
    args.config = other
    assert ablation.measure("magnet", 1, args)["nash_conv"] == 3.0
    args.config = LEDUC
    assert ablation.measure("magnet", 1, args)["nash_conv"] == 1.0


def test_the_table_compares_seed_by_seed():
    from scripts.ablation import table

    text = table({"a": [1.0, 2.0, 4.0], "b": [2.0, 2.0, 2.0]}, against="a").splitlines()
    assert "75 % interval" in text[0] and text[1].split()[:3] == ["a", "2.0000", "4.0000"]
    assert text[2].endswith("x 1.00 [0.50, 2.00] of a") and "[2.0000, 2.0000]" in text[2]
