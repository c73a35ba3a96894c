"""Env: `VectorEnv` has every member with the shape and type that the Protocol tells."""

import numpy as np
import pytest

from envs.env import Env
from envs.game import Interface
from envs.vector_env import VectorEnv


@pytest.mark.parametrize("truncate_after", [None, 4])
def test_vector_env_is_an_env(any_game, truncate_after):
    env = VectorEnv(any_game, 6, seed=0, truncate_after=truncate_after)
    b, p, a, d = 6, any_game.num_players, any_game.num_actions, any_game.obs_shape
    shapes = {
        "player": ((b,), np.int8), "legal": ((b, a), np.bool_), "obs": ((b, *d), any_game.obs_dtype),
        "rewards": ((b, p), np.float32), "bonus": ((b, p), np.float32), "done": ((b,), np.bool_),
        "truncated": ((b,), np.bool_), "final_obs": ((b, p if truncate_after else 0, *d), any_game.obs_dtype),
        "final_player": ((b,), np.int8), "final_out": ((b, p), np.bool_), "history": ((b, 0, *d), any_game.obs_dtype),
        "num_decisions": ((b,), np.int32), "action_streams": ((b,), np.uint64), "game_streams": ((b,), np.uint64),
    }  # fmt: skip
    assert Env.__annotations__.keys() == {*shapes, "game", "num_envs", "parts"}
    assert isinstance(env.game, Interface) and env.num_envs == b
    for name, (shape, dtype) in shapes.items():
        assert (getattr(env, name).shape, getattr(env, name).dtype) == (shape, dtype), name
    assert (env.observe_all().shape, env.out().shape) == ((b, p, *d), (b, p))
    for name in vars(Env).keys() - {"send", "receive", "rest"}:  # for envs whose steps are dear
        if not name.startswith("_") and callable(getattr(Env, name)):
            assert getattr(VectorEnv, name) is not getattr(Env, name), f"{name} is not written"
