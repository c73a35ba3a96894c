"""What a checkpoint says about itself, and whether it fits the run that is to go on from it."""

import functools
import inspect
import platform
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from typing import get_type_hints

import lightning as L
import numba
import numpy as np
import torch

from lit_rl.run.errors import ArtefactError, ConfigError
from lit_rl.run.saved_values import like, need, saved_dict, saved_int, saved_list, saved_tensor


def of_every_rank(trainer: L.Trainer, mine) -> list:
    """`mine` of each rank, in their order; call it on all of them. (Lightning saves the first rank's state alone.)"""
    ranks = [mine] * trainer.world_size
    if len(ranks) > 1:
        torch.distributed.all_gather_object(ranks, mine)
    return ranks


def of_this_rank(ranks, rank: int, where: str, keys) -> Mapping:
    """A dictionary with those keys, saved by `of_every_rank`; the last one's where there are more ranks now."""
    ranks = saved_list(ranks, where)
    need(len(ranks) > 0, f"{where} is empty")
    return saved_dict(ranks[min(rank, len(ranks) - 1)], where, keys)


def save_plain_hyperparameters(module: L.LightningModule) -> None:
    """Called in an algorithm's constructor: keep of its arguments what a checkpoint may hold, as plain Python.

    Numbers, texts, lists, dictionaries and dataclasses of them stay; of classes and functions the command line knows
    class paths, which stay as well; those that only code knows are left out. `module.network_spec` says how the
    argument `network` is built, if that can be said: {class_path, init_args}.
    """
    module.save_hyperparameters(logger=False, frame=inspect.currentframe().f_back)
    module.network_spec = spec_of(module.hparams.get("network"))
    for name, value in list(module.hparams.items()):
        try:
            module.hparams[name] = plain(value)
        except TypeError:
            module.hparams.pop(name)


def spec_of(factory) -> dict | None:
    """How the command line would say a factory: a class, or a `functools.partial` of one with named arguments that are
    plain, or such factories.

    What the command line has said already stays; None for a lambda and the like.
    """
    if isinstance(factory, Mapping):
        return dict(factory)
    partial = isinstance(factory, functools.partial)
    kind, arguments = (factory.func, factory.keywords) if partial else (factory, {})
    if not isinstance(kind, type) or "." in kind.__qualname__ or (partial and factory.args):
        return None
    try:
        found = {name: spec_of(x) if callable(x) else plain(x) for name, x in arguments.items()}
    except TypeError:
        return None
    if any(found[name] is None for name, x in arguments.items() if x is not None):
        return None
    return {"class_path": f"{kind.__module__}.{kind.__qualname__}", "init_args": found}


def plain(value):
    """`value` in the types that load with `weights_only=True`: those of jsonargparse are numbers of its own.

    Raises:
        TypeError: it cannot be said so.
    """
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int | float):
        return int(value) if isinstance(value, int) else float(value)
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(x) for key, x in value.items()}
    if isinstance(value, list | tuple):
        return [plain(x) for x in value]
    raise TypeError(f"{type(value).__name__} is not plain")


def as_settings(kind: type, value):
    """A dataclass of settings as it was given, or from the dictionary that a checkpoint's hyper-parameters hold.

    Raises:
        ConfigError: a dictionary with other names.
    """
    if isinstance(value, kind):
        return value
    hints = get_type_hints(kind)
    try:
        return kind(**{k: as_settings(hints[k], x) if is_dataclass(hints.get(k)) else x for k, x in value.items()})
    except TypeError as error:
        raise ConfigError(f"{kind.__name__}: {error}") from None


def save_state(module: L.LightningModule, checkpoint: dict) -> None:
    """An algorithm's `on_save_checkpoint`: whose it is (also for the manifest), what bits depend on, and of every rank
    the metrics of the minibatches so far and what was worked out once for the running rollout (`module.kept`)."""
    checkpoint["run"] = {
        "algorithm": type(module).__name__,
        "game": module.game.name,
        "version": module.game.version,
        "iteration": module.trainer.current_epoch,
        "decisions": int(module.decisions),
        "exports": next(name for name, part in module.named_modules() if part is module.export_policy()),
    }
    checkpoint["network"] = getattr(module, "network_spec", None)
    checkpoint["surroundings"] = _surroundings(module)
    mine = {"minibatches": module.meter.minibatches if hasattr(module, "meter") else []}
    mine["kept"] = dict(getattr(module, "kept", {}))
    checkpoint["iteration"] = of_every_rank(module.trainer, mine)


def load_state(module: L.LightningModule, checkpoint: dict) -> None:
    """An algorithm's `on_load_checkpoint`: refuse a checkpoint of something else, take over its metrics, and warn where
    a resumed run cannot be bit-exact or has other settings.

    Raises:
        ArtefactError: another algorithm, game or version of the rules, or weights of another shape; names both.
    """
    with well_formed("what lit-rl saves"):
        _load_state(module, checkpoint)


@contextmanager
def well_formed(part: str) -> Iterator[None]:
    """Whatever a checkpoint that lacks something makes us stumble over becomes an ArtefactError."""
    try:
        yield
    except ConfigError:
        raise
    except (LookupError, TypeError, AttributeError, ValueError, ArithmeticError, RuntimeError) as error:
        raise ArtefactError(
            f"checkpoint: {part} is not as it should be ({type(error).__name__}: {str(error)[:200]})"
        ) from error


def _load_state(module: L.LightningModule, checkpoint: dict) -> None:
    trainer = module._trainer
    resumes = trainer is not None and trainer.state.fn == "fit"
    _check_fits(module, checkpoint, resumes)
    ours = module.state_dict()
    for name in ("decisions", "rollouts"):
        if name in ours:
            count = int(saved_tensor(checkpoint["state_dict"][name], name, torch.int64, ()))
            saved_int(count, name)
    if resumes:
        _check_loops(checkpoint["loops"], trainer)
    ranks = saved_list(checkpoint["iteration"], "iteration")
    if module.global_rank < len(ranks):
        mine = saved_dict(ranks[module.global_rank], "iteration", ("minibatches", "kept"))
        most = getattr(module, "batches_per_iteration", None) or len(mine["minibatches"])
        need(len(saved_list(mine["minibatches"], "minibatches")) <= most, f"minibatches has more than {most} entries")
        for metrics in mine["minibatches"]:
            for name, value in saved_dict(metrics, "minibatches").items():
                need(type(value) is torch.Tensor and value.ndim == 0, f"minibatches.{name[:50]} is no scalar tensor")
        kept = saved_dict(mine["kept"], "kept")
        for name, value in kept.items():
            need(isinstance(value, torch.Tensor), f"kept.{name[:50]} is {type(value).__name__}, needs a tensor")
            saved_tensor(value, f"kept.{name[:50]}", value.dtype, tuple(value.shape))
        if hasattr(module, "meter"):
            module.meter.minibatches = list(mine["minibatches"])
        if hasattr(module, "kept"):
            module.kept = dict(kept)
    if resumes:
        warn_of("not bit-exact, since it ran with", checkpoint.get("surroundings", {}), _surroundings(module))
        if module.global_rank == 0:
            print("\n".join(lines_of_going_on(checkpoint, module)))


def lines_of_going_on(checkpoint: dict, module: L.LightningModule) -> list[str]:
    """What a run takes over from a checkpoint, what it has otherwise, and what of its configuration has no effect."""
    there, here = (flat(plain(dict(x))) for x in (checkpoint.get("hyper_parameters", {}), module.hparams))
    changed = [name for name in sorted(there.keys() | here.keys()) if there.get(name) != here.get(name)]
    said = {name: f"{name} {_short(here.get(name))} (was {_short(there.get(name))})" for name in changed}
    void = [said[name] for name in changed if name.startswith("optimizer.")]
    acts = [said[name] for name in changed if not name.startswith("optimizer.")]
    run = checkpoint["run"]
    lines = [
        f"goes on from {run['algorithm']} on {run['game']} at iteration {checkpoint['epoch']} of "
        f"{module.trainer.max_epochs}, {int(run['decisions']):,} decisions: weights, optimizer, games, random streams "
        "and memories are the checkpoint's"
    ]
    if acts:
        lines.append(f"  the configuration's, from here on: {', '.join(acts)}")
    if void:
        why = "since the optimizer is the checkpoint's (lr_schedule scales it)"
        lines.append(f"  without effect, {why}: {', '.join(void)}")
    return lines


def flat(settings: Mapping, prefix: str = "") -> dict:
    """Nested settings by dotted names; `init_args` and `class_path` go without saying."""
    found = {}
    for name, value in settings.items():
        path = prefix if name in ("init_args", "class_path") else f"{prefix}.{name}" if prefix else name
        found |= flat(value, path) if isinstance(value, Mapping) and value else {path: value}
    return found


def _short(value) -> str:
    text = str(value)
    return f"{text[:60]}…" if len(text) > 60 else text


def check_fits(module: L.LightningModule, checkpoint: dict, resumes: bool) -> None:
    """Hold a checkpoint against the run that is to go on from it, or to judge it, before anything is compiled.

    Raises:
        ArtefactError: another algorithm, game or version of the rules, or weights of another shape; names both.
    """
    with well_formed("what lit-rl saves"):
        _check_fits(module, checkpoint, resumes)


def _check_fits(module: L.LightningModule, checkpoint: dict, resumes: bool) -> None:
    run = checkpoint.get("run")
    if run is None:
        raise ArtefactError("checkpoint: it does not say which game and algorithm it is for; lit-rl did not write it")
    for key in ("loops", "optimizer_states", "callbacks") if resumes else ():
        if key not in checkpoint or (key != "callbacks" and not checkpoint[key]):
            raise ArtefactError(f"checkpoint: has no {key}, so no run can go on from it; litrl validate may take it")
    here = {"algorithm": type(module).__name__, "game": module.game.name, "version": module.game.version}
    there = {key: run.get(key) for key in here}
    if there != here:
        raise ArtefactError(
            "checkpoint is of {algorithm} on {game} (rules {version}), ".format(**there)
            + "this run is {algorithm} on {game} (rules {version}); use the config.yaml beside it".format(**here)
        )
    theirs, ours = (
        {name: tuple(x.shape) if isinstance(x, torch.Tensor) else type(x) for name, x in state.items()}
        for state in (checkpoint["state_dict"], module.state_dict())
    )
    for name in sorted(theirs.keys() | ours.keys()):
        if theirs.get(name) != ours.get(name):
            raise ArtefactError(
                f"checkpoint: {name} has shape {theirs.get(name, 'none')} there and {ours.get(name, 'none')} here; "
                "model.network or another part of the model differs, use the config.yaml beside it"
            )
    for name, here in module.state_dict().items():
        x = checkpoint["state_dict"][name]
        if isinstance(x, torch.Tensor):
            fits = x.layout == torch.strided and x.is_floating_point() == here.is_floating_point()
            need(fits, f"{name} is {x.layout} {x.dtype}, needs {here.dtype}")
            saved_tensor(x, name, x.dtype, tuple(here.shape))


def _check_loops(saved, trainer: L.Trainer) -> None:
    """Lightning's counters: built as here, none below 0, none ahead of the one before it.

    At most one thing is begun and not completed.
    """
    saved = saved_dict(saved_dict(saved, "loops")["fit_loop"], "loops.fit_loop")
    for name, here in trainer.fit_loop.state_dict().items():
        if name.endswith("progress"):
            _check_progress(like(saved.get(name), here, f"loops.fit_loop.{name}"), f"loops.fit_loop.{name}")
    steps = saved_dict(saved.get("epoch_loop.state_dict"), "loops.fit_loop.epoch_loop.state_dict")
    saved_int(steps.get("_batches_that_stepped", 0), "loops.fit_loop.epoch_loop.state_dict")


def _check_progress(progress: dict, where: str) -> None:
    counts = [progress[name] for name in ("completed", "processed", "started", "ready") if name in progress]
    if counts:
        in_step = counts == sorted(counts) and counts[-1] - counts[0] <= 1
        need(in_step, f"{where} is out of step: {counts}")
    for name, part in progress.items():
        if isinstance(part, dict):
            _check_progress(part, f"{where}.{name}")


def _surroundings(module: L.LightningModule) -> dict:
    return {
        "precision": str(module.trainer.precision),
        "device": module.device.type,
        "devices": module.trainer.world_size,
        "gradient_clip_val": module.trainer.gradient_clip_val,
        "accumulate_grad_batches": module.trainer.accumulate_grad_batches,
        "torch threads": torch.get_num_threads(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "numba": numba.__version__,
        "machine": platform.machine(),
    }


def warn_of(what: str, there: dict, here: dict) -> None:
    """One warning that names each setting which the checkpoint has otherwise than this run."""
    same = sorted(there.keys() & here.keys())
    changes = [f"{key}={there[key]} (now {here[key]})" for key in same if there[key] != here[key]]
    if changes:
        warnings.warn(f"going on from a checkpoint; {what} {', '.join(changes)}", stacklevel=3)
