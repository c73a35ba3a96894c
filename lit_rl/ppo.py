"""PPO by self-play: one network in every seat, clipped policy gradient, entropy that anneals.

Proximal Policy Optimization (Schulman et al. 2017, arXiv 1707.06347) with the implementation details of Huang et al.
(2022, "The 37 Implementation Details of PPO"): orthogonal initialisation, Adam with eps 1e-5, per-player GAE, shuffled
minibatches, optional clipping of the value, gradient clipping by the Trainer. Rudolph et al. (2025, arXiv 2502.08938)
found this competitive in games of hidden information once the entropy coefficient is large. Here the coefficient
anneals (`callbacks.scalar_schedule`) and an average of the weights is exported (`ema_decay`). Ours, not from a paper:
learning from whole games only (`lit_rl.returns`) and counting infostates rather than decisions (`lit_rl.row_index`).

What it leaves out: recurrence, reference policies (see R-NaD). Opponents other than the current policy are the
datamodule's business (`datamodules.league_play`).

    litrl fit --config configs/leduc_ppo.yaml      NashConv 0.323 at 10 M decisions, median of 5 seeds (uniform: 4.747)

One iteration: the datamodule collects `Rollout [T, B, ...]` -> `make_batches` -> `Batch [N, ...]` -> `training_step` ->
losses [N] -> their mean -> Lightning steps. Letters: T steps, B envs, N rows of a minibatch, M distinct, A actions.
"""

from collections.abc import Iterator

import lightning as L
import torch
from jsonargparse.typing import ClosedUnitInterval, NonNegativeFloat, PositiveFloat, PositiveInt
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from envs.exact import GameTree
from envs.game import load_game
from lit_rl import losses
from lit_rl.batches import Batch, minibatches
from lit_rl.log import is_log_iteration, minibatch_means
from lit_rl.networks import MLP
from lit_rl.policy import NetworkFactory, exact_metrics, policy_table
from lit_rl.returns import gae
from lit_rl.rollout import Rollout
from lit_rl.run.errors import check_ranges
from lit_rl.run.resume import load_state, save_state
from lit_rl.schedules import LRInterval, Schedule, optimizer_and_scheduler


class PPO(L.LightningModule):
    """Proximal Policy Optimization by self-play.

    Args:
        game: import path of the game (the CLI copies it from data.game).
        network: builds the policy and value network for the game.
        optimizer: torch optimizer; its learning rate is what `lr_schedule` scales.
        lr_schedule: a schedule of `lit_rl.schedules` (a factor on the learning rate over the whole run), or one of
            torch's own schedulers by class path.
        lr_interval: advance `lr_schedule` once per iteration or once per optimizer step.
        update_epochs: passes over each rollout.
        num_minibatches: minibatches per pass.
        gamma: discount per own decision.
        gae_lambda: lambda of generalised advantage estimation.
        clip: bound on how far the probability ratio may leave 1.
        value_clip: bound on how far the value may leave the old one, in reward units; null for none.
        value_coef: weight of the value loss.
        entropy_coef: weight of the entropy bonus, in reward units per nat.
        normalize_advantages: shift and scale advantages to mean 0, deviation 1 in each minibatch (off: reward units).
        target_kl: stop the iteration's updates once the approximate KL exceeds this; null for never.
        sampling_temperature: the learner samples from, and learns, softmax(logits / temperature); exported at 1.
        ema_decay: export an exponential moving average of the weights with this decay per optimizer step; null
            exports the weights themselves.
        whole_games: learn from a decision once its game is over, which is unbiased (see `lit_rl.returns.gae`); false
            cuts games at the end of each rollout, for games much longer than that.
        visit_exponent: an infostate seen n times in a minibatch counts n to this power in the losses, each action
            drawn there as much as the policy expects (see `lit_rl.row_index.infostate_weights`); null counts every
            decision the same.
        merge_rows: evaluate each distinct infostate of a rollout once (exact, and faster in small games).
    """

    fixed_during_fit = ("update_epochs", "num_minibatches")  # the loader's length is known to Lightning

    def __init__(
        self,
        game: str,
        network: NetworkFactory = MLP,
        optimizer: OptimizerCallable = lambda p: torch.optim.Adam(p, lr=1e-3, eps=1e-5),
        lr_schedule: Schedule | LRSchedulerCallable | None = None,
        lr_interval: LRInterval = "iteration",
        update_epochs: PositiveInt = 4,
        num_minibatches: PositiveInt = 4,
        gamma: ClosedUnitInterval = 1.0,
        gae_lambda: ClosedUnitInterval = 0.95,
        clip: PositiveFloat = 0.2,
        value_clip: PositiveFloat | None = None,
        value_coef: NonNegativeFloat = 0.5,
        entropy_coef: NonNegativeFloat = 0.05,
        normalize_advantages: bool = False,
        target_kl: PositiveFloat | None = None,
        sampling_temperature: PositiveFloat = 1.0,
        ema_decay: ClosedUnitInterval | None = None,
        whole_games: bool = True,
        visit_exponent: ClosedUnitInterval | None = None,
        merge_rows: bool = True,
    ):
        check_ranges(PPO.__init__, locals())
        super().__init__()
        self.save_hyperparameters(logger=False)
        for name in ("network", "optimizer", "lr_schedule"):  # the CLI gives their class paths; code cannot be saved
            if not isinstance(self.hparams[name], dict):
                self.hparams.pop(name)
        self.game = load_game(game)
        self.policy = network(self.game)
        self.average = None
        if ema_decay is not None:
            self.average = AveragedModel(self.policy, multi_avg_fn=get_ema_multi_avg_fn(ema_decay))
            self.average.requires_grad_(False)
        self.optimizer, self.lr_schedule, self.lr_interval = optimizer, lr_schedule, lr_interval
        self.update_epochs, self.num_minibatches = update_epochs, num_minibatches
        self.gamma, self.gae_lambda = gamma, gae_lambda
        self.clip, self.value_clip = clip, value_clip
        self.value_coef, self.entropy_coef = value_coef, entropy_coef
        self.normalize_advantages, self.target_kl = normalize_advantages, target_kl
        self.sampling_temperature = sampling_temperature
        self.whole_games, self.visit_exponent, self.merge_rows = whole_games, visit_exponent, merge_rows
        self.register_buffer("decisions", torch.zeros((), dtype=torch.int64))  # sampled so far, over all ranks
        self.loss_terms: dict[str, Tensor] = {}  # of the last minibatch; `callbacks.FiniteGuard` reads them
        self.iteration_metrics: list[dict[str, Tensor]] = []  # of this iteration's minibatches
        self._stopped = False  # by target_kl, until the iteration ends

    @property
    def batches_per_iteration(self) -> int:
        return self.update_epochs * self.num_minibatches

    def export_policy(self) -> nn.Module:
        """What a user would ship: the average of the weights if there is one, else the weights as they are."""
        return self.policy if self.average is None else self.average.module

    def make_batches(self, rollout: Rollout, generator: torch.Generator) -> Iterator[Batch]:
        """Advantages for the rollout, then `update_epochs` shuffled passes of `num_minibatches` batches each.

        Raises:
            ConfigError: fewer valid decisions than minibatches.
        """
        advantages, valid = gae(rollout, self.gamma, self.gae_lambda, self.whole_games)
        return minibatches(
            rollout, advantages, advantages + rollout.value, valid, update_epochs=self.update_epochs,
            num_minibatches=self.num_minibatches, visit_exponent=self.visit_exponent, merge_rows=self.merge_rows,
            generator=generator,
        )  # fmt: skip

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        save_state(self, checkpoint)
        checkpoint["stopped"] = self._stopped

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        load_state(self, checkpoint)
        self._stopped = checkpoint["stopped"]

    def on_train_start(self) -> None:
        self.policy.eval()  # dropout off in rollout and update alike, so that the first ratio is 1

    def on_train_epoch_start(self) -> None:
        self._stopped = False
        self.iteration_metrics.clear()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        if self._stopped:  # in step on all ranks, and the weights stay: see optimizer_step
            return sum(p.sum() * 0 for p in self.policy.parameters())
        output = self.policy(batch.obs, batch.legal)
        log_probs = torch.log_softmax(output.logits / batch.temperature, dim=-1)  # [M, A]
        log_prob, value = log_probs[batch.row, batch.action], output.value[batch.row]  # [N]
        advantages = batch.advantages
        if self.normalize_advantages and len(advantages) > 1:
            advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
        policy_loss = losses.clipped_surrogate(log_prob, batch.log_prob, advantages, self.clip)  # [N]
        value_loss = losses.value_loss(value, batch.returns, batch.value, self.value_clip)  # [N]
        entropy = losses.entropy(log_probs)[batch.row]  # [N]
        self.loss_terms = {
            "policy_loss": (policy_loss * batch.action_weight).mean(),
            "value_loss": (value_loss * batch.state_weight).mean(),
            "entropy": (entropy * batch.state_weight).mean(),
        }
        loss = (
            self.loss_terms["policy_loss"]
            + self.value_coef * self.loss_terms["value_loss"]
            - self.entropy_coef * self.loss_terms["entropy"]
        )
        with torch.no_grad():
            kl = losses.approx_kl(log_prob, batch.log_prob).mean()
            self.iteration_metrics.append(
                {name: term.detach() for name, term in self.loss_terms.items()}
                | {
                    "loss": loss.detach(),
                    "approx_kl": kl,
                    "clip_fraction": losses.clip_fraction(log_prob, batch.log_prob, self.clip).mean(),
                    "explained_variance": losses.explained_variance(batch.value, batch.returns),
                }
            )
            if self.target_kl is not None:  # applies from the next minibatch on, on every rank alike
                self._stopped = bool(self.all_gather(kl).mean() > self.target_kl)
        return loss

    def optimizer_step(self, epoch, batch_idx, optimizer, optimizer_closure=None) -> None:
        if self._stopped:
            optimizer_closure()  # runs training_step for the loops' sake; weights and moments stay as they are
            return
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        if self.average is not None:
            self.average.update_parameters(self.policy)

    def on_train_epoch_end(self) -> None:
        if self.iteration_metrics and is_log_iteration(self.trainer):
            means = minibatch_means(self.iteration_metrics)
            means["train/skipped_batches"] = float(self.batches_per_iteration - len(self.iteration_metrics))
            self.log_dict(means | {"decisions": self.decisions.float()}, sync_dist=self.trainer.world_size > 1)

    def validation_step(self, tree: GameTree, batch_idx: int) -> None:
        self.log_dict(exact_metrics(self.export_policy(), tree), batch_size=1)

    test_step = validation_step

    def predict_step(self, tree: GameTree, batch_idx: int) -> Tensor:
        """Action probabilities [R, A] of the exported policy at every infostate of the game tree."""
        return torch.from_numpy(policy_table(self.export_policy(), tree))

    def configure_optimizers(self):
        return optimizer_and_scheduler(
            self, self.policy.parameters(), self.optimizer, self.lr_schedule, self.lr_interval
        )
