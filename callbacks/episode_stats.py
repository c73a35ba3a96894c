"""What the games of a rollout looked like."""

import lightning as L

from lit_rl.algorithm import is_log_iteration, rollout_of


class EpisodeStats(L.Callback):
    """Log episode/games (that ended in the iteration), episode/length (decisions per game) and, for each seat,
    episode/return_player_<p> (mean reward per game, in the game's units). With several devices: the first one's games.
    """

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not is_log_iteration(trainer):
            return
        rollout = rollout_of(trainer)
        done, rewards = rollout.done[rollout.carried :], rollout.outcomes[rollout.carried :]
        games = int(done.sum())
        self.log("episode/games", float(games), rank_zero_only=True)
        if games:
            self.log("episode/length", rollout.num_decisions / games, rank_zero_only=True)
            for p, total in enumerate(rewards.sum((0, 1)).tolist()):
                self.log(f"episode/return_player_{p}", total / games, rank_zero_only=True)
