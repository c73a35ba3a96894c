"""Counter-based random streams kept in plain uint64 arrays: one number is the whole state of one stream.

SplitMix64 (Steele, Lea and Flood 2014): the state advances by a constant, the output is a hash of the state. A stream
therefore survives save and load as an integer, and does not care which thread draws from it.
"""

import numpy as np

from envs.jit import njit

GAMMA = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_UNIT = 2.0**-53


@njit
def mix(z):
    """The SplitMix64 finalizer: uint64 -> uint64, every input bit flips half of the output bits."""
    z = (z ^ (z >> np.uint64(30))) * _MIX_1
    z = (z ^ (z >> np.uint64(27))) * _MIX_2
    return z ^ (z >> np.uint64(31))


@njit
def uniform(streams, i):
    """Advance stream `i` and return a float64 in [0, 1)."""
    streams[i] += GAMMA
    return (mix(streams[i]) >> np.uint64(11)) * _UNIT


@njit
def draw64(streams, i):
    """Advance stream `i` and return a uint64."""
    streams[i] += GAMMA
    return mix(streams[i])


@njit
def _fill_streams(key, streams):
    for i in range(len(streams)):
        streams[i] = mix(key + np.uint64(i + 1) * GAMMA)


def derive_key(*words: int) -> int:
    """Hash a path of non-negative integers (seed, purpose, rank, iteration ...) to one uint64 key."""
    mask = (1 << 64) - 1
    key = 0
    for word in words:
        if word < 0:
            raise ValueError(f"seed words must be non-negative integers, got {word}")
        key = (key ^ (word & mask)) + int(GAMMA) & mask
        for shift, factor in ((30, int(_MIX_1)), (27, int(_MIX_2))):
            key = (key ^ (key >> shift)) * factor & mask
        key ^= key >> 31
    return key


def make_streams(num_streams: int, *words: int) -> np.ndarray:
    """`num_streams` independent streams [num_streams] uint64 for one purpose, keyed by `words`."""
    streams = np.empty(num_streams, np.uint64)
    _fill_streams(np.uint64(derive_key(*words)), streams)
    return streams
