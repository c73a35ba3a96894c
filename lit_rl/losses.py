"""Losses as pure functions of tensors, one value per row; whoever calls them averages. Where rows are weighted, the
loss is the weighted sum.

Letters: N rows, A actions. Log-probabilities of illegal actions are hugely negative but finite (`policy.MASKED`).
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def _same_shape(**tensors: Tensor) -> None:
    shapes = {name: tuple(t.shape) for name, t in tensors.items()}
    if len(set(shapes.values())) != 1 or any(len(s) != 1 for s in shapes.values()):
        raise ValueError(f"all of these must have one shape [N]: {shapes}")


def _same_table(**tensors: Tensor) -> None:
    shapes = {name: tuple(t.shape) for name, t in tensors.items()}
    if len(set(shapes.values())) != 1 or any(len(s) != 2 for s in shapes.values()):
        raise ValueError(f"all of these must have one shape [N, A]: {shapes}")


def clipped_surrogate(log_prob: Tensor, old_log_prob: Tensor, advantages: Tensor, clip: float) -> Tensor:
    """PPO's policy loss [N] (Schulman et al. 2017, eq. 7), to be minimised; all arguments [N].

    -min(r A, clip(r, 1 - clip, 1 + clip) A),      r = pi(a) / pi_old(a)
    """
    _same_shape(log_prob=log_prob, old_log_prob=old_log_prob, advantages=advantages)
    ratio = (log_prob - old_log_prob).exp()
    return -torch.minimum(ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages)


def value_loss(value: Tensor, returns: Tensor, old_value: Tensor, clip: float | None) -> Tensor:
    """Squared error of the critic [N], halved; all tensors [N].

    With `clip` the larger, row by row, of the plain error and that of a value kept within `clip` of the old one
    (as in OpenAI baselines' PPO2).
    """
    _same_shape(value=value, returns=returns, old_value=old_value)
    loss = 0.5 * (value - returns).square()
    if clip is None:
        return loss
    clipped = old_value + (value - old_value).clamp(-clip, clip)
    return torch.maximum(loss, 0.5 * (clipped - returns).square())


def entropy(log_probs: Tensor) -> Tensor:
    """Entropy [N] in nats of distributions given as log-probs [N, A]; 0 with zero gradient for one legal action."""
    probs = torch.softmax(log_probs, dim=-1)  # exp() takes ten times as long where actions are masked
    return -(probs * log_probs).sum(dim=-1)


def reference_kl(log_probs: Tensor, reference: Tensor) -> Tensor:
    """KL(pi || rho) [N] in nats of policies given as log-probs [N, A]; gradient flows into pi alone.

        sum over a of pi(a) (log pi(a) - log rho(a))

    0 with zero gradient for one legal action, and for pi = rho. A `reference` that is not normalised (a geometric
    mixture, see `lit_rl.references`) shifts the value by a constant and leaves the gradient as it is.
    """
    if log_probs.shape != reference.shape or log_probs.ndim != 2:
        raise ValueError(f"policy {tuple(log_probs.shape)} and reference {tuple(reference.shape)} must both be [N, A]")
    return (log_probs.exp() * (log_probs - reference.detach())).sum(dim=-1)


def neurd(logits: Tensor, legal: Tensor, advantages: Tensor, threshold: float, clip: float) -> Tensor:
    """Neural replicator dynamics [N] (Hennes et al. 2020; Perolat et al. 2022), to be minimised; arguments [N, A].

        - sum over legal a of l(a) sg[clip(A(a), -clip, clip)],    l = logits - mean of the legal logits

    The gradient acts on the logits, not on probabilities: an action that has become rare still feels its advantage in
    full. A force is dropped where it would push l(a) further out of [-threshold, threshold].
    """
    if not logits.shape == legal.shape == advantages.shape or logits.ndim != 2:
        raise ValueError(f"logits {logits.shape}, legal {legal.shape}, advantages {advantages.shape}: must be [N, A]")
    logits = torch.where(legal, logits, 0.0)
    logits = logits - logits.sum(-1, keepdim=True) / legal.sum(-1, keepdim=True)
    force = advantages.detach().clamp(-clip, clip)
    force = torch.where(logits >= threshold, force.clamp_max(0), force)
    force = torch.where(logits <= -threshold, force.clamp_min(0), force)
    return -torch.where(legal, logits * force, 0.0).sum(-1)


def cross_entropy(logits: Tensor, legal: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """- sum over rows and legal a of weight target(a) log softmax(logits)(a): a scalar; all arguments [N, A].

    `target` are policies, the weights are at least 0 with sum 1 over the rows.
    """
    _same_table(logits=logits, legal=legal, target=target, weight=weight)
    log_probs = torch.log_softmax(logits, dim=-1)
    return -(weight * target * torch.where(legal, log_probs, 0.0)).sum()


def squared_error(output: Tensor, legal: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Sum over rows and legal actions of weight (output - target)^2: a scalar; all arguments [N, A]."""
    _same_table(output=output, legal=legal, target=target, weight=weight)
    error = F.mse_loss(torch.where(legal, output, 0.0), target, reduction="none")
    return (weight * torch.where(legal, error, 0.0)).sum()


def regret_matching(regrets: Tensor, legal: Tensor) -> Tensor:
    """The regret-matching policy [N, A] (Hart and Mas-Colell 2000) of regrets [N, A] with legal [N, A] bool.

        pi(a) = max(R(a), 0) / sum over legal b of max(R(b), 0);      uniform over the legal where none is positive

    Illegal actions get exactly 0, whatever their regret. The gradient into `regrets` is 0 where the row is uniform. A
    legal NaN makes its row NaN. At least one action of each row must be legal.
    """
    if regrets.shape != legal.shape or regrets.ndim != 2:
        raise ValueError(f"regrets {tuple(regrets.shape)} and legal {tuple(legal.shape)} must both be [N, A]")
    positive = torch.where(legal, regrets, 0.0).clamp_min(0.0)
    largest = positive.amax(-1, keepdim=True)
    none = largest <= 0  # False for a NaN
    shares = positive / torch.where(none, 1.0, largest).detach()  # so that neither tiny nor huge regrets lose the sum
    total = torch.where(none, 1.0, shares.sum(-1, keepdim=True))
    uniform = legal.to(regrets.dtype) / legal.sum(-1, keepdim=True)
    return torch.where(none, uniform, shares / total)


def approx_kl(log_prob: Tensor, old_log_prob: Tensor) -> Tensor:
    """Per-row estimate [N] of KL(pi_old || pi): (r - 1) - log r, never negative (Schulman 2020, estimator k3)."""
    _same_shape(log_prob=log_prob, old_log_prob=old_log_prob)
    log_ratio = log_prob - old_log_prob
    return log_ratio.exp() - 1 - log_ratio


def clip_fraction(log_prob: Tensor, old_log_prob: Tensor, clip: float) -> Tensor:
    """1 where the ratio left [1 - clip, 1 + clip], else 0: [N] float32."""
    return (((log_prob - old_log_prob).exp() - 1).abs() > clip).float()


def explained_variance(value: Tensor, returns: Tensor) -> Tensor:
    """1 - Var(returns - value) / Var(returns), a scalar: 1 a perfect critic, 0 a constant one; 0 for N < 2."""
    _same_shape(value=value, returns=returns)
    if len(value) < 2:
        return torch.zeros((), device=value.device)
    variance = returns.var()
    return torch.where(variance > 0, 1 - (returns - value).var() / variance.clamp_min(1e-12), 0.0)


def normalized(advantages: Tensor) -> Tensor:
    """[N] shifted and scaled to mean 0 and deviation 1; a single one stays as it is."""
    if len(advantages) < 2:
        return advantages
    return (advantages - advantages.mean()) / (advantages.std() + 1e-8)


def normalized_by_group(advantages: Tensor, group: Tensor) -> Tensor:
    """[N] likewise among those of the same group [N], numbers from 0."""
    found = advantages.clone()
    for number in group.unique():
        among = group == number
        found[among] = normalized(advantages[among])
    return found


def update_metrics(log_prob: Tensor, old_log_prob: Tensor, value: Tensor, returns: Tensor, clip: float) -> dict:
    """How far a minibatch finds the policy from the one that played, and how well the old value foretold the returns:
    approx_kl, clip_fraction and explained_variance, scalars; all tensors [N]."""
    with torch.no_grad():
        return {
            "approx_kl": approx_kl(log_prob, old_log_prob).mean(),
            "clip_fraction": clip_fraction(log_prob, old_log_prob, clip).mean(),
            "explained_variance": explained_variance(value, returns),
        }
