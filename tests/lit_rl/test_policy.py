"""The table of a policy, and metrics that no policy can have."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch

from lit_rl.evaluation import exact_metrics


class FixedLogits(torch.nn.Module):
    """Every infostate gets the same logits."""

    def __init__(self, logits):
        super().__init__()
        self.logits = torch.nn.Parameter(torch.tensor(logits))

    def forward(self, obs, legal):
        from lit_rl.policy import PolicyOutput, mask_logits

        return PolicyOutput(mask_logits(self.logits.expand(len(obs), -1), legal), torch.zeros(len(obs)))


def test_pure_policies_of_kuhn(kuhn_tree):
    """Always pass: each could bet and win 1. Always bet: fold the jack, call with the king, each gains 1/3."""
    assert exact_metrics(FixedLogits([50.0, -50.0]), kuhn_tree)["eval/nash_conv"] == pytest.approx(2.0)
    assert exact_metrics(FixedLogits([-50.0, 50.0]), kuhn_tree)["eval/nash_conv"] == pytest.approx(2 / 3)


def test_no_pure_profile_of_kuhn_reaches_4(kuhn_tree):
    """17/6 is the most that any of the 4,096 has (OpenSpiel agrees); a reported 4.0 was a broken metric."""
    worst = 0.0
    for profile in itertools.product(np.eye(2), repeat=12):
        worst = max(worst, kuhn_tree.evaluate(np.stack(profile)).nash_conv)
    assert worst == pytest.approx(17 / 6)


@pytest.mark.parametrize("broken", [-0.1, 8.001, float("nan"), float("inf")])
def test_an_impossible_nash_conv_is_an_error(kuhn_tree, monkeypatch, broken):
    evaluation = kuhn_tree.evaluate(kuhn_tree.uniform_policy())
    monkeypatch.setattr(
        type(kuhn_tree), "evaluate", lambda self, policy: dataclasses.replace(evaluation, nash_conv=broken)
    )
    with pytest.raises(FloatingPointError, match="lies outside"):
        exact_metrics(FixedLogits([0.0, 0.0]), kuhn_tree)
