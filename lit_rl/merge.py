"""Merging equal rows: in a small game a batch holds few distinct infostates, and a network need see each only once.

Exact, not an approximation: the loss is the same function of the same outputs, so value and gradient are the same up
to the order of floating-point sums.
"""

import numpy as np
import torch
from numba import njit
from torch import Tensor

from envs.rng import mix


def merge_equal_rows(obs: Tensor, legal: Tensor) -> tuple[Tensor, Tensor]:
    """Find the distinct rows of (obs [N, *D], legal [N, A]), on the CPU.

    Returns:
        first [M] int64: where each distinct row first appears; row [N] int64: which distinct row each row is, so that
        `obs[first][row]` equals `obs`.
    """
    n = len(obs)
    parts = [x.contiguous().view(n, -1).numpy() for x in (obs, legal)]
    rows = np.concatenate([np.ascontiguousarray(x).view(np.uint8) for x in parts], axis=1)
    padded = np.zeros((n, -(-rows.shape[1] // 8) * 8), np.uint8)
    padded[:, : rows.shape[1]] = rows
    first, row = _distinct(padded.view(np.uint64))
    return torch.from_numpy(first), torch.from_numpy(row)


def infostate_weights(
    row: Tensor, action: Tensor, log_prob: Tensor, num_actions: int, visit_exponent: float
) -> tuple[Tensor, Tensor]:
    """Weights that make N sampled decisions count as infostates: (state_weight, action_weight), both [N], mean 1.

    With n(s) decisions at infostate s, n(s, a) of them action a, and the policy pi that drew them:

        state_weight = n(s)^(visit_exponent - 1),     action_weight = state_weight * pi(a|s) n(s) / n(s, a)

    A loss averaged with state_weight gives an infostate the weight n(s)^visit_exponent instead of n(s): seldom visited
    ones count, which a best responder would seek out. action_weight moreover gives each action that was drawn the
    weight pi(a|s) it has in expectation, not the share it happened to get; the policy loss is then that of the mean
    advantages of (s, a), as in expected policy gradients. Not from a paper; configs/leduc_ppo.yaml says what each of
    the two brings.

    Args:
        row [N]: which infostate each decision belongs to; action, log_prob [N]: as sampled; num_actions: A.
    """
    visits = torch.bincount(row)[row].float()
    drawn = torch.bincount(row * num_actions + action)[row * num_actions + action].float()
    state_weight = visits ** (visit_exponent - 1)
    action_weight = state_weight * log_prob.exp() * visits / drawn
    return state_weight / state_weight.mean(), action_weight / action_weight.mean()


@njit
def _distinct(words):
    """Open addressing over 64-bit hashes of rows [N, W] uint64; hits are compared word by word."""
    n, width = words.shape
    size = 16
    while size < 2 * n:
        size *= 2
    slots = np.full(size, -1, np.int64)
    first = np.empty(n, np.int64)
    row = np.empty(n, np.int64)
    count = 0
    for i in range(n):
        key = np.uint64(width)
        for w in range(width):
            key = mix(key ^ words[i, w])
        slot = np.int64(key & np.uint64(size - 1))
        while True:
            found = slots[slot]
            if found < 0:
                slots[slot] = count
                first[count] = i
                row[i] = count
                count += 1
                break
            same = True
            for w in range(width):
                if words[first[found], w] != words[i, w]:
                    same = False
                    break
            if same:
                row[i] = found
                break
            slot = (slot + 1) % size
    return first[:count].copy(), row
