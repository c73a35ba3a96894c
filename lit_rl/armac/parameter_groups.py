"""Parameter groups: several networks under one optimizer, each with its own learning rate, clip and steps."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jsonargparse.typing import PositiveFloat, PositiveInt
from lightning.pytorch.strategies import DDPStrategy, Strategy
from torch import nn

from lit_rl.run.errors import ConfigError, check_ranges
from lit_rl.schedules import Exponential


@dataclass(frozen=True)
class GroupSettings:
    """How one network is trained: its parameter group of the one optimizer.

    Args:
        lr: its learning rate in the first iteration.
        lr_end: in the last one; geometric in between.
        clip: bound on the norm of its gradient; null for none.
        steps: optimizer steps per iteration in which it learns.
        every: it learns in the first of so many iterations.
    """

    lr: PositiveFloat
    lr_end: PositiveFloat
    clip: PositiveFloat | None = None
    steps: PositiveInt = 1
    every: PositiveInt = 1

    def __post_init__(self):
        check_ranges(GroupSettings.__init__, vars(self))


@dataclass(frozen=True)
class Groups:
    """How each network of ARMAC is trained.

    Args:
        regret: the regret network.
        average: the average network.
        critic: the history critic.
        actor: the actor, if there is one.
        scheduler: the scheduler, if it learns.
    """

    regret: GroupSettings = GroupSettings(lr=1e-2, lr_end=5e-3, clip=1.0, steps=3)
    average: GroupSettings = GroupSettings(lr=2e-3, lr_end=1e-4)
    critic: GroupSettings = GroupSettings(lr=3e-3, lr_end=1e-3)
    actor: GroupSettings = GroupSettings(lr=1e-2, lr_end=1e-3)
    scheduler: GroupSettings = GroupSettings(lr=5e-3, lr_end=5e-4, clip=1.0, every=8)


def grouped_optimizer(
    networks: Mapping[str, nn.Module], groups: Mapping[str, GroupSettings], optimizer: Callable, num_iterations: int
) -> dict:
    """What `configure_optimizers` returns: the named groups of one `optimizer`, each rate geometric over the run."""
    if not num_iterations or num_iterations < 1:
        raise ConfigError(f"trainer.max_epochs={num_iterations}: its rates need a run of known length; use a number")
    parameters = [{"name": name, "params": list(networks[name].parameters()), "lr": 1.0} for name in groups]
    built = optimizer(parameters)
    rates = [Exponential(float(group.lr), float(group.lr_end)) for group in groups.values()]
    factors = [lambda index, rate=rate: rate(index, num_iterations) for rate in rates]
    scheduler = torch.optim.lr_scheduler.LambdaLR(built, factors)
    return {"optimizer": built, "lr_scheduler": {"scheduler": scheduler, "interval": "epoch"}}


def check_strategy(strategy: Strategy) -> None:
    """Refuse DDP that waits for gradients of all groups, when a training starts.

    Raises:
        ConfigError: it does.
    """
    if isinstance(strategy, DDPStrategy) and not strategy._ddp_kwargs.get("find_unused_parameters"):
        raise ConfigError("trainer.strategy: not all networks learn in each step; use ddp_find_unused_parameters_true")


def clip_groups(optimizer: torch.optim.Optimizer, groups: Mapping[str, GroupSettings]) -> None:
    """Bound the norm of each group's gradient by its own clip."""
    for group in optimizer.param_groups:
        if groups[group["name"]].clip is not None:
            nn.utils.clip_grad_norm_(group["params"], groups[group["name"]].clip)
