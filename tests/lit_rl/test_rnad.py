"""R-NaD: the documents' formula term by term, both forms end to end, resume, and the picture: it does not circle."""

import copy
import dataclasses
import math
import warnings
from pathlib import Path

import lightning as L
import pytest
import torch
import yaml
from conftest import grouped, small_mlp

from datamodules.self_play import SelfPlayDataModule
from envs.vector_env import VectorEnv
from lit_rl import losses
from lit_rl.batches import Minibatches
from lit_rl.networks import MLP
from lit_rl.ppo import PPO
from lit_rl.references import Magnet, Portfolio, Refreshed
from lit_rl.rnad import RNaD
from lit_rl.rollout import collect
from lit_rl.run.errors import ArtefactError, ConfigError

TERMS = ("policy_loss", "value_loss", "entropy", "reference_kl")


@pytest.fixture
def fit(tmp_path):
    """(trainer, model, data) for a short run of R-NaD; keyword arguments override any part."""

    def build(model=None, data=None, game="envs.kuhn_poker", **trainer):
        model = RNaD(game, **grouped({"network": small_mlp} | (model or {})))
        data = SelfPlayDataModule(game, **({"num_envs": 64, "num_steps": 8} | (data or {})))
        defaults = dict(
            accelerator="cpu", max_epochs=3, logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, num_sanity_val_steps=0, log_every_n_steps=1, default_root_dir=tmp_path,
        )  # fmt: skip
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return L.Trainer(**(defaults | trainer)), model, data

    return build


def moved(model, scale=0.1):
    """The learner a step away from its reference, and not uniform: no gradient vanishes by symmetry."""
    with torch.no_grad():
        for p in model.policy.parameters():
            p.add_(scale * torch.randn_like(p))
    return model


def first_batch(model, num_envs=64, num_steps=8):
    rollout = collect(VectorEnv(model.game, num_envs, seed=0), model.policy, num_steps)
    return next(model.make_batches(rollout, torch.Generator().manual_seed(0)))


@pytest.mark.parametrize("form", ["kl", "neurd"])
@pytest.mark.parametrize("term", TERMS)
def test_every_loss_term_has_a_gradient(form, term):
    model = moved(RNaD("envs.kuhn_poker", form=form, network=small_mlp))
    model.training_step(first_batch(model), 0)
    model.meter.terms[term].backward()
    head = model.policy.value_head if term == "value_loss" else model.policy.policy_head
    assert head.weight.grad.abs().sum() > 0


def test_the_formula():
    """L = L_policy + beta L_value - gamma_H H + alpha KL(pi || pi_ref), each of the four written out once more."""
    model = RNaD("envs.kuhn_poker", network=small_mlp, value_coef=0.3, entropy_coef=0.2, reference_coef=0.7, clip=0.1)
    batch = first_batch(moved(model))
    moved(model)
    loss = model.training_step(batch, 0)
    with torch.no_grad():
        output = model.policy(batch.obs, batch.legal)
        pi = torch.softmax(output.logits, -1)[batch.row]
        rho = torch.softmax(model.reference.policy(batch.obs, batch.legal).logits, -1)[batch.row]
        ratio = pi[torch.arange(len(pi)), batch.action] / batch.log_prob.exp()
        policy = -torch.minimum(ratio * batch.advantages, ratio.clamp(0.9, 1.1) * batch.advantages).mean()
        value = 0.5 * (output.value[batch.row] - batch.returns).square().mean()
        entropy = -(pi * pi.log()).sum(-1).mean()
        kl = (pi * (pi / rho).log()).sum(-1).mean()
    assert kl > 1e-3
    assert loss.item() == pytest.approx((policy + 0.3 * value - 0.2 * entropy + 0.7 * kl).item(), abs=1e-5)


@pytest.mark.parametrize("more", [{}, {"normalize_advantages": True}, {"value_clip": 0.01}])
@pytest.mark.parametrize("visit_exponent", [None, 0.5])
def test_without_reference_it_is_ppo(visit_exponent, more):
    """alpha = 0: the same loss and the same gradient to the last bit."""
    minibatches = Minibatches(update_epochs=2, num_minibatches=2, visit_exponent=visit_exponent)
    options = dict(network=small_mlp, entropy_coef=0.1, clip=0.1, minibatches=minibatches, **more)
    torch.manual_seed(3)
    ours = RNaD("envs.kuhn_poker", reference_coef=0.0, **options)
    torch.manual_seed(3)
    ppo = PPO("envs.kuhn_poker", **options)
    rollout = collect(VectorEnv(ppo.game, 64, seed=0), ppo.policy, 8)
    pairs = zip(*(m.make_batches(rollout, torch.Generator().manual_seed(0)) for m in (ours, ppo)), strict=True)
    for batch, same in pairs:
        a, b = ours.training_step(batch, 0), ppo.training_step(same, 0)
        assert torch.equal(a, b)
        gradients = [torch.autograd.grad(x, list(m.policy.parameters())) for x, m in ((a, ours), (b, ppo))]
        assert all(torch.equal(x, y) for x, y in zip(*gradients, strict=True))


@pytest.mark.parametrize("form", ["kl", "neurd"])
def test_a_step_raises_the_probability_of_a_better_action(form):
    model = RNaD("envs.kuhn_poker", form=form, network=small_mlp, reference_coef=0.0, entropy_coef=0.0, eta=0.0)
    batch = first_batch(model)
    batch = batch._replace(advantages=(batch.action == 1).float() - 0.5)
    optimizer = torch.optim.Adam(model.policy.parameters(), lr=1e-2)
    model.training_step(batch, 0).backward()
    before = torch.softmax(model.policy(batch.obs, batch.legal).logits, -1)[:, 1].mean()
    optimizer.step()
    assert torch.softmax(model.policy(batch.obs, batch.legal).logits, -1)[:, 1].mean() > before


@pytest.mark.parametrize("form", ["kl", "neurd"])
def test_regularisation_pulls_towards_the_reference(form):
    """With no advantages left, a step shortens the distance."""
    options = dict(reference_coef=1.0, entropy_coef=0.0, eta=1.0, value_coef=0.0)
    model = RNaD("envs.kuhn_poker", form=form, network=small_mlp, **options)
    batch = first_batch(moved(model))
    batch = batch._replace(advantages=torch.zeros_like(batch.advantages))
    optimizer = torch.optim.SGD(model.policy.parameters(), lr=1e-2)
    model.training_step(batch, 0).backward()
    before = model.meter.terms["reference_kl"].item()
    optimizer.step()
    model.training_step(batch, 0)
    assert model.meter.terms["reference_kl"].item() < before


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("form", ["kl", "neurd"])
def test_trains_with_clipped_gradients_in_any_precision(fit, form, precision):
    trainer, model, data = fit(
        {"form": form, "ema_decay": 0.9, "visit_exponent": 0.5}, precision=precision, gradient_clip_val=0.5
    )
    start = copy.deepcopy(model.policy)
    trainer.fit(model, data)
    assert all(torch.isfinite(p).all() for p in model.parameters())
    assert not torch.equal(start.policy_head.weight, model.policy.policy_head.weight)
    assert {f"train/{term}" for term in TERMS} <= set(trainer.callback_metrics)


class SaveAt(L.Callback):
    """Saves a checkpoint after one minibatch."""

    def __init__(self, iteration, batch_idx, path):
        self.at, self.path = (iteration, batch_idx), path

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if (trainer.current_epoch, batch_idx) == self.at:
            trainer.save_checkpoint(self.path)


REFERENCES = {
    "magnet": lambda policy, game: Magnet(policy, game, rate=0.2),
    "refreshed": lambda policy, game: Refreshed(policy, game, every=2, interpolate=True),
    "portfolio": lambda policy, game: Portfolio(policy, game, capacity=2, add_every=1, distance="softmin"),
}


@pytest.mark.parametrize("batch_idx", [1, 3])
@pytest.mark.parametrize("reference", REFERENCES)
@pytest.mark.parametrize("form", ["kl", "neurd"])
def test_resume_goes_on_bit_by_bit(fit, tmp_path, form, reference, batch_idx):
    """Saved in mid-iteration or at its last batch: weights, average and every part of the reference go on."""
    options = {
        "form": form, "reference": REFERENCES[reference], "update_epochs": 2, "num_minibatches": 2, "ema_decay": 0.9
    }  # fmt: skip
    path = tmp_path / "middle.ckpt"
    torch.manual_seed(5)
    trainer, whole, data = fit(options, max_epochs=5, callbacks=[SaveAt(2, batch_idx, path)])
    trainer.fit(whole, data)
    torch.load(path, weights_only=True)
    torch.manual_seed(6)
    trainer, resumed, data = fit(options, max_epochs=5)
    trainer.fit(resumed, data, ckpt_path=path)
    for (name, a), b in zip(whole.state_dict().items(), resumed.state_dict().values()):
        assert torch.equal(a, b), name


@pytest.mark.parametrize(("form", "source"), [("kl", "policy"), ("neurd", "average.module")])
def test_the_reference_is_updated_after_the_last_minibatch(fit, form, source):
    """With the learner in the KL form; with the target network in NeuRD's."""
    reference = {"reference": lambda policy, game: Refreshed(policy, game, every=1)}
    trainer, model, data = fit(reference | {"form": form, "ema_decay": 0.9, "num_minibatches": 2}, max_epochs=2)
    trainer.fit(model, data)
    pairs = zip(model.reference.policy.parameters(), model.get_submodule(source).parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize(
    "other", [{"reference": REFERENCES["magnet"]}, {"network": lambda game: MLP(game, hidden=(16,))}]
)
def test_a_checkpoint_with_another_reference_is_refused(fit, tmp_path, other):
    trainer, model, data = fit({"reference": REFERENCES["portfolio"]}, max_epochs=1)
    trainer.fit(model, data)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    trainer, model, data = fit({"reference": REFERENCES["portfolio"]} | other, max_epochs=2)
    with pytest.raises(ArtefactError, match=r"has shape .* there and .* here; model\.network or another part"):
        trainer.fit(model, data, ckpt_path=tmp_path / "a.ckpt")


def test_the_reference_takes_no_gradient_and_stays_in_eval_mode(fit):
    trainer, model, data = fit({"reference": REFERENCES["portfolio"]})
    trainer.fit(model, data)
    model.train()
    assert not any(m.training for m in model.reference.modules())
    assert not any(p.requires_grad or p.grad is not None for p in model.reference.parameters())
    (optimizer,) = trainer.optimizers
    optimized = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert optimized == {id(p) for p in model.policy.parameters()}


@pytest.mark.parametrize(("visit_exponent", "rare_actions"), [(None, "full"), (0.5, "full"), (0.5, "damped")])
def test_neurd_loss_by_hand(visit_exponent, rare_actions):
    """Q(a) = -eta log(pi / rho)(a) - gamma_H log pi(a) + 1[a = a_t] d / mu(a_t), decision by decision in plain Python.

    With weights, n(s, a) / n(s) stands for mu(a_t), in full times the chance that a_t is drawn at all in n(s)
    decisions, and an infostate counts the root of its visits. Few games, so that many an action is never drawn: what
    was drawn is on the scale of eta and gamma_H all the same.
    """
    minibatches = Minibatches(2, 1, visit_exponent=visit_exponent, rare_actions=rare_actions)
    model = moved(RNaD("envs.kuhn_poker", "neurd", small_mlp, eta=0.3, entropy_coef=0.1, minibatches=minibatches))
    batch = first_batch(moved(model), num_envs=8)
    model.training_step(batch, 0)
    output = model.policy(batch.obs, batch.legal)
    log_rho = torch.log_softmax(model.reference.policy(batch.obs, batch.legal).logits, -1).tolist()
    log_pi = torch.log_softmax(output.logits, -1).tolist()
    decisions = list(zip(batch.row.tolist(), batch.action.tolist(), batch.log_prob.exp().tolist()))
    forces, weights = [], []
    for (s, a, mu), d in zip(decisions, batch.advantages.tolist()):
        visits = sum(other[0] == s for other in decisions)
        drawn = sum(other[:2] == (s, a) for other in decisions)
        q = [-0.3 * (log_pi[s][b] - log_rho[s][b]) - 0.1 * log_pi[s][b] for b in range(2)]
        share = drawn / visits * (1 - (1 - mu) ** visits if rare_actions == "full" else 1)
        q[a] += d / (mu if visit_exponent is None else share)
        centre = sum(math.exp(log_pi[s][b]) * q[b] for b in range(2))
        logits = output.logits[s].tolist()
        forces.append(sum((logits[b] - sum(logits) / 2) * (q[b] - centre) for b in range(2)))
        weights.append(1.0 if visit_exponent is None else visits**-0.5)
    total = -sum(w * f for w, f in zip(weights, forces)) * len(weights) / sum(weights)
    assert model.meter.terms["policy_loss"].item() == pytest.approx(total / len(decisions), rel=1e-4, abs=1e-6)


def test_neurd_force_by_hand():
    """Two actions of three legal: mean over the legal logits alone, gradient on logits, threshold, clip."""
    logits = torch.tensor([[1.0, 3.0, -1e30], [0.0, 0.0, -1e30], [-2.0, 2.0, -1e30]], requires_grad=True)
    legal = torch.tensor([[True, True, False]] * 3)
    advantages = torch.tensor([[0.5, -0.5, 9.0], [7.0, -1.0, 9.0], [-1.0, 1.0, 9.0]])
    loss = losses.neurd(logits, legal, advantages, threshold=1.5, clip=2.0)
    assert loss.tolist() == pytest.approx([1.0, 0.0, 0.0])
    loss.sum().backward()
    # rows: both act; 7 is clipped to 2; both would leave the band, so neither acts. Each less its mean over legal ones.
    expected = torch.tensor([[0.5, -0.5, 0.0], [1.5, -1.5, 0.0], [0.0, 0.0, 0.0]])
    assert torch.allclose(-logits.grad, expected)


def test_neurd_moves_a_rare_action_as_far_as_a_common_one():
    """The point of NeuRD: the force on a logit does not fade with its probability, as a policy gradient's does."""
    logits = torch.tensor([[0.0, 9.0], [0.0, 0.0]], requires_grad=True)
    advantages = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    losses.neurd(logits, torch.ones(2, 2, dtype=torch.bool), advantages, threshold=100, clip=100).sum().backward()
    assert torch.equal(logits.grad[0], logits.grad[1])


@pytest.mark.parametrize("game", ["matching_pennies", "biased_rps"])
def test_the_last_iterate_converges_where_ppo_circles(game):
    """The picture of the README, shortened: from the same weights, by the same games."""
    from scripts.trajectory import EQUILIBRIUM, last_iterates

    ppo, distance = last_iterates("PPO", game, 250)
    assert distance[-50:].mean() > 0.6 and distance[-100:].min() > 0.2
    held, distance = last_iterates("PPO + magnet", game, 250)
    assert (held[0] == pytest.approx(ppo[0], abs=0.1)) and distance[0] > 0.4
    assert distance[-50:].mean() < 0.1
    if game == "biased_rps":
        assert held[-50:].mean(0)[0] == pytest.approx(EQUILIBRIUM[game], abs=0.05)


@pytest.mark.parametrize(
    ("argument", "value"),
    [("reference_coef", -0.1), ("eta", -1.0), ("value_coef", float("nan")), ("neurd_threshold", 0.0), ("clip", 0.0)],
)
def test_bad_numbers_are_refused_by_name(argument, value):
    with pytest.raises(ValueError, match=f"{argument}={value}"):
        RNaD("envs.kuhn_poker", **{argument: value})


PORTFOLIO = """
class_path: lit_rl.references.Portfolio
init_args: {capacity: 2, add_every: 1, main: {class_path: lit_rl.references.Refreshed, init_args: {every: 2}}}
"""


def command(tmp_path, *args):
    config = yaml.safe_load((Path(__file__).parents[2] / "configs" / "kuhn_rnad.yaml").read_text())
    config["model"]["init_args"]["reference"] = yaml.safe_load(PORTFOLIO)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    return [
        "fit", "--config", str(tmp_path / "config.yaml"), "--trainer.max_epochs", "4", "--trainer.default_root_dir",
        str(tmp_path / "run"), "--trainer.enable_progress_bar", "false", "--trainer.check_val_every_n_epoch", "4",
        *args,
    ]  # fmt: skip


@pytest.mark.filterwarnings("ignore")
def test_a_portfolio_from_the_command_line_and_back_from_its_checkpoint(tmp_path):
    """A reference within a reference, named in YAML; the checkpoint alone rebuilds all of it, without code inside."""
    from lit_rl.cli import main

    main(command(tmp_path))
    path = tmp_path / "run" / "version_0" / "checkpoints" / "last.ckpt"
    saved = torch.load(path, weights_only=True)
    model = RNaD.load_from_checkpoint(path)
    assert model.reference.metrics()["size"] == 2 and isinstance(model.reference.main, Refreshed)
    assert all(torch.equal(saved["state_dict"][name], value) for name, value in model.state_dict().items())
    metrics = (tmp_path / "run" / "version_0" / "metrics.csv").read_text()
    for name in ("train/reference_kl", "reference/kl/main", "reference/selected/member_1", "reference/size"):
        assert name in metrics, name


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--model.form=both", ("form", "both")),
        ("--model.reference.init_args.capacity=0", ("capacity", "0")),
        ("--model.reference.init_args.drop=newest", ("drop", "newest")),
        ("--model.reference.init_args.main.init_args.every=0", ("every", "0")),
        ("--model.reference_coef=-1", ("reference_coef", "-1")),
        ("--model.reference=Portfoli", ("Portfoli", "did you mean Portfolio?")),
    ],
)
def test_bad_input_ends_with_one_line(tmp_path, capsys, option, words):
    from lit_rl.cli import main

    with pytest.raises(SystemExit) as stop:
        main(command(tmp_path, option))
    error = capsys.readouterr().err
    assert stop.value.code == 2 and error.count("\n") == 1
    assert all(word in error for word in words), error


def test_neurd_normalises_nothing():
    with pytest.raises(ConfigError, match="normalize_advantages=true: form neurd acts on plain ones"):
        RNaD("envs.kuhn_poker", form="neurd", normalize_advantages=True)


def test_neurd_is_for_two_players_and_zero_sums(kuhn, monkeypatch):
    monkeypatch.setattr("lit_rl.rnad.load_interface", lambda path: dataclasses.replace(kuhn, zero_sum=False))
    with pytest.raises(ConfigError, match="two players and zero sums"):
        RNaD("envs.kuhn_poker", form="neurd", network=small_mlp)
    RNaD("envs.kuhn_poker", form="kl", network=small_mlp)
