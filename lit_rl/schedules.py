"""Schedules: pure functions of (index, total), for coefficients and learning rates alike.

`index` counts iterations (or optimizer steps) from 0, `total` is how many the run has; u = index / (total - 1) is the
progress. Past the end every schedule holds its last value. Being pure, they need no state to resume.
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from lightning.pytorch import LightningModule

from lit_rl.run.errors import ConfigError


class Schedule:
    """A scalar as a function of progress. Subclasses define `at(u)` for u in [0, 1], or `__call__` itself."""

    def at(self, u: float) -> float:
        raise TypeError(f"{type(self).__name__} defines neither at(u) nor __call__(index, total)")

    def __call__(self, index: int, total: int) -> float:
        """The value at `index` of `total`.

        Raises:
            ValueError: total < 1 or index < 0.
        """
        if total < 1 or index < 0:
            raise ValueError(f"schedule asked for index {index} of total {total}; needs index >= 0 and total >= 1")
        return self.at(min(index / max(total - 1, 1), 1.0))


def _finite(**values: float) -> None:
    for name, value in values.items():
        if not math.isfinite(value):
            raise ValueError(f"{name}={value}: a schedule needs finite numbers")


def _positive(**values: float) -> None:
    _finite(**values)
    for name, value in values.items():
        if value <= 0:
            raise ValueError(f"{name}={value}: this schedule divides by it, so it must be positive; Linear can reach 0")


class Constant(Schedule):
    """Always the same.

    Args:
        value: it.
    """

    def __init__(self, value: float):
        _finite(value=value)
        self.value = value

    def at(self, u: float) -> float:
        return self.value


class Linear(Schedule):
    """start + u (end - start).

    Args:
        start: at the first iteration.
        end: at the last one.
    """

    def __init__(self, start: float = 1.0, end: float = 0.0):
        _finite(start=start, end=end)
        self.start, self.end = start, end

    def at(self, u: float) -> float:
        return self.start + u * (self.end - self.start)


class Cosine(Schedule):
    """Half a cosine from start to end, flat at both.

    Args:
        start: at the first iteration.
        end: at the last one.
    """

    def __init__(self, start: float = 1.0, end: float = 0.0):
        _finite(start=start, end=end)
        self.start, self.end = start, end

    def at(self, u: float) -> float:
        return self.end + 0.5 * (1 + math.cos(math.pi * u)) * (self.start - self.end)


class Exponential(Schedule):
    """Geometric interpolation, start (end / start)^u.

    Args:
        start: at the first iteration, positive.
        end: at the last one, positive.
    """

    def __init__(self, start: float = 1.0, end: float = 0.01):
        _positive(start=start, end=end)
        self.start, self.end = start, end

    def at(self, u: float) -> float:
        return self.start * (self.end / self.start) ** u


class PowerLaw(Schedule):
    """start / (1 + c u)^power with c such that the end is met: falls fast at first, ever slower later.

    Args:
        start: at the first iteration, positive.
        end: at the last one, positive.
        power: of the decay.
    """

    def __init__(self, start: float = 1.0, end: float = 0.1, power: float = 1.0):
        _positive(start=start, end=end, power=power)
        self.start, self.end, self.power = start, end, power

    def at(self, u: float) -> float:
        c = (self.start / self.end) ** (1 / self.power) - 1
        return self.start / (1 + c * u) ** self.power


class Step(Schedule):
    """start factor^(index // every): the one schedule that counts indices, not progress; it holds after `total` too.

    Args:
        start: before the first drop.
        factor: multiplies the value at each drop.
        every: iterations (or steps) between drops.
    """

    def __init__(self, start: float = 1.0, factor: float = 0.5, every: int = 1000):
        _finite(start=start)
        _positive(factor=factor)
        if every < 1:
            raise ValueError(f"every={every}: needs at least 1")
        self.start, self.factor, self.every = start, factor, every

    def __call__(self, index: int, total: int) -> float:
        return self.start * self.factor ** (min(index, max(total - 1, 0)) // self.every)


class Piecewise(Schedule):
    """Straight lines between knots.

    Args:
        knots: pairs [progress, value]; progress starts at 0, ends at 1 and increases.
    """

    def __init__(self, knots: Sequence[tuple[float, float]]):
        progress = [u for u, _ in knots]
        _finite(**{f"knots[{i}]": x for i, knot in enumerate(knots) for x in knot})
        if len(knots) < 2 or progress[0] != 0 or progress[-1] != 1 or sorted(set(progress)) != progress:
            raise ValueError(f"knots={[list(k) for k in knots]}: progress must increase from 0 to 1")
        self.knots = [tuple(k) for k in knots]

    def at(self, u: float) -> float:
        for (u0, v0), (u1, v1) in zip(self.knots, self.knots[1:]):
            if u <= u1:
                return v0 + (u - u0) / (u1 - u0) * (v1 - v0)
        return self.knots[-1][1]


class WarmUp(Schedule):
    """A line from (almost) 0 up to where `then` begins, and then `then` over the rest.

    Args:
        length: iterations (or steps) of warm-up; index `length` is the first of `then`.
        then: the schedule that follows.
    """

    def __init__(self, length: int, then: Schedule):
        if length < 1:
            raise ValueError(f"length={length}: a warm-up needs at least one iteration")
        self.length, self.then = length, then

    def __call__(self, index: int, total: int) -> float:
        rest = max(total - self.length, 1)
        if index < self.length:
            return self.then(0, rest) * (index + 1) / (self.length + 1)
        return self.then(index - self.length, rest)


LRInterval = Literal["iteration", "step"]


def _check_optimizer(module: LightningModule) -> None:
    """Let another one of its kind take a step on tiny parameters.

    Raises:
        ConfigError: it cannot.
    """
    stand_ins = [torch.zeros((1,) * p.ndim, requires_grad=True) for p in module.policy.parameters()]
    for p in stand_ins:
        p.grad = torch.ones_like(p)
    try:
        optimizer = module.optimizer(stand_ins)
        optimizer.step(lambda: torch.zeros(()))
    except (RuntimeError, ValueError, TypeError) as error:
        raise ConfigError(f"optimizer: {type(optimizer).__name__} cannot take a step here: {error}") from error


def optimizer_and_scheduler(module: LightningModule):
    """An algorithm's `configure_optimizers`: the optimizer of its policy, and its schedule over the length of this run.

    The algorithm says which by its attributes `policy`, `optimizer` (a factory), `lr_schedule` (or None) and
    `lr_interval`, whether the schedule advances once per iteration or once per optimizer step.

    A `Schedule` is a factor on the optimizer's learning rates, carried out by torch's LambdaLR; the total is the run's
    number of iterations or optimizer steps, which the trainer knows. Anything else is one of torch's own schedulers,
    built as the user wrote it; Lightning's ReduceLROnPlateau reads its `monitor` after each validation.
    """
    lr_schedule, lr_interval = module.lr_schedule, module.lr_interval
    try:
        optimizer = module.optimizer(module.policy.parameters())
    except (ValueError, TypeError) as error:
        raise ConfigError(f"optimizer: {error}") from error
    for name, value in optimizer.defaults.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"optimizer: {name}={value} must be finite")
    _check_optimizer(module)
    if lr_schedule is None:
        return optimizer
    trainer = module.trainer
    if isinstance(lr_schedule, Schedule):
        total = trainer.max_epochs if lr_interval == "iteration" else trainer.estimated_stepping_batches
        if total is None or not 0 < total < math.inf:
            raise ConfigError(f"lr_schedule needs a run of known length: trainer.max_epochs={trainer.max_epochs}")
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda index: lr_schedule(index, int(total)))
    else:
        scheduler = lr_schedule(optimizer)
    config = {"scheduler": scheduler, "interval": "epoch" if lr_interval == "iteration" else "step"}
    if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
        config |= {
            "monitor": getattr(scheduler, "monitor", "eval/nash_conv"),
            "interval": "epoch",
            "frequency": trainer.check_val_every_n_epoch or 1,
        }
    return {"optimizer": optimizer, "lr_scheduler": config}
