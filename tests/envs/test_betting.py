"""Facts of betting: in range at every infostate, and the same whether asked alone or together."""

import numpy as np
import pytest

from envs import kuhn_poker, leduc_poker


@pytest.mark.parametrize(("module", "name"), [(kuhn_poker, "kuhn_tree"), (leduc_poker, "leduc_tree")])
def test_betting(module, name, request):
    obs = request.getfixturevalue(name).obs
    said = module.betting(obs)
    assert said.round.dtype == np.int64 and said.round.min() == 0
    for share in (said.pot, said.stack):
        assert share.dtype == np.float64 and share.shape == (len(obs),)
        assert 0 <= share.min() <= share.max() <= 1
    for i in range(0, len(obs), 5):
        assert [x.tolist() for x in module.betting(obs[i : i + 1])] == [x[i : i + 1].tolist() for x in said]
