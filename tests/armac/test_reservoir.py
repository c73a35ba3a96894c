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
