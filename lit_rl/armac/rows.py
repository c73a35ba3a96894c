"""What memories take in and hand out. Letters: N decisions, M rows, A actions, P players, D obs shape."""

from typing import NamedTuple

import numpy as np
from torch import Tensor


class Rows(NamedTuple):
    """What a network is to say, row by row."""

    obs: Tensor  # [M, *D]; for a critic the histories [M, P * D]
    legal: Tensor  # [M, A] bool
    target: Tensor  # [M, A] float32
    weight: Tensor  # [M, A] float32, at least 0, with sum 1


class Samples(NamedTuple):
    """What one rollout adds, infostates [N, *D] with their legal actions [N, A] and a vector each."""

    obs: Tensor
    legal: Tensor
    vector: Tensor  # [N, A] float32: regrets in reward units, or a policy


def grown(array: np.ndarray, num_rows: int) -> np.ndarray:
    """The array with rows of zeros added up to `num_rows`; a copy only where there are any."""
    if len(array) == num_rows:
        return array
    return np.concatenate([array, np.zeros((num_rows - len(array), *array.shape[1:]))])
