"""Random streams: distinct, and the same for the same words."""

import numpy as np
import pytest

from envs.rng import derive_key, make_streams


def test_streams_are_distinct_and_reproducible():
    assert len(np.unique(make_streams(100_000, 1, 2))) == 100_000
    assert (make_streams(10, 1, 2) == make_streams(10, 1, 2)).all()
    assert derive_key(1, 2) != derive_key(2, 1)
    with pytest.raises(ValueError, match="non-negative"):
        derive_key(-1)
