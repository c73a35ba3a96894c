"""Learning that is held close to a reference policy, which follows at a distance; by self-play, in two forms.

Self-play alone circles around an equilibrium (scripts/trajectory.py). A price on leaving a reference policy makes it
settle between the two; the reference moves there, and so on. R-NaD as published (Perolat et al. 2021, arXiv 2002.08456)
is form neurd with `Refreshed(interpolate=True)`, entropy 0, no visit weights, gae_lambda 1. With a `Magnet` the forms
are PPO + moving magnet (R-NaD in the documents' KL form; MMD) and NeuRD + magnet.

kl      PPO's loss with the KL to a reference, as the users' documents have it; the moving one is the magnet of MMD
        (Sokota et al. 2023, arXiv 2206.05825). alpha = 0 is PPO to the last bit.

            L = L_policy + beta L_value - gamma_H H(pi) + alpha KL(pi || pi_ref)

neurd   DeepNash's (Perolat et al. 2022, arXiv 2206.15378). The game itself is changed: each player pays
        eta log(pi(a) / pi_ref(a)) for its actions and is paid the other's. Two-player v-trace with a target network
        (the average of `ema_decay`) estimates all actions' values of that game, and NeuRD moves the logits along A:

            Q(a) = V - eta log(pi(a) / pi_ref(a)) + 1[a = a_t] d_t / mu(a_t),      A = Q - sum over b of pi(b) Q(b)

        References are copies of the target network. Ours: gamma_H, which adds -gamma_H log pi(a) to Q, and the weights
        of `visit_exponent`, which put n(s, a) / n(s), the share an action really got, for mu(a): far less noise.

What this leaves out: DeepNash's thresholded and rounded policy, more than two players in the form neurd.
    litrl fit --config configs/leduc_rnad.yaml     NashConv 0.218 at 10 M decisions, median of 5 seeds (uniform: 4.747)
One iteration and its letters are as in `lit_rl.ppo`; the reference moves after the last minibatch. With a memory each
policy of the reference, and the target network, goes through the rollout's games with its own; where a game began
before the rollout (cut_games=bootstrap or drop) it begins with the learner's.
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
from lit_rl.algorithm import Meter, check_whole_iterations
from lit_rl.batches import Batch, Minibatches, memories, minibatches, one_by_one
from lit_rl.evaluation import evaluation_step, table_step
from lit_rl.networks import MLP
from lit_rl.policy import NetworkFactory, PolicyOutput, average_of, output_of, state_shape_of
from lit_rl.references import Magnet, ReferenceFactory
from lit_rl.returns import Credit, gae, two_player_v_trace
from lit_rl.rollout import Collecting, Rollout
from lit_rl.run.errors import ConfigError, check_ranges
from lit_rl.run.resume import as_settings, load_state, save_plain_hyperparameters, save_state
from lit_rl.run.saved_values import saved_like
from lit_rl.schedules import LRInterval, Schedule, optimizer_and_scheduler

KEPT = {"returns": torch.float32, "advantages": torch.float32, "valid": torch.bool}  # [T, B] each, of v-trace


class RNaD(L.LightningModule):
    """Regularised self-play. Arguments that are not listed are PPO's.

    Args:
        form: kl for PPO's loss and KL(pi || pi_ref), neurd for DeepNash's reward transform, v-trace and NeuRD.
        reference: builds the reference policy, see `lit_rl.references`.
        reference_coef: alpha, weight of KL(pi || pi_ref), in reward units per nat (form kl).
        entropy_coef: gamma_H, weight of the entropy, in reward units per nat.
        eta: price of leaving the reference, in reward units per nat (form neurd).
        neurd_threshold: logits, centred, are not pushed further out than this (form neurd).
        neurd_clip: bound on a single advantage (form neurd).
        ema_decay: as in PPO; in the form neurd it is the target network, too, and a long memory holds all back.
        normalize_advantages: as in PPO (form kl).
        value_clip: as in PPO.
    """

    validation_step = test_step = evaluation_step
    predict_step = table_step
    on_save_checkpoint, on_load_checkpoint = save_state, load_state
    configure_optimizers = optimizer_and_scheduler

    def __init__(
        self,
        game: str,
        form: Literal["kl", "neurd"] = "kl",
        network: NetworkFactory = MLP,
        reference: ReferenceFactory = Magnet,
        optimizer: OptimizerCallable = lambda p: torch.optim.Adam(p, lr=1e-3, eps=1e-5),
        lr_schedule: Schedule | LRSchedulerCallable | None = None,
        lr_interval: LRInterval = "iteration",
        minibatches: Minibatches = Minibatches(update_epochs=2, num_minibatches=1),  # noqa: B008
        credit: Credit = Credit(),  # noqa: B008
        clip: PositiveFloat = 0.2,
        value_coef: NonNegativeFloat = 0.5,
        entropy_coef: NonNegativeFloat = 0.05,
        reference_coef: NonNegativeFloat = 1.0,
        eta: NonNegativeFloat = 0.2,
        neurd_threshold: PositiveFloat = 2.0,
        neurd_clip: PositiveFloat = 10_000.0,
        ema_decay: ClosedUnitInterval | None = None,
        normalize_advantages: bool = False,
        value_clip: PositiveFloat | None = None,
    ):
        check_ranges(RNaD.__init__, locals())
        if form not in ("kl", "neurd"):
            raise ConfigError(f"form={form!r}: unknown; use one of kl, neurd")
        if form == "neurd" and normalize_advantages:
            raise ConfigError("normalize_advantages=true: form neurd acts on plain ones; use form='kl'")
        super().__init__()
        save_plain_hyperparameters(self)
        self.game, self.form = load_interface(game), form
        if form == "neurd" and not (self.game.num_players == 2 and self.game.zero_sum):
            raise ConfigError(f"form='neurd' is for two players and zero sums; {self.game.name} is not: use form='kl'")
        self.policy = network(self.game)
        self.average = average_of(self.policy, ema_decay)
        self.reference = reference(self.policy, self.game)
        self.optimizer, self.lr_schedule, self.lr_interval = optimizer, lr_schedule, lr_interval
        self.minibatches, self.credit = as_settings(Minibatches, minibatches), as_settings(Credit, credit)
        if form == "neurd" and self.credit.cut_games == "drop":
            raise ConfigError("cut_games=drop: form neurd follows both players; use carry or bootstrap")
        self.value_coef, self.entropy_coef, self.reference_coef = value_coef, entropy_coef, reference_coef
        self.normalize_advantages, self.value_clip = normalize_advantages, value_clip
        self.clip, self.eta, self.neurd_threshold, self.neurd_clip = clip, eta, neurd_threshold, neurd_clip
        self.register_buffer("decisions", torch.zeros((), dtype=torch.int64))  # sampled so far, over all ranks
        self.batches_per_iteration, self.meter = self.minibatches.per_iteration, Meter()
        self.kept: dict[str, Tensor] = {}  # v-trace and refreshed memories of the running iteration
        self.minibatches.check(self.policy)
        self.remembers = bool(state_shape_of(self.policy))
        self._reference_memories: list[Tensor] = []  # [T, B, *S] of each policy of the reference, in this iteration

    @property
    def collecting(self) -> Collecting:  # temperature 1: the policy that is regularised is the one that plays
        how = {"cut_games": self.credit.cut_games, "merge_rows": self.minibatches.merge_rows}
        return Collecting(chunk_length=self.minibatches.chunk_length, **how)

    def export_policy(self) -> nn.Module:
        return self.policy if self.average is None else self.average.module

    def make_batches(self, rollout: Rollout, generator: torch.Generator) -> Iterator[Batch]:
        if self.remembers:
            self._reference_memories = [memories(policy, rollout) for policy in self.reference.consulted()]
        if self.form == "kl":
            advantages, valid = gae(rollout, self.credit.gamma, self.credit.gae_lambda)
            returns = advantages + rollout.value
        else:
            if "valid" not in self.kept:  # a run resumed in mid-iteration has newer weights
                self.kept |= self._v_trace(rollout)
            returns, advantages, valid = saved_like(self.kept, KEPT, rollout.player.shape)
        return minibatches(
            rollout, advantages, returns, valid, self.minibatches, generator, self.policy, self.kept
        )  # fmt: skip

    @torch.no_grad()
    def _v_trace(self, rollout: Rollout) -> dict[str, Tensor]:
        """Two-player v-trace of the whole rollout: values of the target network, policy as it is now, reference."""
        obs, legal, row = rollout.each() if self.remembers else rollout.distinct()
        obs, legal = obs.to(self.device), legal.to(self.device)
        log_probs = torch.log_softmax(self._ask(self.policy, rollout, obs, legal).logits, dim=-1)  # [M, A]
        counts = torch.bincount(row).to(self.device).float()
        pasts = [one_by_one(states.to(self.device)) for states in self._reference_memories]
        reference = self.reference(obs, legal, log_probs, counts, *([pasts] if self.remembers else []))
        kl = losses.reference_kl(log_probs, reference).cpu()[row]
        value = self._ask(self.export_policy(), rollout, obs, legal).value.cpu()[row]
        log_prob = log_probs.cpu()[row, rollout.action.flatten()]
        shape = rollout.action.shape
        returns, advantages, valid = two_player_v_trace(
            rollout, value.view(shape), log_prob.view(shape), kl.view(shape),
            eta=self.eta, gamma=self.credit.gamma, trace_lambda=self.credit.gae_lambda,
        )  # fmt: skip
        return {"returns": returns, "advantages": advantages, "valid": valid}

    def _ask(self, policy: nn.Module, rollout: Rollout, obs: Tensor, legal: Tensor) -> PolicyOutput:
        """The policy's output at the rows of a rollout, each with what it remembers by then."""
        past = one_by_one(memories(policy, rollout).to(self.device)) if self.remembers else None
        return output_of(policy, obs, legal, past)

    def _refer(self, batch: Batch, log_probs: Tensor, counts: Tensor) -> Tensor:
        """log rho [M, A] at the rows of a minibatch."""
        if batch.chunks is None:
            return self.reference(batch.obs, batch.legal, log_probs, counts)
        first = batch.chunks.first.cpu()
        begin = [states.flatten(0, 1)[first].to(self.device) for states in self._reference_memories]
        pasts = [batch.chunks._replace(state=state) for state in begin]
        return self.reference(batch.obs, batch.legal, log_probs, counts, pasts)

    def on_train_start(self) -> None:
        self.policy.eval()  # dropout off in rollout and update alike, so that the first ratio is 1
        check_whole_iterations(self)  # the reference moves after the last minibatch

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        output = output_of(self.policy, batch.obs, batch.legal, batch.chunks)
        log_probs = torch.log_softmax(output.logits, dim=-1)  # [M, A]
        log_prob, value = log_probs[batch.row, batch.action], output.value[batch.row]  # [N]
        counts = torch.zeros(len(batch.obs), device=log_prob.device).index_add_(0, batch.row, batch.state_weight)  # [M]
        reference = self._refer(batch, log_probs.detach(), counts)  # [M, A]
        if self.form == "kl":
            advantages = losses.normalized(batch.advantages) if self.normalize_advantages else batch.advantages
            policy_loss = losses.clipped_surrogate(log_prob, batch.log_prob, advantages, self.clip)  # [N]
            policy_loss = policy_loss * batch.action_weight
        else:
            policy_loss = self._neurd(output.logits, log_probs.detach(), reference, batch)  # [N]
        value_loss = losses.value_loss(value, batch.returns, batch.value, self.value_clip)  # [N]
        entropy = losses.entropy(log_probs)[batch.row]  # [N]
        reference_kl = losses.reference_kl(log_probs, reference)[batch.row]  # [N]
        terms = {
            "policy_loss": policy_loss.mean(),
            "value_loss": (value_loss * batch.state_weight).mean(),
            "entropy": (entropy * batch.state_weight).mean(),
            "reference_kl": (reference_kl * batch.state_weight).mean(),
        }
        loss = terms["policy_loss"] + self.value_coef * terms["value_loss"]
        if self.form == "kl":  # in the form neurd entropy and KL are paid for in the advantages
            loss = loss - self.entropy_coef * terms["entropy"] + self.reference_coef * terms["reference_kl"]
        change = losses.update_metrics(log_prob, batch.log_prob, batch.value, batch.returns, self.clip)
        self.meter.add(terms, loss=loss, **change)
        return loss

    def _neurd(self, logits: Tensor, log_probs: Tensor, reference: Tensor, batch: Batch) -> Tensor:
        """NeuRD loss [N] on Q(a) = V - eta log(pi / rho)(a) + 1[a = a_t] d / mu(a_t), centred by pi."""
        row, legal = batch.row, batch.legal
        regular = -self.eta * (log_probs - reference) - self.entropy_coef * log_probs
        regular = torch.where(legal, regular, 0.0)  # [M, A]
        sampled = batch.advantages / batch.drawn  # [N]
        q = regular[row].scatter_add(1, batch.action.unsqueeze(1), sampled.unsqueeze(1))  # [N, A]
        advantages = q - (log_probs[row].exp() * q).sum(-1, keepdim=True)
        loss = losses.neurd(logits[row], legal[row], advantages, self.neurd_threshold, self.neurd_clip)
        return loss * batch.state_weight

    def optimizer_step(self, epoch, batch_idx, optimizer, optimizer_closure=None) -> None:
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        if self.average is not None:
            self.average.update_parameters(self.policy)
        if batch_idx + 1 == self.batches_per_iteration:  # here, so that a checkpoint after this minibatch has it
            source = self.policy if self.form == "kl" else self.export_policy()  # NeuRD's are copies of the target
            self.reference.update(source, self.trainer.current_epoch)

    def on_train_epoch_end(self) -> None:
        self.meter.log(self, **{f"reference/{k}": v.float() for k, v in self.reference.metrics().items()})
