"""RunSummary: what a run leaves in its folder and on the screen."""

import csv
import json

import pytest
from conftest import small_mlp
from lightning.pytorch.loggers import CSVLogger

from callbacks.last_checkpoint import LastCheckpoint
from callbacks.run_progress import RunProgress
from callbacks.run_summary import RunSummary, thin
from datamodules.self_play import SelfPlayDataModule
from lit_rl.evaluation import Exact, Matches
from lit_rl.ppo import PPO
from lit_rl.run.checkpoint_io import VerifiedCheckpointIO


def test_a_run_leaves_its_files(make_fit, tmp_path, capsys):
    trainer, model, data = make_fit(
        {"ema_decay": 0.9}, callbacks=[RunSummary(), RunProgress(), LastCheckpoint()], max_epochs=4,
        enable_progress_bar=True, enable_checkpointing=True, plugins=[VerifiedCheckpointIO()],
        logger=CSVLogger(tmp_path, name="", flush_logs_every_n_steps=1),
    )  # fmt: skip
    trainer.fit(model, data)
    run = tmp_path / "version_0"
    summary = json.loads((run / "summary.json").read_text())
    assert summary["game"] == "kuhn_poker" and summary["algorithm"] == "PPO" and summary["decisions"] == 4 * 512
    assert 0 < summary["nash_conv"] < 2 and summary["exploitability"] == pytest.approx(summary["nash_conv"] / 2)
    assert (run / "learning_curve.png").read_bytes().startswith(b"\x89PNG")
    assert "eval/nash_conv" in (run / "metrics.csv").read_text().splitlines()[0]
    output = capsys.readouterr().out
    assert f"NashConv        {summary['nash_conv']:.6f}   (uniform policy 0.916667)" in output
    assert "exploitability" in output and "uniform policy 0.458333" in output
    assert "iteration 4/4" in output

    reloaded = PPO.load_from_checkpoint(summary["checkpoint"], network=small_mlp)
    assert int(reloaded.decisions) == summary["decisions"]
    table = reloaded.export_policy()
    from lit_rl.evaluation import exact_metrics

    assert exact_metrics(table, data.tree)["eval/nash_conv"] == pytest.approx(summary["nash_conv"], abs=1e-12)


def test_a_long_learning_curve_keeps_its_ends_and_its_shape():
    curve = []
    for i in range(1000):
        curve.append([float(i), i / 2])
        thin(curve, 60)
        assert curve[0][0] == 0 and curve[-1][0] == i and len(curve) == min(i + 1, 60)
    gaps = [b[0] - a[0] for a, b in zip(curve, curve[1:])]
    assert max(gaps) <= 32 and min(gaps[:-1]) >= 8  # 1000 / 60 = 17 were they even
    assert all(y == x / 2 for x, y in curve)


def test_a_run_with_lightnings_default_checkpoint_ends_well(make_fit, tmp_path):
    """Its ModelCheckpoint has no monitor, so there is no best one."""
    trainer, model, data = make_fit(
        callbacks=[RunSummary(plot=False)], enable_checkpointing=True, logger=CSVLogger(tmp_path, name="")
    )
    trainer.fit(model, data)
    summary = json.loads((tmp_path / "version_0" / "summary.json").read_text())
    assert "best_checkpoint" not in summary and summary["nash_conv"] > 0


def test_a_policy_is_written_down_without_a_tree(short_trainer, tmp_path):
    """Of a game by its public positions: each infostate once, with probabilities of its legal actions."""
    job = Exact(max_nodes=100)
    model = PPO("envs.liars_dice_1x4", network=small_mlp)
    data = SelfPlayDataModule("envs.liars_dice_1x4", num_envs=4, num_steps=2, evaluation=[job])
    short_trainer(callbacks=[RunSummary()], default_root_dir=tmp_path).predict(model, data)
    with (tmp_path / "policy.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert job.tree is None and len(rows) == len({(row["player"], row["obs"]) for row in rows}) == 1024
    names = [name for name in rows[0] if name not in ("player", "obs")]
    assert all(sum(float(row[name]) for name in names) == pytest.approx(1, abs=1e-4) for row in rows)


def test_matches_are_drawn_where_a_run_and_its_checkpoints_lie(make_fit, tmp_path, capsys):
    trainer, model, data = make_fit(
        data={"evaluation": [Matches(["random"], games=50, play=["sampled", "greedy"])]},
        callbacks=[RunSummary(), LastCheckpoint()], enable_checkpointing=True, plugins=[VerifiedCheckpointIO()],
        logger=CSVLogger(tmp_path, name=""),
    )  # fmt: skip
    trainer.fit(model, data)
    run = tmp_path / "version_0"
    assert (run / "matches.png").read_bytes().startswith(b"\x89PNG")
    summary = json.loads((run / "summary.json").read_text())
    assert summary["greedy"]["against"]["random"]["games"] == summary["against"]["random"]["games"] == 50
    (metrics,) = trainer.validate(model, data, ckpt_path=str(run / "checkpoints" / "last.ckpt"), verbose=False)
    assert metrics["eval/greedy/win_rate/random"] == pytest.approx(summary["greedy"]["win_rate"])
    assert (run / "matches_last.png").exists() and str(run / "matches_last.png") in capsys.readouterr().out
