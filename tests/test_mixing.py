"""Regret matching by hand and by a slow twin; mixtures that are one of the two to the last bit at the ends."""

import math

import pytest
import torch

from lit_rl.armac.mixing import LinearMixer, Mixer, check_bins, check_same_bins, regret_matching


def policies(rows=200, actions=4, seed=0):
    """(actor, regret, legal): the actor nowhere 0 on legal actions, the regret policy often."""
    generator = torch.Generator().manual_seed(seed)
    legal = torch.rand(rows, actions, generator=generator) < 0.6
    legal[:, 0] |= ~legal.any(1)
    logits = torch.randn(rows, actions, generator=generator)
    actor = torch.softmax(torch.where(legal, logits, -1e30), -1)
    return actor, regret_matching(torch.randn(rows, actions, generator=generator), legal), legal


@pytest.mark.parametrize(
    ("regrets", "legal", "expected"),
    [
        ([3.0, 1.0, -5.0], [1, 1, 1], [0.75, 0.25, 0.0]),
        ([9.0, 1.0, 1.0], [0, 1, 1], [0.0, 0.5, 0.5]),  # an illegal regret has no say
        ([-1.0, -2.0, 0.0], [1, 1, 1], [1 / 3, 1 / 3, 1 / 3]),
        ([5.0, -2.0, -1.0], [0, 1, 1], [0.0, 0.5, 0.5]),
        ([-1.0, 0.0, 0.0], [1, 0, 0], [1.0, 0.0, 0.0]),
        ([3e38, 3e38, 1.0], [1, 1, 1], [0.5, 0.5, 0.0]),  # a sum that float32 cannot hold
        ([1e-44, 1e-44, -1.0], [1, 1, 1], [0.5, 0.5, 0.0]),
        ([math.nan, 2.0, 2.0], [0, 1, 1], [0.0, 0.5, 0.5]),
    ],
)
def test_regret_matching_by_hand(regrets, legal, expected):
    probs = regret_matching(torch.tensor([regrets]), torch.tensor([legal], dtype=torch.bool))
    assert probs[0].tolist() == pytest.approx(expected, abs=1e-6)
    assert (probs[0][torch.tensor(legal) == 0] == 0).all()


def test_regret_matching_against_its_twin():
    generator = torch.Generator().manual_seed(1)
    regrets = torch.randn(500, 4, generator=generator)
    legal = torch.rand(500, 4, generator=generator) < 0.6
    legal[:, 2] |= ~legal.any(1)
    probs = regret_matching(regrets, legal)
    for row, r, m in zip(probs.tolist(), regrets.tolist(), legal.tolist()):
        positive = [max(x, 0.0) if ok else 0.0 for x, ok in zip(r, m)]
        total = sum(positive)
        twin = [p / total if total > 0 else ok / sum(m) for p, ok in zip(positive, m)]
        assert row == pytest.approx(twin, abs=1e-6)
    assert torch.allclose(probs.sum(1), torch.ones(500), atol=1e-6)
    assert (probs[~legal] == 0).all() and (probs >= 0).all()


def test_a_broken_regret_shows():
    probs = regret_matching(torch.tensor([[math.nan, 1.0], [1.0, 1.0]]), torch.ones(2, 2, dtype=torch.bool))
    assert probs[0].isnan().all() and probs[1].tolist() == [0.5, 0.5]


def test_gradient_of_regret_matching():
    """d pi(0) / d R(0) = R(1) / (R(0) + R(1))^2; a uniform row has none, and none is infinite."""
    regrets = torch.tensor([[3.0, 1.0, -2.0], [-1.0, -2.0, -3.0]], requires_grad=True)
    probs = regret_matching(regrets, torch.ones(2, 3, dtype=torch.bool))
    (gradient,) = torch.autograd.grad(probs[:, 0].sum(), regrets)
    assert gradient[0].tolist() == pytest.approx([1 / 16, -3 / 16, 0.0])
    assert gradient[1].tolist() == [0.0, 0.0, 0.0]


def test_the_ends_are_exact():
    actor, regret, _ = policies()
    ones = torch.ones(len(actor))
    assert torch.equal(LinearMixer()(actor, regret, ones), actor)
    assert torch.equal(LinearMixer()(actor, regret, 0 * ones), regret)


def test_a_mixture_is_a_policy_of_the_same_legal_actions():
    actor, regret, legal = policies()
    mix_lambda = torch.rand(len(actor), generator=torch.Generator().manual_seed(3))
    mixed = LinearMixer()(actor, regret, mix_lambda)
    assert torch.allclose(mixed.sum(1), torch.ones(len(actor)), atol=1e-6)
    assert (mixed[~legal] == 0).all() and (mixed >= 0).all()
    for row in range(20):
        lam = mix_lambda[row].item()
        expected = [lam * a + (1 - lam) * r for a, r in zip(actor[row].tolist(), regret[row].tolist())]
        assert mixed[row].tolist() == pytest.approx(expected, abs=1e-6)


def test_each_gets_its_share_of_the_gradient():
    """d pi_mix / d pi_actor = mix_lambda, d pi_mix / d pi_regret = 1 - mix_lambda, d / d mix_lambda = their difference:
    also at the ends."""
    mix_lambda = torch.tensor([0.0, 0.3, 1.0], requires_grad=True)
    actor = torch.tensor([[0.9, 0.1]] * 3, requires_grad=True)
    regret = torch.tensor([[0.2, 0.8]] * 3, requires_grad=True)
    mixed = LinearMixer()(actor, regret, mix_lambda)[:, 0].sum()
    to_actor, to_regret, to_lambda = torch.autograd.grad(mixed, (actor, regret, mix_lambda))
    assert to_actor[:, 0].tolist() == pytest.approx([0.0, 0.3, 1.0])
    assert to_regret[:, 0].tolist() == pytest.approx([1.0, 0.7, 0.0])
    assert to_lambda.tolist() == pytest.approx([0.7, 0.7, 0.7])
    assert (to_actor[:, 1] == 0).all() and (to_regret[:, 1] == 0).all()


def test_a_mixer_of_ones_own():
    class Colder(Mixer):
        def mix(self, actor, regret, mix_lambda):
            return torch.where(mix_lambda.unsqueeze(-1) > 0.5, actor, regret)

    actor, regret, _ = policies(rows=2)
    assert torch.equal(Colder()(actor, regret, torch.tensor([0.9, 0.1])), torch.stack([actor[0], regret[1]]))
    with pytest.raises(TypeError, match="does not define mix"):
        Mixer()(actor, regret, torch.tensor([0.9, 0.1]))


@pytest.mark.parametrize("value", [1.5, -0.25, math.nan])
def test_no_share_outside(value):
    actor, regret, _ = policies(rows=2)
    with pytest.raises(ValueError, match=rf"mix_lambda={value}: a share"):
        LinearMixer()(actor, regret, torch.tensor([0.5, value]))


def test_shapes_are_held():
    actor, regret, legal = policies(rows=3)
    half = torch.full((3,), 0.5)
    for wrong in ((actor, regret[:2], half), (actor, regret, half[:, None]), (actor[0], regret[0], half[0])):
        with pytest.raises(ValueError, match=r"must both be \[N, A\]"):
            LinearMixer()(*wrong)
    with pytest.raises(ValueError, match=r"must both be \[N, A\]"):
        regret_matching(actor, legal[:, :2])


@pytest.mark.parametrize(
    ("bins", "words"),
    [
        ([0.5], r"bins=\[0.5\]: needs at least two"),
        ([], "needs at least two"),
        ([0.0, 0.5, 0.5, 1.0], "0.5 stands there twice"),
        ([0.5, 0.0, 0.5], "0.5 stands there twice|must increase"),
        ([0.0, 0.75, 0.5], r"must increase; use \[0.0, 0.5, 0.75\]"),
        ([0.0, 1.5], "1.5 is no share"),
        ([-0.1, 1.0], "-0.1 is no share"),
        ([0.0, math.nan], "nan is no share"),
    ],
)
def test_bad_bins_are_refused_by_name(bins, words):
    with pytest.raises(ValueError, match=words):
        check_bins(bins)


def test_bins_are_one_set():
    assert check_bins([0, 0.5, 1]) == (0.0, 0.5, 1.0)
    check_same_bins(scheduler=(0.0, 1.0), table=[0, 1])
    with pytest.raises(ValueError, match=r"scheduler has \[0.0, 1.0\], table has \[0.0, 0.5, 1.0\]"):
        check_same_bins(scheduler=(0.0, 1.0), utility=(0.0, 1.0), table=(0.0, 0.5, 1.0))
