"""Every loss against a loop over rows, its gradient, and its corner cases."""

import math

import constants
import pytest
import torch

from lit_rl import losses
from lit_rl.policy import MASKED, mask_logits


@pytest.fixture
def rows():
    generator = torch.Generator().manual_seed(3)
    return {
        name: torch.randn(64, generator=generator) for name in ("log_prob", "old", "advantages", "value", "returns")
    }


def test_clipped_surrogate_twin(rows):
    loss = losses.clipped_surrogate(rows["log_prob"], rows["old"], rows["advantages"], 0.2)
    columns = (loss, rows["log_prob"], rows["old"], rows["advantages"])
    for got, new, old, a in zip(*(x.tolist() for x in columns)):
        ratio = math.exp(new - old)
        assert got == pytest.approx(-min(ratio * a, min(max(ratio, 0.8), 1.2) * a), rel=1e-4)


def test_value_loss_twin(rows):
    plain = losses.value_loss(rows["value"], rows["returns"], rows["old"], None)
    clipped = losses.value_loss(rows["value"], rows["returns"], rows["old"], 0.3)
    columns = (plain, clipped, rows["value"], rows["returns"], rows["old"])
    for p, c, v, g, old in zip(*(x.tolist() for x in columns)):
        kept = old + min(max(v - old, -0.3), 0.3)
        assert p == pytest.approx(0.5 * (v - g) ** 2, rel=1e-4)
        assert c == pytest.approx(max(0.5 * (v - g) ** 2, 0.5 * (kept - g) ** 2), rel=1e-4, abs=1e-5)


def test_entropy_known_values():
    log_probs = torch.log_softmax(
        mask_logits(torch.zeros(3, 2), torch.tensor([[True, True], [True, False], [False, True]])), -1
    )
    assert losses.entropy(log_probs).tolist() == pytest.approx([constants.LN2, 0.0, 0.0])


def test_entropy_of_one_legal_action_has_a_finite_zero_gradient():
    logits = torch.randn(1, 3, requires_grad=True)
    losses.entropy(torch.log_softmax(mask_logits(logits, torch.tensor([[False, True, False]])), -1)).sum().backward()
    assert logits.grad.tolist() == [[0, 0, 0]]


def test_approx_kl_is_unbiased_and_never_negative():
    p, q = torch.tensor([0.2, 0.5, 0.3]), torch.tensor([0.3, 0.3, 0.4])
    estimate = losses.approx_kl(q.log(), p.log())
    assert (estimate >= 0).all()
    assert float((p * estimate).sum()) == pytest.approx(float((p * (p / q).log()).sum()), abs=1e-6)


def test_clip_fraction():
    log_ratio = torch.tensor([1.0, 1.1, 1.3, 0.7, 0.9]).log()
    assert losses.clip_fraction(log_ratio, torch.zeros(5), 0.2).tolist() == [0, 0, 1, 1, 0]


def test_explained_variance(rows):
    returns = rows["returns"]
    assert losses.explained_variance(returns, returns) == 1
    assert losses.explained_variance(torch.zeros(64), returns) == pytest.approx(0)
    assert losses.explained_variance(returns[:1], returns[:1]) == 0
    assert losses.explained_variance(returns, torch.ones(64)) == 0


def test_shapes_are_checked_at_the_door(rows):
    column = rows["advantages"].unsqueeze(1)
    with pytest.raises(ValueError, match="one shape"):
        losses.clipped_surrogate(rows["log_prob"], rows["old"], column, 0.2)
    with pytest.raises(ValueError, match="one shape"):
        losses.value_loss(rows["value"], column, rows["old"], None)
    with pytest.raises(ValueError, match="one shape"):
        losses.approx_kl(rows["value"], column)


def test_masked_probability_is_exactly_zero():
    logits = mask_logits(torch.tensor([[50.0, -50.0, 3.0]]), torch.tensor([[False, True, True]]))
    assert logits[0, 0] == MASKED
    assert torch.softmax(logits, -1)[0, 0] == 0
    assert torch.softmax(logits / 0.01, -1)[0].isfinite().all()


def test_a_positive_advantage_raises_the_probability():
    logits = torch.zeros(1, 3, requires_grad=True)
    log_probs = torch.log_softmax(logits, -1)
    losses.clipped_surrogate(log_probs[:, 1], log_probs[:, 1].detach(), torch.tensor([2.0]), 0.2).mean().backward()
    assert logits.grad[0, 1] < 0 < logits.grad[0, 0]
