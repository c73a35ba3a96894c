"""Errors that are the user's to mend, and the exit code of each."""

import math
from collections.abc import Callable
from typing import get_args, get_type_hints

from envs.env import RulesError

LARGEST_FLOAT = 3.4028234663852886e38  # of 32 bits
LARGEST_INT = 2**63 - 1


class ConfigError(ValueError):
    """Something in the configuration cannot work; the message names the field, the value and the remedy."""


class ArtefactError(Exception):
    """A checkpoint, replay or registry that cannot be trusted or does not fit."""


class StorageError(OSError):
    """The disk does not take what must be written."""


OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "out of memory", "Storage size calculation overflowed")


def out_of_memory(error: BaseException) -> bool:
    """Whether there is not the memory that was asked for; torch says so in words, which the parser may have wrapped."""
    said = isinstance(error, RuntimeError | ConfigError) and any(words in str(error) for words in OUT_OF_MEMORY)
    return said or isinstance(error, MemoryError)


def exit_code(error: BaseException) -> int:
    """What the command returns: 2 configuration, 3 artefact, 4 numerics, 5 storage, 1 anything else (a bug).

    A game whose rules turn out to be wrong in the midst of a run counts as numerics, and what asks for more memory than
    there is as configuration.
    """
    if out_of_memory(error):
        return 2
    if any(kind.__name__ == "MisconfigurationException" for kind in type(error).__mro__):
        return 2  # Lightning's, by its name: importing Lightning takes seconds
    for kind, code in ((ConfigError, 2), (ArtefactError, 3), (ArithmeticError, 4), (RulesError, 4), (OSError, 5)):
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
            if isinstance(value, float) and not math.isfinite(value):
                raise ConfigError(f"{name}={value}: must be finite")
            if abs(value) > (LARGEST_INT if isinstance(value, int) else LARGEST_FLOAT):
                raise ConfigError(f"{name}={value}: too large for a number of the machine")
