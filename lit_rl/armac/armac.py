"""ARMAC: an actor and a regret policy mixed per infostate, their average policy as the product.

The advantage regret-matching actor-critic (Gruslys et al. 2020, arXiv 2008.12234) plays by regret matching on regrets
that a network has learned from a critic of whole histories, and keeps the average of the policies played, which
approaches an equilibrium of a two-player zero-sum game. The users' documents add an actor, and a learned share of it:

    pi_mix = mix_lambda pi_actor + (1 - mix_lambda) pi_regret          (`armac.mixing`; 0 is regret matching alone)

From the paper: regret matching on learned conditional advantages, the history critic with expected one-step targets,
one seat that explores while the other plays the policy, the average policy learned at the other's decisions, and, where
`data.past_policies` asks for it, past policies in that seat, whose regrets are met again instead of summed. Ours, after
DREAM (Steinberger et al. 2020), and the default: regrets are of the current policy and summed in a memory
(`armac.memory`), and the critic is corrected by what happened (`conditional_regrets`). Also ours: sums
of regrets cut off at 0 (CFR+), quadratic averaging, critic targets that fade over ten iterations, and the actor's rule,
NeuRD on the same advantages with an entropy bonus. Each of the two policies learns as if it had played itself: a
scheduler that has no regret over their mixtures then has none over both.

The share of the actor is fixed, or chosen per infostate by a scheduler that learns from meta-regrets
(`armac.mix_scheduler`, `armac.meta_regret`). What this leaves out: recurrence, games with more than two players or
without zero sum, games that are cut off.

One iteration: rollout -> conditional regrets -> memories -> `Batch` (the rows each network learns from) -> one sum of
losses over networks that share no weights. Letters: T steps, B envs, N decisions, M rows, A actions, P players, K bins.
"""

from collections.abc import Iterator
from dataclasses import asdict
from typing import NamedTuple

import lightning as L
import numpy as np
import torch
from jsonargparse.typing import ClosedUnitInterval, NonNegativeFloat, PositiveFloat
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, nn

from envs.exact import GameTree
from envs.game import load_game
from envs.rng import derive_key
from lit_rl import losses
from lit_rl.armac.memory import (
    CriticMemory,
    Memory,
    MemoryFactory,
    RowMemory,
    Rows,
    Samples,
    cross_entropy,
    squared_error,
)
from lit_rl.armac.meta_regret import MetaRegret, MetaRegretFactory
from lit_rl.armac.mix_scheduler import MixScheduler, Scheduler, SchedulerFactory, scheduler_loss
from lit_rl.armac.mix_utility import Counterfactual, MixedDecisions, MixUtilityFactory
from lit_rl.armac.mixed_policy import CachedPolicy, Mixture, mixed_policy
from lit_rl.armac.mixing import LinearMixer, MixerFactory, check_same_bins
from lit_rl.armac.parameter_groups import (
    ACTOR,
    AVERAGE,
    CRITIC,
    REGRET,
    SCHEDULER,
    GroupSettings,
    clip_groups,
    grouped_optimizer,
)
from lit_rl.armac.state_keys import InfostateKeys, StateKeysFactory
from lit_rl.meter import is_log_iteration, minibatch_means
from lit_rl.networks import MLP, CriticFactory, HistoryMLP
from lit_rl.policy import NetworkFactory, exact_metrics, policy_table
from lit_rl.returns import conditional_regrets
from lit_rl.rollout import Rollout
from lit_rl.row_index import Infostates, infostates, uniform_of_rows
from lit_rl.run.errors import ConfigError, check_ranges
from lit_rl.run.resume import load_state, of_every_rank, save_state, well_formed

DRAW_STREAM = 11


class Batch(NamedTuple):
    """What one optimizer step trains; null for a network that has had its steps of this iteration."""

    regret: Rows | None
    average: Rows | None
    critic: Rows | None
    actor: Rows | None  # target: mean advantages in the mover's view
    scheduler: "ScheduleRows | None"


class ScheduleRows(NamedTuple):
    """What the scheduler sees at M infostates, and the bins it is to prefer there."""

    obs: Tensor  # [M, *D]
    legal: Tensor  # [M, A] bool
    actor: Tensor  # [M, A]
    regret: Tensor  # [M, A]
    q: Tensor  # [M, A], the critic's mean over the histories met, in the mover's view
    desired: Tensor  # [M, K]
    weight: Tensor  # [M], with sum 1


class ARMAC(L.LightningModule):
    """Regret matching with a history critic by self-play; the product is an average-policy network.

    Args:
        game: import path of the game (the CLI copies it from data.game); two players, zero sum.
        network: builds the regret, the average and the actor network for the game.
        critic: builds the history critic.
        memory: what is remembered of regrets and policies: RowMemory or ReservoirMemory of `lit_rl.armac.memory`.
        use_scheduler: let `scheduler` choose the actor's share at each infostate; false: `mix_lambda` everywhere.
        mix_lambda: the actor's share without a scheduler; at 0 there is no actor.
        scheduler: builds the scheduler.
        state_keys: builds the keying: which infostates share a row of the meta-regret table.
        utility: builds the utility of the bins, see `lit_rl.armac.mix_utility`.
        meta_regret: builds the meta-regret table.
        mixer: builds what makes one policy of two.
        optimizer: torch optimizer; its learning rate is not used, but those of the settings below.
        regret_group: how the regret network is trained.
        average_group: how the average network is trained.
        critic_group: how the critic is trained.
        actor_group: how the actor is trained.
        scheduler_group: how the scheduler is trained.
        trace_lambda: of the correction by what happened, see `lit_rl.returns.conditional_regrets`; 1 is unbiased.
        ratio_cap: bound on a single ratio pi(a) / mu(a) in it; null for none.
        critic_decay: weight of a critic target per iteration of age.
        actor_entropy_coef: weight of the actor's entropy, in reward units per nat.
        actor_threshold: the actor's logits, centred, are not pushed further out than this (NeuRD).
        scheduler_utility_coef: weight of the critic's value of the share itself in the scheduler's loss, beside the KL
            to the regret-matched bins; its gradient goes through the relaxed sample.
        exploration: how often each player draws uniformly under other data modules than RetrospectiveDataModule, so
            that actions excluded by regret matching are tried again.
    """

    sampling_temperature = 1.0
    whole_games = True
    merge_rows = True
    observe_all = True  # the critic sees every player's infostate

    def __init__(
        self,
        game: str,
        network: NetworkFactory = MLP,
        critic: CriticFactory = HistoryMLP,
        memory: MemoryFactory = RowMemory,
        use_scheduler: bool = False,
        mix_lambda: ClosedUnitInterval = 0.0,
        scheduler: SchedulerFactory = MixScheduler,
        state_keys: StateKeysFactory = InfostateKeys,
        utility: MixUtilityFactory = Counterfactual,
        meta_regret: MetaRegretFactory = MetaRegret,
        mixer: MixerFactory = LinearMixer,
        optimizer: OptimizerCallable = lambda p: torch.optim.Adam(p, lr=1.0, eps=1e-7),
        regret_group: GroupSettings = REGRET,
        average_group: GroupSettings = AVERAGE,
        critic_group: GroupSettings = CRITIC,
        actor_group: GroupSettings = ACTOR,
        scheduler_group: GroupSettings = SCHEDULER,
        trace_lambda: ClosedUnitInterval = 1.0,
        ratio_cap: PositiveFloat | None = None,
        critic_decay: ClosedUnitInterval = 0.9,
        actor_entropy_coef: NonNegativeFloat = 0.02,
        actor_threshold: PositiveFloat = 10.0,
        scheduler_utility_coef: NonNegativeFloat = 0.1,
        exploration: ClosedUnitInterval = 0.1,
    ):
        check_ranges(ARMAC.__init__, locals())
        super().__init__()
        self.save_hyperparameters(logger=False)
        for name, value in list(self.hparams.items()):  # the CLI gives class paths; code stays out
            if isinstance(value, GroupSettings):
                self.hparams[name] = {key: x if x is None else float(x) for key, x in asdict(value).items()}
            elif name in FACTORIES and not isinstance(value, dict):
                self.hparams.pop(name)
        self.game = load_game(game)
        if not (self.game.num_players == 2 and self.game.zero_sum):
            raise ConfigError(f"game={self.game.name}: ARMAC is for two players and zero sums; use RNaD or PPO")
        self.memory: Memory = memory(self.game)
        self.critic_memory = CriticMemory(self.game, critic_decay)
        self.policy = mixed_policy(self.game, network, memory, use_scheduler, mix_lambda, scheduler, mixer)
        self.state_keys = self.utility = self.meta_regret = None
        if use_scheduler:
            self.state_keys, self.utility = state_keys(self.game), utility()
            if len(self.policy.scheduler.bins) < 2:
                raise ConfigError("scheduler: has one share only; use use_scheduler=false and mix_lambda for that")
            self.meta_regret = meta_regret(self.policy.scheduler.bins)
            check_same_bins(scheduler=self.policy.scheduler.bins, meta_regret=self.meta_regret.bins)
        self.average, self.critic = network(self.game), critic(self.game)
        self.play = CachedPolicy(self.policy, self.game)
        self.optimizer = optimizer
        self.groups = {"regret": regret_group, "average": average_group, "critic": critic_group}
        if self.policy.actor is not None:
            self.groups["actor"] = actor_group
        if any(True for _ in self.policy.scheduler.parameters()):
            self.groups["scheduler"] = scheduler_group
        self.trace_lambda, self.ratio_cap = trace_lambda, float("inf") if ratio_cap is None else ratio_cap
        self.actor_entropy_coef, self.actor_threshold = actor_entropy_coef, actor_threshold
        self.scheduler_utility_coef, self.exploration = scheduler_utility_coef, exploration
        self.register_buffer("decisions", torch.zeros((), dtype=torch.int64))  # sampled so far, over all ranks
        self.register_buffer("rollouts", torch.zeros((), dtype=torch.int64))  # learned from so far
        self.loss_terms: dict[str, Tensor] = {}  # of the last minibatch; `callbacks.FiniteGuard` reads them
        self.iteration_metrics: list[dict[str, Tensor]] = []  # of this iteration's minibatches

    @property
    def batches_per_iteration(self) -> int:
        return max(group.steps for group in self.groups.values())

    def export_policy(self) -> nn.Module:
        """What a user would ship: the average policy."""
        return self.average

    def make_batches(self, rollout: Rollout, generator: torch.Generator) -> Iterator[Batch]:
        """Learn from the rollout's finished games, then hand out the rows of each network, step by step."""
        if "learned" not in rollout.notes:  # once per rollout: a run resumed in its middle remembers it
            rollout.notes.update(self._remember(rollout))
        critic = self.critic_memory.rows()
        sources = {
            "regret": lambda: self.memory.regret_rows(generator),
            "average": lambda: self.memory.average_rows(generator),
            "critic": lambda: critic,
            "actor": lambda: _from_notes(Rows, "actor", rollout),
            "scheduler": lambda: _from_notes(ScheduleRows, "scheduler", rollout),
        }
        iteration = int(self.rollouts) - 1
        for step in range(self.batches_per_iteration):
            trained = {
                name for name, group in self.groups.items() if step < group.steps and iteration % group.every == 0
            }
            yield Batch(**{name: rows() if name in trained else None for name, rows in sources.items()})

    @torch.no_grad()
    def _remember(self, rollout: Rollout) -> dict[str, Tensor]:
        """Conditional regrets of the rollout's finished games into the memories; what else the batches are made of."""
        self.rollouts += 1
        played = rollout.played
        obs, legal, shape = rollout.obs[played], rollout.legal[played], rollout.legal.shape
        mixture = self.play.mixture(obs, legal)
        history = self.critic_memory.index.find_or_add(rollout.history[played], legal)  # [N]
        seen = torch.from_numpy(np.flatnonzero(np.bincount(history.numpy())))
        q = torch.zeros(len(self.critic_memory.index), shape[-1])
        q[seen] = self.critic(self.critic_memory.index.obs[seen].to(self.device)).cpu()
        probs, slot = mixture.probs, rollout.notes.get("slot")
        if slot is not None:  # the game is one of a past policy's, on both sides
            probs = self.trainer.datamodule.past.probs(obs, legal, slot[played])
        found = conditional_regrets(
            rollout, _spread(probs, played), _spread(q[history], played), self.trace_lambda, self.ratio_cap
        )
        advantages, targets, valid = found.regrets[played], found.targets[played], found.valid[played]
        regrets = advantages
        if slot is None:  # each policy learns as if it had played itself
            regrets = advantages - (mixture.regret * advantages).sum(-1, keepdim=True) * legal
        learns = shows = valid
        if "explores" in rollout.notes:  # one seat explores, the others show what they play
            explores = rollout.notes["explores"][played]
            learns, shows = valid & explores, ~rollout.unfinished()[played] & ~explores
        self.memory.add(
            Samples(obs[learns], legal[learns], regrets[learns]),
            Samples(obs[shows], legal[shows], probs[shows]),
            int(self.rollouts),
            generator=torch.Generator().manual_seed(self._key(int(self.rollouts), 1)),
        )
        self.critic_memory.add(history[valid].numpy(), rollout.action[played][valid].numpy(), targets[valid].numpy())
        notes = {"learned": torch.ones(())}
        if self.policy.actor is not None:
            states = infostates(obs[learns], legal[learns])
            mixture = Mixture(*(x[learns][states.first] for x in mixture))
            notes |= self._advantages(states, advantages[learns], mixture.actor)
        if self.meta_regret is not None:
            player = rollout.player[played][learns]
            q = (1.0 - 2.0 * player.float()).unsqueeze(1) * q[history][learns]
            found = self._judge(states, mixture, player[states.first], q, found.values[played][learns])
            judged = _spread(learns, played)
            notes |= found | {name: _spread(found[name][states.row], judged) for name in ("utilities", "keys")}
            notes["judged"] = judged
        return notes

    def _advantages(self, states: Infostates, advantages: Tensor, actor: Tensor) -> dict[str, Tensor]:
        """The actor's rows: mean of the advantages [N, A] against the actor [M, A] itself."""
        mean = states.mean(advantages)
        target = mean - (actor * mean).sum(-1, keepdim=True) * states.legal
        rows = Rows(states.obs, states.legal, target, states.weight.unsqueeze(1).expand_as(target))
        return {f"actor_{name}": x for name, x in rows._asdict().items()}

    def _judge(
        self, states: Infostates, mixture: Mixture, player: Tensor, q: Tensor, values: Tensor
    ) -> dict[str, Tensor]:
        """Utilities of all bins into the meta-regret table, and the scheduler's rows: where regrets are learned, since
        there histories of one infostate weigh what chance and the other player's own policy make them weigh.

        mixture [M], player [M]; q [N, A], the critic in the mover's view; values [N], what the mover got or may expect.
        """
        q = states.mean(q)
        decisions = MixedDecisions(
            actor=mixture.actor, regret=mixture.regret, mix_lambda=mixture.mix_lambda, bin=mixture.bin,
            bin_prob=mixture.bin_prob, q=q, returns=states.mean(values.unsqueeze(1)).squeeze(1), count=states.visits,
        )  # fmt: skip
        utilities = self.utility(decisions, self.policy.mixer, self.policy.scheduler.bins)
        keys = self.state_keys(states.obs, player)
        self.meta_regret.update(keys, utilities, states.visits)
        rows = ScheduleRows(
            states.obs, states.legal, mixture.actor, mixture.regret, q, self.meta_regret.desired(keys), states.weight
        )
        return {f"scheduler_{name}": x for name, x in rows._asdict().items()} | {"utilities": utilities, "keys": keys}

    def describe(self, rollout: Rollout, previous: Rollout | None) -> None:
        """Note down which share of the actor was played at each decision of a rollout; those carried keep theirs."""
        if self.policy.actor is None:
            return
        shape = rollout.action.shape
        mixture = self.play.mixture(rollout.obs.flatten(0, 1), rollout.legal.flatten(0, 1))
        for name in ("mix_lambda", "bin"):
            note = getattr(mixture, name).view(shape).clone()
            if previous is not None and rollout.carried:
                note[: rollout.carried] = previous.notes[name][-rollout.carried :]
            rollout.notes[name] = note

    def replay_extras(self, rollout: Rollout) -> dict[str, Tensor]:
        """For the replay, per decision: the actor's share, its bin and, where the scheduler learned from it, the
        utilities of all bins under the policy of the iteration that learned."""
        if "mix_lambda" not in rollout.notes:  # a rollout of somebody else's, such as the replay's own games
            self.describe(rollout, None)
        return {name: rollout.notes[name] for name in ("mix_lambda", "bin", "utilities") if name in rollout.notes}

    @property
    def scheduler(self) -> Scheduler:
        return self.policy.scheduler

    def mix_statistics(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """mix_lambda, bin and state key [N] of the decisions that the scheduler learned from in this iteration; without
        one, of all decisions, and no keys."""
        rollout = self.trainer.train_dataloader.rollout
        extras, which = self.replay_extras(rollout), rollout.notes.get("judged", rollout.played)
        if "mix_lambda" not in extras:  # there is no actor
            nothing = torch.zeros(int(which.sum()))
            return nothing, nothing.long(), None
        keys = rollout.notes["keys"][which] if "keys" in rollout.notes else None
        return extras["mix_lambda"][which], extras["bin"][which], keys

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        save_state(self, checkpoint)
        mine = {"memory": self.memory.state_dict(), "critic_memory": self.critic_memory.state_dict()}
        mine["seen"] = self.play.index.state_dict()  # which rows share a forward decides the last bits
        if self.meta_regret is not None:
            mine["meta_regret"] = self.meta_regret.save()
        checkpoint["memories"] = of_every_rank(self.trainer, mine)

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        load_state(self, checkpoint)
        with well_formed("what ARMAC remembers"):
            ranks = checkpoint["memories"]
            mine = ranks[min(self.global_rank, len(ranks) - 1)]
            self.memory.load_state_dict(mine["memory"])
            self.critic_memory.load_state_dict(mine["critic_memory"])
            self.play.index.load_state_dict(mine["seen"])
            if self.meta_regret is not None:
                self.meta_regret.load(mine["meta_regret"])

    def on_fit_start(self) -> None:
        strategy = self.trainer.strategy
        if isinstance(strategy, DDPStrategy) and not strategy._ddp_kwargs.get("find_unused_parameters"):
            raise ConfigError(
                "trainer.strategy: not all networks of ARMAC learn in each step; use ddp_find_unused_parameters_true"
            )
        if getattr(self.trainer.datamodule, "truncate_after", None) is not None:
            raise ConfigError("data.truncate_after: ARMAC learns from games that are played to their end; use null")
        if not self.trainer.max_epochs or self.trainer.max_epochs < 1:
            raise ConfigError(f"trainer.max_epochs={self.trainer.max_epochs}: ARMAC needs a run of known length")

    def on_train_start(self) -> None:
        if self.trainer.num_training_batches < self.batches_per_iteration:
            raise ConfigError(
                f"trainer.limit_train_batches: an iteration of ARMAC has {self.batches_per_iteration} minibatches, not "
                f"{self.trainer.num_training_batches}; lower the steps of its groups instead"
            )
        self.policy.eval()
        self._prepare(self.trainer.current_epoch)

    def on_train_epoch_start(self) -> None:
        self.iteration_metrics.clear()

    def _prepare(self, iteration: int) -> None:
        """Get the policy ready to play this iteration."""
        total = self.trainer.max_epochs
        self.policy.scheduler.set_progress(min(iteration, total - 1), total)
        self.policy.draw_key.fill_(self._key(iteration, 0))
        self.play.renew()

    def _key(self, iteration: int, purpose: int) -> int:
        seed, rank = self.trainer.datamodule.seed, self.global_rank if purpose else 0
        return derive_key(seed, DRAW_STREAM, purpose, rank, iteration) >> 1

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The networks share no weights, so the sum of their losses trains each on its own."""
        self.loss_terms = {}
        if batch.regret is not None:
            logits = self.policy.regret(batch.regret.obs, batch.regret.legal).logits
            self.loss_terms["regret_loss"] = self.memory.regret_loss(logits, batch.regret)
        if batch.average is not None:
            logits = self.average(batch.average.obs, batch.average.legal).logits
            self.loss_terms["average_loss"] = cross_entropy(logits, batch.average)
        if batch.critic is not None:
            error = squared_error(self.critic(batch.critic.obs), batch.critic)
            self.loss_terms["critic_loss"] = error / self.game.max_return**2
        if batch.actor is not None:
            self.loss_terms["actor_loss"] = self._actor_loss(batch.actor)
        if batch.scheduler is not None:
            self.loss_terms["scheduler_loss"] = self._scheduler_loss(batch.scheduler)
        loss = torch.stack(list(self.loss_terms.values())).sum()
        self.iteration_metrics.append({name: term.detach() for name, term in self.loss_terms.items()})
        return loss

    def _actor_loss(self, rows: Rows) -> Tensor:
        """NeuRD on advantages with the entropy's part, - actor_entropy_coef log pi(a), centred."""
        logits = self.policy.actor(rows.obs, rows.legal).logits
        log_probs = torch.log_softmax(logits.detach(), dim=-1)
        force = rows.target - self.actor_entropy_coef * torch.where(rows.legal, log_probs, 0.0)
        force = force - (log_probs.exp() * force).sum(-1, keepdim=True)
        loss = losses.neurd(logits, rows.legal, force, self.actor_threshold, float("inf"))
        return (rows.weight[:, 0] * loss).sum()

    def _scheduler_loss(self, rows: ScheduleRows) -> Tensor:
        """KL to the regret-matched bins, and the utility of the relaxed sample itself (hence the temperature)."""
        scheduler, key = self.policy.scheduler, int(self.policy.draw_key)
        logits = scheduler.logits(rows.obs, rows.actor, rows.regret)
        output = scheduler.draw(logits, uniform_of_rows(rows.obs, rows.legal, logits.shape[1], key).to(logits.device))
        utility = (self.policy.mixer(rows.actor, rows.regret, output.mix_lambda) * rows.q).sum(-1)
        loss = scheduler_loss(logits, rows.desired, scheduler.bins) + scheduler.regulariser(logits)
        return (rows.weight * (loss - self.scheduler_utility_coef * utility / self.game.max_return)).sum()

    def configure_gradient_clipping(self, optimizer, gradient_clip_val=None, gradient_clip_algorithm=None) -> None:
        clip_groups(optimizer, self.groups)
        self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def optimizer_step(self, epoch, batch_idx, optimizer, optimizer_closure=None) -> None:
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        if batch_idx + 1 == self.batches_per_iteration:  # here, so that a checkpoint after this minibatch has it
            self._prepare(self.trainer.current_epoch + 1)

    def on_train_epoch_end(self) -> None:
        if self.iteration_metrics and is_log_iteration(self.trainer):
            means = minibatch_means(self.iteration_metrics)
            self.log_dict(means | {"decisions": self.decisions.float()}, sync_dist=self.trainer.world_size > 1)

    def validation_step(self, tree: GameTree, batch_idx: int) -> None:
        self.log_dict(exact_metrics(self.export_policy(), tree), batch_size=1)

    test_step = validation_step

    def predict_step(self, tree: GameTree, batch_idx: int) -> Tensor:
        """Action probabilities [R, A] of the exported policy at every infostate of the game tree."""
        return torch.from_numpy(policy_table(self.export_policy(), tree))

    def configure_optimizers(self):
        networks = {
            "regret": self.policy.regret, "average": self.average, "critic": self.critic, "actor": self.policy.actor,
            "scheduler": self.policy.scheduler,
        }  # fmt: skip
        return grouped_optimizer(networks, self.groups, self.optimizer, self.trainer.max_epochs)


FACTORIES = (
    "network", "critic", "memory", "scheduler", "state_keys", "utility", "meta_regret", "mixer", "optimizer",
)  # fmt: skip


def _from_notes(kind: type, prefix: str, rollout: Rollout):
    return kind(*(rollout.notes[f"{prefix}_{name}"] for name in kind._fields))


def _spread(rows: Tensor, played: Tensor) -> Tensor:
    """[N, ...] back to [T, B, ...], 0 where nothing was played."""
    spread = rows.new_zeros(*played.shape, *rows.shape[1:])
    spread[played] = rows
    return spread
