"""Utilities by hand, their expectations by enumeration, and the strategy that says nothing."""

import math

import pytest
import torch

from lit_rl.armac.mix_utility import Counterfactual, Hybrid, Immediate, MixedDecisions, MixUtility
from lit_rl.armac.mixing import LinearMixer, Mixer

BINS = (0.0, 0.25, 0.5, 0.75, 1.0)


def decisions(n=50, seed=0, **given):
    generator = torch.Generator().manual_seed(seed)
    actor, regret = (torch.softmax(torch.randn(n, 3, generator=generator), -1) for _ in range(2))
    bin = torch.randint(0, 5, (n,), generator=generator)
    fields = dict(
        actor=actor, regret=regret, mix_lambda=torch.tensor(BINS)[bin], bin=bin,
        bin_prob=torch.rand(n, generator=generator) * 0.9 + 0.1, q=torch.randn(n, 3, generator=generator),
        returns=torch.randn(n, generator=generator), count=torch.ones(n),
    )  # fmt: skip
    return MixedDecisions(**(fields | given))


def one(bin=1, bin_prob=0.5, returns=2.0):
    return MixedDecisions(
        actor=torch.tensor([[1.0, 0.0]]), regret=torch.tensor([[0.25, 0.75]]), mix_lambda=torch.tensor([BINS[bin]]),
        bin=torch.tensor([bin]), bin_prob=torch.tensor([bin_prob]), q=torch.tensor([[3.0, -1.0]]),
        returns=torch.tensor([returns]), count=torch.ones(1),
    )  # fmt: skip


def test_counterfactual_by_hand():
    """The actor is worth 3, the regret policy 0, what was played .75: U_k = 3 (bin_k - .25)."""
    utilities = Counterfactual()(one(), LinearMixer(), BINS)
    assert utilities.tolist() == [pytest.approx([-0.75, 0.0, 0.75, 1.5, 2.25])]


def test_the_played_bin_has_nothing_over_itself():
    d = decisions()
    utilities = Counterfactual()(d, LinearMixer(), BINS)
    assert (utilities[range(50), d.bin] == 0).all()
    assert (utilities != 0).sum() == 200


def test_counterfactual_of_any_mixer():
    class Hard(Mixer):
        def mix(self, actor, regret, mix_lambda):
            return torch.where(mix_lambda.unsqueeze(-1) >= 0.5, actor, regret)

    d = decisions()
    utilities = Counterfactual()(d, Hard(), BINS)
    gain = ((d.actor - d.regret) * d.q).sum(1)
    for row in range(50):
        high = d.mix_lambda[row] >= 0.5
        expected = [0.0 if (b >= 0.5) == high else (gain[row].item() if b >= 0.5 else -gain[row].item()) for b in BINS]
        assert utilities[row].tolist() == pytest.approx(expected, abs=1e-5)


def test_counterfactual_takes_no_part_in_learning():
    d = decisions()
    d.actor.requires_grad_()
    for utility in (Counterfactual(), Immediate(), Hybrid()):
        assert not utility(d._replace(returns=d.returns.requires_grad_()), LinearMixer(), BINS).requires_grad


def test_the_documents_advantage_says_nothing():
    d = decisions()
    pi = LinearMixer()(d.actor, d.regret, d.mix_lambda)
    value = (pi * d.q).sum(1, keepdim=True)
    assert (pi * (d.q - value)).sum(1).abs().max() < 1e-6


def test_immediate_by_hand():
    utility = Immediate(baseline_decay=0.9)
    assert utility(one(returns=2.0), LinearMixer(), BINS).tolist() == [[0.0, 4.0, 0.0, 0.0, 0.0]]  # 2 / .5, baseline 0
    assert utility(one(bin=3, bin_prob=1.0, returns=5.0), LinearMixer(), BINS).tolist() == [[0.0, 0.0, 0.0, 3.0, 0.0]]
    assert utility.baseline.item() == pytest.approx(0.9 * 2 + 0.1 * 5)


def test_the_baseline_does_not_know_the_current_returns():
    """The documents' window of 100 contains the very return that it is taken from."""
    a, b = Immediate(), Immediate()
    for utility in (a, b):
        utility(decisions(seed=1), LinearMixer(), BINS)
    d = decisions(seed=2)
    higher = d._replace(returns=d.returns + 7.0)
    difference = b(higher, LinearMixer(), BINS) - a(d, LinearMixer(), BINS)
    expected = torch.zeros(50, 5).scatter_(1, d.bin[:, None], (7.0 / d.bin_prob)[:, None])
    assert torch.allclose(difference, expected, atol=1e-4)


def test_immediate_is_right_on_average():
    """Sum over the bins of p_k U = what each bin brings, less the baseline."""
    probs, brings = torch.tensor([0.1, 0.2, 0.4, 0.25, 0.05]), torch.tensor([1.0, -2.0, 0.5, 3.0, 0.0])
    utility = Immediate()
    utility(one(returns=0.25), LinearMixer(), BINS)
    d = decisions(5, bin=torch.arange(5), bin_prob=probs, returns=brings)
    mean = (probs[:, None] * utility(d, LinearMixer(), BINS)).sum(0)
    assert torch.allclose(mean, brings - 0.25, atol=1e-6)


def test_a_row_stands_for_the_mean_of_its_decisions():
    """Three decisions at one infostate, as three rows and as one; two at another."""
    row, count = torch.tensor([0, 0, 0, 1, 1]), torch.tensor([3.0, 2.0])
    d = decisions(2)
    q, returns = torch.randn(5, 3), torch.randn(5)
    each = MixedDecisions(*(x[row] for x in d))._replace(q=q, returns=returns, count=torch.ones(5))
    mean = torch.zeros(2, 5).index_put_((row, torch.arange(5)), (1 / count)[row])
    merged = d._replace(q=mean @ q, returns=mean @ returns, count=count)
    for make in (Counterfactual, Immediate, Hybrid):
        one_by_one, together = make(), make()
        for _ in range(2):  # the second call has a baseline
            a, b = (u(x, LinearMixer(), BINS) for u, x in ((one_by_one, each), (together, merged)))
            assert torch.allclose(mean @ a, b, atol=1e-6)


def test_hybrid_is_half_of_each():
    hybrid, immediate = Hybrid(), Immediate()
    for seed in (1, 2):
        d = decisions(seed=seed)
        expected = 0.5 * immediate(d, LinearMixer(), BINS) + 0.5 * Counterfactual()(d, LinearMixer(), BINS)
        assert torch.allclose(hybrid(d, LinearMixer(), BINS), expected, atol=1e-6)


@pytest.mark.parametrize("kind", [Immediate, Hybrid])
def test_the_baseline_is_saved(kind, tmp_path):
    utility, loaded = kind(), kind()
    utility(decisions(seed=1), LinearMixer(), BINS)
    torch.save(utility.state_dict(), tmp_path / "utility.pt")
    loaded.load_state_dict(torch.load(tmp_path / "utility.pt", weights_only=True))
    for seed in (2, 3):
        d = decisions(seed=seed)
        assert torch.equal(utility(d, LinearMixer(), BINS), loaded(d, LinearMixer(), BINS))


def test_bad_rows_are_refused():
    d = decisions()
    for field, value in (("q", d.q[:, :2]), ("returns", d.returns[:, None]), ("bin_prob", d.bin_prob[:3])):
        for utility in (Counterfactual(), Immediate()):
            with pytest.raises(ValueError, match=r"must be \[N, A\], the others \[N\]"):
                utility(d._replace(**{field: value}), LinearMixer(), BINS)
    for wrong in (0.0, 1.5, math.nan):
        with pytest.raises(ValueError, match=f"bin_prob={wrong}"):
            Immediate()(one(bin_prob=wrong), LinearMixer(), BINS)
    with pytest.raises(TypeError, match="MixUtility does not define forward"):
        MixUtility()(d, LinearMixer(), BINS)


def test_bad_arguments_are_refused_by_name():
    for kind, options, words in (
        (Immediate, {"baseline_decay": 1.0}, "baseline_decay=1.0"),
        (Hybrid, {"immediate_share": 1.5}, "immediate_share=1.5"),
        (Hybrid, {"baseline_decay": 0.0}, "baseline_decay=0"),
    ):
        with pytest.raises(ValueError, match=words):
            kind(**options)
