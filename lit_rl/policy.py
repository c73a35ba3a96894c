"""What a policy is: `ActorCritic(obs, legal, state=None) -> PolicyOutput`, and the average of one over a run.

Letters: N rows, A actions, D obs shape, S shape of a policy's memory.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from envs.game import Interface

MASKED = -1e30  # logit of an illegal action: its probability is exactly 0, and 0 * log-probability stays 0, not NaN


class PolicyOutput(NamedTuple):
    """What a network says of N infostates."""

    logits: Tensor  # [N, A] float32, illegal actions at MASKED
    value: Tensor  # [N] float32, expected return of the player who observes, in reward units
    state: Tensor | None = None  # [N, *S], the memory that the same seat's next decision begins with
    extras: Mapping[str, Tensor] = {}  # [N, ...] each: what else a rollout is to keep of each decision


class ActorCritic(nn.Module):
    """A policy with a value: the type that networks subclass. Built as `network(game)`; see `lit_rl.networks`."""

    state_shape: tuple[int, ...] = ()  # S, of the memory that it carries per env and seat; () for none

    def forward(self, obs: Tensor, legal: Tensor, state: Tensor | None = None) -> PolicyOutput:
        """obs [N, *D] of the game's dtype, legal [N, A] bool, state [N, *S] where there is one -> PolicyOutput."""
        raise TypeError(f"{type(self).__name__} does not define forward(obs, legal, state) -> PolicyOutput")


NetworkFactory = Callable[[Interface], ActorCritic]


def mask_logits(logits: Tensor, legal: Tensor) -> Tensor:
    """float32 logits [N, A] with illegal actions at MASKED. A row without a legal action is the caller's error."""
    return torch.where(legal, logits.float(), MASKED)


def average_of(policy: nn.Module, decay: float | None) -> AveragedModel | None:
    """An exponential moving average of the weights, advanced by `update_parameters(policy)`; None without `decay`."""
    if decay is None:
        return None
    average = AveragedModel(policy, multi_avg_fn=get_ema_multi_avg_fn(decay))
    return average.requires_grad_(False)
