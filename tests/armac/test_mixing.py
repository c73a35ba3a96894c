"""Mixtures that are one of the two policies to the last bit at the ends, and the bins that shares come from."""

import math

import pytest
import torch

from lit_rl.armac.mixing import LinearMixer, Mixer, check_bins, check_same_bins
from lit_rl.losses import regret_matching


def policies(rows=200, actions=4, seed=0):
    """(actor, regret, legal): the actor nowhere 0 on legal actions, the regret policy often."""
    generator = torch.Generator().manual_seed(seed)
    legal = torch.rand(rows, actions, generator=generator) < 0.6
    legal[:, 0] |= ~legal.any(1)
    logits = torch.randn(rows, actions, generator=generator)
    actor = torch.softmax(torch.where(legal, logits, -1e30), -1)
    return actor, regret_matching(torch.randn(rows, actions, generator=generator), legal), legal


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
    actor, regret, _ = policies(rows=3)
    half = torch.full((3,), 0.5)
    for wrong in ((actor, regret[:2], half), (actor, regret, half[:, None]), (actor[0], regret[0], half[0])):
        with pytest.raises(ValueError, match=r"must both be \[N, A\]"):
            LinearMixer()(*wrong)


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
