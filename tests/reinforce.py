"""REINFORCE with a baseline, as a stranger would write it: nothing of lit-rl knows this file.

It is the guide to `lit_rl/algorithm.py`. Whole games by self-play, one gradient step per rollout (Williams 1992).
"""

import lightning as L
import torch
from jsonargparse.typing import NonNegativeFloat, PositiveFloat

from envs.game import load_interface
from lit_rl import losses
from lit_rl.algorithm import Meter
from lit_rl.evaluation import evaluation_step, table_step
from lit_rl.networks import MLP
from lit_rl.policy import NetworkFactory
from lit_rl.returns import gae
from lit_rl.rollout import Collecting
from lit_rl.run.resume import load_state, save_plain_hyperparameters, save_state


class Reinforce(L.LightningModule):
    """Williams' estimator with the critic as a baseline.

    Args:
        game: import path of the game.
        network: builds policy and value.
        lr: learning rate.
        entropy_coef: weight of the entropy bonus, in reward units per nat.
    """

    on_save_checkpoint, on_load_checkpoint = save_state, load_state
    validation_step = test_step = evaluation_step
    predict_step = table_step
    batches_per_iteration = 1
    collecting = Collecting(merge_rows=True)

    def __init__(
        self, game: str, network: NetworkFactory = MLP, lr: PositiveFloat = 3e-3, entropy_coef: NonNegativeFloat = 0.1
    ):
        super().__init__()
        save_plain_hyperparameters(self)
        self.game = load_interface(game)
        self.policy = network(self.game)
        self.lr, self.entropy_coef, self.meter = lr, entropy_coef, Meter()
        self.register_buffer("decisions", torch.zeros((), dtype=torch.int64))

    def export_policy(self):
        return self.policy

    def make_batches(self, rollout, generator):
        advantages, valid = gae(rollout, gamma=1.0, gae_lambda=1.0)
        yield {
            "obs": rollout.obs[valid], "legal": rollout.legal[valid], "action": rollout.action[valid],
            "returns": (advantages + rollout.value)[valid],
        }  # fmt: skip

    def training_step(self, batch, batch_idx):
        output = self.policy(batch["obs"], batch["legal"])
        log_probs = torch.log_softmax(output.logits, dim=-1)
        chosen = log_probs.gather(1, batch["action"].unsqueeze(1)).squeeze(1)
        surprise = batch["returns"] - output.value
        policy_loss = -(chosen * surprise.detach()).mean()
        value_loss, entropy = surprise.square().mean(), losses.entropy(log_probs).mean()
        loss = policy_loss + 0.5 * value_loss - self.entropy_coef * entropy
        self.meter.add({"policy_loss": policy_loss, "value_loss": value_loss, "entropy": entropy}, loss=loss)
        return loss

    def on_train_epoch_end(self):
        self.meter.log(self)

    def configure_optimizers(self):
        return torch.optim.Adam(self.policy.parameters(), lr=self.lr)
