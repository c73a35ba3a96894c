"""PPO end to end on Kuhn: exact first ratios, gradients of every term, KL stop, EMA, merging, reload."""

import copy

import lightning as L
import pytest
import torch
from conftest import grouped, small_mlp

from envs.vector_env import VectorEnv
from lit_rl import losses
from lit_rl.batches import Minibatches
from lit_rl.evaluation import exact_metrics
from lit_rl.ppo import PPO
from lit_rl.rollout import collect


class Spy(L.Callback):
    """Keeps each minibatch's metrics and the weights after it."""

    def __init__(self):
        self.metrics, self.weights, self.validations = [], [], 0

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if pl_module.meter.minibatches:
            self.metrics.append({k: float(v) for k, v in pl_module.meter.minibatches[-1].items()})
        self.weights.append(torch.cat([p.detach().flatten().clone() for p in pl_module.policy.parameters()]))

    def on_validation_end(self, trainer, pl_module):
        self.validations += 1


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("temperature", [1.0, 1.7])
def test_first_ratio_is_one(make_fit, precision, temperature):
    """What was sampled is what is learned from: before the first step the KL is 0 in any precision."""
    spy = Spy()
    trainer, model, data = make_fit(
        {"sampling_temperature": temperature, "num_minibatches": 1}, max_epochs=1, precision=precision, callbacks=[spy]
    )
    trainer.fit(model, data)
    assert abs(spy.metrics[0]["approx_kl"]) < 1e-7
    assert spy.metrics[0]["clip_fraction"] == 0
    assert spy.metrics[1]["approx_kl"] > 1e-7  # and not 0 forever


@pytest.mark.parametrize("term", ["policy_loss", "value_loss", "entropy"])
def test_every_loss_term_has_a_gradient(make_fit, term):
    _, model, data = make_fit()
    env = VectorEnv(data.game, 32, seed=0)
    rollout = collect(env, model.policy, 8)
    batch = next(model.make_batches(rollout, torch.Generator().manual_seed(0)))
    with torch.no_grad():
        for p in model.policy.parameters():
            p.add_(0.1 * torch.randn_like(p))  # entropy is at its maximum, where its gradient is 0, when untrained
    model.training_step(batch, 0)
    model.meter.terms[term].backward()
    head = model.policy.value_head if term == "value_loss" else model.policy.policy_head
    assert head.weight.grad.abs().sum() > 0


def test_a_step_raises_the_probability_of_a_better_action(make_fit):
    _, model, data = make_fit({"num_minibatches": 1, "entropy_coef": 0.0})
    rollout = collect(VectorEnv(data.game, 64, seed=0), model.policy, 8)
    batch = next(model.make_batches(rollout, torch.Generator().manual_seed(0)))
    batch = batch._replace(advantages=(batch.action == 1).float() - 0.5)
    optimizer = torch.optim.Adam(model.policy.parameters(), lr=1e-2)
    model.training_step(batch, 0).backward()
    before = torch.softmax(model.policy(batch.obs, batch.legal).logits, -1)[:, 1].mean()
    optimizer.step()
    assert torch.softmax(model.policy(batch.obs, batch.legal).logits, -1)[:, 1].mean() > before


def test_target_kl_stops_the_weights_but_not_the_run(make_fit):
    spy = Spy()
    trainer, model, data = make_fit(
        {"target_kl": 1e-12, "update_epochs": 3, "num_minibatches": 2}, max_epochs=2, callbacks=[spy],
        check_val_every_n_epoch=1,
    )  # fmt: skip
    trainer.fit(model, data)
    moved = [not torch.equal(a, b) for a, b in zip(spy.weights, spy.weights[1:])]
    assert trainer.global_step == len(spy.weights) == 12  # schedules stay aligned: skipped minibatches count
    assert spy.validations == 2
    assert float(trainer.callback_metrics["train/skipped_batches"]) >= 3
    assert sum(moved) <= 4


def test_without_target_kl_every_minibatch_moves_the_weights(make_fit):
    spy = Spy()
    trainer, model, data = make_fit(max_epochs=1, callbacks=[spy])
    trainer.fit(model, data)
    assert trainer.global_step == 16
    assert all(not torch.equal(a, b) for a, b in zip(spy.weights, spy.weights[1:]))


def test_exported_policy_is_the_average(make_fit):
    trainer, model, data = make_fit({"ema_decay": 0.9}, max_epochs=3)
    start = copy.deepcopy(model.policy)
    spy = Spy()
    trainer.callbacks.append(spy)
    trainer.fit(model, data)
    expected = spy.weights[0]  # torch's AveragedModel starts at the first weights it sees
    for weights in spy.weights[1:]:
        expected = 0.9 * expected + 0.1 * weights
    got = torch.cat([p.flatten() for p in model.export_policy().parameters()])
    assert torch.allclose(got, expected, atol=1e-6)
    assert not torch.allclose(got, torch.cat([p.flatten() for p in start.parameters()]))
    plain = PPO("envs.kuhn_poker", network=small_mlp)
    assert plain.export_policy() is plain.policy


def test_validation_is_the_exact_nash_conv_of_the_exported_policy(make_fit):
    trainer, model, data = make_fit({"ema_decay": 0.99}, max_epochs=2)
    trainer.fit(model, data)
    expected = exact_metrics(model.export_policy(), data.tree)["eval/nash_conv"]
    assert float(trainer.callback_metrics["eval/nash_conv"]) == pytest.approx(expected, abs=1e-6)


def test_merged_rows_change_nothing_but_the_order_of_sums(make_fit):
    weights = []
    for merge_rows in (True, False):
        torch.manual_seed(7)
        trainer, model, data = make_fit({"merge_rows": merge_rows}, max_epochs=2)
        trainer.fit(model, data)
        weights.append(torch.cat([p.detach().flatten() for p in model.policy.parameters()]))
    assert torch.allclose(*weights, atol=2e-3)


def test_same_seed_same_weights_whatever_the_global_seed(make_fit):
    weights = []
    for noise in (1, 2):
        torch.manual_seed(0)
        trainer, model, data = make_fit(max_epochs=2)
        torch.manual_seed(noise)
        trainer.fit(model, data)
        weights.append(torch.cat([p.detach().flatten() for p in model.policy.parameters()]))
    assert torch.equal(*weights)


@pytest.mark.parametrize("normalize", [True, False])
def test_advantage_normalisation(make_fit, normalize):
    """Scaling all rewards scales the policy loss, unless advantages are normalised."""
    _, model, data = make_fit({"normalize_advantages": normalize, "num_minibatches": 1, "merge_rows": False})
    rollout = collect(VectorEnv(data.game, 64, seed=0), model.policy, 8)
    batch = next(model.make_batches(rollout, torch.Generator().manual_seed(0)))
    batch = batch._replace(log_prob=batch.log_prob + 0.1 * torch.randn(len(batch.row)))
    model.training_step(batch, 0)
    once = model.meter.terms["policy_loss"].item()
    model.training_step(batch._replace(advantages=10 * batch.advantages), 0)
    assert model.meter.terms["policy_loss"].item() == pytest.approx(once if normalize else 10 * once, rel=1e-3)


def test_one_decision_per_minibatch(make_fit):
    """Normalising a single advantage must not give NaN."""
    _, model, data = make_fit({"normalize_advantages": True})
    rollout = collect(VectorEnv(data.game, 64, seed=0), model.policy, 4)
    batch = next(model.make_batches(rollout, torch.Generator().manual_seed(0)))
    single = batch._replace(
        **{k: getattr(batch, k)[:1] for k in ("row", "action", "log_prob", "value", "advantages", "returns")}
    )
    assert torch.isfinite(model.training_step(single, 0))


def test_too_few_decisions_for_the_minibatches(make_fit):
    _, model, data = make_fit({"num_minibatches": 64})
    rollout = collect(VectorEnv(data.game, 4, seed=0), model.policy, 4)
    with pytest.raises(ValueError, match="num_minibatches=64"):
        next(model.make_batches(rollout, torch.Generator()))


def test_every_minibatch_is_dealt_once_per_epoch(make_fit):
    _, model, data = make_fit({"update_epochs": 2, "num_minibatches": 3, "merge_rows": False})
    rollout = collect(VectorEnv(data.game, 32, seed=0), model.policy, 8)
    batches = list(model.make_batches(rollout, torch.Generator().manual_seed(0)))
    assert len(batches) == model.batches_per_iteration == 6
    epochs = [torch.cat([b.advantages for b in batches[i : i + 3]]) for i in (0, 3)]
    assert torch.equal(epochs[0].sort().values, epochs[1].sort().values)
    assert not torch.equal(*epochs)


def test_printing_the_data_does_not_collect(make_fit):
    trainer, model, data = make_fit()
    trainer.fit(model, data)
    before = data.env.chance_streams.copy()
    assert "kuhn_poker" in str(data) + repr(data)
    assert (data.env.chance_streams == before).all()


def test_learns_kuhn_in_seconds(make_fit):
    """A hundred iterations take NashConv from 0.917 to below 0.6."""
    trainer, model, data = make_fit(
        {"entropy_coef": 0.1, "update_epochs": 2, "num_minibatches": 1, "visit_exponent": 0.25, "ema_decay": 0.98,
         "optimizer": lambda p: torch.optim.Adam(p, lr=5e-3, eps=1e-5)},
        {"num_envs": 256, "num_steps": 8}, max_epochs=100, check_val_every_n_epoch=100, log_every_n_steps=100,
    )  # fmt: skip
    trainer.fit(model, data)
    assert float(trainer.callback_metrics["eval/nash_conv"]) < 0.6


def test_where_no_infostate_repeats_full_visit_weights_are_plain_ppo():
    """The gradient of a minibatch in which every infostate is met once: that of the unweighted decisions."""
    gradients = []
    for visit_exponent in (None, 0.5):
        torch.manual_seed(0)
        model = PPO("envs.leduc_poker", small_mlp, minibatches=Minibatches(1, 1, visit_exponent=visit_exponent))
        rollout = collect(VectorEnv(model.game, 3, seed=20), model.policy, 8)
        batch = next(model.make_batches(rollout, torch.Generator().manual_seed(0)))
        assert len(batch.obs[batch.row].unique(dim=0)) == len(batch.row) > 6
        loss = model.training_step(batch, 0)
        gradients.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.policy.parameters()))]))
    assert torch.allclose(*gradients, rtol=1e-4, atol=1e-7) and gradients[0].abs().max() > 0.01


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("precision", ["32-true", "16-mixed", "bf16-mixed"])
def test_on_a_gpu(make_fit, precision):
    spy = Spy()
    trainer, model, data = make_fit(
        {"num_minibatches": 1}, max_epochs=3, accelerator="gpu", devices=1, precision=precision, callbacks=[spy]
    )
    trainer.fit(model, data)
    assert abs(spy.metrics[0]["approx_kl"]) < 1e-5
    assert float(trainer.callback_metrics["eval/nash_conv"]) < 1.0


def test_gradient_of_entropy_points_to_uniform():
    logits = torch.tensor([[2.0, 0.0]], requires_grad=True)
    losses.entropy(torch.log_softmax(logits, -1)).sum().backward()
    assert logits.grad[0, 0] < 0 < logits.grad[0, 1]


@pytest.mark.parametrize(
    ("argument", "value"),
    [("entropy_coef", -0.1), ("clip", float("nan")), ("gamma", 1.1), ("update_epochs", 0), ("clip", float("inf"))],
)
def test_ranges_hold_in_python_too(argument, value):
    with pytest.raises(ValueError, match=f"{argument}={value}"):
        PPO("envs.kuhn_poker", **grouped({argument: value}))


class SaveAt(L.Callback):
    """Saves a checkpoint after one minibatch."""

    def __init__(self, iteration, batch_idx, path):
        self.at, self.path = (iteration, batch_idx), path

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if (trainer.current_epoch, batch_idx) == self.at:
            trainer.save_checkpoint(self.path)


@pytest.mark.parametrize("batch_idx", [0, 2, 7])
def test_resume_goes_on_bit_by_bit(make_fit, tmp_path, batch_idx):
    """Saved in mid-iteration or at its last batch: games, streams, rollout, order and moments all go on."""
    options = {"update_epochs": 2, "ema_decay": 0.9}
    path = tmp_path / "middle.ckpt"
    torch.manual_seed(5)
    trainer, whole, data = make_fit(options, max_epochs=4, callbacks=[SaveAt(1, batch_idx, path)])
    trainer.fit(whole, data)
    torch.manual_seed(6)
    trainer, resumed, data = make_fit(options, max_epochs=4)
    trainer.fit(resumed, data, ckpt_path=path)
    for (name, a), b in zip(whole.state_dict().items(), resumed.state_dict().values()):
        assert torch.equal(a, b), name


def test_resume_with_another_number_of_games_is_refused(make_fit, tmp_path):
    trainer, model, data = make_fit(max_epochs=1)
    trainer.fit(model, data)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    trainer, model, data = make_fit(data={"num_envs": 128}, max_epochs=2)
    with pytest.raises(ValueError, match=r"data\.num_envs: .*restart_games=true"):
        trainer.fit(model, data, ckpt_path=tmp_path / "a.ckpt")
