"""What is public of the game itself, as the simulator has it, by the numbers that observations use.

Rows are numbered from 1; row 0, and whatever is not known, is all zeros. Fetched from a host once per process.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np

from envs.showdown import LAYOUT
from envs.showdown.host import Host

STATS = ("hp", "atk", "def", "spa", "spd", "spe")
EFFECT = np.array([1.0, 2.0, 0.5, 0.0], np.float32)  # of the package's 0, 1, 2, 3


@dataclass(frozen=True)
class Dex:
    """Tables by number.

    Attributes:
        species: [S, 8] float32: both types, base stats as in `STATS`.
        moves: [M, 7] float32: type, base power of all hits together, category (0 status, 1 physical, 2 special),
            accuracy in percent (100 where it never misses), hits both foes, hits the ally too, priority.
        chart: [T, T] float32: factor of a move of type i against type j; 1 where either is 0.
        names: kind -> names, from number 1 on.
    """

    species: np.ndarray
    moves: np.ndarray
    chart: np.ndarray
    names: dict[str, list[str]]


@cache
def load_dex() -> Dex:
    """The tables.

    Raises:
        ShowdownMissingError: Node or the package is not there.
    """
    host = Host()
    told = host.ask({"op": "dex"})
    host.close()
    chart = np.ones((LAYOUT["types"] + 1,) * 2, np.float32)
    chart[1:, 1:] = EFFECT[np.minimum(np.array(told["chart"]), 3)]
    return Dex(_from_one(told["species"]), _from_one(told["moves"]), chart, told["names"])


def _from_one(rows: list[list[float]]) -> np.ndarray:
    table = np.array(rows, np.float32)
    return np.concatenate([np.zeros_like(table[:1]), table])
