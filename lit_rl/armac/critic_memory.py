"""What the history critic is to say: targets of the actions that were taken, per history.

`FadingTargets` keeps a row per distinct history and lets old targets fade; it is for games whose histories come back.
`LastTargets` keeps the last rollout's and no index over the past, for games whose histories never do.

Letters: N decisions, M rows, A actions, P players, D obs shape.
"""

from collections.abc import Callable

import numpy as np
import torch
from jsonargparse.typing import ClosedUnitInterval, PositiveInt
from torch import Tensor, nn

from envs.game import Game
from lit_rl.armac.rows import Rows, grown
from lit_rl.row_index import RowIndex, obs_dtype
from lit_rl.run.errors import check_ranges
from lit_rl.run.saved_values import need, saved_dict, saved_tensor

LEAST = 1e-3  # a target that has faded below this weight is forgotten


class CriticMemory:
    """Targets of the history critic: the type that such memories subclass. Built as `critic_memory(game)`.

    One rollout makes one round: `find`, then `values`, then `add`.
    """

    def find(self, history: Tensor, legal: Tensor) -> Tensor:
        """Begin a round with histories [N, P, *D], legal [N, A]: the numbers [N] int64 by which the memory has them."""
        raise TypeError(f"{type(self).__name__} does not define find(history, legal)")

    def values(self, critic: nn.Module, number: Tensor) -> Tensor:
        """[N, A], on the CPU: what the critic says of the histories with those numbers [N]."""
        raise TypeError(f"{type(self).__name__} does not define values(critic, number)")

    def add(self, number: Tensor, action: Tensor, target: Tensor) -> None:
        """End the round: number [N], the action taken [N], its target [N] in player 0's view."""
        raise TypeError(f"{type(self).__name__} does not define add(number, action, target)")

    def rows(self, generator: torch.Generator) -> Rows:
        """What the critic is trained on in its next optimizer step; `obs` are histories [M, P, *D]."""
        raise TypeError(f"{type(self).__name__} does not define rows(generator)")

    def state_dict(self) -> dict:
        raise TypeError(f"{type(self).__name__} does not define state_dict()")

    def load_state_dict(self, state: dict) -> None:
        raise TypeError(f"{type(self).__name__} does not define load_state_dict(state)")


CriticMemoryFactory = Callable[[Game], CriticMemory]


class FadingTargets(CriticMemory):
    """Per history and action the mean of the targets seen; one seen n iterations ago weighs decay^n.

    One row per distinct history. Histories that have not been seen for long are forgotten.

    Args:
        game: tells the shapes.
        decay: per iteration; 0 learns from the last rollout alone.
    """

    def __init__(self, game: Game, decay: ClosedUnitInterval = 0.9):
        check_ranges(FadingTargets.__init__, locals())
        self.game = game
        self.decay = float(decay)
        self.index = RowIndex.of(game, game.num_players)
        self.sums = np.zeros((0, game.num_actions))
        self.counts = np.zeros((0, game.num_actions))

    def find(self, history: Tensor, legal: Tensor) -> Tensor:
        return self.index.find_or_add(history, legal)

    def values(self, critic: nn.Module, number: Tensor) -> Tensor:
        met = torch.from_numpy(np.flatnonzero(np.bincount(number.numpy())))  # each history is asked about once
        device = next(critic.parameters()).device
        values = torch.zeros(len(self.index), self.game.num_actions)
        values[met] = critic(self.index.obs[met].to(device)).cpu()
        return values[number]

    def add(self, number: Tensor, action: Tensor, target: Tensor) -> None:
        num_actions = self.game.num_actions
        size = len(self.index) * num_actions
        cell = number.numpy() * num_actions + action.numpy()
        self.sums = grown(self.sums, len(self.index)) * self.decay
        self.counts = grown(self.counts, len(self.index)) * self.decay
        self.sums += np.bincount(cell, target.numpy(), size).reshape(-1, num_actions)
        self.counts += np.bincount(cell, minlength=size).reshape(-1, num_actions)
        alive = self._alive()
        if len(self.index) > 2 * len(alive) + 10_000:
            kept = torch.from_numpy(alive)
            rows = {"obs": self.index.obs[kept], "legal": self.index.legal[kept]}
            self.index = RowIndex.of(self.game, self.game.num_players)
            self.index.load_state_dict(rows)
            self.sums = self.sums[alive]
            self.counts = self.counts[alive]

    def rows(self, generator: torch.Generator) -> Rows:
        alive = self._alive()
        sums = self.sums[alive]
        counts = self.counts[alive]
        target = np.divide(sums, counts, where=counts > LEAST, out=np.zeros_like(counts))
        weight = torch.from_numpy(counts / counts.sum()).float()
        alive = torch.from_numpy(alive)
        return Rows(self.index.obs[alive], self.index.legal[alive], torch.from_numpy(target).float(), weight)

    def _alive(self) -> np.ndarray:
        return np.flatnonzero((self.counts > LEAST).any(1))

    def state_dict(self) -> dict:
        arrays = {name: torch.from_numpy(getattr(self, name)) for name in ("sums", "counts")}
        return arrays | self.index.state_dict()

    def load_state_dict(self, state: dict) -> None:
        saved_dict(state, "critic_memory", ("sums", "counts", "obs", "legal"))
        self.index.load_state_dict(state)
        shape = len(self.index), self.game.num_actions
        self.sums = saved_tensor(state["sums"], "critic_memory.sums", torch.float64, shape).numpy()
        self.counts = saved_tensor(state["counts"], "critic_memory.counts", torch.float64, shape, 0.0).numpy()


class LastTargets(CriticMemory):
    """The targets of the last rollout, decision by decision: nothing is hashed, merged or kept from iteration to
    iteration.

    Args:
        game: tells the shapes.
        batch_size: so many of them in each step, drawn with replacement; null: all.
        chunk: histories in one forward of the critic.
    """

    def __init__(self, game: Game, batch_size: PositiveInt | None = None, chunk: PositiveInt = 65_536):
        check_ranges(LastTargets.__init__, locals())
        self.batch_size = None if batch_size is None else int(batch_size)
        self.chunk = int(chunk)
        self.history = torch.zeros(0, game.num_players, *game.obs_shape, dtype=obs_dtype(game))
        self.legal = torch.zeros(0, game.num_actions, dtype=torch.bool)
        self.action = torch.zeros(0, dtype=torch.int64)
        self.target = torch.zeros(0)

    def find(self, history: Tensor, legal: Tensor) -> Tensor:
        self.history = history
        self.legal = legal
        return torch.arange(len(history))

    def values(self, critic: nn.Module, number: Tensor) -> Tensor:
        device = next(critic.parameters()).device
        return torch.cat([critic(self.history[part].to(device)).cpu() for part in number.split(self.chunk)])

    def add(self, number: Tensor, action: Tensor, target: Tensor) -> None:
        self.history = self.history[number]
        self.legal = self.legal[number]
        self.action = action
        self.target = target.float()

    def rows(self, generator: torch.Generator) -> Rows:
        chosen = torch.arange(len(self.action))
        if self.batch_size is not None and len(chosen):
            chosen = torch.randint(len(chosen), (self.batch_size,), generator=generator)
        taken = self.action[chosen].unsqueeze(1)
        target = torch.zeros(self.legal[chosen].shape).scatter_(1, taken, self.target[chosen].unsqueeze(1))
        weight = torch.zeros_like(target).scatter_(1, taken, 1.0 / max(len(chosen), 1))
        return Rows(self.history[chosen], self.legal[chosen], target, weight)

    def state_dict(self) -> dict:
        return {name: getattr(self, name) for name in ("history", "legal", "action", "target")}

    def load_state_dict(self, state: dict) -> None:
        names = ("history", "legal", "action", "target")
        saved_dict(state, "critic_memory", names)
        n, a = len(saved_tensor(state["action"], "critic_memory.action", torch.int64, (None,))), self.legal.shape[1]
        for name in names:
            here, (low, high) = getattr(self, name), (0, a - 1) if name == "action" else (None, None)
            value = saved_tensor(state[name], f"critic_memory.{name}", here.dtype, (n, *here.shape[1:]), low, high)
            setattr(self, name, value)
        taken = self.legal.gather(1, self.action.unsqueeze(1))
        need(bool(taken.all()), "critic_memory.action is not legal by critic_memory.legal")
