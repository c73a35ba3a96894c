"""Errors: the exit code of each, and ranges that are held against the annotations of a function."""

import math

import pytest
from jsonargparse.typing import ClosedUnitInterval, PositiveFloat, PositiveInt

from envs.env import NoDecisionError, NoLegalActionError
from lit_rl.run.errors import ArtefactError, ConfigError, StorageError, check_ranges, exit_code


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError(), 2), (ArtefactError(), 3), (FloatingPointError(), 4), (StorageError(), 5), (OSError(), 5),
        (ValueError(), 1), (RuntimeError(), 1), (ZeroDivisionError(), 4), (OverflowError(), 4),
        (NoLegalActionError(), 4), (NoDecisionError(), 4), (MemoryError(), 2),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 9 bytes"), 2),
        (RuntimeError("Storage size calculation overflowed with sizes=[9]"), 2),
    ],
)  # fmt: skip
def test_exit_codes(error, code):
    assert exit_code(error) == code


def test_a_config_error_is_a_value_error():
    assert issubclass(ConfigError, ValueError)


def function(rate: PositiveFloat, share: ClosedUnitInterval | None = None, number: PositiveInt = 1, free: float = 0.0):
    """What `check_ranges` looks at are the annotations."""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"rate": 0.0}, "rate=0.0: "),
        ({"rate": None}, "rate=null: needs a value"),
        ({"rate": math.inf}, "rate=inf: must be finite"),
        ({"rate": math.nan}, "rate=nan"),
        ({"rate": 1.0, "share": 1.5}, "share=1.5: "),
        ({"rate": 1.0, "number": 0}, "number=0: "),
        ({"rate": 1e308}, "rate=1e.308: too large"),
        ({"rate": 1.0, "number": 2**63}, "number=9223372036854775808: too large"),
        ({"rate": 1.0, "number": 10**400}, "number=1000.*: too large"),
    ],
)
def test_numbers_out_of_range_are_named(arguments, words):
    with pytest.raises(ConfigError, match=words):
        check_ranges(function, arguments)


def test_numbers_within_range_pass():
    check_ranges(function, {"rate": 1e-9, "share": None, "number": 3, "free": math.nan})
    check_ranges(function, {"rate": 1, "share": 1})
