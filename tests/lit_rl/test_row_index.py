"""Merging equal rows is exact."""

import numpy as np
import torch

from lit_rl import losses
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
