"""Optimizers and schedules of learning rates out of a checkpoint, tried on copies before Lightning loads them, and what
becomes of them where the run that goes on has another schedule.

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
from torch.optim.lr_scheduler import LambdaLR

from lit_rl.run.errors import ConfigError
from lit_rl.run.saved_values import need, saved_dict, saved_float, saved_int, saved_list, saved_tensor
from lit_rl.schedules import Schedule

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


def take_training_state(checkpoint: dict, module: LightningModule) -> None:
    """Hold what a checkpoint says of optimizers and schedulers against those that `module` makes, and let it fit them.

    The optimizers' numbers, such as the learning rate, may be others within their range; their switches may not. A
    factor on the learning rate is a function of the iteration alone, so the run's own one acts from here on: over the
    checkpoint's base rate, whatever schedule was there before. Schedulers of torch cannot be exchanged.

    Raises:
        ArtefactError: names what does not fit. ConfigError: another optimizer, or another scheduler of torch's.
    """
    for name in ("optimizer", "lr_schedule"):
        _check_kind(name, checkpoint.get("hyper_parameters"), module)
    optimizers, configs = _init_optimizers_and_lr_schedulers(module)
    states = saved_list(checkpoint["optimizer_states"], "optimizer_states", len(optimizers))
    for optimizer, state in zip(optimizers, states):
        _check_optimizer(optimizer, saved_dict(state, "optimizer_states", ("state", "param_groups")))
    schedules = saved_list(checkpoint["lr_schedulers"], "lr_schedulers")
    factors = [config for config in configs if isinstance(config.scheduler, LambdaLR)]
    if len(factors) == len(configs) == len(optimizers) and _exchanged(checkpoint, schedules, module):
        index = saved_int(checkpoint["epoch" if configs[0].interval == "epoch" else "global_step"], "lr_schedulers")
        schedules = checkpoint["lr_schedulers"] = [_begun_at(index, *each) for each in zip(configs, states)]
    for config, state in zip(configs, schedules):
        _check_schedule(state, config.scheduler.state_dict(), "lr_schedulers")
    if len(factors) == len(configs) == len(optimizers) == len(schedules):
        for config, state, optimizer in zip(configs, schedules, states):
            for group, base, factor in zip(
                optimizer["param_groups"], state["base_lrs"], config.scheduler.lr_lambdas, strict=True
            ):
                group["lr"] = base * factor(max(state["last_epoch"], 0))


def _check_kind(name: str, hyperparameters, module: LightningModule) -> None:
    there = hyperparameters.get(name) if isinstance(hyperparameters, Mapping) else None
    there, here = (x.get("class_path") if isinstance(x, Mapping) else None for x in (there, module.hparams.get(name)))
    if there == here or there is None or here is None or isinstance(getattr(module, name, None), Schedule):
        return
    why = "its moments stay" if name == "optimizer" else "one of torch goes by a memory of its own"
    remedy = "" if name == "optimizer" else ", or one of lit_rl.schedules, which go by the iteration alone"
    raise ConfigError(f"model.{name}={here}: the checkpoint's is {str(there)[:100]}, and {why}; use that one{remedy}")


def _exchanged(checkpoint: Mapping, schedules: list, module: LightningModule) -> bool:
    """Whether the saved schedules are none, of torch's, or count something else than ours."""
    if not schedules or not all(isinstance(state, Mapping) and "lr_lambdas" in state for state in schedules):
        return True
    hyperparameters = checkpoint.get("hyper_parameters")
    there = hyperparameters.get("lr_interval") if isinstance(hyperparameters, Mapping) else None
    return there is not None and there != module.hparams.get("lr_interval", there)


def _begun_at(index: int, config, optimizer: Mapping) -> dict:
    """The state of a LambdaLR that has come as far as `index` over the optimizer's base rates."""
    bases = [saved_float(group.get("initial_lr", group["lr"]), "lr", 0.0) for group in optimizer["param_groups"]]
    for group, base in zip(optimizer["param_groups"], bases):
        group["initial_lr"] = base
    rates = [base * factor(index) for base, factor in zip(bases, config.scheduler.lr_lambdas)]
    where = {"base_lrs": bases, "last_epoch": index, "_step_count": index + 1, "_last_lr": rates}
    return config.scheduler.state_dict() | where


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
