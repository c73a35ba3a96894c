"""From a rollout to shuffled minibatches: what policy-gradient algorithms have in common between data and loss.

Letters: N decisions of a minibatch, M distinct infostates among them, A actions, D obs shape.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from lit_rl.rollout import Rollout
from lit_rl.row_index import infostate_weights, merge_equal_rows
from lit_rl.run.errors import ConfigError


class Batch(NamedTuple):
    """One minibatch: M infostates and N decisions made in them; M = N and `row` = 0..N-1 where nothing was merged."""

    obs: Tensor  # [M, *D]
    legal: Tensor  # [M, A] bool
    row: Tensor  # [N] int64, the infostate of each decision
    action: Tensor  # [N] int64
    log_prob: Tensor  # [N] float32, as sampled
    value: Tensor  # [N] float32, the critic's when sampled
    advantages: Tensor  # [N] float32
    returns: Tensor  # [N] float32, the critic's target
    state_weight: Tensor  # [N] float32 with mean 1: what a decision counts in value loss and entropy
    action_weight: Tensor  # [N] float32 with mean 1: what it counts in the policy loss
    temperature: float  # of the behaviour policy


def minibatches(
    rollout: Rollout,
    advantages: Tensor,
    returns: Tensor,
    valid: Tensor,
    *,
    update_epochs: int,
    num_minibatches: int,
    visit_exponent: float | None,
    merge_rows: bool,
    generator: torch.Generator,
) -> Iterator[Batch]:
    """`update_epochs` shuffled passes of `num_minibatches` batches each over the decisions that are `valid`.

    Args:
        advantages, returns: [T, B] float32; valid: [T, B] bool.
        visit_exponent: see `lit_rl.row_index.infostate_weights`; None weighs all decisions the same.
        merge_rows: hand each distinct infostate of the rollout to the network once, where that saves work.

    Raises:
        ConfigError: fewer valid decisions than minibatches.
    """
    advantages, returns = advantages[valid], returns[valid]
    obs, legal = rollout.obs[valid], rollout.legal[valid]
    action, log_prob, value = rollout.action[valid], rollout.log_prob[valid], rollout.value[valid]
    n, num_actions = len(action), legal.shape[1]
    if n < num_minibatches:
        raise ConfigError(
            f"num_minibatches={num_minibatches}, but the rollout holds {n} decisions of finished games; raise "
            "data.num_steps or data.num_envs, or set model.whole_games=false where games are longer than a rollout"
        )
    first, row = merge_equal_rows(obs, legal)
    merged = merge_rows and len(first) <= n // num_minibatches // 2
    for _ in range(update_epochs):
        for i in torch.randperm(n, generator=generator).tensor_split(num_minibatches):
            seen, which = (first, row[i]) if merged else (i, torch.arange(len(i)))
            state_weight = action_weight = torch.ones(len(i))
            if visit_exponent is not None:
                state_weight, action_weight = infostate_weights(
                    row[i], action[i], log_prob[i], num_actions, visit_exponent
                )
            yield Batch(
                obs[seen], legal[seen], which, action[i], log_prob[i], value[i], advantages[i], returns[i],
                state_weight, action_weight, rollout.temperature,
            )  # fmt: skip
