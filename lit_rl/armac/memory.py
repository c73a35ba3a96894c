"""What ARMAC remembers of the games so far: regrets, policies that were played, and what its critic is to learn.

`RowMemory` keeps sums, one row per distinct infostate: every sample counts, and the network is trained on the sums. It
is for games whose infostates can be counted; a sceptic may call it tabular. `ReservoirMemory` keeps raw samples, a
bounded number of them, in which each sample of the past survives with the same probability (Vitter 1985), which is how
methods for large games remember. Both hand out `Rows`, the targets of a network. The critic's targets, which fade
quickly, are kept per history in either case (`CriticMemory`).

Letters: N decisions, M rows, A actions, P players, D obs shape.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from jsonargparse.typing import ClosedUnitInterval, NonNegativeFloat, PositiveInt
from torch import Tensor
from torch.nn import functional as F

from envs.game import Game
from lit_rl.armac.mixing import regret_matching
from lit_rl.row_index import RowIndex, merge_equal_rows, sum_rows
from lit_rl.run.errors import check_ranges

LEAST = 1e-3  # a critic target that has faded below this weight is forgotten


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


class Memory:
    """Regrets and past policies of one run: the type that memories subclass. Built as `memory(game)`."""

    def add(self, regrets: Samples, policies: Samples, iteration: int, generator: torch.Generator) -> None:
        """Take in one rollout; `iteration` counts from 1."""
        raise TypeError(f"{type(self).__name__} does not define add(regrets, policies, iteration, generator)")

    def regret_rows(self, generator: torch.Generator) -> Rows:
        """What the regret network is trained on in its next optimizer step."""
        raise TypeError(f"{type(self).__name__} does not define regret_rows(generator)")

    def average_rows(self, generator: torch.Generator) -> Rows:
        """What the average network is trained on in its next optimizer step: policies."""
        raise TypeError(f"{type(self).__name__} does not define average_rows(generator)")

    @staticmethod
    def regret_policy(logits: Tensor, legal: Tensor) -> Tensor:
        """Regret matching [M, A] on the regrets that the network's masked output [M, A] stands for."""
        raise TypeError("this memory does not define regret_policy(logits, legal)")

    def regret_loss(self, logits: Tensor, rows: Rows) -> Tensor:
        """A scalar: how far the network is from the rows."""
        raise TypeError(f"{type(self).__name__} does not define regret_loss(logits, rows)")

    def state_dict(self) -> dict:
        raise TypeError(f"{type(self).__name__} does not define state_dict()")

    def load_state_dict(self, state: dict) -> None:
        raise TypeError(f"{type(self).__name__} does not define load_state_dict(state)")


MemoryFactory = Callable[[Game], Memory]


class RowMemory(Memory):
    """Sums per infostate. Regrets are those of CFR+: R <- max(R + r, 0) after each iteration (Tammelin 2014); policies
    are summed with weight t^averaging_power of iteration t (2: the quadratic average).

    The regret network holds regrets on a log scale, up to a factor per infostate, which regret matching does not see:
    its policy is that of the regrets exp(logits), the softmax, and it is trained by cross-entropy to the policy of the
    summed regrets, an infostate visited n times weighing n^visit_exponent. Ours; trained on the regrets themselves the
    network does worse.

    With `floor` false and a `regret_decay` below 1 the regrets are a fading mean instead: right where every past policy
    plays equally often (`lit_rl.armac.past_policies`), so that nothing has to be summed over the past.

    Args:
        game: tells the shapes.
        averaging_power: of the iteration in the weight of its policy.
        floor: cut sums of regrets off at 0.
        regret_decay: weight of a regret per iteration of age.
        visit_exponent: of the visits in an infostate's weight.
    """

    def __init__(
        self,
        game: Game,
        averaging_power: NonNegativeFloat = 2.0,
        floor: bool = True,
        regret_decay: ClosedUnitInterval = 1.0,
        visit_exponent: ClosedUnitInterval = 0.5,
    ):
        check_ranges(RowMemory.__init__, locals())
        self.floor, self.regret_decay = floor, float(regret_decay)
        self.averaging_power, self.visit_exponent = float(averaging_power), float(visit_exponent)
        self.index = new_index(game)
        self.regrets, self.policies = np.zeros((0, game.num_actions)), np.zeros((0, game.num_actions))
        self.visits = np.zeros(0)

    def add(self, regrets: Samples, policies: Samples, iteration: int, generator: torch.Generator) -> None:
        row, seen = (self.index.find_or_add(s.obs, s.legal).numpy() for s in (regrets, policies))
        self.regrets, self.policies, self.visits = (
            _grown(x, len(self.index)) for x in (self.regrets, self.policies, self.visits)
        )
        self.regrets = self.regret_decay * self.regrets + sum_rows(row, regrets.vector, len(self.index))
        if self.floor:
            np.maximum(self.regrets, 0.0, out=self.regrets)
        self.policies += iteration**self.averaging_power * sum_rows(seen, policies.vector, len(self.index))
        self.visits += np.bincount(row, minlength=len(self.index))

    def regret_rows(self, generator: torch.Generator) -> Rows:
        target = regret_matching(torch.from_numpy(self.regrets).float(), self.index.legal)
        return self._rows(target)

    def average_rows(self, generator: torch.Generator) -> Rows:
        total = self.policies.sum(1, keepdims=True)
        uniform = self.index.legal / self.index.legal.sum(1, keepdim=True)
        mean = np.divide(self.policies, total, where=total > 0, out=uniform.numpy().astype(np.float64))
        return self._rows(torch.from_numpy(mean).float())

    def _rows(self, target: Tensor) -> Rows:
        weight = torch.from_numpy(self.visits**self.visit_exponent).float()
        weight = (weight / weight.sum()).unsqueeze(1).expand_as(target)
        return Rows(self.index.obs, self.index.legal, target, weight)

    @staticmethod
    def regret_policy(logits: Tensor, legal: Tensor) -> Tensor:
        return regret_matching((logits - logits.amax(-1, keepdim=True)).exp(), legal)

    def regret_loss(self, logits: Tensor, rows: Rows) -> Tensor:
        return cross_entropy(logits, rows)

    def state_dict(self) -> dict:
        arrays = {name: torch.from_numpy(getattr(self, name)) for name in ("regrets", "policies", "visits")}
        return arrays | self.index.state_dict()

    def load_state_dict(self, state: dict) -> None:
        self.index.load_state_dict(state)
        for name in ("regrets", "policies", "visits"):
            setattr(self, name, state[name].numpy().copy())


class ReservoirMemory(Memory):
    """Raw samples of regrets and of policies, `capacity` of each. Those of iteration t weigh t^regret_power (1: linear
    CFR, Brown and Sandholm 2019) and t^averaging_power.

    The regret network predicts their mean by least squares, and regret matching acts on what it says, as in Deep CFR
    (Brown et al. 2019) and DREAM (Steinberger et al. 2020). Samples of one infostate are merged before the network sees
    them, as everywhere (`lit_rl.row_index`).

    Args:
        game: tells the shapes.
        capacity: samples of each kind.
        batch_size: of a minibatch, drawn with replacement; null: all samples in each step, by their sums per infostate,
            for games whose infostates can be counted.
        regret_power: of the iteration in the weight of its regrets.
        averaging_power: of the iteration in the weight of its policy.
        visit_exponent: of an infostate's samples in its weight.
    """

    def __init__(
        self,
        game: Game,
        capacity: PositiveInt = 1_000_000,
        batch_size: PositiveInt | None = 8192,
        regret_power: NonNegativeFloat = 1.0,
        averaging_power: NonNegativeFloat = 2.0,
        visit_exponent: ClosedUnitInterval = 0.5,
    ):
        check_ranges(ReservoirMemory.__init__, locals())
        self.batch_size = None if batch_size is None else int(batch_size)
        self.visit_exponent, self.scale = float(visit_exponent), 0.4 * game.max_return  # as in HistoryMLP
        self.powers = {"regrets": float(regret_power), "policies": float(averaging_power)}
        self.reservoirs = {name: Reservoir(game, int(capacity), batch_size is None) for name in self.powers}

    def add(self, regrets: Samples, policies: Samples, iteration: int, generator: torch.Generator) -> None:
        for name, samples in (("regrets", regrets), ("policies", policies)):
            self.reservoirs[name].add(samples, iteration ** self.powers[name], generator)

    def regret_rows(self, generator: torch.Generator) -> Rows:
        rows = self._rows("regrets", generator)
        return rows._replace(target=rows.target / self.scale)

    def average_rows(self, generator: torch.Generator) -> Rows:
        return self._rows("policies", generator)

    def _rows(self, name: str, generator: torch.Generator) -> Rows:
        reservoir = self.reservoirs[name]
        if self.batch_size is None:
            obs, legal, sums, total = reservoir.sums()
        else:
            size = self.batch_size if len(reservoir) else 0
            chosen = torch.randint(max(len(reservoir), 1), (size,), generator=generator)
            obs, legal, weight = reservoir.obs[chosen], reservoir.legal[chosen], reservoir.weight[chosen]
            first, row = merge_equal_rows(obs, legal)
            obs, legal, vectors = obs[first], legal[first], weight.unsqueeze(1) * reservoir.vector[chosen]
            total = torch.zeros(len(first), dtype=torch.float64).index_add_(0, row, weight)
            sums = torch.zeros(len(first), vectors.shape[1], dtype=torch.float64).index_add_(0, row, vectors)
        share = (total / total.sum()) ** self.visit_exponent
        share = (share / share.sum()).float().unsqueeze(1).expand(-1, sums.shape[1])
        return Rows(obs, legal, (sums / total.unsqueeze(1)).float(), share)

    @staticmethod
    def regret_policy(logits: Tensor, legal: Tensor) -> Tensor:
        return regret_matching(logits, legal)

    def regret_loss(self, logits: Tensor, rows: Rows) -> Tensor:
        return squared_error(logits, rows)

    def state_dict(self) -> dict:
        return {name: reservoir.state_dict() for name, reservoir in self.reservoirs.items()}

    def load_state_dict(self, state: dict) -> None:
        for name, reservoir in self.reservoirs.items():
            reservoir.load_state_dict(state[name])


SAMPLE = ("obs", "legal", "vector", "weight")  # of a reservoir, one row per sample


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
        self.index = new_index(game) if adds_up else None
        self._sums, self._total = torch.zeros(0, game.num_actions, dtype=torch.float64), self.weight

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
        self._count(at[at < before], -1.0)
        self.obs[at], self.legal[at], self.vector[at] = (
            samples.obs[kept],
            samples.legal[kept],
            samples.vector[kept].float(),
        )
        self.weight[at] = weight
        self._count(at, 1.0)
        self.seen += n

    def sums(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Infostates obs [M, *D] with legal [M, A], the weighted sum of their vectors [M, A] and their weight [M]."""
        there = self._total > 0
        return self.index.obs[there], self.index.legal[there], self._sums[there], self._total[there]

    def _count(self, at: Tensor, sign: float) -> None:
        """Add the samples at those places to the sums, or take them out of them."""
        if self.index is None or not len(at):
            return
        row = self.index.find_or_add(self.obs[at], self.legal[at])
        more = len(self.index) - len(self._total)
        self._sums = torch.cat([self._sums, self._sums.new_zeros(more, self._sums.shape[1])])
        self._total = torch.cat([self._total, self._total.new_zeros(more)])
        weight = sign * self.weight[at]
        self._sums.index_add_(0, row, weight.unsqueeze(1) * self.vector[at])
        self._total.index_add_(0, row, weight)

    def state_dict(self) -> dict:
        state = {name: getattr(self, name)[: len(self)].clone() for name in SAMPLE} | {"seen": self.seen}
        if self.index is not None:
            state |= {"index": self.index.state_dict(), "sums": self._sums, "total": self._total}
        return state

    def load_state_dict(self, state: dict) -> None:
        self.seen = int(state["seen"])
        for name in SAMPLE:
            setattr(self, name, state[name].clone())
        if self.index is not None:
            self.index.load_state_dict(state["index"])
            self._sums, self._total = state["sums"].clone(), state["total"].clone()

    def _grow(self, size: int) -> None:
        for name in SAMPLE:
            old = getattr(self, name)
            setattr(self, name, torch.cat([old, old.new_zeros(size - len(old), *old.shape[1:])]))


class CriticMemory:
    """What the history critic is to say: per history and action the mean of the targets seen, older ones fading.

    One row per distinct history; a target seen n iterations ago weighs decay^n. With decay 0 the critic learns from
    the last rollout alone. Histories that have not been seen for long are forgotten.
    """

    def __init__(self, game: Game, decay: float):
        self.game, self.decay = game, float(decay)
        self.index = new_index(game, game.num_players)
        self.sums, self.counts = (np.zeros((0, game.num_actions)) for _ in range(2))

    def add(self, row: np.ndarray, action: np.ndarray, target: np.ndarray) -> None:
        """row [N]: histories as numbers of `index`; action [N]; target [N] in player 0's view."""
        num_actions = self.game.num_actions
        self.sums, self.counts = (_grown(x, len(self.index)) * self.decay for x in (self.sums, self.counts))
        cell, size = row * num_actions + action, len(self.index) * num_actions
        self.sums += np.bincount(cell, target, size).reshape(-1, num_actions)
        self.counts += np.bincount(cell, minlength=size).reshape(-1, num_actions)
        alive = np.flatnonzero((self.counts > LEAST).any(1))
        if len(self.index) > 2 * len(alive) + 10_000:
            kept = torch.from_numpy(alive)
            rows = {"obs": self.index.obs[kept], "legal": self.index.legal[kept]}
            self.index, self.sums, self.counts = new_index(self.game, self.game.num_players), *self._at(alive)
            self.index.load_state_dict(rows)

    def _at(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.sums[rows], self.counts[rows]

    def rows(self) -> Rows:
        alive = np.flatnonzero((self.counts > LEAST).any(1))
        sums, counts = self._at(alive)
        target = np.divide(sums, counts, where=counts > LEAST, out=np.zeros_like(counts))
        weight = torch.from_numpy(counts / counts.sum()).float()
        alive = torch.from_numpy(alive)
        return Rows(self.index.obs[alive], self.index.legal[alive], torch.from_numpy(target).float(), weight)

    def state_dict(self) -> dict:
        arrays = {name: torch.from_numpy(getattr(self, name)) for name in ("sums", "counts")}
        return arrays | self.index.state_dict()

    def load_state_dict(self, state: dict) -> None:
        self.index.load_state_dict(state)
        self.sums, self.counts = state["sums"].numpy().copy(), state["counts"].numpy().copy()


def cross_entropy(logits: Tensor, rows: Rows) -> Tensor:
    """Mean over rows of - sum over a of target(a) log softmax(logits)(a), by their weight; a scalar."""
    log_probs = torch.log_softmax(logits, dim=-1)
    return -(rows.weight * rows.target * torch.where(rows.legal, log_probs, 0.0)).sum()


def squared_error(output: Tensor, rows: Rows) -> Tensor:
    """Weighted mean of (output - target)^2 over rows and legal actions; a scalar."""
    error = F.mse_loss(torch.where(rows.legal, output, 0.0), rows.target, reduction="none")
    return (rows.weight * torch.where(rows.legal, error, 0.0)).sum()


def obs_dtype(game: Game) -> torch.dtype:
    return torch.from_numpy(np.zeros(0, game.obs_dtype)).dtype


def new_index(game: Game, num_views: int | None = None) -> RowIndex:
    """An index of infostates, or of histories as `num_views` infostates side by side."""
    shape = game.obs_shape if num_views is None else (num_views, *game.obs_shape)
    return RowIndex(shape, obs_dtype(game), game.num_actions)


def _grown(array: np.ndarray, num_rows: int) -> np.ndarray:
    """The array with rows of zeros added up to `num_rows`; a copy only where there are any."""
    if len(array) == num_rows:
        return array
    return np.concatenate([array, np.zeros((num_rows - len(array), *array.shape[1:]))])


def _last_of_each(place: Tensor) -> Tensor:
    """Positions of the last occurrence of each value, so that of two samples for one place the later one stays."""
    _, back = np.unique(place.flip(0).numpy(), return_index=True)
    return len(place) - 1 - torch.from_numpy(back)
