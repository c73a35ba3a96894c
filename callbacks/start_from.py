"""Begin a run with the weights of another one's policy: imitation before PPO, a victim's exploiter."""

import copy
from pathlib import Path

import lightning as L

from envs.game import load_interface
from lit_rl.league.player_file import load_network
from lit_rl.run.errors import ArtefactError, ConfigError


class StartFrom(L.Callback):
    """The learner begins as the policy in a file, all copies of it likewise: what is exported, references.

    The critic comes with it where the file has one. A run that is resumed goes on as it is.

    Args:
        policy: player file or checkpoint, of the same game and network.
        game: import path of the file's game where it is another than the run's: a lesson, of which the network has the
            same weights.
    """

    def __init__(self, policy: str, game: str | None = None):
        self.policy = policy
        self.game = None if game is None else load_interface(game)

    def check_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not Path(self.policy).is_file():
            raise ConfigError(f"StartFrom.policy={self.policy}: no such player file or checkpoint")

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.ckpt_path is not None:
            return
        try:
            game = self.game or pl_module.game
            source = load_network(Path(self.policy), game, make=lambda: copy.deepcopy(pl_module.policy))
            for part in pl_module.modules():
                if type(part) is type(pl_module.policy):
                    part.load_state_dict(source.state_dict())
        except ArtefactError as error:
            raise ConfigError(f"StartFrom.policy: {error}") from None
        except RuntimeError:
            raise ConfigError(f"StartFrom.policy={self.policy}: its network is another than model.network") from None
