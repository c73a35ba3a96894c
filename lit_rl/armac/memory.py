"""What ARMAC remembers of the games so far: regrets, and policies that were played.

`RowMemory` is a table: sums, one row per distinct infostate, and the networks learn what it says. It is for games whose
infostates can be counted. `ReservoirMemory` keeps raw samples, a bounded number of them, in which each sample of the
past survives with the same probability (Vitter 1985). With minibatches, which a game of countless infostates needs,
it has not been seen to come close to the table (configs/LOG.md). Both hand out `Rows`, the targets of a network. What
the critic is to learn is remembered elsewhere (`armac.critic_memory`).

Letters: N decisions, M rows, A actions, D obs shape.
"""

from collections.abc import Callable

import numpy as np
import torch
from jsonargparse.typing import ClosedUnitInterval, NonNegativeFloat, PositiveInt
from torch import Tensor

from envs.game import Game
from lit_rl.armac.infostates import sum_rows
from lit_rl.armac.reservoir import Reservoir
from lit_rl.armac.rows import Rows, Samples, grown
from lit_rl.losses import cross_entropy, regret_matching, squared_error
from lit_rl.row_index import RowIndex, merge_equal_rows
from lit_rl.run.errors import check_ranges
from lit_rl.run.saved_values import saved_dict, saved_tensor


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

    The regret network never sees a regret: it is trained by cross-entropy to the policy that regret matching makes of
    the summed regrets, an infostate visited n times weighing n^visit_exponent, and its own policy is the softmax. Ours;
    trained on the regrets themselves the network does worse.

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
        self.index = RowIndex.of(game)
        self.regrets, self.policies = np.zeros((0, game.num_actions)), np.zeros((0, game.num_actions))
        self.visits = np.zeros(0)

    def add(self, regrets: Samples, policies: Samples, iteration: int, generator: torch.Generator) -> None:
        row, seen = (self.index.find_or_add(s.obs, s.legal).numpy() for s in (regrets, policies))
        self.regrets, self.policies, self.visits = (
            grown(x, len(self.index)) for x in (self.regrets, self.policies, self.visits)
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
        return cross_entropy(logits, *rows[1:])

    def state_dict(self) -> dict:
        arrays = {name: torch.from_numpy(getattr(self, name)) for name in ("regrets", "policies", "visits")}
        return arrays | self.index.state_dict()

    def load_state_dict(self, state: dict) -> None:
        saved_dict(state, "memory", ("regrets", "policies", "visits", "obs", "legal"))
        self.index.load_state_dict(state)
        m, a = len(self.index), self.regrets.shape[1]
        for name, shape, low in (
            ("regrets", (m, a), 0.0 if self.floor else None),
            ("policies", (m, a), 0.0),
            ("visits", (m,), 0.0),
        ):
            setattr(self, name, saved_tensor(state[name], f"memory.{name}", torch.float64, shape, low).numpy())


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
        return squared_error(logits, *rows[1:])

    def state_dict(self) -> dict:
        return {name: reservoir.state_dict() for name, reservoir in self.reservoirs.items()}

    def load_state_dict(self, state: dict) -> None:
        saved_dict(state, "memory", self.reservoirs)
        for name, reservoir in self.reservoirs.items():
            reservoir.load_state_dict(state[name])
