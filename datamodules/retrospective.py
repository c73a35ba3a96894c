"""Rollouts for regret learning: in each game one player explores, so that its every action is tried now and then."""

from typing import Literal

import torch
from jsonargparse.typing import ClosedUnitInterval, NonNegativeInt, PositiveInt

from datamodules.self_play import REMEDY, SelfPlayDataModule
from envs.rng import derive_key
from lit_rl.armac.armac import ARMAC
from lit_rl.armac.past_policies import PastPolicies
from lit_rl.rollout import Rollout, collect
from lit_rl.run.errors import ConfigError, check_ranges
from lit_rl.run.resume import of_every_rank


class RetrospectiveDataModule(SelfPlayDataModule):
    """Games in which player (row mod P) explores while the others play the policy, as it is or as it was in the past.
    Every row plays many games, so with an even number of rows both players explore equally often.

    Args:
        game: import path of a module that ends with GAME = Game(...), such as envs.leduc_poker.
        num_envs: games played side by side, per device.
        num_steps: decisions per game and iteration; num_envs * num_steps make one rollout.
        exploration: the exploring player draws uniformly with this probability, else by the policy.
        past_policies: keep so many past policies and play against those; null: against the policy as it is.
        keep: which of them are kept: reservoir (all of the past equally likely) or fifo (the last ones).
        seated: so many of them play at a time.
        seed: of dealing, sampling and shuffling (the CLI copies it from seed_everything).
        num_threads: threads of the environment; more than one pays from some ten thousand games.
        max_tree_nodes: evaluate exactly if the game tree has no more histories than this; 0 never does.
        restart_games: go on from a checkpoint with new games instead of the saved ones, which another num_envs or
            number of devices asks for; not bit-exact.
    """

    fixed_during_fit = (*SelfPlayDataModule.fixed_during_fit, "past_policies", "seated")

    def __init__(
        self,
        game: str,
        num_envs: PositiveInt = 256,
        num_steps: PositiveInt = 8,
        exploration: ClosedUnitInterval = 1.0,
        past_policies: PositiveInt | None = None,
        keep: Literal["reservoir", "fifo"] = "reservoir",
        seated: PositiveInt = 4,
        seed: NonNegativeInt = 0,
        num_threads: PositiveInt = 1,
        max_tree_nodes: NonNegativeInt = 2_000_000,
        restart_games: bool = False,
    ):
        check_ranges(RetrospectiveDataModule.__init__, locals())
        super().__init__(
            game, num_envs, num_steps, seed, num_threads, max_tree_nodes=max_tree_nodes, restart_games=restart_games
        )
        if keep not in ("reservoir", "fifo"):
            raise ConfigError(f"keep={keep!r}: unknown; use one of reservoir, fifo")
        if num_envs % self.game.num_players:
            raise ConfigError(
                f"num_envs={num_envs}: players explore in turns, row by row; use a multiple of {self.game.num_players}"
            )
        self.exploration, self.past_policies = float(exploration), past_policies and int(past_policies)
        self.keep, self.seated = keep, int(seated)
        self.settings |= {
            "exploration": self.exploration, "past_policies": self.past_policies, "keep": keep, "seated": self.seated
        }  # fmt: skip
        self.past: PastPolicies | None = None
        self._kept: tuple[torch.Tensor, int] | None = None

    def setup(self, stage: str) -> None:
        algorithm = self.trainer.lightning_module
        if not isinstance(algorithm, ARMAC):
            name = type(algorithm).__name__
            raise ConfigError(f"data=RetrospectiveDataModule: is for ARMAC; use SelfPlayDataModule for {name}")
        if self.past_policies is not None and algorithm.meta_regret is not None:
            raise ConfigError("data.past_policies: cannot play with a scheduler; use model.use_scheduler=false")
        super().setup(stage)

    def _sit_down(self) -> None:
        """Make room for past policies, now that the env and the policy are there."""
        if self.past_policies is not None and self.past is None:
            seed = derive_key(self.seed, self.trainer.global_rank)
            policy = self.trainer.lightning_module.policy
            self.past = PastPolicies(self.env, policy, self.past_policies, self.keep, self.seated, seed)
            if self._kept is not None:  # of a run that goes on with new games
                self.past.kept, self.past.seen = self._kept

    def state_dict(self) -> dict:
        state = super().state_dict()
        if state and self.past is not None:
            state["past"] = of_every_rank(self.trainer, self.past.state_dict())
        return state

    def load_state_dict(self, state_dict: dict) -> None:
        if self.restart_games and state_dict.get("past"):
            self._kept = state_dict["past"][0]["kept"].clone(), int(state_dict["past"][0]["seen"])
        super().load_state_dict(state_dict)

    def _take_over(self, saved: dict) -> None:
        super()._take_over(saved)
        self._sit_down()
        if (self.past is None) != ("past" not in saved):
            raise ConfigError(f"data.past_policies={self.past_policies}: is not what the checkpoint ran with; {REMEDY}")
        if self.past is not None:
            self.past.load_state_dict(saved["past"][self.trainer.global_rank])

    def collect(self, previous: Rollout | None) -> Rollout:
        """The rollout after `previous`, by the policy as it is now, in the Trainer's precision."""
        algorithm: ARMAC = self.trainer.lightning_module
        self._sit_down()
        num_players = self.game.num_players
        explorer = torch.arange(self.num_envs) % num_players
        exploration = self.exploration * torch.nn.functional.one_hot(explorer, num_players).float()  # [B, P]
        with self.trainer.precision_plugin.forward_context():
            if self.past is not None:
                self.past.begin(algorithm.policy, self.trainer.current_epoch)
            rollout = collect(
                self.env,
                algorithm.play,
                self.num_steps,
                opponents=self.past,
                previous=previous,
                exploration=exploration,
            )
            algorithm.describe(rollout, previous)
            rollout.notes["explores"] = rollout.player == explorer
        if self.past is not None:
            slots = torch.stack(self.past.slots)
            carried = previous.notes["slot"][-rollout.carried :] if rollout.carried else slots[:0]
            rollout.notes["slot"] = torch.cat([carried, slots])
        algorithm.decisions += rollout.num_decisions * self.trainer.world_size
        return rollout
