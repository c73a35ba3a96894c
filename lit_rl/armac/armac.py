"""ARMAC: an actor and a regret policy mixed per infostate, their average policy as the product.

What the default is: outcome-sampling MCCFR+ with a learned history critic, distilled (rows per infostate). One seat of
each game explores; a critic of whole histories, corrected by what happened, tells the regrets of all its actions
(`conditional_regrets`: a control variate, Davis et al. 2020; DREAM, Steinberger et al. 2020). Where chance plays after
an action, the mean over all that it may do, by the rules, takes the place of what it did (`armac.chance`; VR-MCCFR,
Schmid et al. 2019). `armac.memory` sums the regrets per infostate, cut off at 0 (CFR+), and the other seat's policies
with weight t^2. Networks learn the critic and two distillations: the policy that plays next, regret matching on the
sums, and the average policy, the product.

ARMAC as published (Gruslys et al. 2020, arXiv 2008.12234): the other seat and the regrets are past policies'
(`datamodules.retrospective`), and a network learns the regrets themselves (`armac.memory.ReservoirMemory`); critic,
explorer and average are as above. The users' documents add an actor, and a learned share of it:

    pi_mix = mix_lambda pi_actor + (1 - mix_lambda) pi_regret          (`armac.mixing`; 0 is regret matching alone)
Ours: critic targets that fade over ten iterations, and the actor's rule, NeuRD on the same advantages with an entropy
bonus. Each of the two learns as if it had played itself, so that a scheduler without regret over their mixtures has
none over both; the one here is not without (`armac.meta_regret`: means that fade, clipped, learned by a network).

The share of the actor is fixed, or chosen per infostate by a scheduler that learns from meta-regrets
(`armac.mix_scheduler`, `armac.meta_regret`). What this leaves out: recurrence, games with more than two players or
without zero sum, games that are cut off.

    litrl fit --config configs/leduc_armac.yaml        NashConv 0.080 on Leduc after 10 M decisions (median of 5 seeds)

One iteration: rollout -> credit -> memories and lessons (`armac.credit`) -> `Batch` (the rows each network learns from)
-> one sum of losses over networks that share no weights. Letters: T steps, B envs, N decisions, M rows, A actions,
P players, K bins.
"""

from collections.abc import Iterator
from typing import NamedTuple, get_args

import lightning as L
import torch
from jsonargparse.typing import ClosedUnitInterval, NonNegativeFloat, NonNegativeInt, PositiveFloat
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn

from envs.game import Game, load_interface
from envs.rng import derive_key
from lit_rl import losses
from lit_rl.algorithm import Meter, check_whole_iterations
from lit_rl.armac.chance import chances, luck
from lit_rl.armac.credit import Explorers, Judge, Lessons, ScheduleRows, credit, lessons, mix_statistics, spread
from lit_rl.armac.critic_memory import CriticMemoryFactory, FadingTargets
from lit_rl.armac.infostates import uniform_of_rows
from lit_rl.armac.memory import MemoryFactory, RowMemory
from lit_rl.armac.meta_regret import MetaRegret, MetaRegretFactory
from lit_rl.armac.mix_scheduler import FixedLambda, MixScheduler, MixStatistics, SchedulerFactory, scheduler_loss
from lit_rl.armac.mix_utility import Counterfactual, MixUtilityFactory
from lit_rl.armac.mixed_policy import Mixture, mixed_policy
from lit_rl.armac.mixing import LinearMixer, MixerFactory, check_same_bins
from lit_rl.armac.parameter_groups import Groups, check_strategy, clip_groups, grouped_optimizer
from lit_rl.armac.rows import Rows
from lit_rl.armac.state_keys import InfostateKeys, StateKeysFactory
from lit_rl.evaluation import evaluation_step, table_step
from lit_rl.networks import MLP, CriticFactory, HistoryMLP
from lit_rl.policy import NetworkFactory, state_shape_of
from lit_rl.rollout import Collecting, Rollout
from lit_rl.run import resume
from lit_rl.run.errors import ConfigError, check_ranges

DRAW_STREAM = 11


class Batch(NamedTuple):
    """What one optimizer step trains; null for a network that has had its steps of this iteration."""

    regret: Rows | None
    average: Rows | None
    critic: Rows | None
    actor: Rows | None  # target: mean advantages in the mover's view
    scheduler: ScheduleRows | None


class ARMAC(L.LightningModule):
    """Regret matching with a history critic by self-play; the product is an average-policy network.

    Args:
        game: import path of the game (the CLI copies it from data.game); two players, zero sum.
        network: builds the regret, the average and the actor network for the game.
        critic: builds the history critic.
        memory: what is remembered of regrets and policies: RowMemory or ReservoirMemory of `lit_rl.armac.memory`.
        critic_memory: what is remembered of the critic's targets: FadingTargets, or LastTargets where histories do not
            come back, of `lit_rl.armac.critic_memory`.
        cache_rows: look at each infostate once per iteration and remember up to about so many; 0 for games whose
            infostates do not come back.
        explorers: one: in row b player b mod P explores, its decisions train regrets and those of the others show the
            policy for the average; all: everybody explores alike, and every decision does both.
        exploration: how often a player who explores draws uniformly instead of by the policy, so that actions excluded
            by regret matching are tried again; 1 for one explorer: only then do all iterations weigh the same in sums.
        use_scheduler: let `scheduler` choose the actor's share at each infostate; false: `mix_lambda` everywhere.
        mix_lambda: the actor's share without a scheduler, which a schedule may move; where it begins at 0 there is no
            actor.
        scheduler: builds the scheduler.
        state_keys: builds the keying: which infostates share a row of the meta-regret table.
        utility: builds the utility of the bins, see `lit_rl.armac.mix_utility`.
        meta_regret: builds the meta-regret table.
        mixer: builds what makes one policy of two.
        optimizer: torch optimizer; its learning rate is not used, but those of the settings below.
        groups: how each of the networks is trained.
        expected_chance: values of what follows an action are means over what chance may do there, by the rules, instead
            of what it did; false where that is too much to look at.
        trace_lambda: of the correction by what happened; 1: regrets are right in the mean, whatever the critic says.
        ratio_cap: bound on a single ratio pi(a) / mu(a) in it; null for none.
        actor_entropy_coef: weight of the actor's entropy, in reward units per nat.
        actor_threshold: the actor's logits, centred, are not pushed further out than this (NeuRD).
        scheduler_utility_coef: weight of the critic's value of the share itself in the scheduler's loss, beside the KL
            to the regret-matched bins; its gradient goes through the relaxed sample.
    """

    validation_step = test_step = evaluation_step
    predict_step = table_step

    def __init__(
        self,
        game: str,
        network: NetworkFactory = MLP,
        critic: CriticFactory = HistoryMLP,
        memory: MemoryFactory = RowMemory,
        critic_memory: CriticMemoryFactory = FadingTargets,
        cache_rows: NonNegativeInt = 8192,
        explorers: Explorers = "one",
        exploration: ClosedUnitInterval = 1.0,
        use_scheduler: bool = False,
        mix_lambda: ClosedUnitInterval = 0.0,
        scheduler: SchedulerFactory = MixScheduler,
        state_keys: StateKeysFactory = InfostateKeys,
        utility: MixUtilityFactory = Counterfactual,
        meta_regret: MetaRegretFactory = MetaRegret,
        mixer: MixerFactory = LinearMixer,
        optimizer: OptimizerCallable = lambda p: torch.optim.Adam(p, lr=1.0, eps=1e-7),
        groups: Groups = Groups(),  # noqa: B008
        expected_chance: bool = True,
        trace_lambda: ClosedUnitInterval = 1.0,
        ratio_cap: PositiveFloat | None = None,
        actor_entropy_coef: NonNegativeFloat = 0.02,
        actor_threshold: PositiveFloat = 10.0,
        scheduler_utility_coef: NonNegativeFloat = 0.1,
    ):
        check_ranges(ARMAC.__init__, locals())
        super().__init__()
        resume.save_plain_hyperparameters(self)
        self.game = load_interface(game)
        if not (self.game.num_players == 2 and self.game.zero_sum):
            raise ConfigError(f"game={self.game.name}: ARMAC is for two players and zero sums; use RNaD or PPO")
        if expected_chance and not isinstance(self.game, Game):
            raise ConfigError(
                f"expected_chance=true: {self.game.name} has no rules here to ask what chance may do; use false"
            )
        if explorers not in get_args(Explorers):
            raise ConfigError(f"explorers={explorers!r}: unknown; use one of {', '.join(get_args(Explorers))}")
        self.collecting = Collecting(
            exploration=float(exploration), explorers=explorers, observe_all=True, truncation=False, shaping=False
        )
        self.memory = memory(self.game)
        self.critic_memory = critic_memory(self.game)
        self.policy = mixed_policy(
            self.game, network, memory, use_scheduler, mix_lambda, scheduler, mixer, int(cache_rows)
        )
        self.mix_lambda = mix_lambda
        self.state_keys = self.utility = self.meta_regret = None
        if use_scheduler:
            self.state_keys = state_keys(self.game)
            self.utility = utility()
            if len(self.policy.scheduler.bins) < 2:
                raise ConfigError("scheduler: has one share only; use use_scheduler=false and mix_lambda for that")
            self.meta_regret = meta_regret(self.policy.scheduler.bins)
            check_same_bins(scheduler=self.policy.scheduler.bins, meta_regret=self.meta_regret.bins)
        self.average = network(self.game)
        if state_shape_of(self.average):
            raise ConfigError(
                f"model.network={type(self.average).__name__}: has a memory, and ARMAC learns from single decisions; "
                "use PPO or RNaD, or a network without"
            )
        self.critic = critic(self.game)
        self.optimizer, self.trace_lambda, self.expected_chance = optimizer, trace_lambda, expected_chance
        self.networks = {"regret": self.policy.regret, "average": self.average, "critic": self.critic}
        if self.policy.actor is not None:
            self.networks["actor"] = self.policy.actor
        if any(True for _ in self.policy.scheduler.parameters()):
            self.networks["scheduler"] = self.policy.scheduler
        groups = resume.as_settings(Groups, groups)
        self.groups = {name: getattr(groups, name) for name in self.networks}
        self.ratio_cap = float("inf") if ratio_cap is None else ratio_cap
        self.actor_entropy_coef, self.actor_threshold = actor_entropy_coef, actor_threshold
        self.scheduler_utility_coef = scheduler_utility_coef
        self.register_buffer("decisions", torch.zeros((), dtype=torch.int64))  # sampled so far, over all ranks
        self.register_buffer("rollouts", torch.zeros((), dtype=torch.int64))  # learned from so far
        self._lessons: Lessons | None = None  # of this iteration's rollout
        self._memory_seed: int | None = None  # of what the memory draws in this iteration
        self.meter = Meter()

    @property
    def batches_per_iteration(self) -> int:
        return max(group.steps for group in self.groups.values())

    def export_policy(self) -> nn.Module:
        """What a user would ship: the average policy."""
        return self.average

    def prepare(self, iteration: int, seed: int) -> None:
        """Get ready to play this iteration and to learn from it; on every rank, before its rollout."""
        self._lessons = None
        self._memory_seed = derive_key(seed, DRAW_STREAM, 1, self.global_rank, iteration + 1) >> 1
        total = self.trainer.max_epochs
        self.policy.scheduler.set_progress(min(iteration, total - 1), total)
        if isinstance(self.policy.scheduler, FixedLambda):
            if self.policy.actor is None and self.mix_lambda > 0:
                raise ConfigError(f"mix_lambda={self.mix_lambda}: began at 0, so there is no actor; begin above 0")
            self.policy.scheduler.set_share(self.mix_lambda)
        elif self.mix_lambda != self.hparams.mix_lambda:
            raise ConfigError(f"mix_lambda={self.mix_lambda}: the scheduler chooses it; use use_scheduler=false")
        if self.meta_regret is not None:  # alike on all ranks, who play one policy
            self.policy.draw_key.fill_(derive_key(seed, DRAW_STREAM, 0, 0, iteration) >> 1)
        self.policy.renew()

    def make_batches(self, rollout: Rollout, generator: torch.Generator) -> Iterator[Batch]:
        """Learn from the rollout's finished games, then hand out the rows of each network, step by step."""
        if self._lessons is None:  # once per rollout: a run resumed in its middle has them from the checkpoint
            self._lessons = self._learn(rollout)
        sources = {
            "regret": lambda: self.memory.regret_rows(generator),
            "average": lambda: self.memory.average_rows(generator),
            "critic": lambda: self.critic_memory.rows(generator),
            "actor": lambda: self._lessons.actor,
            "scheduler": lambda: self._lessons.scheduler,
        }
        iteration = int(self.rollouts) - 1
        for step in range(self.batches_per_iteration):
            trained = {
                name for name, group in self.groups.items() if step < group.steps and iteration % group.every == 0
            }
            yield Batch(**{name: rows() if name in trained else None for name, rows in sources.items()})

    @torch.no_grad()
    def _learn(self, rollout: Rollout) -> Lessons:
        """Tell the memories of the rollout's finished games; return what they have no place for."""
        if self.meta_regret is not None and "past_probs" in rollout.extras:
            raise ConfigError("data.past_policies: cannot play with a scheduler; use model.use_scheduler=false")
        self.rollouts += 1
        played, might = rollout.played, None
        obs, legal, history = rollout.obs[played], rollout.legal[played], rollout.history[played]
        n = len(obs)
        if self.expected_chance:
            might = chances(rollout, self.game)
            pairs = zip((obs, legal, history), (might.obs, might.legal, might.history))
            obs, legal, history = (torch.cat(pair) for pair in pairs)
        mixture = self.policy.mixture(obs.to(self.device), legal.to(self.device))
        mixture = Mixture(*(x.cpu() for x in mixture))
        number = self.critic_memory.find(history, legal)
        q = self.critic_memory.values(self.critic, number)
        fortune = None
        if might is not None:
            values = (mixture.probs * q).sum(-1)
            fortune = luck(rollout, spread(values[:n], played), might, values[n:])
        mixture, number, q = Mixture(*(x[:n] for x in mixture)), number[:n], q[:n]
        found = credit(rollout, mixture, q, self.collecting.explorers, self.trace_lambda, self.ratio_cap, fortune)
        generator = torch.Generator().manual_seed(self._memory_seed)
        self.memory.add(found.regrets, found.policies, int(self.rollouts), generator)
        valid = found.valid
        self.critic_memory.add(number[valid], rollout.action[played][valid], found.targets[valid])
        if self.policy.actor is None:
            return Lessons()
        judge = None
        if self.meta_regret is not None:
            judge = Judge(self.utility, self.policy.mixer, self.state_keys, self.meta_regret)
        return lessons(rollout, mixture, q, found, judge)

    def mix_statistics(self) -> MixStatistics:
        """How the decisions that the scheduler learned from in this iteration were mixed; without a scheduler, all."""
        return mix_statistics(self.policy.scheduler.bins, self._lessons.shares, self.state_keys, self.meta_regret)

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        resume.save_state(self, checkpoint)
        mine = {name: part.state_dict() for name, part in self._remembered().items()}
        mine["lessons"] = None if self._lessons is None else self._lessons.state_dict()
        checkpoint["memories"] = resume.of_every_rank(self.trainer, mine)

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        resume.load_state(self, checkpoint)
        with resume.well_formed("what ARMAC remembers"):
            names = ("lessons", *self._remembered())
            mine = resume.of_this_rank(checkpoint["memories"], self.global_rank, "memories", names)
            num_bins = len(self.policy.scheduler.bins)
            self._lessons = None if mine["lessons"] is None else Lessons.of_state(mine["lessons"], self.game, num_bins)
            for name, part in self._remembered().items():
                part.load_state_dict(mine[name])

    def _remembered(self) -> dict:
        """What is no module and yet part of a checkpoint."""
        parts = {"memory": self.memory, "critic_memory": self.critic_memory}
        parts |= {"memo": self.policy.memo, "meta_regret": self.meta_regret}
        return {name: part for name, part in parts.items() if part is not None}

    def on_train_start(self) -> None:
        check_whole_iterations(self)
        check_strategy(self.trainer.strategy)
        self.policy.eval()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The networks share no weights, so the sum of their losses trains each on its own."""
        terms = {}
        if batch.regret is not None:
            logits = self.policy.regret(batch.regret.obs, batch.regret.legal).logits
            terms["regret_loss"] = self.memory.regret_loss(logits, batch.regret)
        if batch.average is not None:
            logits = self.average(batch.average.obs, batch.average.legal).logits
            terms["average_loss"] = losses.cross_entropy(logits, *batch.average[1:])
        if batch.critic is not None:
            error = losses.squared_error(self.critic(batch.critic.obs), *batch.critic[1:])
            terms["critic_loss"] = error / self.game.max_return**2
        if batch.actor is not None:
            terms["actor_loss"] = self._actor_loss(batch.actor)
        if batch.scheduler is not None:
            terms["scheduler_loss"] = self._scheduler_loss(batch.scheduler)
        self.meter.add(terms)
        return torch.stack(list(terms.values())).sum()

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
        scheduler = self.policy.scheduler
        logits = scheduler.logits(rows.obs, rows.actor, rows.regret)
        uniform = uniform_of_rows(rows.obs, rows.legal, logits.shape[1], int(self.policy.draw_key))
        output = scheduler.draw(logits, uniform.to(logits.device))
        utility = (self.policy.mixer(rows.actor, rows.regret, output.mix_lambda) * rows.q).sum(-1)
        loss = scheduler_loss(logits, rows.desired, scheduler.bins) + scheduler.regulariser(logits)
        return (rows.weight * (loss - self.scheduler_utility_coef * utility / self.game.max_return)).sum()

    def configure_gradient_clipping(self, optimizer, gradient_clip_val=None, gradient_clip_algorithm=None) -> None:
        clip_groups(optimizer, self.groups)
        self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def optimizer_step(self, epoch, batch_idx, optimizer, optimizer_closure=None) -> None:
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        self.policy.renew()

    def on_train_epoch_end(self) -> None:
        self.meter.log(self)

    def configure_optimizers(self):
        return grouped_optimizer(self.networks, self.groups, self.optimizer, self.trainer.max_epochs)
