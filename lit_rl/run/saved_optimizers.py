"""Optimizers and schedules of learning rates out of a checkpoint, tried on copies before Lightning loads them.

torch's own `load_state_dict` takes whatever it is given: settings no constructor would accept, moments of another
shape, attributes that replace a scheduler's methods.
"""

import copy
import math
from collections.abc import Mapping, Sequence

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.core.optimizer import _init_optimizers_and_lr_schedulers
from torch import Tensor
from torch.optim import Optimizer

from lit_rl.run.saved_values import need, saved_dict, saved_float, saved_int, saved_list, saved_tensor

MOST = {"betas": math.nextafter(1.0, 0.0), "momentum": 1.0, "rho": 1.0, "alpha": 1.0, "dampening": 1.0}  # of a setting
NEVER_NEGATIVE = (
    "step",
    "exp_avg_sq",
    "max_exp_avg_sq",
    "square_avg",
    "acc_delta",
    "sum",
    "exp_inf",
    "row_var",
    "col_var",
)


def check_training_state(checkpoint: Mapping, module: LightningModule) -> None:
    """Hold what a checkpoint says of optimizers and schedulers against those that `module` makes.

    The optimizers' numbers, such as the learning rate, may be others within their range; their switches may not.

    Raises:
        ArtefactError: names what does not fit.
    """
    optimizers, configs = _init_optimizers_and_lr_schedulers(module)
    states = saved_list(checkpoint["optimizer_states"], "optimizer_states", len(optimizers))
    for optimizer, state in zip(optimizers, states):
        _check_optimizer(optimizer, saved_dict(state, "optimizer_states", ("state", "param_groups")))
    schedules = saved_list(checkpoint["lr_schedulers"], "lr_schedulers")
    for config, state in zip(configs, schedules):
        _check_schedule(state, config.scheduler.state_dict(), "lr_schedulers")


def _check_optimizer(optimizer: Optimizer, saved: dict) -> None:
    trial = copy.deepcopy(optimizer)
    _step_without_gradient(trial)
    here, where = trial.state_dict(), "optimizer_states"
    groups = saved_list(saved["param_groups"], f"{where}.param_groups", len(here["param_groups"]))
    for theirs, ours in zip(groups, here["param_groups"]):
        unknown = sorted(saved_dict(theirs, f"{where}.param_groups").keys() - ours.keys() - {"initial_lr"})
        need(not unknown, f"{where}.param_groups has {[name[:50] for name in unknown[:5]]}, which means nothing here")
        for name, value in theirs.items():
            _check_setting(name, value, ours.get(name, 0.0), f"{where}.{name}")
    need(isinstance(saved["state"], dict), f"{where}.state is no dictionary")
    for number, state in saved["state"].items():
        need(type(number) is int and number in here["state"], f"{where}.state is of a weight {str(number)[:50]}")
        ours = here["state"][number]
        for name, value in saved_dict(state, f"{where}.state", ours).items():
            _check_memory(name, value, ours[name], f"{where}.{name}")
    trial.load_state_dict(copy.deepcopy(saved))  # it would keep the tensors, and step on them
    _step_without_gradient(trial)  # what it lacks is missed now


def _step_without_gradient(optimizer: Optimizer) -> None:
    for group in optimizer.param_groups:
        for weight in group["params"]:
            weight.grad = torch.zeros_like(weight)
    optimizer.step(lambda: 0.0)


def _is_number(x) -> bool:
    """Also one of the parser's restricted kinds, such as PositiveFloat."""
    return isinstance(x, int | float) and not isinstance(x, bool)


def _check_setting(name: str, theirs, ours, where: str) -> None:
    if isinstance(ours, tuple | list):
        ok = type(theirs) is type(ours) and len(theirs) == len(ours)
        need(ok and (name != "params" or theirs == ours), f"{where} is not as it is here")
        for x, y in zip(theirs, ours):
            _check_setting(name, x, y, where)
    elif isinstance(ours, Tensor):
        saved_tensor(theirs, where, ours.dtype, tuple(ours.shape), 0.0)
    elif _is_number(ours):
        saved_float(theirs, where, 0.0 if ours >= 0 else -math.inf, MOST.get(name, math.inf))
    else:
        same = type(theirs) is type(ours) and theirs == ours
        need(same, f"{where} is {str(theirs)[:50]} there and {str(ours)[:50]} here")


def _check_memory(name: str, theirs, ours, where: str) -> None:
    low = 0.0 if name in NEVER_NEGATIVE else None
    if isinstance(ours, Tensor):
        floats = isinstance(theirs, Tensor) and theirs.is_floating_point() and ours.is_floating_point()
        saved_tensor(theirs, where, theirs.dtype if floats else ours.dtype, tuple(ours.shape), low)
    elif _is_number(ours):
        saved_float(theirs, where, -math.inf if low is None else low)
    else:
        need(type(theirs) is type(ours) and theirs == ours, f"{where} is {str(theirs)[:50]}, needs {str(ours)[:50]}")


def _check_schedule(theirs, ours, where: str) -> None:
    """The same names, lengths and types; numbers are finite, unless ours is the same infinity."""
    if isinstance(ours, Mapping):
        ok = type(theirs) is type(ours) and theirs.keys() == ours.keys()
        need(ok, f"{where} does not have the names {[str(name)[:50] for name in ours][:12]}")
        for name, value in ours.items():
            _check_schedule(theirs[name], value, f"{where}.{name}")
    elif isinstance(ours, Sequence) and not isinstance(ours, str | bytes):
        ok = type(theirs) is type(ours) and len(theirs) == len(ours)
        need(ok, f"{where} is no {type(ours).__name__} of {len(ours)}")
        for x, y in zip(theirs, ours):
            need(
                y is not None or x is None, f"{where} is {str(x)[:50]}, needs None"
            )  # a function's, which has no state
            _check_schedule(x, y, where)
    elif _is_number(ours) and isinstance(ours, int):
        saved_int(theirs, where, -1)
    elif _is_number(ours) or (ours is None and theirs is not None):
        low = 0.0 if ours is not None and ours >= 0 else -math.inf
        need(theirs == ours or math.isfinite(saved_float(theirs, where, low)), where)
    elif isinstance(ours, Tensor):
        saved_tensor(theirs, where, ours.dtype, tuple(ours.shape))
    else:
        same = type(theirs) is type(ours) and (isinstance(ours, bool) or theirs == ours)
        need(same, f"{where} is {str(theirs)[:50]}, needs {str(ours)[:50]}")
