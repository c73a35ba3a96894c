"""Callbacks: schedules hit their targets, norms are measured, NaN never reaches the weights, a run leaves its files."""

import json
from types import SimpleNamespace

import lightning as L
import pytest
import torch
from conftest import small_mlp
from lightning.pytorch.loggers import CSVLogger

from callbacks.episode_stats import EpisodeStats
from callbacks.finite_guard import FiniteGuard
from callbacks.grad_norm import GradNorm
from callbacks.last_checkpoint import LastCheckpoint
from callbacks.run_progress import RunProgress
from callbacks.run_summary import RunSummary, thin
from callbacks.scalar_schedule import ScalarSchedule
from callbacks.throughput import Throughput
from lit_rl.ppo import PPO
from lit_rl.run.checkpoint_io import VerifiedCheckpointIO
from lit_rl.run.errors import ConfigError
from lit_rl.schedules import Linear, Step


class Recorder(L.Callback):
    def __init__(self):
        self.seen = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if batch_idx == 0:
            rollout = trainer.train_dataloader.rollout
            self.seen.append(
                (pl_module.entropy_coef, trainer.datamodule.num_steps, rollout.num_decisions, rollout.temperature)
            )


def test_scalar_schedule_applies_to_the_rollout_of_the_same_iteration(make_fit):
    recorder = Recorder()
    trainer, model, data = make_fit(
        max_epochs=3,
        callbacks=[
            ScalarSchedule("model.entropy_coef", Linear(0.4, 0.0)),
            ScalarSchedule("model.sampling_temperature", Linear(2.0, 1.0)),
            ScalarSchedule("data.num_steps", Step(8, 2, every=1)),
            recorder,
        ],
    )
    trainer.fit(model, data)
    entropy, steps, decisions, temperature = zip(*recorder.seen)
    assert entropy == pytest.approx([0.4, 0.2, 0.0])
    assert steps == (8, 16, 32) and decisions == tuple(64 * s for s in steps)
    assert temperature == pytest.approx([2.0, 1.5, 1.0])
    assert float(trainer.callback_metrics["schedule/entropy_coef"]) == 0.0


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("model.entropy_coeff", "did you mean model.entropy_coef"),
        ("data.num_stepz", "did you mean data.num_steps"),
        ("model.zzz", "numbers there: .*clip.*entropy_coef"),
        ("model.update_epochs", "fixed once the run has begun"),
        ("data.num_envs", "fixed once the run has begun"),
        ("model.sampling_temperature", "sampling_temperature=0"),
        ("entropy_coef", "needs model.<attribute> or data.<attribute>"),
    ],
)
def test_scalar_schedule_refuses_typos_at_start(make_fit, target, message):
    with pytest.raises(ValueError, match=message):
        trainer, model, data = make_fit(callbacks=[ScalarSchedule(target, Linear())])
        trainer.fit(model, data)


@pytest.mark.parametrize("clip", [None, 1e-3])
def test_grad_norm_before_and_after_clipping(make_fit, clip):
    trainer, model, data = make_fit(callbacks=[GradNorm(per_group=True)], gradient_clip_val=clip, max_epochs=1)
    trainer.fit(model, data)
    metrics = {k: float(v) for k, v in trainer.callback_metrics.items()}
    assert metrics["train/grad_norm"] > 1e-3
    assert metrics["train/grad_norm/0"] == pytest.approx(metrics["train/grad_norm"])
    if clip:
        assert metrics["train/grad_norm_clipped"] == pytest.approx(clip, rel=1e-2)
        assert metrics["train/clipped_share"] == 1
    else:
        assert metrics["train/grad_norm_clipped"] == pytest.approx(metrics["train/grad_norm"])
        assert metrics["train/clipped_share"] == 0


class Poison(L.Callback):
    """Puts a NaN into one place at iteration 1 and remembers the weights as they were."""

    def __init__(self, where):
        self.where, self.before = where, None

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == 1 and self.where == "weights":
            with torch.no_grad():
                pl_module.policy.policy_head.bias[0] = torch.nan
        if trainer.current_epoch == 1 and self.where == "critic":
            with torch.no_grad():
                pl_module.policy.value_head.bias[0] = torch.nan

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.current_epoch == 1:
            if self.where == "advantages":
                batch.advantages[3] = torch.inf
            if self.where == "returns":
                batch.returns[3] = torch.nan
            if self.where == "rewards":
                trainer.train_dataloader.rollout.rewards[2, 5, 1] = torch.inf
        self.before = {k: v.clone() for k, v in pl_module.state_dict().items()}

    def on_after_backward(self, trainer, pl_module):
        if trainer.current_epoch == 1 and self.where == "gradient":
            pl_module.policy.value_head.weight.grad[0, 0] = torch.nan


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("advantages", "loss term policy_loss"),
        ("returns", "loss term value_loss"),
        ("gradient", r"gradient of policy\.value_head\.weight"),
        ("rewards", r"rollout rewards\[step 2, env row 5\] = inf"),
        ("critic", r"rollout value\[step \d+, env row \d+\] = nan"),
        ("weights", "kuhn_poker, env row 0: cannot sample"),
    ],
)
def test_finite_guard_stops_before_the_weights(make_fit, tmp_path, where, message):
    poison = Poison(where)
    trainer, model, data = make_fit(callbacks=[poison, FiniteGuard()], logger=CSVLogger(tmp_path, name=""))
    with pytest.raises(FloatingPointError, match=message):
        trainer.fit(model, data)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, poison.before[name]) or where in ("critic", "weights"), name
    if where in ("advantages", "returns", "gradient"):
        (saved,) = (tmp_path / "version_0" / "crash").iterdir()
        batch = torch.load(saved, weights_only=True)
        assert len(batch["advantages"]) == len(batch["action"])


@pytest.mark.parametrize("where", ["advantages", "returns", "gradient"])
def test_finite_guard_skips_if_asked_to_and_not_for_ever(make_fit, where):
    """Eight poisoned minibatches of iteration 1: weights and moments stand still there, and go on afterwards."""
    before = {}

    class Watch(L.Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            moments = [x for s in trainer.optimizers[0].state.values() for x in s.values()]
            before[trainer.current_epoch] = [x.clone() for x in [*pl_module.policy.parameters(), *moments]]

    options = {"update_epochs": 2, "num_minibatches": 4}
    guard = FiniteGuard("skip", max_skips=8)
    trainer, model, data = make_fit(options, callbacks=[Poison(where), guard, Watch()], max_epochs=4)
    with pytest.warns(UserWarning, match=r"is not finite; optimizer step \d+ skipped"):
        trainer.fit(model, data)
    assert guard.state_dict() == {"skips": 8}
    assert all(torch.equal(a, b) for a, b in zip(before[1], before[2]))
    assert not any(torch.equal(a, b) for a, b in zip(before[2][:2], before[3][:2]))
    trainer, model, data = make_fit(options, callbacks=[Poison(where), FiniteGuard("skip", max_skips=7)], max_epochs=4)
    with pytest.warns(UserWarning), pytest.raises(FloatingPointError, match="is not finite"):
        trainer.fit(model, data)


def test_finite_guard_ends_a_run_whose_gradient_scale_collapsed(make_fit):
    scaler = SimpleNamespace(get_scale=lambda: 2.0**-3)
    trainer = SimpleNamespace(
        precision_plugin=SimpleNamespace(scaler=scaler), train_dataloader=None, current_epoch=5, global_step=40
    )
    with pytest.raises(FloatingPointError, match=r"gradient scale fell to 0\.125, use trainer\.precision=bf16-mixed"):
        FiniteGuard().on_train_batch_start(trainer, None, None, 0)


def test_finite_guard_lets_the_scaler_skip(make_fit):
    """Overflowing gradients under a gradient scaler are skipped by the scaler, not an error."""
    trainer = SimpleNamespace(precision_plugin=SimpleNamespace(scaler=object()))
    FiniteGuard().on_before_optimizer_step(trainer, None, None)


def test_throughput_and_episode_stats(make_fit):
    trainer, model, data = make_fit(callbacks=[Throughput(), EpisodeStats()], max_epochs=2)
    trainer.fit(model, data)
    metrics = {k: float(v) for k, v in trainer.callback_metrics.items()}
    assert metrics["perf/decisions_per_second"] > 100
    assert 0 < metrics["perf/collect_share"] < 1
    assert 2 <= metrics["episode/length"] <= 3.5
    assert metrics["episode/return_player_0"] == pytest.approx(-metrics["episode/return_player_1"], abs=1e-6)
    assert metrics["decisions"] == 2 * 64 * 8


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
    from lit_rl.policy import exact_metrics

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


def test_config_error_is_a_value_error():
    assert issubclass(ConfigError, ValueError)
