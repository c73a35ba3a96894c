"""Merging equal rows: in a small game a batch holds few distinct infostates, and a network need see each only once.

Exact, not an approximation: the loss is the same function of the same outputs, so value and gradient are the same up
to the order of floating-point sums.
"""

import numpy as np
import torch
from torch import Tensor

from envs.game import Interface
from envs.jit import njit
from envs.rng import mix
from lit_rl.run.saved_values import need, saved_legal, saved_tensor


def merge_equal_rows(obs: Tensor, legal: Tensor) -> tuple[Tensor, Tensor]:
    """Find the distinct rows of (obs [N, *D], legal [N, A]), on the CPU.

    Returns:
        first [M] int64: where each distinct row first appears; row [N] int64: which distinct row each row is, so that
        `obs[first][row]` equals `obs`.
    """
    words = row_words(obs, legal)
    slots = np.full(_num_slots(len(words)), -1, np.int64)
    known, keys, first = np.empty_like(words), np.empty(len(words), np.uint64), np.empty(len(words), np.int64)
    row = np.empty(len(words), np.int64)
    count = _find_or_add(words, known, keys, slots, 0, first, row)
    return torch.from_numpy(first[:count].copy()), torch.from_numpy(row)


def repeats(obs: Tensor, legal: Tensor, chosen: Tensor) -> bool:
    """Whether it may pay to merge equal ones among the rows `chosen` [n] of (obs, legal); False only where it cannot.

    Looks at 4,096 of them: if n rows held n / 2 distinct ones or fewer, n^-1 4,096^2 pairs of these would be equal on
    average, 16 of a million rows, and none at all with a probability of e^-16.
    """
    sample = chosen[:: max(1, len(chosen) // SAMPLE)]
    return len(merge_equal_rows(obs[sample], legal[sample])[0]) < len(sample)


SAMPLE = 4096


class RowIndex:
    """Gives each distinct row (obs, legal) a number, 0, 1, 2 ..., in order of first appearance, and keeps the rows.

    Attributes:
        obs [M, *D], legal [M, A]: the rows so far, CPU tensors; keys [M] uint64: a hash of each.
    """

    def __init__(self, obs_shape: tuple[int, ...], obs_dtype: torch.dtype, num_actions: int):
        self._obs = torch.empty(16, *obs_shape, dtype=obs_dtype)
        self._legal = torch.empty(16, num_actions, dtype=torch.bool)
        self._words = row_words(self._obs, self._legal)
        self._keys = np.empty(16, np.uint64)
        self._slots = np.full(_num_slots(16), -1, np.int64)
        self._count = 0

    @classmethod
    def of(cls, game: Interface, num_views: int | None = None) -> "RowIndex":
        """An index of the game's infostates, or of histories as `num_views` infostates side by side."""
        shape = game.obs_shape if num_views is None else (num_views, *game.obs_shape)
        return cls(shape, obs_dtype(game), game.num_actions)

    def __len__(self) -> int:
        return self._count

    @property
    def obs(self) -> Tensor:
        return self._obs[: self._count]

    @property
    def legal(self) -> Tensor:
        return self._legal[: self._count]

    @property
    def keys(self) -> np.ndarray:
        return self._keys[: self._count]

    def find_or_add(self, obs: Tensor, legal: Tensor) -> Tensor:
        """The numbers [N] int64 of rows obs [N, *D], legal [N, A]; new ones are added."""
        words = row_words(obs, legal)
        if self._count + len(words) > len(self._keys):
            self._grow(2 * (self._count + len(words)))
        before, first, row = self._count, np.empty(len(words), np.int64), np.empty(len(words), np.int64)
        self._count = _find_or_add(words, self._words, self._keys, self._slots, before, first, row)
        new = torch.from_numpy(first[: self._count - before])
        self._obs[before : self._count] = obs[new]
        self._legal[before : self._count] = legal[new]
        return torch.from_numpy(row)

    def state_dict(self) -> dict[str, Tensor]:
        return {"obs": self.obs.clone(), "legal": self.legal.clone()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Hold these rows, in their order, and no others.

        Raises:
            ArtefactError: they are not rows of this index, or one is there twice.
        """
        legal = saved_legal(state["legal"], "rows.legal", None, self._legal.shape[1])
        obs = saved_tensor(state["obs"], "rows.obs", self._obs.dtype, (len(legal), *self._obs.shape[1:]))
        self._count = 0
        self._slots[:] = -1
        self.find_or_add(obs, legal)
        need(self._count == len(obs), f"rows.obs has {len(obs)} rows, of which {self._count} are different")

    def _grow(self, size: int) -> None:
        self._obs = torch.cat([self._obs, self._obs.new_empty(size - len(self._obs), *self._obs.shape[1:])])
        self._legal = torch.cat([self._legal, self._legal.new_empty(size - len(self._legal), self._legal.shape[1])])
        words, keys = np.empty((size, self._words.shape[1]), np.uint64), np.empty(size, np.uint64)
        words[: self._count], keys[: self._count] = self._words[: self._count], self.keys
        self._words, self._keys = words, keys
        self._slots = np.full(_num_slots(size), -1, np.int64)
        _fill_slots(self._keys, self._count, self._slots)


def obs_dtype(game: Interface) -> torch.dtype:
    """The torch dtype of the game's obs."""
    return torch.from_numpy(np.zeros(0, game.obs_dtype)).dtype


def row_words(obs: Tensor, legal: Tensor) -> np.ndarray:
    """Rows as 64-bit words [N, W], padded with zeros."""
    left, right = (x.contiguous().flatten(1).numpy().view(np.uint8) for x in (obs, legal))
    middle, end = left.shape[1], left.shape[1] + right.shape[1]
    padded = np.empty((len(left), -(-end // 8) * 8), np.uint8)
    padded[:, :middle] = left
    padded[:, middle:end] = right
    padded[:, end:] = 0
    return padded.view(np.uint64)


def _num_slots(num_rows: int) -> int:
    return 1 << max(4, (2 * num_rows - 1).bit_length())


@njit
def _find_or_add(words, known, keys, slots, count, first, row):
    """Open addressing over 64-bit hashes of rows [N, W] uint64; hits are compared word by word.

    `first` gets which of the N rows each new one is, `row` the number of each; returns how many are known now.
    """
    n, width = words.shape
    mask, before = np.uint64(len(slots) - 1), count
    for i in range(n):
        key = np.uint64(width)
        for w in range(width):
            key = mix(key ^ words[i, w])
        slot = np.int64(key & mask)
        while True:
            found = slots[slot]
            if found < 0:
                slots[slot] = count
                known[count] = words[i]
                keys[count] = key
                first[count - before] = i
                row[i] = count
                count += 1
                break
            same = keys[found] == key
            for w in range(width):
                if not same:
                    break
                same = known[found, w] == words[i, w]
            if same:
                row[i] = found
                break
            slot = (slot + 1) % len(slots)
    return count


@njit
def _fill_slots(keys, count, slots):
    mask = np.uint64(len(slots) - 1)
    for i in range(count):
        slot = np.int64(keys[i] & mask)
        while slots[slot] >= 0:
            slot = (slot + 1) % len(slots)
        slots[slot] = i
