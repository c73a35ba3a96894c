"""The scheduler's two modes, its noise, its warm-up, what its losses pull at, and the fixed share beside it."""

import math

import pytest
import torch

from lit_rl.armac.mix_scheduler import (
    MARGIN,
    FixedLambda,
    MixScheduler,
    SchedulerOutput,
    policy_features,
    scheduler_loss,
)

BINS = (0.0, 0.25, 0.5, 0.75, 1.0)


@pytest.fixture
def rows(leduc_tree):
    """(obs, actor, regret) of all of Leduc's infostates."""
    legal = torch.from_numpy(leduc_tree.legal)
    generator = torch.Generator().manual_seed(2)
    logits = [torch.where(legal, torch.randn(legal.shape, generator=generator), -1e30) for _ in range(2)]
    actor, regret = (torch.softmax(x, -1) for x in logits)
    return torch.from_numpy(leduc_tree.obs), actor, regret


def made(leduc, iteration=50, total=101, **options):
    scheduler = MixScheduler(leduc, **({"warmup_iterations": 0} | options))
    scheduler.set_progress(iteration, total)
    return scheduler


def noise(n, k=5, seed=0):
    return torch.rand(n, k, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("mode", ["discrete", "continuous"])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("warmup", [0, 1000])
def test_one_output_for_everything(leduc, rows, mode, training, warmup):
    scheduler = made(leduc, mode=mode, warmup_iterations=warmup).train(training)
    output = scheduler(*rows, noise(len(rows[0])))
    assert isinstance(output, SchedulerOutput)
    assert output.logits.shape == (936, 5 if mode == "discrete" else 1) and output.logits.dtype == torch.float32
    assert output.bin.shape == (936,) and output.bin.dtype == torch.int64
    assert output.mix_lambda.shape == (936,) and output.mix_lambda.dtype == torch.float32
    values = torch.tensor(BINS)
    if mode == "discrete":
        assert torch.equal(output.mix_lambda, values[output.bin])  # to the last bit: 1 must be the actor
    else:
        assert ((output.mix_lambda >= MARGIN) & (output.mix_lambda <= 1 - MARGIN)).all()
        assert torch.equal(output.bin, (output.mix_lambda[:, None] - values).abs().argmin(1))
    if warmup:
        assert (output.mix_lambda == 0.5).all() and (output.bin == 2).all()
    else:
        assert output.mix_lambda.requires_grad or (mode == "discrete" and not training)


def test_evaluation_takes_the_likeliest(leduc):
    scheduler = made(leduc).eval()
    logits = torch.tensor([[0.0, 3.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0, 0.1]])
    output = scheduler.draw(logits)
    assert output.bin.tolist() == [1, 4] and output.mix_lambda.tolist() == [0.25, 1.0]
    assert scheduler.bin_probs(logits).tolist() == [[0, 1, 0, 0, 0], [0, 0, 0, 0, 1]]


def test_training_draws_from_softmax(leduc):
    """At any temperature the bin is an exact sample: its frequencies are softmax(logits)."""
    logits = torch.tensor([1.0, 0.0, -1.0, 2.0, 0.5]).expand(100_000, 5)
    for iteration in (0, 100):
        scheduler = made(leduc, iteration)
        share = torch.bincount(scheduler.draw(logits, noise(100_000)).bin, minlength=5) / 100_000
        assert torch.allclose(share, scheduler.bin_probs(logits)[0], atol=0.006)
        assert torch.allclose(scheduler.bin_probs(logits)[0], torch.softmax(logits[0], -1))


def test_same_noise_same_draw(leduc, rows):
    """Nothing comes from a global stream, and the extreme of a uniform number is no accident."""
    scheduler = made(leduc)
    first = scheduler(*rows, noise(936))
    torch.rand(7)
    again = scheduler(*rows, noise(936))
    assert torch.equal(first.bin, again.bin) and torch.equal(first.mix_lambda, again.mix_lambda)
    assert not torch.equal(first.bin, scheduler(*rows, noise(936, seed=1)).bin)
    extreme = noise(936)
    extreme[:, ::2] = 0.0
    extreme[:, 1] = 1 - 2**-24
    output = scheduler(*rows, extreme)
    output.mix_lambda.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in scheduler.parameters())


def test_noise_is_asked_for(leduc, rows):
    scheduler = made(leduc)
    for wrong in (None, noise(936, 4), noise(935)):
        with pytest.raises(ValueError, match=r"needs \(936, 5\) random numbers"):
            scheduler(*rows, wrong)


def test_the_gradient_is_the_relaxed_samples(leduc):
    """d mix_lambda / d logits = d / d logits of sum_k softmax((logits + g) / temperature)_k bins_k."""
    scheduler = made(leduc, iteration=100)
    assert scheduler.temperature.item() == pytest.approx(0.1)
    logits, uniform = torch.randn(64, 5, requires_grad=True), noise(64)
    ours = torch.autograd.grad(scheduler.draw(logits, uniform).mix_lambda.sum(), logits)[0]
    gumbel = -(-uniform.log()).log()
    relaxed = torch.softmax((logits + gumbel) / 0.1, -1) @ torch.tensor(BINS)
    assert torch.allclose(ours, torch.autograd.grad(relaxed.sum(), logits)[0], atol=1e-5)
    assert ours.abs().max() > 0.01


def test_the_temperature_falls_over_the_run(leduc):
    """However long the run: the documents' fell over 50,000 iterations, of which runs made 500."""
    scheduler = made(leduc)
    for total in (11, 2001):
        seen = []
        for iteration in (0, (total - 1) // 2, total - 1):
            scheduler.set_progress(iteration, total)
            seen.append(scheduler.temperature.item())
        assert seen == pytest.approx([1.0, 0.55, 0.1])
    scheduler.set_progress(0, 1)
    assert scheduler.temperature == 1.0
    for iteration, total in ((-1, 10), (10, 10), (0, 0)):
        with pytest.raises(ValueError, match=f"iteration={iteration} of num_iterations={total}"):
            scheduler.set_progress(iteration, total)


@pytest.mark.parametrize("mode", ["discrete", "continuous"])
def test_warm_up_ends(leduc, rows, mode):
    scheduler = made(leduc, mode=mode, warmup_iterations=3, warmup_lambda=0.75)
    with torch.no_grad():
        scheduler.head.bias.copy_(torch.linspace(5.0, -5.0, len(scheduler.head.bias)))
    for iteration in range(5):
        scheduler.set_progress(iteration, 10)
        for training in (True, False):
            output = scheduler.train(training)(*rows, noise(936))
            assert bool((output.mix_lambda == 0.75).all()) == (iteration < 3)
            probs = scheduler.bin_probs(output.logits)
            if iteration < 3:
                assert probs[0].tolist() == [0, 0, 0, 1, 0] and (output.bin == 3).all()
            assert torch.allclose(probs.sum(1), torch.ones(936)) and (probs[range(936), output.bin] > 0).all()


def test_it_sees_what_it_should(leduc, rows):
    """Obs, each policy and the progress change the logits; the policies get no gradient through them."""
    torch.manual_seed(1)
    scheduler = made(leduc)
    obs, actor, regret = rows
    actor.requires_grad_()
    before = scheduler.logits(obs, actor, regret)
    before.sum().backward()
    assert actor.grad is None
    uniform = (actor > 0).float() / (actor > 0).sum(1, keepdim=True)
    for other in ((obs.flip(0), actor, regret), (obs, uniform, regret), (obs, actor, uniform)):
        assert not torch.allclose(before, scheduler.logits(*other), atol=1e-6)
    scheduler.set_progress(100, 101)
    assert not torch.allclose(before, scheduler.logits(*rows), atol=1e-6)
    with pytest.raises(ValueError, match=r"actor \(936, 3\) and regret \(935, 3\)"):
        scheduler.logits(obs, actor, regret[1:])


def test_features_by_hand():
    actor = torch.tensor([[0.5, 0.5, 0.0], [0.5, 0.5, 0.0], [1.0, 0.0, 0.0]])
    regret = torch.tensor([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    expected = [
        [0.0, math.log(2), math.log(2)],
        [0.5 * math.log(0.5 / 0.995) + 0.5 * math.log(0.5 / 0.005), math.log(2), 0.0],
        [math.log(100), 0.0, 0.0],
    ]
    assert policy_features(actor, regret).tolist() == [pytest.approx(row, abs=1e-5) for row in expected]


def test_loss_by_hand():
    desired = torch.tensor([[0.5, 0.25, 0.25], [1.0, 0.0, 0.0]])
    bins = (0.0, 0.5, 1.0)
    uniform = scheduler_loss(torch.zeros(2, 3), desired, bins)
    assert uniform.tolist() == pytest.approx([math.log(3) - 1.5 * math.log(2), math.log(3)], abs=1e-6)
    met = scheduler_loss(torch.log(desired.clamp_min(1e-30)), desired, bins)
    assert met.tolist() == pytest.approx([0.0, 0.0], abs=1e-6)
    coin = scheduler_loss(torch.tensor([[0.0], [0.0]]), desired, bins)  # means .375 and 0 against .5
    kl = 0.375 * math.log(0.375 / 0.5) + 0.625 * math.log(0.625 / 0.5)
    assert coin.tolist() == pytest.approx([kl, math.log(2)], abs=1e-6)


def test_loss_gradient_is_the_difference():
    """softmax(logits) - desired, or sigmoid(logit) - t: also where the sigmoid is flat; none into `desired`."""
    desired = torch.softmax(torch.randn(6, 5), -1).requires_grad_()
    logits = (3 * torch.randn(6, 5)).requires_grad_()
    (gradient,) = torch.autograd.grad(scheduler_loss(logits, desired, BINS).sum(), logits)
    assert torch.allclose(gradient, torch.softmax(logits, -1) - desired, atol=1e-6)
    logit = torch.tensor([[-20.0], [-2.0], [0.0], [1.0], [5.0], [20.0]], requires_grad=True)
    (gradient,) = torch.autograd.grad(scheduler_loss(logit, desired, BINS).sum(), logit)
    target = desired @ torch.tensor(BINS)
    assert torch.allclose(gradient[:, 0], torch.sigmoid(logit[:, 0]) - target, atol=1e-6)
    assert not scheduler_loss(logits.detach(), desired, BINS).requires_grad


def test_loss_holds_its_shapes():
    """The documents' stack [B, 1, K] was broadcast against [B, K] without a word."""
    for logits, desired in (((4, 5), (4, 1, 5)), ((4, 5), (4, 4)), ((4, 4), (4, 5)), ((3, 5), (4, 5)), ((4,), (4, 5))):
        with pytest.raises(ValueError, match=r"must be \[N, 5\]"):
            scheduler_loss(torch.zeros(logits), torch.full(desired, 0.2), BINS)


@pytest.mark.parametrize("mode", ["discrete", "continuous"])
def test_it_learns_where_to_trust(leduc, rows, mode):
    """Desired: the actor in round 0, regret matching in round 1."""
    scheduler = made(leduc, mode=mode)
    desired = torch.full((936, 5), 1e-6)
    second = rows[0][:, 8:14].sum(1) > 0
    desired[second, 0] = 1.0
    desired[~second, 4] = 1.0
    desired = desired / desired.sum(1, keepdim=True)
    weight = torch.where(second, 36 / 900, 1.0)  # 36 infostates against 900
    optimizer = torch.optim.Adam(scheduler.parameters(), lr=1e-2)
    for _ in range(150):
        logits = scheduler.logits(*rows)
        loss = ((scheduler_loss(logits, desired, BINS) + scheduler.regulariser(logits)) * weight).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    mix_lambda = scheduler.eval()(*rows).mix_lambda
    assert mix_lambda[second].max() < 0.1 and mix_lambda[~second].min() > 0.9


@pytest.mark.parametrize("mode", ["discrete", "continuous"])
def test_regularisers_by_hand(leduc, rows, mode):
    scheduler = made(leduc, mode=mode, l2_coef=0.01, entropy_coef=0.5)
    logits = scheduler.logits(*rows)
    squares = sum(float((p.detach() ** 2).sum()) for p in scheduler.parameters())
    if mode == "discrete":
        probs = torch.softmax(logits, -1)
    else:
        probs = torch.cat([torch.sigmoid(logits), 1 - torch.sigmoid(logits)], 1)
    entropy = -(probs * probs.log()).sum(1)
    assert torch.allclose(scheduler.regulariser(logits), 0.01 * squares - 0.5 * entropy, atol=1e-5)
    off = made(leduc, mode=mode, l2_coef=0.0, entropy_coef=0.0)
    assert (off.regulariser(off.logits(*rows)) == 0).all()


@pytest.mark.parametrize("mode", ["discrete", "continuous"])
def test_regularisers_have_an_effect(leduc, rows, mode):
    """Trained towards one bin: L2 shrinks every weight, the entropy bonus leaves more to chance."""

    def trained(**coefs):
        torch.manual_seed(0)
        scheduler = made(leduc, mode=mode, **({"l2_coef": 0.0, "entropy_coef": 0.0} | coefs))
        desired = torch.eye(5)[[4]].expand(936, 5)
        optimizer = torch.optim.Adam(scheduler.parameters(), lr=1e-2)
        for _ in range(60):
            logits = scheduler.logits(*rows)
            loss = (scheduler_loss(logits, desired, BINS) + scheduler.regulariser(logits)).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        logits = scheduler.logits(*rows)
        certain = torch.softmax(logits, -1)[:, 4] if mode == "discrete" else torch.sigmoid(logits[:, 0])
        return certain.mean().item(), [float(p.detach().square().sum()) for p in scheduler.parameters()]

    free, weights = trained()
    assert free > 0.99
    assert trained(entropy_coef=1.0)[0] < 0.9
    assert sum(trained(l2_coef=1e-2)[1]) < 0.7 * sum(weights)


def test_saved_and_loaded_whole(leduc, rows, tmp_path):
    """Where in the run it stood goes along, so that evaluation needs no trainer."""
    scheduler = made(leduc, iteration=77, warmup_iterations=5)
    torch.save(scheduler.state_dict(), tmp_path / "scheduler.pt")
    loaded = MixScheduler(leduc, warmup_iterations=5)
    loaded.load_state_dict(torch.load(tmp_path / "scheduler.pt", weights_only=True))
    for training in (True, False):
        ours, theirs = (s.train(training)(*rows, noise(936)) for s in (scheduler, loaded))
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs))


def test_the_bins_are_the_configs(leduc):
    """A checkpoint brings weights, not the values of the bins."""
    other = MixScheduler(leduc, bins=(0.0, 0.1, 0.5, 0.9, 1.0))
    other.load_state_dict(MixScheduler(leduc).state_dict())
    assert other.eval().draw(torch.eye(5)).mix_lambda.tolist() == pytest.approx([0.5] * 5)
    other.set_progress(99, 100)
    assert other.draw(torch.eye(5)).mix_lambda.tolist() == pytest.approx(other.bins)


def test_continuous_keeps_off_the_ends(leduc):
    logits = torch.tensor([[-80.0], [0.0], [80.0]], requires_grad=True)
    output = made(leduc, mode="continuous").draw(logits)
    assert output.mix_lambda.tolist() == pytest.approx([MARGIN, 0.5, 1 - MARGIN])
    assert output.bin.tolist() == [0, 2, 4]


def test_off_means_off(leduc, rows):
    fixed = FixedLambda(leduc, 0.25)
    fixed.set_progress(3, 10)
    for training in (True, False):
        output = fixed.train(training)(*rows)
        assert (output.mix_lambda == 0.25).all() and (output.bin == 0).all()
        assert output.logits.shape == (936, 1) and output.bin.dtype == torch.int64
        assert (fixed.bin_probs(output.logits) == 1).all() and (fixed.regulariser(output.logits) == 0).all()
    assert fixed.bins == (0.25,) and not list(fixed.parameters()) and list(fixed.state_dict()) == ["share"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mode": "both"}, "mode='both': unknown; use one of discrete, continuous"),
        ({"bins": [0.5]}, r"bins=\[0.5\]: needs at least two"),
        ({"bins": [0.0, 0.5, 0.5]}, "0.5 stands there twice"),
        ({"bins": [1.0, 0.5]}, r"must increase; use \[0.5, 1.0\]"),
        ({"bins": [0.0, 1.2]}, "1.2 is no share"),
        ({"warmup_lambda": 0.4}, "warmup_lambda=0.4: is none of bins"),
        ({"warmup_lambda": 1.4}, "warmup_lambda=1.4"),
        ({"warmup_iterations": -1}, "warmup_iterations=-1"),
        ({"temperature_start": 0.0}, "temperature_start=0"),
        ({"temperature_end": math.inf}, "temperature_end=inf"),
        ({"l2_coef": -1e-4}, "l2_coef=-0.0001"),
        ({"entropy_coef": math.nan}, "entropy_coef=nan"),
        ({"hidden": []}, r"hidden=\[\]"),
    ],
)
def test_bad_arguments_are_refused_by_name(leduc, options, words):
    with pytest.raises(ValueError, match=words):
        MixScheduler(leduc, **options)


def test_a_bad_fixed_share_is_refused(leduc):
    for value in (1.5, -0.1, math.nan):
        with pytest.raises(ValueError, match=f"mix_lambda={value}"):
            FixedLambda(leduc, value)
    assert MixScheduler(leduc, mode="continuous", warmup_lambda=0.4).warmup_lambda == 0.4
