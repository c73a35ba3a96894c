"""Errors that are the user's to mend, and how a parser's long message becomes one line."""

import difflib
import inspect
import math
import re
from collections.abc import Callable, Iterator
from typing import get_args, get_type_hints

import lightning as L
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException


class ConfigError(ValueError):
    """Something in the configuration cannot work; the message names the field, the value and the remedy."""


class ArtefactError(Exception):
    """A checkpoint, replay or registry that cannot be trusted or does not fit."""


class StorageError(OSError):
    """The disk does not take what must be written."""


def exit_code(error: BaseException) -> int:
    """What the command returns: 2 configuration, 3 artefact, 4 numerics, 5 storage, 1 anything else (a bug)."""
    kinds = (ConfigError, 2), (MisconfigurationException, 2), (ArtefactError, 3), (FloatingPointError, 4), (OSError, 5)
    for kind, code in kinds:
        if isinstance(error, kind):
            return code
    return 1


def check_ranges(function: Callable, arguments: dict) -> None:
    """Hold `arguments` against the restricted number types (PositiveFloat ...) that `function` is annotated with.

    The command line does so by itself; this is for whoever builds the object in Python, and for infinities.

    Raises:
        ConfigError: names the first argument outside its range, and its value.
    """
    for name, hint in get_type_hints(function).items():
        value = arguments.get(name)
        for kind in (hint, *get_args(hint)):
            if not (isinstance(kind, type) and hasattr(kind, "_restrictions")):
                continue
            if value is None and kind is hint and name in arguments:
                raise ConfigError(f"{name}=null: needs a value")
            if value is None:
                continue
            try:
                kind(value)
            except (ValueError, TypeError) as error:
                raise ConfigError(f"{name}={value}: {str(error).splitlines()[0]}") from None
            if not math.isfinite(value):
                raise ConfigError(f"{name}={value}: must be finite")


_SCAFFOLD = re.compile(
    r"Does not validate against|Subtypes:|Errors:|Given value|Expected a <class 'NoneType'>|Expected a path but"
    r"|Parser key \".*\":$|Problem with given class_path .*:$|Not a valid subclass|Unexpected import path format"
)


def one_line(message: str) -> str:
    """What is wrong, in one line: the innermost reason of a nested parser message, its key, and the nearest name."""
    key, reason = "", ""
    for line in (line.strip().removeprefix("- ") for line in message.splitlines()):
        if found := re.match(r"(?:Parser key|Problem with given class_path) [\"']([\w.+]+)[\"']:?\s*(.*)", line):
            key, line = found[1], found[2]
        if line and not _SCAFFOLD.match(line):
            reason = line
            break
    if not reason:
        return " ".join(message.split())
    given = re.search(r"Given value: (\S+)\s*$", message)
    if reason.startswith("Expected a <class") and given:
        reason += f", got {given[1]}"
    text = f"{key}: {reason}" if key and key not in reason else reason
    return text + _hint(reason)


def _hint(reason: str) -> str:
    if found := re.search(r"Option '(\w+)' is not accepted|nrecognized arguments: --([\w.]+)", reason):
        wrong, names = found[1] or found[2].split(".")[-1], _argument_names()
    elif found := re.search(r"Expected a dot import path string: ([\w.]+)", reason):
        wrong, names = found[1], {c.__name__ for c in _known_classes()}
    elif found := re.search(r"Key '?([\w.]+)'? is not expected|Group '[\w.]*' does not accept .* '([\w.]+)'", reason):
        wrong, names = (found[1] or found[2]).split(".")[-1], _argument_names()
    else:
        return ""
    close = difflib.get_close_matches(wrong, names, n=1)
    return f"; did you mean {close[0]}?" if close else f"; '{wrong}' is no name known here, --help lists them"


def _known_classes() -> Iterator[type]:
    """All imported classes that a config may name."""
    from lit_rl.memory import Memory
    from lit_rl.mix_scheduler import Scheduler
    from lit_rl.mix_utility import MixUtility
    from lit_rl.mixing import Mixer
    from lit_rl.policy import ActorCritic
    from lit_rl.references import Reference
    from lit_rl.schedules import Schedule
    from lit_rl.state_keys import StateKeys

    roots = [
        L.LightningModule, L.LightningDataModule, L.Callback, ActorCritic, Reference, Schedule, Memory, Scheduler,
        MixUtility, Mixer, StateKeys, torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler,
        L.pytorch.loggers.Logger,
    ]  # fmt: skip
    while roots:
        root = roots.pop()
        yield root
        roots.extend(root.__subclasses__())


def _argument_names() -> set[str]:
    ours = [c for c in _known_classes() if c.__module__.split(".")[0] in ("lit_rl", "datamodules", "callbacks")]
    names = {name for c in [*ours, L.Trainer] for name in inspect.signature(c.__init__).parameters}
    return names | {"model", "data", "trainer", "config", "ckpt_path", "seed_everything", "class_path", "init_args"}
