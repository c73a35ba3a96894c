"""Utilities: how good each share of the actor was at a decision, what meta-regret (`armac.meta_regret`) is made of.

`Counterfactual` asks the critic about all bins, `Immediate` what came of the one that was played, `Hybrid` both. All
give U [N, K] from the point of view of the player who decided. A constant per row changes no regret. A row may stand
for several decisions at one infostate, of which `q` and `returns` are the means: U is then the mean of theirs.

The documents' fourth strategy, "advantage", sum over a of pi(a) (q(a) - sum over b of pi(b) q(b)), is 0 whatever q is,
and is not offered. Letters: N rows, A actions, K bins.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jsonargparse.typing import ClosedUnitInterval, OpenUnitInterval
from torch import Tensor, nn

from lit_rl.armac.mixing import Mixer
from lit_rl.run.errors import check_ranges


class MixedDecisions(NamedTuple):
    """N rows of decisions of a mixed policy, and what is known of their worth to the player who made them."""

    actor: Tensor  # [N, A], probabilities, as when the decision was made
    regret: Tensor  # [N, A], those of regret matching
    mix_lambda: Tensor  # [N], the actor's share that was played
    bin: Tensor  # [N] int64, and its bin
    bin_prob: Tensor  # [N], probability with which the scheduler chose that bin (`Scheduler.bin_probs`)
    q: Tensor  # [N, A], the critic's action values, finite also where illegal
    returns: Tensor  # [N], what the player got from here on, or an unbiased estimate of it
    count: Tensor  # [N] float32, how many decisions each row stands for


class MixUtility(nn.Module):
    """Utilities of all bins: the type that utilities subclass. Their state is saved with the module that owns them."""

    def forward(self, decisions: MixedDecisions, mixer: Mixer, bins: Sequence[float]) -> Tensor:
        """U [N, K], without gradient, one column for each of `bins`."""
        raise TypeError(f"{type(self).__name__} does not define forward(decisions, mixer, bins) -> [N, K]")


MixUtilityFactory = Callable[[], MixUtility]


class Counterfactual(MixUtility):
    """What the critic says each bin would have brought beyond the policy that was played:

        U_k = sum over a of pi_k(a) q(a) - sum over a of pi_mix(a) q(a),      pi_k the mixture at bin k

    0 for the bin that was played. With a linear mixture it is (bin_k - mix_lambda) times what the actor has over the
    regret policy by q: linear in the bin, so that of any sum of such rows an outermost bin is the best, and those
    between can only be as good. They matter to a mixer that is not linear, and to `Immediate`.
    """

    @torch.no_grad()
    def forward(self, decisions: MixedDecisions, mixer: Mixer, bins: Sequence[float]) -> Tensor:
        d = decisions
        _same_rows(d)
        shares = torch.tensor(bins, dtype=d.mix_lambda.dtype, device=d.q.device).repeat_interleave(len(d.q))  # [K * N]
        at_bins = mixer(d.actor.repeat(len(bins), 1), d.regret.repeat(len(bins), 1), shares)
        gains = at_bins.view(len(bins), *d.q.shape) - mixer(d.actor, d.regret, d.mix_lambda)
        return (gains * d.q).sum(-1).T


class Immediate(MixUtility):
    """What the bin that was played brought, beyond a moving baseline, importance-weighted:

        U_k = 1[k was played] (return - baseline) / p_k,      p_k the probability with which it was chosen

    Its expectation is (what bin k brings - baseline) for every bin that can be chosen; of one that cannot (in
    evaluation, in the warm-up, in continuous mode) it knows nothing. The baseline is a mean of earlier calls' returns,
    never of the current ones, 0 in the first call:

        baseline <- decay baseline + (1 - decay) mean of this call's returns

    Args:
        baseline_decay: per call.
    """

    def __init__(self, baseline_decay: OpenUnitInterval = 0.9):
        check_ranges(Immediate.__init__, locals())
        super().__init__()
        self.baseline_decay = float(baseline_decay)
        self.register_buffer("baseline", torch.zeros(()))
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def forward(self, decisions: MixedDecisions, mixer: Mixer, bins: Sequence[float]) -> Tensor:
        d = decisions
        _same_rows(d)
        possible = (d.bin_prob > 0) & (d.bin_prob <= 1)
        if not bool(possible.all()):
            raise ValueError(f"bin_prob={d.bin_prob[~possible][0].item()}: what was played had a probability in (0, 1]")
        surplus = (d.returns - self.baseline.to(d.returns.device)) / d.bin_prob
        utilities = surplus.new_zeros(len(surplus), len(bins)).scatter_(1, d.bin[:, None], surplus[:, None])
        if len(surplus):
            mean = ((d.count * d.returns).sum() / d.count.sum()).to(self.baseline.device)
            self.baseline.copy_(torch.where(self.calls > 0, torch.lerp(mean, self.baseline, self.baseline_decay), mean))
            self.calls += 1
        return utilities


class Hybrid(MixUtility):
    """Immediate and counterfactual utility together.

    Args:
        immediate_share: weight of the immediate one; the rest is the counterfactual's.
        baseline_decay: of the immediate one's baseline, per call.
    """

    def __init__(self, immediate_share: ClosedUnitInterval = 0.5, baseline_decay: OpenUnitInterval = 0.9):
        check_ranges(Hybrid.__init__, locals())
        super().__init__()
        self.immediate_share = float(immediate_share)
        self.immediate, self.counterfactual = Immediate(baseline_decay), Counterfactual()

    def forward(self, decisions: MixedDecisions, mixer: Mixer, bins: Sequence[float]) -> Tensor:
        immediate, counterfactual = (u(decisions, mixer, bins) for u in (self.immediate, self.counterfactual))
        return self.immediate_share * immediate + (1 - self.immediate_share) * counterfactual


def _same_rows(decisions: MixedDecisions) -> None:
    shapes = {name: tuple(t.shape) for name, t in decisions._asdict().items()}
    rows, table = shapes["returns"], shapes["actor"]
    fits = all(s == (table if name in ("actor", "regret", "q") else rows) for name, s in shapes.items())
    if not fits or len(table) != 2 or rows != table[:1]:
        raise ValueError(f"actor, regret and q must be [N, A], the others [N]: {shapes}")
