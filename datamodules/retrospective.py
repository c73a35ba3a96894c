"""Rollouts against the past: in each game the learner has one seat and a policy of its own past the others."""

from collections.abc import Sequence
from typing import Literal

from jsonargparse.typing import NonNegativeInt, PositiveInt

from datamodules.self_play import SelfPlayDataModule
from envs.rng import derive_key
from envs.vector_env import VectorEnv
from lit_rl.armac.past_policies import PastPolicies
from lit_rl.evaluation import Evaluation
from lit_rl.run.errors import ConfigError, check_ranges


class RetrospectiveDataModule(SelfPlayDataModule):
    """Games of the learner, player (row mod P), against policies of its past.

    With an even number of rows the learner has each seat equally often. What the past policy of a game would do at each
    decision is `rollout.extras["past_probs"]`, from which ARMAC learns regrets of that policy; PPO and R-NaD learn to
    beat their past.

    Args:
        game: import path of a module that ends with GAME = Game(...), such as envs.leduc_poker.
        num_envs: games played side by side, per device.
        num_steps: decisions per game and iteration; num_envs * num_steps make one rollout.
        evaluation: what to measure of the exported policy, see `lit_rl.evaluation`; null: Exact where the game is small
            enough; [] for nothing.
        past_policies: keep so many past policies.
        keep: which of them are kept: reservoir (all of the past equally likely) or fifo (the last ones).
        seated: so many of them play at a time.
        seed: of dealing, sampling and shuffling (the CLI copies it from seed_everything).
        num_threads: threads of the environment; more than one pays from some ten thousand games.
        restart_games: go on from a checkpoint with new games instead of the saved ones, which another num_envs or
            number of devices asks for; not bit-exact.
    """

    fixed_during_fit = (*SelfPlayDataModule.fixed_during_fit, "past_policies", "seated")

    def __init__(
        self,
        game: str,
        num_envs: PositiveInt = 256,
        num_steps: PositiveInt = 8,
        evaluation: Sequence[Evaluation] | None = None,
        past_policies: PositiveInt = 1000,
        keep: Literal["reservoir", "fifo"] = "reservoir",
        seated: PositiveInt = 4,
        seed: NonNegativeInt = 0,
        num_threads: PositiveInt = 1,
        restart_games: bool = False,
    ):
        check_ranges(RetrospectiveDataModule.__init__, locals())
        super().__init__(
            game,
            num_envs,
            num_steps,
            evaluation,
            seed=seed,
            num_threads=num_threads,
            restart_games=restart_games,
        )
        if keep not in ("reservoir", "fifo"):
            raise ConfigError(f"keep={keep!r}: unknown; use one of reservoir, fifo")
        if num_envs % self.game.num_players:
            raise ConfigError(
                f"num_envs={num_envs}: the learner's seat goes by the row; use a multiple of {self.game.num_players}"
            )
        self.past_policies = int(past_policies)
        self.keep = keep
        self.seated = int(seated)
        self.settings |= {"past_policies": self.past_policies, "keep": keep, "seated": self.seated}
        self._inherited: dict | None = None  # of a run that goes on with new games

    def make_opponents(self, env: VectorEnv) -> PastPolicies:
        seed = derive_key(self.seed, self.trainer.global_rank)
        policy = self.trainer.lightning_module.policy
        return PastPolicies(env, policy, self.past_policies, self.keep, self.seated, seed)

    def before_rollout(self, iteration: int) -> None:
        if self._inherited is not None:
            self.opponents.inherit(self._inherited)
            self._inherited = None
        self.opponents.begin(self.trainer.lightning_module.policy, iteration)

    def load_state_dict(self, state_dict: dict) -> None:
        if self.restart_games and state_dict:
            self._inherited = state_dict["ranks"][0]["opponents"]
        super().load_state_dict(state_dict)
