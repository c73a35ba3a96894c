"""Many decisions at few infostates: which ones those are, means over them, and random numbers that belong to each.

Letters: N decisions, M infostates, A actions, D obs shape.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from envs.jit import njit
from envs.rng import GAMMA, mix
from lit_rl.row_index import merge_equal_rows, row_words


class Infostates(NamedTuple):
    """The M infostates at which N decisions were made."""

    obs: Tensor  # [M, *D]
    legal: Tensor  # [M, A] bool
    first: Tensor  # [M], the first decision at each
    row: Tensor  # [N], where each decision was made
    visits: Tensor  # [M] float32
    weight: Tensor  # [M], proportional to the root of the visits, with sum 1

    def mean(self, values: Tensor) -> Tensor:
        """[N, X] -> [M, X]."""
        return torch.from_numpy(sum_rows(self.row.numpy(), values, len(self.first))).float() / self.visits.unsqueeze(1)


def infostates(obs: Tensor, legal: Tensor) -> Infostates:
    """Which infostates N decisions with obs [N, *D] and legal [N, A] were made at; on the CPU."""
    first, row = merge_equal_rows(obs, legal)
    visits = torch.bincount(row).float()
    return Infostates(obs[first], legal[first], first, row, visits, visits.sqrt() / visits.sqrt().sum())


def sum_rows(row: np.ndarray, vectors: Tensor, num_rows: int) -> np.ndarray:
    """[num_rows, A] float64: the sum of the vectors [N, A] of each row [N]."""
    columns = vectors.numpy().T
    return np.stack([np.bincount(row, column, num_rows) for column in columns], axis=1)


def uniform_of_rows(obs: Tensor, legal: Tensor, num_numbers: int, key: int) -> Tensor:
    """Random numbers [N, num_numbers] float32 in [0, 1), on the CPU: a function of row (obs, legal) and key."""
    numbers = np.empty((len(obs), num_numbers))
    _hash_rows(row_words(obs.cpu(), legal.cpu()), np.uint64(key), numbers)
    return torch.from_numpy(numbers).float().clamp_max(1 - 2**-24)


@njit
def _hash_rows(words, key, numbers):
    for i in range(len(words)):
        hashed = key
        for w in range(words.shape[1]):
            hashed = mix(hashed ^ words[i, w])
        for k in range(numbers.shape[1]):
            numbers[i, k] = (mix(hashed + np.uint64(k + 1) * GAMMA) >> np.uint64(11)) * 2.0**-53
