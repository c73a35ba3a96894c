"""One seat of a game against opponents, as Stable-Baselines3's VecEnv; sb3-contrib's MaskablePPO finds its masks.

from sb3_contrib import MaskablePPO
MaskablePPO("MlpPolicy", SeatVecEnv("envs.leduc_poker", num_envs=64)).learn(100_000)
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from envs.extras import need_extra
from envs.game import Game
from lit_rl.league.beside.gymnasium import SeatEnvs
from lit_rl.league.players import Spec

need_extra("stable_baselines3", "stable-baselines3")
from stable_baselines3.common.vec_env import VecEnv  # noqa: E402


class SeatVecEnv(VecEnv):
    """`SeatEnvs`, whose arguments it takes, with the methods that Stable-Baselines3 calls; all rows are one object."""

    def __init__(self, game: str | Game, num_envs: int = 1, opponents: Sequence[Spec] = ("random",), **settings):
        self.envs = SeatEnvs(game, num_envs, opponents, **settings)
        super().__init__(num_envs, self.envs.single_observation_space, self.envs.single_action_space)

    def reset(self) -> np.ndarray:
        """New games in all rows: obs [B, *D]."""
        obs, infos = self.envs.reset(seed=self._seeds[0])
        self._reset_seeds()
        self._reset_options()
        self.reset_infos = [{"action_mask": mask} for mask in infos["action_mask"]]
        return obs

    def step_async(self, actions: np.ndarray) -> None:
        self._actions = actions

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict]]:
        obs, rewards, terminated, truncated, infos = self.envs.step(self._actions)
        done, told = terminated | truncated, [{} for _ in range(self.num_envs)]
        for b in np.flatnonzero(done):
            told[b] = {"terminal_observation": infos["final_obs"][b], "TimeLimit.truncated": bool(truncated[b])}
        return obs, rewards.astype(np.float32), done, told

    def close(self) -> None:
        self.envs.close()

    def get_attr(self, attr_name: str, indices=None) -> list[Any]:
        if attr_name == "render_mode":
            return [None for _ in self._get_indices(indices)]
        return [getattr(self.envs, attr_name) for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices=None) -> None:
        """Raises AttributeError: rows have no attributes of their own."""
        raise AttributeError(f"{attr_name}: the rows are one object, and none has attributes of its own")

    def env_method(self, method_name: str, *method_args, indices=None, **method_kwargs) -> list[Any]:
        """What the method returns, row by row."""
        every = getattr(self.envs, method_name)(*method_args, **method_kwargs)
        return [every[i] for i in self._get_indices(indices)]

    def env_is_wrapped(self, wrapper_class: type, indices=None) -> list[bool]:
        return [False for _ in self._get_indices(indices)]
