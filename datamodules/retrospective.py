"""Rollouts for regret learning: in each game one player explores, so that its every action is tried now and then."""

import torch
from jsonargparse.typing import ClosedUnitInterval, NonNegativeInt, PositiveInt

from datamodules.self_play import Algorithm, SelfPlayDataModule
from lit_rl.errors import check_ranges
from lit_rl.rollout import Rollout, collect


class RetrospectiveDataModule(SelfPlayDataModule):
    """Games in which player (row mod P) explores and the others play the policy. Every row plays many games, so with an
    even number of rows both players explore equally often.

    Args:
        game: import path of a module that ends with GAME = Game(...), such as envs.leduc_poker.
        num_envs: games played side by side, per device.
        num_steps: decisions per game and iteration; num_envs * num_steps make one rollout.
        exploration: the exploring player draws uniformly with this probability, else by the policy.
        seed: of dealing, sampling and shuffling (the CLI copies it from seed_everything).
        num_threads: threads of the environment; more than one pays from some ten thousand games.
        max_tree_nodes: evaluate exactly if the game tree has no more histories than this; 0 never does.
        restart_games: go on from a checkpoint with new games instead of the saved ones, which another num_envs or
            number of devices asks for; not bit-exact.
    """

    def __init__(
        self,
        game: str,
        num_envs: PositiveInt = 256,
        num_steps: PositiveInt = 8,
        exploration: ClosedUnitInterval = 1.0,
        seed: NonNegativeInt = 0,
        num_threads: PositiveInt = 1,
        max_tree_nodes: NonNegativeInt = 2_000_000,
        restart_games: bool = False,
    ):
        check_ranges(RetrospectiveDataModule.__init__, locals())
        super().__init__(
            game, num_envs, num_steps, seed, num_threads, max_tree_nodes=max_tree_nodes, restart_games=restart_games
        )
        self.exploration = float(exploration)

    def collect(self, previous: Rollout | None) -> Rollout:
        """The rollout after `previous`, by the policy as it is now, in the Trainer's precision."""
        algorithm: Algorithm = self.trainer.lightning_module
        num_players = self.game.num_players
        explorer = torch.arange(self.num_envs) % num_players
        exploration = self.exploration * torch.nn.functional.one_hot(explorer, num_players).float()  # [B, P]
        with self.trainer.precision_plugin.forward_context():
            rollout = collect(self.env, algorithm.play, self.num_steps, previous=previous, exploration=exploration)
            algorithm.describe(rollout, previous)
        algorithm.decisions += rollout.num_decisions * self.trainer.world_size
        return rollout
