"""Reservoirs: every sample equally often, and sums that follow the samples."""

import numpy as np
import pytest
import torch

from lit_rl.armac.reservoir import Reservoir
from lit_rl.armac.rows import Samples


def test_a_reservoir_keeps_every_sample_equally_often(kuhn):
    kept = np.zeros(60)
    for seed in range(400):
        reservoir, generator = Reservoir(kuhn, 10), torch.Generator().manual_seed(seed)
        for start in range(0, 60, 7):
            n = min(7, 60 - start)
            numbers = torch.arange(start, start + n).float()
            legal = torch.ones(n, 2, dtype=torch.bool)
            obs = torch.zeros(n, *kuhn.obs_shape, dtype=torch.uint8)
            reservoir.add(Samples(obs, legal, numbers.unsqueeze(1).expand(-1, 2)), 1.0, generator)
        assert len(reservoir) == 10
        kept[reservoir.vector[:, 0].long().numpy()] += 1
    assert kept.sum() == 4000 and (np.abs(kept - 4000 / 60) < 5 * (4000 / 60) ** 0.5).all()


def test_the_sums_of_a_reservoir_are_those_of_its_samples(kuhn):
    reservoir, generator = Reservoir(kuhn, 50, adds_up=True), torch.Generator().manual_seed(0)
    for iteration in range(1, 30):
        obs = torch.randint(0, 2, (9, 1), generator=generator).expand(-1, *kuhn.obs_shape).to(torch.uint8)
        legal = torch.ones(9, 2, dtype=torch.bool)
        reservoir.add(Samples(obs, legal, torch.randn(9, 2, generator=generator)), float(iteration), generator)
        rows, _, sums, total = reservoir.sums()
        for row, s, t in zip(rows, sums, total):
            here = (reservoir.obs[: len(reservoir)] == row).all(-1)
            weight = reservoir.weight[: len(reservoir)][here]
            assert t.item() == pytest.approx(weight.sum().item())
            expected = (weight.unsqueeze(1) * reservoir.vector[: len(reservoir)][here]).sum(0)
            assert s.tolist() == pytest.approx(expected.tolist(), abs=1e-6)


@pytest.mark.parametrize("power", [0.5, 1.5, 2.0])
def test_infostates_whose_samples_have_all_left_are_gone(kuhn, power):
    """Weights that are no integers leave residues of what was added and taken out again: they are no samples."""
    reservoir, generator = Reservoir(kuhn, 20, adds_up=True), torch.Generator().manual_seed(0)
    codes = torch.arange(40).unsqueeze(1).bitwise_right_shift(torch.arange(kuhn.obs_shape[0])).bitwise_and(1)
    for iteration in range(1, 200):
        obs = codes[torch.randint(0, 40, (15,), generator=generator)].to(torch.uint8)
        policy = torch.rand(15, 2, generator=generator)
        policy /= policy.sum(1, keepdim=True)
        reservoir.add(Samples(obs, torch.ones(15, 2, dtype=torch.bool), policy), iteration**power, generator)
        rows, _, sums, total = reservoir.sums()
        there = {tuple(row) for row in reservoir.obs[: len(reservoir)].tolist()}
        assert {tuple(row) for row in rows.tolist()} == there
        assert torch.allclose((sums / total.unsqueeze(1)).sum(1), torch.ones(len(rows), dtype=torch.float64))
