"""A reservoir: a bounded number of samples in which each one ever seen is equally likely to have stayed.

Letters: N samples, M infostates, A actions, D obs shape.
"""

import numpy as np
import torch
from torch import Tensor

from envs.game import Game
from lit_rl.armac.rows import Samples
from lit_rl.row_index import RowIndex, obs_dtype
from lit_rl.run.saved_values import need, saved_dict, saved_int, saved_tensor

SAMPLE = ("obs", "legal", "vector", "weight")  # of a reservoir, one row per sample
SUMS = ("index", "sums", "total")  # of one that adds up


class Reservoir:
    """At most `capacity` of all samples ever added, each with the same probability (Vitter 1985, algorithm R).

    Args:
        game: tells the shapes.
        capacity: the most samples it holds.
        adds_up: keep the sums per infostate of what it holds, for `sums`.
    """

    def __init__(self, game: Game, capacity: int, adds_up: bool = False):
        self.capacity, self.seen = capacity, 0
        self.obs = torch.zeros(0, *game.obs_shape, dtype=obs_dtype(game))
        self.legal = torch.zeros(0, game.num_actions, dtype=torch.bool)
        self.vector = torch.zeros(0, game.num_actions)
        self.weight = torch.zeros(0, dtype=torch.float64)
        self.index = RowIndex.of(game) if adds_up else None
        self._sums, self._total = torch.zeros(0, game.num_actions, dtype=torch.float64), self.weight
        self._samples = torch.zeros(0, dtype=torch.int64)  # of each infostate: what says that it is there

    def __len__(self) -> int:
        return min(self.seen, self.capacity)

    def add(self, samples: Samples, weight: float, generator: torch.Generator) -> None:
        n, before = len(samples.obs), len(self)
        if len(self.obs) < min(self.seen + n, self.capacity):
            self._grow(min(max(2 * len(self.obs), self.seen + n), self.capacity))
        number = torch.arange(self.seen, self.seen + n)
        place = (torch.rand(n, generator=generator, dtype=torch.float64) * (number + 1)).long()
        place = torch.where(number < self.capacity, number, place)
        kept = (place < self.capacity).nonzero().flatten()
        kept = kept[_last_of_each(place[kept])]
        at = place[kept]
        self._count(at[at < before], -1)
        self.obs[at], self.legal[at], self.vector[at] = (
            samples.obs[kept],
            samples.legal[kept],
            samples.vector[kept].float(),
        )
        self.weight[at] = weight
        self._count(at, 1)
        self.seen += n

    def sums(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Infostates obs [M, *D] with legal [M, A], the weighted sum of their vectors [M, A] and their weight [M]."""
        there = self._samples > 0
        return self.index.obs[there], self.index.legal[there], self._sums[there], self._total[there]

    def _count(self, at: Tensor, sign: int) -> None:
        """Add the samples at those places to the sums, or take them out of them."""
        if self.index is None or not len(at):
            return
        row = self.index.find_or_add(self.obs[at], self.legal[at])
        more = len(self.index) - len(self._total)
        self._sums = torch.cat([self._sums, self._sums.new_zeros(more, self._sums.shape[1])])
        self._total = torch.cat([self._total, self._total.new_zeros(more)])
        self._samples = torch.cat([self._samples, self._samples.new_zeros(more)])
        weight = sign * self.weight[at]
        self._sums.index_add_(0, row, weight.unsqueeze(1) * self.vector[at])
        self._total.index_add_(0, row, weight)
        self._samples.index_add_(0, row, torch.full_like(row, sign))
        left = row[self._samples[row] == 0]
        self._sums[left], self._total[left] = 0.0, 0.0  # not what rounding has left of them

    def state_dict(self) -> dict:
        state = {name: getattr(self, name)[: len(self)].clone() for name in SAMPLE} | {"seen": self.seen}
        if self.index is not None:
            state |= {"index": self.index.state_dict(), "sums": self._sums, "total": self._total}
        return state

    def load_state_dict(self, state: dict) -> None:
        saved_dict(state, "reservoir", (*SAMPLE, "seen", *(() if self.index is None else SUMS)))
        self.seen = saved_int(state["seen"], "reservoir.seen")
        for name in SAMPLE:
            here, low = getattr(self, name), 0.0 if name == "weight" else None
            value = saved_tensor(state[name], f"reservoir.{name}", here.dtype, (len(self), *here.shape[1:]), low)
            setattr(self, name, value)
        if self.index is not None:
            self.index.load_state_dict(state["index"])
            m, kind = len(self.index), torch.float64
            self._sums = saved_tensor(state["sums"], "reservoir.sums", kind, (m, self.vector.shape[1]))
            self._total = saved_tensor(state["total"], "reservoir.total", kind, (m,))
            row = self.index.find_or_add(self.obs, self.legal)
            need(len(self.index) == m, "reservoir.index has no place for some of the samples")
            self._samples = torch.bincount(row, minlength=m)

    def _grow(self, size: int) -> None:
        for name in SAMPLE:
            old = getattr(self, name)
            setattr(self, name, torch.cat([old, old.new_zeros(size - len(old), *old.shape[1:])]))


def _last_of_each(place: Tensor) -> Tensor:
    """Positions of the last occurrence of each value, so that of two samples for one place the later one stays."""
    _, back = np.unique(place.flip(0).numpy(), return_index=True)
    return len(place) - 1 - torch.from_numpy(back)
