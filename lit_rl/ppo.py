"""PPO by self-play: one network in every seat, clipped policy gradient, entropy that anneals.

Proximal Policy Optimization (Schulman et al. 2017, arXiv 1707.06347) with the implementation details of Huang et al.
(2022, "The 37 Implementation Details of PPO"): orthogonal initialisation, Adam with eps 1e-5, per-player GAE, shuffled
minibatches. Rudolph et al. (2025, arXiv 2502.08938) found it competitive in games of hidden information once the
entropy coefficient is large. Here the coefficient anneals, and an average of the weights is exported.
Ours, not from a paper: learning from whole games only (`lit_rl.rollout.Collecting`) and counting infostates rather than
decisions (`lit_rl.batches.infostate_weights`). What it leaves out: reference policies (see R-NaD).

    litrl fit --config configs/leduc_ppo.yaml      NashConv 0.321 at 10 M decisions, median of 8 runs (uniform: 4.747)

One iteration: the datamodule collects `Rollout [T, B, ...]` -> `make_batches` -> `Batch [N, ...]` -> `training_step`:
losses [N], their mean. Letters: T steps, B envs, N rows of a minibatch, M distinct, A actions. A network with a memory
sees M rows along chunks of its own decisions (`lit_rl.batches`).
"""

from collections.abc import Iterator
from typing import Literal

import lightning as L
import torch
from jsonargparse.typing import ClosedUnitInterval, NonNegativeFloat, PositiveFloat
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn

from envs.game import load_interface
from lit_rl import losses
from lit_rl.algorithm import Meter
from lit_rl.batches import Batch, Minibatches, minibatches
from lit_rl.evaluation import evaluation_step, table_step
from lit_rl.networks import MLP
from lit_rl.policy import NetworkFactory, average_of, output_of
from lit_rl.returns import Credit, gae
from lit_rl.rollout import Collecting, Rollout, Temperature
from lit_rl.run.errors import ConfigError, check_ranges
from lit_rl.run.resume import as_settings, load_state, save_plain_hyperparameters, save_state
from lit_rl.schedules import LRInterval, Schedule, optimizer_and_scheduler


class PPO(L.LightningModule):
    """Proximal Policy Optimization by self-play.

    Args:
        game: import path of the game (the CLI copies it from data.game).
        network: builds the policy and value network for the game.
        optimizer: torch optimizer; its learning rate is what `lr_schedule` scales.
        lr_schedule: a factor on the learning rate, or one of torch's schedulers (`lit_rl.schedules`).
        lr_interval: `lr_schedule` advances once per iteration or once per optimizer step.
        minibatches: passes over each rollout, and how infostates are merged and weighed.
        credit: discount, GAE's lambda, and how unfinished games are cut.
        clip: bound on how far the probability ratio may leave 1.
        value_clip: bound on how far the value may leave the old one, in reward units.
        value_coef: weight of the value loss.
        entropy_coef: weight of the entropy bonus, in reward units per nat.
        normalize_advantages: shift and scale advantages to mean 0, deviation 1 in each minibatch; role: in each rollout
            among the players of the same role, of which a game must have some; off: reward units.
        target_kl: stop the iteration's updates once the approximate KL exceeds this.
        sampling_temperature: the learner samples from, and learns, softmax(logits / temperature); what is exported
            plays at 1, which is another policy.
        ema_decay: export a moving average of the weights, with this decay per optimizer step; null: the weights.
    """

    validation_step = test_step = evaluation_step
    predict_step = table_step
    on_save_checkpoint, on_load_checkpoint = save_state, load_state
    configure_optimizers = optimizer_and_scheduler

    def __init__(
        self,
        game: str,
        network: NetworkFactory = MLP,
        optimizer: OptimizerCallable = lambda p: torch.optim.Adam(p, lr=1e-3, eps=1e-5),
        lr_schedule: Schedule | LRSchedulerCallable | None = None,
        lr_interval: LRInterval = "iteration",
        minibatches: Minibatches = Minibatches(update_epochs=4, num_minibatches=4),  # noqa: B008
        credit: Credit = Credit(),  # noqa: B008
        clip: PositiveFloat = 0.2,
        value_clip: PositiveFloat | None = None,
        value_coef: NonNegativeFloat = 0.5,
        entropy_coef: NonNegativeFloat = 0.05,
        normalize_advantages: bool | Literal["role"] = False,
        target_kl: PositiveFloat | None = None,
        sampling_temperature: Temperature = 1.0,
        ema_decay: ClosedUnitInterval | None = None,
    ):
        check_ranges(PPO.__init__, locals())
        super().__init__()
        save_plain_hyperparameters(self)
        self.game = load_interface(game)
        self.policy = network(self.game)
        self.average = average_of(self.policy, ema_decay)
        self.optimizer, self.lr_schedule, self.lr_interval = optimizer, lr_schedule, lr_interval
        self.minibatches, self.credit = as_settings(Minibatches, minibatches), as_settings(Credit, credit)
        self.sampling_temperature = sampling_temperature
        self.clip, self.value_clip, self.value_coef, self.entropy_coef = clip, value_clip, value_coef, entropy_coef
        self.normalize_advantages, self.target_kl = normalize_advantages, target_kl
        self.minibatches.check(self.policy)
        if normalize_advantages == "role" and not self.game.roles:
            raise ConfigError(f"normalize_advantages=role: all players of {self.game.name} are alike; use true")
        self.register_buffer("decisions", torch.zeros((), dtype=torch.int64))  # sampled so far, over all ranks
        self.batches_per_iteration, self.meter = self.minibatches.per_iteration, Meter()
        self.kept: dict[str, Tensor] = {}  # memories that were refreshed in the running iteration
        self.register_buffer("stopped", torch.zeros((), dtype=torch.bool))  # by target_kl, until the iteration ends

    @property
    def collecting(self) -> Collecting:
        how = {"cut_games": self.credit.cut_games, "merge_rows": self.minibatches.merge_rows}
        return Collecting(self.sampling_temperature, chunk_length=self.minibatches.chunk_length, **how)

    def export_policy(self) -> nn.Module:
        return self.policy if self.average is None else self.average.module

    def make_batches(self, rollout: Rollout, generator: torch.Generator) -> Iterator[Batch]:
        """Advantages for the rollout, then shuffled passes of minibatches."""
        advantages, valid = gae(rollout, self.credit.gamma, self.credit.gae_lambda)
        returns = advantages + rollout.value
        if self.normalize_advantages == "role":
            role = torch.tensor(self.game.roles)[rollout.player.long()]
            advantages[valid] = losses.normalized_by_group(advantages[valid], role[valid])
        return minibatches(
            rollout, advantages, returns, valid, self.minibatches, generator, self.policy, self.kept
        )  # fmt: skip

    def on_train_start(self) -> None:
        self.policy.eval()  # dropout off in rollout and update alike, so that the first ratio is 1

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        if self.stopped:  # in step on all ranks, and the weights stay: see optimizer_step
            return sum(p.sum() * 0 for p in self.policy.parameters())
        output = output_of(self.policy, batch.obs, batch.legal, batch.chunks)
        log_probs = torch.log_softmax(output.logits / batch.temperature, dim=-1)  # [M, A]
        log_prob, value = log_probs[batch.row, batch.action], output.value[batch.row]  # [N]
        advantages = batch.advantages
        if self.normalize_advantages is True:
            advantages = losses.normalized(advantages)
        policy_loss = losses.clipped_surrogate(log_prob, batch.log_prob, advantages, self.clip)  # [N]
        value_loss = losses.value_loss(value, batch.returns, batch.value, self.value_clip)  # [N]
        entropy = losses.entropy(log_probs)[batch.row]  # [N]
        terms = {
            "policy_loss": (policy_loss * batch.action_weight).mean(),
            "value_loss": (value_loss * batch.state_weight).mean(),
            "entropy": (entropy * batch.state_weight).mean(),
        }
        loss = terms["policy_loss"] + self.value_coef * terms["value_loss"] - self.entropy_coef * terms["entropy"]
        change = losses.update_metrics(log_prob, batch.log_prob, batch.value, batch.returns, self.clip)
        self.meter.add(terms, loss=loss, **change)
        if self.target_kl is not None:  # applies from the next minibatch on, on every rank alike
            self.stopped.fill_(self.all_gather(change["approx_kl"]).mean() > self.target_kl)
        return loss

    def optimizer_step(self, epoch, batch_idx, optimizer, optimizer_closure=None) -> None:
        if self.stopped:
            optimizer_closure()  # runs training_step for the loops' sake; weights and moments stay as they are
            return
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        if self.average is not None:
            self.average.update_parameters(self.policy)

    def on_train_epoch_end(self) -> None:
        skipped = self.batches_per_iteration - len(self.meter.minibatches)
        self.meter.log(self, **{"train/skipped_batches": float(skipped)})
        self.stopped.fill_(False)
