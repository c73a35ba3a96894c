"""Decisions in the order in which a memory met them: chunks of one seat's own decisions, and memories made anew.

A chunk is cut where a game ends, so that none holds a reset. Letters: T steps, B envs, C chunks, L decisions of a
chunk, W = burn_in + L, S shape of a policy's memory.
"""

import numpy as np
import torch
from torch import Tensor, nn

from envs.jit import njit
from lit_rl.rollout import Rollout


def own_past(rollout: Rollout) -> tuple[np.ndarray, np.ndarray]:
    """before, ordinal: [T * B] int64 each, of the learner's decisions.

    before: which decision the same seat made last in the same game; -1 where the rollout holds none. ordinal: how many
    it holds before this one; -1 where the row is no decision of the learner's.
    """
    before, ordinal = (np.full(rollout.player.shape, -1) for _ in range(2))
    num_players = rollout.rewards.shape[2]
    played, learner, done = (x.numpy() for x in (rollout.played, rollout.learner, rollout.done))
    _own_past(rollout.player.numpy(), played, learner, done, num_players, before, ordinal)
    return before.reshape(-1), ordinal.reshape(-1)


@njit
def _own_past(player, played, learner, done, num_players, before, ordinal):
    num_steps, num_envs = player.shape
    last, count = np.empty(num_players, np.int64), np.empty(num_players, np.int64)
    for b in range(num_envs):
        last[:] = -1
        count[:] = 0
        for t in range(num_steps):
            p = player[t, b]
            if played[t, b] and learner[t, b]:
                before[t, b], ordinal[t, b] = last[p], count[p]
                last[p] = t * num_envs + b
                count[p] += 1
            if done[t, b] or not played[t, b]:
                last[:] = -1
                count[:] = 0


def chunks(rollout: Rollout, valid: Tensor, length: int | None, burn_in: int) -> tuple[Tensor, Tensor]:
    """The `valid` [T, B] decisions of the learner as chunks of up to `length` consecutive ones of one seat in one game.

    A chunk follows on the one before it. `burn_in` decisions before a chunk, as many as the rollout holds, come first
    in it. Without `length` all of a game's decisions in the rollout are one chunk.

    Returns:
        rows [C, W] int64: the decisions of each chunk among the T * B, then -1; learned [C, W] bool: those of them that
        are learned from, which is every valid decision once.
    """
    before, ordinal = own_past(rollout)
    chosen = valid.numpy().reshape(-1) & (ordinal >= 0)
    longest = int(ordinal[chosen].max(initial=-1)) + 1
    length = longest if length is None else min(length, longest)
    followers = np.flatnonzero(chosen & (before >= 0))
    after = np.full(len(before), -1)
    after[before[followers]] = followers
    start = np.flatnonzero(chosen & (ordinal % max(length, 1) == 0))
    warm = np.minimum(ordinal[start], burn_in)  # decisions of burn-in
    now = start.copy()
    for step in range(burn_in):
        now = np.where(step < warm, before[now], now)
    width = burn_in + length
    rows, step = np.full((len(start), width), -1), np.arange(width)
    for w in range(width):
        rows[:, w] = np.where(w < warm + length, now, -1)
        now = np.where(now >= 0, after[now], -1)
    return torch.from_numpy(rows), torch.from_numpy((rows >= 0) & (step >= warm[:, None]))


@torch.no_grad()
def memories(policy: nn.Module, rollout: Rollout) -> Tensor:
    """[T, B, *S]: what `policy` as it is now would have remembered before each decision of the learner.

    It goes along each seat's decisions from the first one in the rollout. There it begins with what is stored, which is
    nothing where a game begins, and the memory of the policy that played where a game began before the rollout.
    """
    before, ordinal = own_past(rollout)
    device = next(policy.parameters()).device
    obs, state, steps = rollout.obs.flatten(0, 1), rollout.state.flatten(0, 1).clone(), len(rollout.obs)
    legal, after = rollout.legal.flatten(0, 1), torch.zeros_like(state)
    order = np.argsort(ordinal, kind="stable")
    bounds = np.searchsorted(ordinal[order], np.arange(ordinal.max(initial=-1) + 2))
    for i, (low, high) in enumerate(zip(bounds[:-1], bounds[1:])):
        rows = torch.from_numpy(order[low:high])
        if i > 0:
            state[rows] = after[torch.from_numpy(before[order[low:high]])]
        now = state[rows]
        after[rows] = policy(obs[rows].to(device), legal[rows].to(device), now.to(device)).state.float().cpu()
    return state.view(steps, -1, *state.shape[1:])
