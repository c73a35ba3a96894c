"""What a policy is: `ActorCritic(obs, legal, state=None) -> PolicyOutput`, and the table of one over a game tree.

Letters: N rows, A actions, D obs shape.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from envs.exact import GameTree
from envs.game import Game

MASKED = -1e30  # logit of an illegal action: its probability is exactly 0, and 0 * log-probability stays 0, not NaN


class PolicyOutput(NamedTuple):
    """What a network says of N infostates."""

    logits: Tensor  # [N, A] float32, illegal actions at MASKED
    value: Tensor  # [N] float32, expected return of the player who observes, in reward units
    state: Tensor | None = None  # [N, *S], the memory that the same seat's next decision begins with
    extras: Mapping[str, Tensor] = {}  # [N, ...] each: what else a rollout is to keep of each decision


class ActorCritic(nn.Module):
    """A policy with a value: the type that networks subclass. Built as `network(game)`; see `lit_rl.networks`."""

    def forward(self, obs: Tensor, legal: Tensor) -> PolicyOutput:
        """obs [N, *D] of the game's dtype, legal [N, A] bool -> logits [N, A], value [N]."""
        raise TypeError(f"{type(self).__name__} does not define forward(obs, legal) -> PolicyOutput")


NetworkFactory = Callable[[Game], ActorCritic]


def mask_logits(logits: Tensor, legal: Tensor) -> Tensor:
    """float32 logits [N, A] with illegal actions at MASKED. A row without a legal action is the caller's error."""
    return torch.where(legal, logits.float(), MASKED)


@torch.no_grad()
def policy_table(policy: nn.Module, tree: GameTree, chunk: int = 65_536) -> np.ndarray:
    """Action probabilities [R, A] float64 of `policy` at every infostate of `tree`, in full precision."""
    device = next(policy.parameters()).device
    obs, legal = torch.from_numpy(tree.obs), torch.from_numpy(tree.legal)
    training = policy.training
    policy.eval()
    with torch.autocast(device.type, enabled=False):
        logits = [policy(o.to(device), m.to(device)).logits for o, m in zip(obs.split(chunk), legal.split(chunk))]
    policy.train(training)
    return torch.softmax(torch.cat(logits).double(), dim=-1).cpu().numpy()


def exact_metrics(policy: nn.Module, tree: GameTree) -> dict[str, float]:
    """`eval/nash_conv`, `eval/exploitability` and each player's expected return, in the game's reward units.

    Raises:
        FloatingPointError: a NashConv that no policy of this game can have.
    """
    evaluation = tree.evaluate(policy_table(policy, tree))
    most = 2 * tree.game.num_players * tree.game.max_return  # each gains at most from -max_return to max_return
    if not -1e-9 * most <= evaluation.nash_conv <= most:
        raise FloatingPointError(
            f"eval/nash_conv={evaluation.nash_conv} of {tree.game.name} lies outside [0, {most}]: the policy's output "
            "or the game's max_return is wrong"
        )
    metrics = {"eval/nash_conv": evaluation.nash_conv, "eval/exploitability": evaluation.exploitability}
    return metrics | {f"eval/return_player_{p}": float(r) for p, r in enumerate(evaluation.returns)}
