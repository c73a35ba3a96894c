"""Reference policies: frozen earlier policies that learning is held close to, for both forms of R-NaD.

A reference is a module built as `reference(policy, game)`. Called with infostates it gives log rho(a|s), one policy's
worth, however many it keeps; `update` takes in the learner once per iteration. What it keeps is registered: saved with
every checkpoint, moved with the module, without gradients, always in eval mode, and masked by the same legal set as
the learner, since it looks through the same `PolicyOutput`. Everything follows from the iteration number and the
weights it was shown: no random numbers, so that a resumed run goes on bit by bit.

Letters: M infostates, A actions, K members of a portfolio, L policies (the main reference and K members), R probe rows.
"""

import copy
import math
import warnings
from collections.abc import Callable
from typing import Literal

import torch
from jsonargparse.typing import OpenUnitInterval, PositiveFloat, PositiveInt
from torch import Tensor, nn

from envs.game import Game
from envs.vector_env import VectorEnv
from lit_rl.errors import ConfigError, check_ranges
from lit_rl.losses import reference_kl
from lit_rl.merge import merge_equal_rows
from lit_rl.policy import ActorCritic


class Reference(nn.Module):
    """What a policy is held close to: the type that references subclass. Built as `reference(policy, game)`."""

    def forward(self, obs: Tensor, legal: Tensor, log_probs: Tensor, weight: Tensor) -> Tensor:
        """log rho(a|s) [M, A] at obs [M, *D], legal [M, A], without a gradient.

        Args:
            log_probs: [M, A] of the learner there, for references that choose among several policies.
            weight: [M], what each infostate counts in that choice.
        """
        raise TypeError(f"{type(self).__name__} does not define forward(obs, legal, log_probs, weight) -> log rho")

    def update(self, policy: nn.Module, iteration: int) -> None:
        """Take in `policy` at the end of `iteration` (counted from 0)."""
        raise TypeError(f"{type(self).__name__} does not define update(policy, iteration)")

    def metrics(self) -> dict[str, Tensor]:
        """Scalars worth logging."""
        return {}

    def train(self, mode: bool = True) -> "Reference":
        """Stays in eval mode: a reference has no dropout, and no batch may change it."""
        return super().train(False)


ReferenceFactory = Callable[[ActorCritic, Game], Reference]


def frozen(policy: nn.Module) -> nn.Module:
    """A copy that takes no gradient."""
    return copy.deepcopy(policy).requires_grad_(False).eval()


@torch.no_grad()
def copy_weights(target: nn.Module, source: nn.Module, rate: float = 1.0) -> None:
    """target <- target + rate (source - target), parameters and float buffers; rate 1 copies exactly.

    Raises:
        ConfigError: the two are not of one architecture.
    """
    mine, theirs = target.state_dict(), source.state_dict()
    shapes, given = ({k: tuple(v.shape) for k, v in x.items()} for x in (mine, theirs))
    if shapes != given:
        name = next(k for k in [*shapes, *given] if shapes.get(k) != given.get(k))
        raise ConfigError(
            f"reference: weight {name} has shape {given.get(name)}, the reference's {shapes.get(name)}; a reference "
            "must come from the same game and network as the policy"
        )
    for name, tensor in mine.items():
        if rate == 1.0 or not tensor.is_floating_point():
            tensor.copy_(theirs[name])
        else:
            tensor.lerp_(theirs[name], rate)


def log_policy(policy: nn.Module, obs: Tensor, legal: Tensor) -> Tensor:
    """log pi(a|s) [M, A]; illegal actions hugely negative but finite."""
    return torch.log_softmax(policy(obs, legal).logits, dim=-1)


class Magnet(Reference):
    """A moving reference: the exponential moving average of the learner's weights.

        theta_rho <- theta_rho + rate (theta - theta_rho)      once per iteration

    The moving magnet of MMD (Sokota et al. 2023, section 4) in weight space, as in EMAgnet (arXiv 2606.23995). Its
    fixed point is the equilibrium itself, not a regularised one: where the learner rests, so does the magnet.

    Args:
        policy: the learner, copied.
        game: not needed.
        rate: share of the way to the learner that the magnet goes per iteration.
    """

    def __init__(self, policy: ActorCritic, game: Game, rate: OpenUnitInterval = 0.01):
        check_ranges(Magnet.__init__, locals())
        super().__init__()
        self.policy = frozen(policy)
        self.rate = float(rate)

    @torch.no_grad()
    def forward(self, obs: Tensor, legal: Tensor, log_probs: Tensor, weight: Tensor) -> Tensor:
        return log_policy(self.policy, obs, legal)

    def update(self, policy: nn.Module, iteration: int) -> None:
        copy_weights(self.policy, policy, self.rate)


class Refreshed(Reference):
    """A hard copy of the learner, taken every so many iterations; with `interpolate` R-NaD's own schedule.

        log rho = w log rho_n + (1 - w) log rho_(n-1),     w = min(1, 2 (i + 1) / every)

    with rho_n the newest copy, rho_(n-1) the one before and i the iterations since the newest was taken (Perolat et al.
    2022): the reference glides from one copy to the next over half of the interval. Without `interpolate` w = 1.

    Args:
        policy: the learner, copied.
        game: not needed.
        every: iterations between copies.
        interpolate: glide between the last two copies instead of jumping to the newest.
    """

    def __init__(self, policy: ActorCritic, game: Game, every: PositiveInt = 100, interpolate: bool = False):
        check_ranges(Refreshed.__init__, locals())
        super().__init__()
        self.policy = frozen(policy)
        self.before = frozen(policy) if interpolate else None
        self.every = int(every)
        self.register_buffer("share", torch.ones(()))  # w, of the newest copy

    @torch.no_grad()
    def forward(self, obs: Tensor, legal: Tensor, log_probs: Tensor, weight: Tensor) -> Tensor:
        newest = log_policy(self.policy, obs, legal)
        if self.before is None:
            return newest
        return torch.lerp(log_policy(self.before, obs, legal), newest, self.share)

    def update(self, policy: nn.Module, iteration: int) -> None:
        since = (iteration + 1) % self.every
        if since == 0:
            if self.before is not None:
                copy_weights(self.before, self.policy)
            copy_weights(self.policy, policy)
        self.share.fill_(min(1.0, 2 * (since + 1) / self.every))
