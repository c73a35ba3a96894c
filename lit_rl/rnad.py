"""R-NaD by self-play: learning that is held close to a reference policy, which follows at a distance.

Self-play alone circles around an equilibrium (scripts/trajectory.py draws it). A price on leaving a reference policy
makes it settle between the two; the reference then moves there, and so on towards the equilibrium itself: regularised
Nash dynamics (Perolat et al. 2021, arXiv 2002.08456). Two forms, chosen by `form`:

kl      The policy gradient of PPO with the KL to a reference, as the users' documents have it; with the moving
        reference the magnet of MMD (Sokota et al. 2023, arXiv 2206.05825):

            L = L_policy + beta L_value - gamma_H H(pi) + alpha KL(pi || pi_ref)

        L_policy is the clipped surrogate of per-player GAE. alpha = 0 is PPO to the last bit.

neurd   DeepNash's (Perolat et al. 2022, arXiv 2206.15378). The game itself is changed: each player pays
        eta log(pi(a) / pi_ref(a)) for its actions and is paid the other's. Two-player v-trace with a target network
        (the average of `ema_decay`) estimates all actions' values of that game,

            Q(a) = V - eta log(pi(a) / pi_ref(a)) + 1[a = a_t] d_t / mu(a_t),      A = Q - sum over b of pi(b) Q(b)

        and NeuRD moves the logits along A, within a threshold (`lit_rl.losses.neurd`); L = L_neurd + beta L_value.
        References are copies of the target network. Ours: gamma_H, which adds -gamma_H log pi(a) to Q, and the
        weights of `visit_exponent`, which put n(s, a) / n(s), the share an action really got, for mu(a): far less
        noise, but an action too rare to be drawn, pi(a) n(s) < 1, feels its advantage only now and then.

Which reference (`lit_rl.references`): one refreshed every so often, with R-NaD's glide from one to the next if wanted;
a magnet; a portfolio. What this leaves out: recurrence, DeepNash's thresholded and rounded policy at test time, more
than two players in the form neurd.

One iteration is as in `lit_rl.ppo`: `Rollout [T, B, ...]` -> `make_batches` -> `Batch [N, ...]` -> `training_step`; the
reference moves after the last minibatch. Letters: T steps, B envs, N decisions, M distinct infostates, A actions.
"""

from collections.abc import Iterator
from typing import Literal

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
from lit_rl.references import Magnet, ReferenceFactory
from lit_rl.returns import gae, two_player_v_trace
from lit_rl.rollout import Rollout
from lit_rl.row_index import merge_equal_rows
from lit_rl.run.errors import ConfigError, check_ranges
from lit_rl.run.resume import load_state, save_state
from lit_rl.schedules import LRInterval, Schedule, optimizer_and_scheduler


class RNaD(L.LightningModule):
    """Regularised Nash dynamics by self-play.

    Args:
        game: import path of the game (the CLI copies it from data.game).
        form: kl for PPO's policy loss and KL(pi || pi_ref), neurd for DeepNash's reward transform, v-trace and NeuRD.
        network: builds the policy and value network for the game.
        reference: builds the reference policy, see `lit_rl.references`.
        optimizer: torch optimizer; its learning rate is what `lr_schedule` scales.
        lr_schedule: a schedule of `lit_rl.schedules` (a factor on the learning rate over the whole run), or one of
            torch's own schedulers by class path.
        lr_interval: advance `lr_schedule` once per iteration or once per optimizer step.
        update_epochs: passes over each rollout.
        num_minibatches: minibatches per pass.
        gamma: discount per own decision.
        gae_lambda: lambda of generalised advantage estimation, and of v-trace.
        clip: bound on how far the probability ratio may leave 1 (form kl).
        value_coef: beta, weight of the value loss.
        entropy_coef: gamma_H, weight of the entropy bonus, in reward units per nat.
        reference_coef: alpha, weight of KL(pi || pi_ref), in reward units per nat (form kl).
        eta: price of leaving the reference, in reward units per nat (form neurd).
        neurd_threshold: logits, centred, are not pushed further out than this (form neurd).
        neurd_clip: bound on a single advantage (form neurd).
        ema_decay: export an exponential moving average of the weights with this decay per optimizer step; null
            exports the weights themselves. In the form neurd it is the target network, too, and a long memory holds
            all back (configs/leduc_rnad_neurd.yaml).
        whole_games: learn from a decision once its game is over, which is unbiased (see `lit_rl.returns.gae`); false
            cuts games at the end of each rollout, for games much longer than that.
        visit_exponent: an infostate seen n times in a minibatch counts n to this power in the losses, each action
            drawn there as much as the policy expects (see `lit_rl.row_index.infostate_weights`); null counts every
            decision the same.
        merge_rows: evaluate each distinct infostate of a rollout once (exact, and faster in small games).
    """

    fixed_during_fit = ("update_epochs", "num_minibatches")  # the loader's length is known to Lightning
    sampling_temperature = 1.0  # the policy that is regularised is the one that plays

    def __init__(
        self,
        game: str,
        form: Literal["kl", "neurd"] = "kl",
        network: NetworkFactory = MLP,
        reference: ReferenceFactory = Magnet,
        optimizer: OptimizerCallable = lambda p: torch.optim.Adam(p, lr=1e-3, eps=1e-5),
        lr_schedule: Schedule | LRSchedulerCallable | None = None,
        lr_interval: LRInterval = "iteration",
        update_epochs: PositiveInt = 2,
        num_minibatches: PositiveInt = 1,
        gamma: ClosedUnitInterval = 1.0,
        gae_lambda: ClosedUnitInterval = 0.95,
        clip: PositiveFloat = 0.2,
        value_coef: NonNegativeFloat = 0.5,
        entropy_coef: NonNegativeFloat = 0.05,
        reference_coef: NonNegativeFloat = 1.0,
        eta: NonNegativeFloat = 0.2,
        neurd_threshold: PositiveFloat = 2.0,
        neurd_clip: PositiveFloat = 10_000.0,
        ema_decay: ClosedUnitInterval | None = None,
        whole_games: bool = True,
        visit_exponent: ClosedUnitInterval | None = None,
        merge_rows: bool = True,
    ):
        check_ranges(RNaD.__init__, locals())
        if form not in ("kl", "neurd"):
            raise ConfigError(f"form={form!r}: unknown; use one of kl, neurd")
        super().__init__()
        self.save_hyperparameters(logger=False)
        for name in ("network", "reference", "optimizer", "lr_schedule"):  # the CLI gives class paths; code stays out
            if not isinstance(self.hparams[name], dict):
                self.hparams.pop(name)
        self.game, self.form = load_game(game), form
        if form == "neurd" and not (self.game.num_players == 2 and self.game.zero_sum):
            raise ConfigError(f"form='neurd' is for two players and zero sums; {self.game.name} is not: use form='kl'")
        self.policy = network(self.game)
        self.average = None
        if ema_decay is not None:
            self.average = AveragedModel(self.policy, multi_avg_fn=get_ema_multi_avg_fn(ema_decay))
            self.average.requires_grad_(False)
        self.reference = reference(self.policy, self.game)
        self.optimizer, self.lr_schedule, self.lr_interval = optimizer, lr_schedule, lr_interval
        self.update_epochs, self.num_minibatches = update_epochs, num_minibatches
        self.gamma, self.gae_lambda, self.clip = gamma, gae_lambda, clip
        self.value_coef, self.entropy_coef, self.reference_coef = value_coef, entropy_coef, reference_coef
        self.eta, self.neurd_threshold, self.neurd_clip = eta, neurd_threshold, neurd_clip
        self.whole_games, self.visit_exponent, self.merge_rows = whole_games, visit_exponent, merge_rows
        self.register_buffer("decisions", torch.zeros((), dtype=torch.int64))  # sampled so far, over all ranks
        self.loss_terms: dict[str, Tensor] = {}  # of the last minibatch; `callbacks.FiniteGuard` reads them
        self.iteration_metrics: list[dict[str, Tensor]] = []  # of this iteration's minibatches

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
        if self.form == "kl":
            advantages, valid = gae(rollout, self.gamma, self.gae_lambda, self.whole_games)
            returns = advantages + rollout.value
        else:
            if not rollout.notes:  # once per rollout: a run resumed in its middle has newer weights
                rollout.notes.update(self._v_trace(rollout))
            returns, advantages, valid = (rollout.notes[name] for name in ("returns", "advantages", "valid"))
        return minibatches(
            rollout, advantages, returns, valid, update_epochs=self.update_epochs,
            num_minibatches=self.num_minibatches, visit_exponent=self.visit_exponent, merge_rows=self.merge_rows,
            generator=generator,
        )  # fmt: skip

    @torch.no_grad()
    def _v_trace(self, rollout: Rollout) -> dict[str, Tensor]:
        """Two-player v-trace of the whole rollout: values of the target network, policy as it is now, reference."""
        obs, legal = rollout.obs.flatten(0, 1), rollout.legal.flatten(0, 1)
        first, row = merge_equal_rows(obs, legal)
        obs, legal = obs[first].to(self.device), legal[first].to(self.device)
        log_probs = torch.log_softmax(self.policy(obs, legal).logits, dim=-1)  # [M, A]
        counts = torch.bincount(row).to(self.device).float()
        kl = losses.reference_kl(log_probs, self.reference(obs, legal, log_probs, counts)).cpu()[row]
        value = self.export_policy()(obs, legal).value.cpu()[row]
        log_prob = log_probs.cpu()[row, rollout.action.flatten()]
        shape = rollout.action.shape
        returns, advantages, valid = two_player_v_trace(
            rollout, value.view(shape), log_prob.view(shape), kl.view(shape),
            eta=self.eta, gamma=self.gamma, trace_lambda=self.gae_lambda,
        )  # fmt: skip
        return {"returns": returns, "advantages": advantages, "valid": valid}

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        save_state(self, checkpoint)

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        load_state(self, checkpoint)

    def on_train_start(self) -> None:
        self.policy.eval()  # dropout off in rollout and update alike, so that the first ratio is 1

    def on_train_epoch_start(self) -> None:
        self.iteration_metrics.clear()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        output = self.policy(batch.obs, batch.legal)
        log_probs = torch.log_softmax(output.logits, dim=-1)  # [M, A]
        log_prob, value = log_probs[batch.row, batch.action], output.value[batch.row]  # [N]
        counts = torch.zeros(len(batch.obs), device=log_prob.device).index_add_(0, batch.row, batch.state_weight)  # [M]
        reference = self.reference(batch.obs, batch.legal, log_probs.detach(), counts)  # [M, A]
        if self.form == "kl":
            policy_loss = losses.clipped_surrogate(log_prob, batch.log_prob, batch.advantages, self.clip)  # [N]
            policy_loss = policy_loss * batch.action_weight
        else:
            policy_loss = self._neurd(output.logits, log_probs.detach(), reference, batch)  # [N]
        value_loss = losses.value_loss(value, batch.returns, batch.value, None)  # [N]
        entropy = losses.entropy(log_probs)[batch.row]  # [N]
        reference_kl = losses.reference_kl(log_probs, reference)[batch.row]  # [N]
        self.loss_terms = {
            "policy_loss": policy_loss.mean(),
            "value_loss": (value_loss * batch.state_weight).mean(),
            "entropy": (entropy * batch.state_weight).mean(),
            "reference_kl": (reference_kl * batch.state_weight).mean(),
        }
        if self.form == "kl":  # L = L_policy + beta L_value - gamma_H H + alpha KL(pi || pi_ref)
            loss = (
                self.loss_terms["policy_loss"]
                + self.value_coef * self.loss_terms["value_loss"]
                - self.entropy_coef * self.loss_terms["entropy"]
                + self.reference_coef * self.loss_terms["reference_kl"]
            )
        else:  # entropy and KL are paid for in the advantages
            loss = self.loss_terms["policy_loss"] + self.value_coef * self.loss_terms["value_loss"]
        with torch.no_grad():
            self.iteration_metrics.append(
                {name: term.detach() for name, term in self.loss_terms.items()}
                | {
                    "loss": loss.detach(),
                    "approx_kl": losses.approx_kl(log_prob, batch.log_prob).mean(),
                    "clip_fraction": losses.clip_fraction(log_prob, batch.log_prob, self.clip).mean(),
                    "explained_variance": losses.explained_variance(batch.value, batch.returns),
                }
            )
        return loss

    def _neurd(self, logits: Tensor, log_probs: Tensor, reference: Tensor, batch: Batch) -> Tensor:
        """NeuRD loss [N] on Q(a) = V - eta log(pi / rho)(a) + 1[a = a_t] d / mu(a_t), centred by pi."""
        row, legal = batch.row, batch.legal
        regular = -self.eta * (log_probs - reference) - self.entropy_coef * log_probs
        regular = torch.where(legal, regular, 0.0)  # [M, A]
        sampled = batch.advantages * (batch.action_weight / batch.state_weight) * (-batch.log_prob).exp()  # [N]
        q = regular[row].scatter_add(1, batch.action.unsqueeze(1), sampled.unsqueeze(1))  # [N, A]
        advantages = q - (log_probs[row].exp() * q).sum(-1, keepdim=True)
        return losses.neurd(logits[row], legal[row], advantages, self.neurd_threshold, self.neurd_clip) * (
            batch.state_weight
        )

    def optimizer_step(self, epoch, batch_idx, optimizer, optimizer_closure=None) -> None:
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        if self.average is not None:
            self.average.update_parameters(self.policy)
        if batch_idx + 1 == self.batches_per_iteration:  # here, so that a checkpoint after this minibatch has it
            source = self.policy if self.form == "kl" else self.export_policy()  # NeuRD's are copies of the target
            self.reference.update(source, self.trainer.current_epoch)

    def on_train_epoch_end(self) -> None:
        if self.iteration_metrics and is_log_iteration(self.trainer):
            means = minibatch_means(self.iteration_metrics)
            means |= {f"reference/{k}": v.float() for k, v in self.reference.metrics().items()}
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
