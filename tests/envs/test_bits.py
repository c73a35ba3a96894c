"""Legal actions as bits: numpy's own packing is the twin, for every width around a byte and for many actions."""

import numpy as np
import pytest

from envs.bits import MANY, pack, unpack


@pytest.mark.parametrize("num_actions", [1, 2, 3, 7, 8, 9, 16, MANY - 1, MANY, MANY + 1, 1000])
@pytest.mark.parametrize("num_rows", [0, 1, 50])
def test_there_and_back(num_rows, num_actions):
    legal = np.random.default_rng(num_actions).random((num_rows, num_actions)) < 0.4
    bits = pack(legal)
    assert bits.dtype == np.uint8 and (bits == np.packbits(legal, axis=1, bitorder="little")).all()
    back = unpack(bits, num_actions)
    assert back.dtype == np.bool_ and (back == legal).all()
