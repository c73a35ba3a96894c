"""What a policy is: `ActorCritic(obs, legal, state=None) -> PolicyOutput`, and the average of one over a run.

Letters: N rows, A actions, D obs shape, S shape of a policy's memory; M rows make up C chunks of up to L decisions.
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


class Chunks(NamedTuple):
    """How M rows make up C chunks: each up to L consecutive own decisions of one seat in one game, the rows by time."""

    state: Tensor  # [C, *S] float32, the memory before each chunk's first decision
    place: Tensor  # [M] int64, ascending: step * C + chunk of each row; steps count from 0 in each chunk
    length: int  # L
    first: Tensor  # [C] int64, which decision of the rollout [T * B] each chunk begins with


class ActorCritic(nn.Module):
    """A policy with a value: the type that networks subclass. Built as `network(game)`; see `lit_rl.networks`."""

    state_shape: tuple[int, ...] = ()  # S, of the memory that it carries per env and seat; () for none

    def forward(self, obs: Tensor, legal: Tensor, state: Tensor | None = None) -> PolicyOutput:
        """obs [N, *D] of the game's dtype, legal [N, A] bool, state [N, *S] where there is one -> PolicyOutput."""
        raise TypeError(f"{type(self).__name__} does not define forward(obs, legal, state) -> PolicyOutput")

    def unroll(self, obs: Tensor, legal: Tensor, chunks: Chunks) -> PolicyOutput:
        """The same along chunks: obs [M, *D], legal [M, A], by time -> PolicyOutput of these M rows, without memories.

        Here step by step; a network whose encoder and heads can be asked for all rows at once overrides it.
        """
        now, where = chunks.state, chunks.place % len(chunks.state)
        sizes = torch.bincount(chunks.place // len(now), minlength=chunks.length).tolist()
        found = []
        for seen, may, here in zip(obs.split(sizes), legal.split(sizes), where.split(sizes), strict=True):
            output = self(seen, may, now[here])
            now = now.index_copy(0, here, output.state)
            found.append(output)
        return PolicyOutput(torch.cat([x.logits for x in found]), torch.cat([x.value for x in found]))


def output_of(policy: nn.Module, obs: Tensor, legal: Tensor, chunks: Chunks | None) -> PolicyOutput:
    """Of the rows obs [M, *D], legal [M, A] of a minibatch; `chunks` says how they follow one another in a memory."""
    return policy(obs, legal) if chunks is None else policy.unroll(obs, legal, chunks)


def state_shape_of(policy: nn.Module) -> tuple[int, ...]:
    """S of the policy's memory, () where it has none; any module may be asked."""
    return tuple(getattr(policy, "state_shape", ()))


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
