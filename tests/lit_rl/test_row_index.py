"""Merging equal rows is exact."""

import numpy as np
import pytest
import torch

from lit_rl import losses
from lit_rl.batches import infostate_weights
from lit_rl.networks import MLP
from lit_rl.row_index import merge_equal_rows


def test_twin():
    generator = torch.Generator().manual_seed(0)
    obs = torch.randint(0, 2, (500, 3, 2), dtype=torch.uint8, generator=generator)
    legal = torch.randint(0, 2, (500, 3), dtype=torch.bool, generator=generator)
    first, row = merge_equal_rows(obs, legal)
    assert torch.equal(obs[first][row], obs) and torch.equal(legal[first][row], legal)
    both = np.concatenate([obs.flatten(1).numpy(), legal.numpy()], axis=1)
    assert len(first) == len(np.unique(both, axis=0))
    assert (first[1:] > first[:-1]).all()  # in order of first appearance


def test_floats_and_odd_widths():
    obs = torch.tensor([[0.5, -1.0, 2.0], [0.5, -1.0, 2.0], [0.5, -1.0, 2.5]])
    first, row = merge_equal_rows(obs, torch.ones(3, 5, dtype=torch.bool))
    assert first.tolist() == [0, 2] and row.tolist() == [0, 0, 1]


def test_same_legal_set_matters():
    obs = torch.zeros(2, 4, dtype=torch.uint8)
    legal = torch.tensor([[True, True], [True, False]])
    assert merge_equal_rows(obs, legal)[1].tolist() == [0, 1]


def test_loss_and_gradient_are_the_same(kuhn_tree, kuhn):
    network = MLP(kuhn, hidden=(16,)).double()
    row = torch.randint(0, kuhn_tree.num_rows, (200,))
    obs, legal = torch.from_numpy(kuhn_tree.obs)[row], torch.from_numpy(kuhn_tree.legal)[row]
    first, which = merge_equal_rows(obs, legal)

    def gradient(output_rows, index):
        network.zero_grad()
        output = network(*output_rows)
        loss = losses.entropy(torch.log_softmax(output.logits, -1))[index].mean() + output.value[index].square().mean()
        loss.backward()
        return loss, torch.cat([p.grad.flatten() for p in network.parameters()])

    plain = gradient((obs, legal), torch.arange(200))
    merged = gradient((obs[first], legal[first]), which)
    assert len(first) == kuhn_tree.num_rows
    for a, b in zip(plain, merged, strict=True):
        assert torch.allclose(a, b, atol=1e-6)


def test_infostate_weights_twin():
    generator = torch.Generator().manual_seed(1)
    row = torch.randint(0, 5, (300,), generator=generator)
    action = torch.randint(0, 3, (300,), generator=generator)
    log_prob = torch.log_softmax(torch.randn(5, 3, generator=generator), -1)[row, action]
    state, decision = infostate_weights(row, action, log_prob, 3, 0.5)
    assert torch.allclose(state.mean(), torch.ones(())) and torch.allclose(decision.mean(), torch.ones(()))
    expected_state, expected_action = torch.empty(300), torch.empty(300)
    for i in range(300):
        n = sum(1 for r in row if r == row[i])
        drawn = sum(1 for r, a in zip(row, action) if r == row[i] and a == action[i])
        expected_state[i] = n**-0.5
        expected_action[i] = n**-0.5 * log_prob[i].exp() * n / drawn
    assert torch.allclose(state, expected_state / expected_state.mean())
    assert torch.allclose(decision, expected_action / expected_action.mean())


def test_infostate_weights_sum_to_the_policy():
    """Within one infostate the actions drawn weigh as the policy says, however often each was drawn."""
    row, action = torch.zeros(10, dtype=torch.int64), torch.tensor([0] * 9 + [1])
    log_prob = torch.tensor([0.5] * 10).log()
    _, weight = infostate_weights(row, action, log_prob, 2, 0.25)
    assert weight[:9].sum() == pytest.approx(weight[9:].sum())
