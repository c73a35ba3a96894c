"""Random streams: distinct, and the same for the same words."""

import numpy as np
import pytest

from envs.rng import derive_key, draw64, make_streams, uniform


def test_streams_are_distinct_and_reproducible():
    assert len(np.unique(make_streams(100_000, 1, 2))) == 100_000
    assert (make_streams(10, 1, 2) == make_streams(10, 1, 2)).all()
    assert derive_key(1, 2) != derive_key(2, 1)
    with pytest.raises(ValueError, match="non-negative"):
        derive_key(-1)


def test_a_drawn_integer_is_the_number_that_a_uniform_is_made_of():
    one, other = make_streams(1, 3), make_streams(1, 3)
    assert uniform(one, 0) == (draw64(other, 0) >> np.uint64(11)) * 2.0**-53
    assert one == other
