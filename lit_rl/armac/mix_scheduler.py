"""Who is trusted where: a network that chooses `mix_lambda`, the actor's share in the mixed policy, at each infostate.

A scheduler is built as `scheduler(game)`. `logits` looks at the infostate, at how far actor and regret policy are apart
and at the run's progress; `draw` makes a share of the logits. The two are apart so that equal rows can share one
forward and still draw each its own bin. One output for both modes, in training and in evaluation:

                mix_lambda                                  bin                     logits
    discrete    the bin's value                             drawn / the likeliest   [N, K]
    continuous  c + (1 - 2c) sigmoid(logit), c = 0.001      nearest to mix_lambda   [N, 1]

While training, discrete bins are drawn by Gumbel-softmax (Jang et al. 2017; Maddison et al. 2017): the bin is an exact
sample of softmax(logits), mix_lambda is exactly its value, and its gradient is that of the relaxed sample at the
temperature, which falls linearly over the run. In evaluation it is the likeliest bin. Through the warm-up mix_lambda
stands still, in both; the logits are the network's all the same, so that it can learn meanwhile.

Measured (configs/LOG.md has the table, ten seeds): over shares from 0 to 1 it does worse than the best fixed
share, on Kuhn and on Leduc. With `bins: [0, 0.125, 0.25]` and `warmup_lambda: 0.125` it is as good as the best fixed
share of either game. It has not been seen to gain anything beyond that.

`FixedLambda` has the same interface and nothing to learn: off means off. Letters: N rows, A actions, D obs, K bins.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

import torch
from jsonargparse.typing import ClosedUnitInterval, NonNegativeFloat, NonNegativeInt, PositiveFloat
from torch import Tensor, nn
from torch.nn import functional as F

from envs.game import Game
from lit_rl.armac.mixing import check_bins
from lit_rl.networks import mlp, orthogonal
from lit_rl.run.errors import ConfigError, check_ranges

MARGIN = 1e-3  # continuous shares keep this distance from 0 and 1, by squeezing: no gradient is cut off
FLOOR = 0.01  # of the actor in the regret policy, for a KL of at most log(100) nats where that excludes actions


class SchedulerOutput(NamedTuple):
    """What a scheduler says of N infostates."""

    logits: Tensor  # [N, K] float32; [N, 1] in continuous mode
    bin: Tensor  # [N] int64, index into `bins`; the nearest one in continuous mode
    mix_lambda: Tensor  # [N] float32 in [0, 1], the actor's share; carries the gradient into the logits


class Scheduler(nn.Module):
    """Chooses the actor's share: the type that schedulers subclass. `bins` are the shares that it chooses from."""

    bins: tuple[float, ...]

    def forward(self, obs: Tensor, actor: Tensor, regret: Tensor, uniform: Tensor | None = None) -> SchedulerOutput:
        """`draw` of the `logits`."""
        return self.draw(self.logits(obs, actor, regret), uniform)

    def logits(self, obs: Tensor, actor: Tensor, regret: Tensor) -> Tensor:
        """obs [N, *D], policies actor and regret [N, A] -> logits [N, K]."""
        raise TypeError(f"{type(self).__name__} does not define logits(obs, actor, regret)")

    def draw(self, logits: Tensor, uniform: Tensor | None = None) -> SchedulerOutput:
        """logits [N, K] -> bin and mix_lambda; random numbers `uniform` [N, K] in [0, 1) are used while training."""
        raise TypeError(f"{type(self).__name__} does not define draw(logits, uniform) -> SchedulerOutput")

    def bin_probs(self, logits: Tensor) -> Tensor:
        """The probability [N, K] with which `draw` now chooses each bin: what an importance weight divides by."""
        raise TypeError(f"{type(self).__name__} does not define bin_probs(logits)")

    def regulariser(self, logits: Tensor) -> Tensor:
        """What is added to the loss of each row: [N]."""
        return logits.new_zeros(len(logits))

    def set_progress(self, iteration: int, num_iterations: int) -> None:
        """Tell which iteration (from 0) of how many this is; before its rollout, and again after a resume."""


SchedulerFactory = Callable[[Game], Scheduler]


class FixedLambda(Scheduler):
    """The same share everywhere, until `set_share`: one bin, nothing to learn, no random numbers.

    Args:
        game: not needed.
        mix_lambda: the actor's share.
    """

    def __init__(self, game: Game, mix_lambda: ClosedUnitInterval = 0.5):
        check_ranges(FixedLambda.__init__, locals())
        super().__init__()
        self.register_buffer("share", torch.tensor(float(mix_lambda), dtype=torch.float64))

    @property
    def bins(self) -> tuple[float]:
        return (float(self.share),)

    def set_share(self, mix_lambda: float) -> None:
        """The share from now on; whoever remembers mixtures must forget them."""
        self.share.fill_(mix_lambda)

    def logits(self, obs: Tensor, actor: Tensor, regret: Tensor) -> Tensor:
        return actor.new_zeros(len(obs), 1)

    def draw(self, logits: Tensor, uniform: Tensor | None = None) -> SchedulerOutput:
        bin = torch.zeros(len(logits), dtype=torch.int64, device=logits.device)
        return SchedulerOutput(logits, bin, torch.full_like(logits[:, 0], self.bins[0]))

    def bin_probs(self, logits: Tensor) -> Tensor:
        return torch.ones_like(logits)


class MixScheduler(Scheduler):
    """An MLP over the flattened obs with KL(actor || regret), the entropies of both, and the progress of the run.

    The KL is taken to 0.99 regret + 0.01 actor, since regret matching excludes actions altogether. No gradient goes
    back into the two policies from here.

    Args:
        game: tells the size of the obs.
        mode: discrete for one of the bins, continuous for anything between 0 and 1.
        bins: the shares to choose from, increasing; in continuous mode those that its targets are made of.
        hidden: widths of the hidden layers.
        temperature_start: of the relaxed sample at the first iteration (discrete).
        temperature_end: at the last one (discrete).
        warmup_iterations: so many iterations play `warmup_lambda` everywhere.
        warmup_lambda: one of the bins in discrete mode.
        l2_coef: weight of the sum of squares of all parameters.
        entropy_coef: weight of the bonus on the entropy of softmax(logits), in continuous mode of a coin that shows
            heads with probability sigmoid(logit).
    """

    def __init__(
        self,
        game: Game,
        mode: Literal["discrete", "continuous"] = "discrete",
        bins: Sequence[float] = (0.0, 0.25, 0.5, 0.75, 1.0),
        hidden: Sequence[int] = (64, 32),
        temperature_start: PositiveFloat = 1.0,
        temperature_end: PositiveFloat = 0.1,
        warmup_iterations: NonNegativeInt = 10,
        warmup_lambda: ClosedUnitInterval = 0.5,
        l2_coef: NonNegativeFloat = 1e-4,
        entropy_coef: NonNegativeFloat = 1e-3,
    ):
        check_ranges(MixScheduler.__init__, locals())
        if mode not in ("discrete", "continuous"):
            raise ConfigError(f"mode={mode!r}: unknown; use one of discrete, continuous")
        if not hidden or min(hidden) < 1:
            raise ConfigError(f"hidden={list(hidden)}: needs at least one layer of at least one unit")
        super().__init__()
        self.mode, self.bins = mode, check_bins(bins)
        if mode == "discrete" and warmup_lambda not in self.bins:
            raise ConfigError(
                f"warmup_lambda={warmup_lambda}: is none of bins={list(self.bins)}, the discrete mode's shares"
            )
        self.temperature_start, self.temperature_end = float(temperature_start), float(temperature_end)
        self.warmup_iterations, self.warmup_lambda = int(warmup_iterations), float(warmup_lambda)
        self.l2_coef, self.entropy_coef = float(l2_coef), float(entropy_coef)
        self.trunk = mlp(math.prod(game.obs_shape) + 4, [int(h) for h in hidden], "relu")
        self.head = orthogonal(nn.Linear(int(hidden[-1]), len(self.bins) if mode == "discrete" else 1), 0.01)
        self.register_buffer("values", torch.tensor(self.bins), persistent=False)  # [K]
        self.register_buffer("iteration", torch.zeros((), dtype=torch.int64))
        self.register_buffer("progress", torch.zeros(()))  # of the run, 0 to 1

    def set_progress(self, iteration: int, num_iterations: int) -> None:
        if not 0 <= iteration < num_iterations:
            raise ValueError(f"iteration={iteration} of num_iterations={num_iterations}: must count from 0 up to them")
        self.iteration.fill_(iteration)
        self.progress.fill_(iteration / max(num_iterations - 1, 1))

    @property
    def temperature(self) -> Tensor:
        return self.temperature_start + self.progress * (self.temperature_end - self.temperature_start)

    def logits(self, obs: Tensor, actor: Tensor, regret: Tensor) -> Tensor:
        if actor.shape != regret.shape or actor.ndim != 2 or len(obs) != len(actor):
            raise ValueError(
                f"actor {tuple(actor.shape)} and regret {tuple(regret.shape)} must both be [N, A], "
                f"obs {tuple(obs.shape)} must be [N, *D]"
            )
        apart = policy_features(actor, regret)
        progress = self.progress.expand(len(obs), 1)
        inputs = torch.cat([obs.flatten(1).float(), apart, progress], dim=1)
        return self.head(self.trunk(inputs.to(self.head.weight.dtype))).float()

    def draw(self, logits: Tensor, uniform: Tensor | None = None) -> SchedulerOutput:
        if self.iteration < self.warmup_iterations:
            mix_lambda = torch.full_like(logits[:, 0], self.warmup_lambda)
            return SchedulerOutput(logits, self._nearest(mix_lambda), mix_lambda)
        if self.mode == "continuous":
            mix_lambda = MARGIN + (1 - 2 * MARGIN) * torch.sigmoid(logits[:, 0])
            return SchedulerOutput(logits, self._nearest(mix_lambda.detach()), mix_lambda)
        if not self.training:
            bin = logits.argmax(-1)
            return SchedulerOutput(logits, bin, self.values[bin])
        if uniform is None or uniform.shape != logits.shape:
            shape = None if uniform is None else tuple(uniform.shape)
            raise ValueError(f"uniform {shape}: training needs {tuple(logits.shape)} random numbers")
        gumbel = -torch.log(-torch.log(uniform.clamp_min(torch.finfo(uniform.dtype).tiny)))
        noisy = logits + gumbel
        bin = noisy.detach().argmax(-1)
        mix_lambda = self.values[bin]
        if noisy.requires_grad:
            relaxed = (torch.softmax(noisy / self.temperature, -1) * self.values).sum(-1)
            mix_lambda = mix_lambda + (relaxed - relaxed.detach())  # the value is the bin's to the last bit
        return SchedulerOutput(logits, bin, mix_lambda)

    def bin_probs(self, logits: Tensor) -> Tensor:
        warm = self.iteration < self.warmup_iterations
        if warm or self.mode == "continuous" or not self.training:
            return F.one_hot(self.draw(logits).bin, len(self.bins)).float()  # nothing is left to chance
        return torch.softmax(logits.detach(), -1)

    def regulariser(self, logits: Tensor) -> Tensor:
        """l2_coef (sum of the squares of all parameters) - entropy_coef H: [N], the first term the same in each row."""
        log_probs = _log_probs(logits)
        entropy = -(log_probs.exp() * log_probs).sum(-1)
        squares = torch.stack([p.square().sum() for p in self.parameters()]).sum()
        return self.l2_coef * squares - self.entropy_coef * entropy

    def _nearest(self, mix_lambda: Tensor) -> Tensor:
        return (mix_lambda.unsqueeze(-1) - self.values).abs().argmin(-1)


@torch.no_grad()
def policy_features(actor: Tensor, regret: Tensor) -> Tensor:
    """[N, 3]: KL(actor || 0.99 regret + 0.01 actor), entropy of the actor, entropy of the regret policy, in nats."""
    floored = (1 - FLOOR) * regret + FLOOR * actor
    of_actor, of_regret = (-torch.xlogy(policy, policy).sum(-1) for policy in (actor, regret))
    return torch.stack([-torch.xlogy(actor, floored).sum(-1) - of_actor, of_actor, of_regret], dim=1)


def _log_probs(logits: Tensor) -> Tensor:
    """[N, K]; of one logit [N, 1] those of a coin, [N, 2]: tails, heads."""
    if logits.shape[1] == 1:
        return torch.cat([F.logsigmoid(-logits), F.logsigmoid(logits)], dim=1)
    return torch.log_softmax(logits, dim=-1)


class MixStatistics(NamedTuple):
    """How N decisions were mixed, and what is known of the bins: what `callbacks.MixLambda` asks of an algorithm."""

    bins: tuple[float, ...]  # K shares
    mix_lambda: Tensor  # [N] float32
    bin: Tensor  # [N] int64
    key: Tensor | None = None  # [N] int64, state keys; None: there are none
    words: Callable[[int], str] | None = None  # puts a key into words
    regrets: Tensor | None = None  # [K], each bin's regret, the mean over the states
    table: Mapping[str, float] = {}  # statistics of the table of states, by name


def scheduler_loss(logits: Tensor, desired: Tensor, bins: Sequence[float]) -> Tensor:
    """What each row's logits lose against a desired distribution over the bins: [N], to be minimised.

        discrete:    KL(desired || softmax(logits))
        continuous:  KL(coin(t) || coin(sigmoid(logit))),      t = sum over k of desired_k bins_k

    The second is the first with the bins 0 and 1 and the same mean; its minimum is sigmoid(logit) = t, its gradient
    sigmoid(logit) - t, which does not fade where the sigmoid is flat, as a squared error would. (The gradient of the
    counterfactual utility, the alternative, has no optimum inside: the utility of a linear mixture is linear in
    mix_lambda.) No gradient goes into `desired`.

    Args:
        logits: [N, K], or [N, 1] in continuous mode.
        desired: [N, K], rows that sum to 1.
        bins: [K], increasing.
    """
    num_bins = len(check_bins(bins))
    if desired.shape != (len(logits), num_bins) or logits.shape not in ((len(logits), 1), desired.shape):
        raise ValueError(
            f"desired {tuple(desired.shape)} must be [N, {num_bins}], one column for each of bins={list(bins)}, and "
            f"logits {tuple(logits.shape)} the same or [N, 1]"
        )
    desired = desired.detach()
    if logits.shape[1] == 1:
        heads = (desired @ torch.as_tensor(bins, dtype=desired.dtype, device=desired.device)).clamp(0, 1)
        desired = torch.stack([1 - heads, heads], dim=1)
    return (torch.xlogy(desired, desired) - desired * _log_probs(logits)).sum(-1)
