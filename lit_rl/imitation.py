"""Imitation: the policy learns to act as a teacher would, at the decisions that it meets itself.

DAgger (Ross et al. 2011, arXiv 1011.0686): the learner plays, the teacher is asked at each decision what it would do
there, and the learner takes cross-entropy steps towards that. So the learner meets its own mistakes, and how the
teacher gets out of them. The critic learns what the learner's own play is worth, as in PPO, which may begin with both
(`callbacks.StartFrom`). What it leaves out: the data of earlier iterations, which DAgger keeps; and play by a mixture
with the teacher.

    litrl fit --config configs/vgc_imitation.yaml

The teacher is any player of the game (`lit_rl.league.players`): a heuristic or a class of players by its import path,
or a policy in a file.

Letters: T steps, B envs, n rows of an env, N rows of a minibatch, M distinct, A actions.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import lightning as L
import numpy as np
import torch
from jsonargparse.typing import ClosedUnitInterval, NonNegativeFloat
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn

from envs.env import Env
from envs.game import load_interface
from lit_rl import losses
from lit_rl.algorithm import Meter
from lit_rl.batches import Batch, Minibatches, minibatches
from lit_rl.evaluation import evaluation_step, table_step
from lit_rl.league.players import Player, load_player
from lit_rl.networks import MLP
from lit_rl.policy import NetworkFactory, average_of, output_of, state_shape_of
from lit_rl.returns import Credit, gae
from lit_rl.rollout import Collecting, Rollout
from lit_rl.run.errors import ArtefactError, ConfigError, check_ranges
from lit_rl.run.resume import as_settings, load_state, save_plain_hyperparameters, save_state
from lit_rl.run.saved_values import saved_tensor
from lit_rl.schedules import LRInterval, Schedule, optimizer_and_scheduler


class Lesson(NamedTuple):
    """A minibatch, and what the teacher would do at its decisions."""

    batch: Batch
    target: Tensor  # [N, A] float32 probabilities


class Imitation(L.LightningModule):
    """Cross-entropy towards a teacher on the learner's own play.

    Args:
        game: import path of the game (the CLI copies it from data.game).
        teacher: whom to imitate: the import path of a heuristic or a class of players, {class_path, init_args}, or a
            player file or checkpoint; without a memory.
        network: builds the policy and value network for the game.
        optimizer: torch optimizer; its learning rate is what `lr_schedule` scales.
        lr_schedule: a factor on the learning rate, or one of torch's schedulers (`lit_rl.schedules`).
        lr_interval: `lr_schedule` advances once per iteration or once per optimizer step.
        minibatches: passes over each rollout, and how infostates are merged.
        credit: discount, GAE's lambda for the critic's target, and how unfinished games are cut.
        value_coef: weight of the value loss.
        ema_decay: export a moving average of the weights, with this decay per optimizer step; null: the weights.
    """

    validation_step = test_step = evaluation_step
    predict_step = table_step
    on_save_checkpoint, on_load_checkpoint = save_state, load_state
    configure_optimizers = optimizer_and_scheduler

    def __init__(
        self,
        game: str,
        teacher: str | dict[str, Any],
        network: NetworkFactory = MLP,
        optimizer: OptimizerCallable = lambda p: torch.optim.Adam(p, lr=1e-3, eps=1e-5),
        lr_schedule: Schedule | LRSchedulerCallable | None = None,
        lr_interval: LRInterval = "iteration",
        minibatches: Minibatches = Minibatches(update_epochs=2, num_minibatches=4),  # noqa: B008
        credit: Credit = Credit(),  # noqa: B008
        value_coef: NonNegativeFloat = 0.5,
        ema_decay: ClosedUnitInterval | None = None,
    ):
        check_ranges(Imitation.__init__, locals())
        super().__init__()
        save_plain_hyperparameters(self)
        self.game, self.teacher_spec = load_interface(game), teacher
        self.policy = network(self.game)
        self.average = average_of(self.policy, ema_decay)
        self.optimizer, self.lr_schedule, self.lr_interval = optimizer, lr_schedule, lr_interval
        self.minibatches, self.credit = as_settings(Minibatches, minibatches), as_settings(Credit, credit)
        self.value_coef = value_coef
        self.minibatches.check(self.policy)
        self.register_buffer("decisions", torch.zeros((), dtype=torch.int64))  # sampled so far, over all ranks
        self.batches_per_iteration, self.meter = self.minibatches.per_iteration, Meter()
        self.kept: dict[str, Tensor] = {}  # memories that were refreshed in the running iteration
        self.teacher: Player | None = None  # once there is a fit

    @property
    def collecting(self) -> Collecting:
        how = {"cut_games": self.credit.cut_games, "merge_rows": self.minibatches.merge_rows}
        return Collecting(chunk_length=self.minibatches.chunk_length, **how)

    def setup(self, stage: str) -> None:
        if stage != "fit" or self.teacher is not None:
            return
        try:
            teacher = load_player(self.teacher_spec, self.game)
        except (ConfigError, ArtefactError) as error:
            raise ConfigError(f"model.teacher: {error}") from None
        if state_shape_of(teacher):
            raise ConfigError(f"model.teacher={self.teacher_spec}: has a memory; take one without")
        self.teacher = teacher

    def export_policy(self) -> nn.Module:
        return self.policy if self.average is None else self.average.module

    def notes(self, env: Env, rows: np.ndarray) -> dict[str, Tensor]:
        """teacher [n, A]: what it would do at the decisions that the learner is about to make in these rows."""
        probs = np.zeros(env.legal.shape, np.float32)
        self.teacher.act(env, rows, probs)
        probs = probs[rows] * env.legal[rows]
        total = probs.sum(1, keepdims=True)
        if not (np.isfinite(total) & (total > 0)).all():
            raise ConfigError(f"model.teacher={self.teacher_spec}: gives no legal action of {self.game.name} a share")
        return {"teacher": torch.from_numpy(probs / total)}

    def make_batches(self, rollout: Rollout, generator: torch.Generator) -> Iterator[Lesson]:
        """Returns for the critic, then shuffled passes of minibatches with the teacher's word."""
        shape = (*rollout.action.shape, self.game.num_actions)
        target = saved_tensor(rollout.extras.get("teacher"), "rollout.extras.teacher", torch.float32, shape)
        advantages, valid = gae(rollout, self.credit.gamma, self.credit.gae_lambda)
        returns = advantages + rollout.value
        for batch in minibatches(
            rollout, advantages, returns, valid, self.minibatches, generator, self.policy, self.kept
        ):
            yield Lesson(batch, target.flatten(0, 1)[batch.decision])

    def on_train_start(self) -> None:
        self.policy.eval()  # dropout off in rollout and update alike

    def training_step(self, lesson: Lesson, batch_idx: int) -> Tensor:
        batch, target = lesson
        output = output_of(self.policy, batch.obs, batch.legal, batch.chunks)
        logits, legal, value = output.logits[batch.row], batch.legal[batch.row], output.value[batch.row]  # N each
        value_loss = losses.value_loss(value, batch.returns, batch.value, None)  # [N]
        share = batch.state_weight / len(value)
        terms = {
            "cross_entropy": losses.cross_entropy(logits, legal, target, share.unsqueeze(1).expand_as(logits)),
            "value_loss": (value_loss * share).sum(),
        }
        loss = terms["cross_entropy"] + self.value_coef * terms["value_loss"]
        self.meter.add(terms, loss=loss, agreement=agreement(logits.detach(), target))
        return loss

    def optimizer_step(self, epoch, batch_idx, optimizer, optimizer_closure=None) -> None:
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        if self.average is not None:
            self.average.update_parameters(self.policy)

    def on_train_epoch_end(self) -> None:
        self.meter.log(self)


def agreement(logits: Tensor, target: Tensor) -> Tensor:
    """Share of the rows [N, A] where the learner's likeliest action is one that the teacher holds likeliest."""
    said = target.gather(1, logits.argmax(1, keepdim=True)).squeeze(1)
    return (said >= target.max(1).values - 1e-6).float().mean()
