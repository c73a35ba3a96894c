"""Regret matching by hand and by a slow twin, and the weighted losses of ARMAC's networks."""

import math

import pytest
import torch

from lit_rl.losses import cross_entropy, regret_matching, squared_error


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


def test_regret_matching_holds_its_shapes():
    with pytest.raises(ValueError, match=r"must both be \[N, A\]"):
        regret_matching(torch.zeros(3, 4), torch.ones(3, 2, dtype=torch.bool))


def tables(n=20, a=4):
    generator = torch.Generator().manual_seed(5)
    legal = torch.rand(n, a, generator=generator) < 0.6
    legal[:, 0] |= ~legal.any(1)
    logits = torch.where(legal, torch.randn(n, a, generator=generator), -1e30)
    target = torch.softmax(torch.where(legal, torch.randn(n, a, generator=generator), -1e30), -1)
    weight = torch.rand(n, 1, generator=generator).expand(n, a)
    return logits, legal, target, weight / weight[:, 0].sum()


def test_weighted_losses_against_twins():
    logits, legal, target, weight = tables()
    entropy = squares = 0.0
    for x, m, t, w in zip(logits.tolist(), legal.tolist(), target.tolist(), weight[:, 0].tolist()):
        total = math.log(sum(math.exp(value) for value, ok in zip(x, m) if ok))
        entropy -= w * sum(p * (value - total) for value, p, ok in zip(x, t, m) if ok)
        squares += w * sum((value - p) ** 2 for value, p, ok in zip(x, t, m) if ok)
    assert cross_entropy(logits, legal, target, weight).item() == pytest.approx(entropy, rel=1e-5)
    assert squared_error(logits, legal, target, weight).item() == pytest.approx(squares, rel=1e-5)


def test_illegal_actions_have_no_part_in_them():
    logits, legal, target, weight = tables()
    for loss in (cross_entropy, squared_error):
        logits = logits.detach().requires_grad_()
        loss(logits, legal, target, weight).backward()
        assert logits.grad[legal].any() and (logits.grad[~legal] == 0).all()
        with pytest.raises(ValueError, match=r"must have one shape \[N, A\]"):
            loss(logits, legal, target, weight[:, :1])
