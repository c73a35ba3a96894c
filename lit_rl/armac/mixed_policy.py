"""The policy that ARMAC plays: regret matching, and an actor mixed in.

Letters: N rows, A actions, D obs, K bins.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from envs.game import Game
from lit_rl.armac.infostates import uniform_of_rows
from lit_rl.armac.memory import MemoryFactory
from lit_rl.armac.mix_scheduler import FixedLambda, Scheduler, SchedulerFactory
from lit_rl.armac.mixing import Mixer, MixerFactory
from lit_rl.policy import MASKED, ActorCritic, NetworkFactory, PolicyOutput
from lit_rl.row_index import RowIndex


class Mixture(NamedTuple):
    """Two policies at N infostates and what was made of them."""

    probs: Tensor  # [N, A], the mixed policy, 0 where illegal
    actor: Tensor  # [N, A]
    regret: Tensor  # [N, A]
    bin: Tensor  # [N] int64, of the scheduler's
    bin_prob: Tensor  # [N], with which it chose that one
    mix_lambda: Tensor  # [N]


class MixedPolicy(ActorCritic):
    """The policy that plays: regret matching, mixed with the actor where there is one. Its value is always 0: the
    critic of this algorithm sees whole histories.

    A scheduler's random draws are hashes of infostate and `draw_key`, so that within one iteration the policy is one
    function of the infostate. With a `memo` each infostate is looked at once and then remembered; whoever changes
    weights, buffers or `draw_key` must call `renew`.

    Args:
        regret: the network of regrets.
        regret_policy: makes a policy [N, A] of its logits [N, A] and legal [N, A].
        actor: the network that is mixed in; None for none.
        scheduler: chooses the actor's share.
        mixer: makes one policy of the two.
        memo: remembers mixtures, for games with few infostates; None asks the networks each time.
    """

    def __init__(
        self,
        regret: ActorCritic,
        regret_policy: Callable[[Tensor, Tensor], Tensor],
        actor: ActorCritic | None,
        scheduler: Scheduler,
        mixer: Mixer,
        memo: "Memo | None" = None,
    ):
        super().__init__()
        self.regret = regret
        self.actor = actor
        self.scheduler = scheduler
        self.regret_policy = regret_policy
        self.mixer = mixer
        self.memo = memo
        self.draws = True  # bins at random, as in training; false: the likeliest (after the next eval() or train())
        self.register_buffer("draw_key", torch.zeros((), dtype=torch.int64))
        self.train(self.training)

    def train(self, mode: bool = True) -> "MixedPolicy":
        """Dropout and the like by `mode`; whether the scheduler draws is told by `draws` alone."""
        super().train(mode)
        self.scheduler.train(self.draws)
        return self

    def renew(self) -> None:
        """The policy has changed: what is remembered of it is no longer so."""
        if self.memo is not None:
            self.memo.renew()

    def mixture(self, obs: Tensor, legal: Tensor) -> Mixture:
        """The mixture at obs [N, *D], legal [N, A]; from a memo on the CPU and without gradient."""
        return self.compute(obs, legal) if self.memo is None else self.memo.look(self, obs, legal)

    def compute(self, obs: Tensor, legal: Tensor) -> Mixture:
        """The mixture, from the networks."""
        regret = self.regret_policy(self.regret(obs, legal).logits, legal)
        if self.actor is None:
            nothing = torch.zeros(len(obs), device=regret.device)
            return Mixture(regret, regret, regret, nothing.long(), nothing + 1, nothing)
        actor = torch.softmax(self.actor(obs, legal).logits, dim=-1)
        logits = self.scheduler.logits(obs, actor, regret)
        uniform = None
        if logits.shape[1] > 1 and self.scheduler.training:
            uniform = uniform_of_rows(obs, legal, logits.shape[1], int(self.draw_key)).to(logits.device)
        output = self.scheduler.draw(logits, uniform)
        probs = self.mixer(actor, regret, output.mix_lambda.detach())
        bin_prob = self.scheduler.bin_probs(logits).gather(1, output.bin.unsqueeze(1)).squeeze(1)
        return Mixture(probs, actor, regret, output.bin, bin_prob, output.mix_lambda)

    def forward(self, obs: Tensor, legal: Tensor, state: Tensor | None = None) -> PolicyOutput:
        """Probabilities as logits, those of 0 at MASKED; extras mix_lambda [N] and bin [N] where there is an actor."""
        mixture = self.mixture(obs, legal)
        probs = mixture.probs
        logits = torch.where(probs > 0, probs.clamp_min(torch.finfo(probs.dtype).tiny).log(), MASKED)
        value = probs.new_zeros(len(probs), dtype=torch.float32)
        extras = {} if self.actor is None else {"mix_lambda": mixture.mix_lambda, "bin": mixture.bin}
        return PolicyOutput(logits.float(), value, None, extras)


class Memo:
    """Mixtures that were asked for before. All known infostates share one forward after `renew`, so which ones are
    known decides the last bits: it is part of a checkpoint.

    Args:
        game: tells the shapes.
        most_rows: with more infostates than that, `renew` begins anew.
    """

    def __init__(self, game: Game, most_rows: int):
        self.game = game
        self.most_rows = most_rows
        self.index = RowIndex.of(game)
        self._known: Mixture | None = None  # of the first rows of the index

    def renew(self) -> None:
        if len(self.index) > self.most_rows:
            self.index = RowIndex.of(self.game)
        self._known = None

    @torch.no_grad()
    def look(self, policy: MixedPolicy, obs: Tensor, legal: Tensor) -> Mixture:
        row = self.index.find_or_add(obs.cpu(), legal.cpu())
        known = 0 if self._known is None else len(self._known.probs)
        if len(self.index) > known:
            self._add(policy, known)
        return Mixture(*(x[row] for x in self._known))

    def _add(self, policy: MixedPolicy, known: int) -> None:
        device = policy.draw_key.device
        obs = self.index.obs[known:].to(device)
        legal = self.index.legal[known:].to(device)
        new = Mixture(*(x.cpu() for x in policy.compute(obs, legal)))
        self._known = new if not known else Mixture(*(torch.cat(pair) for pair in zip(self._known, new)))

    def state_dict(self) -> dict[str, Tensor]:
        return self.index.state_dict()

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.index.load_state_dict(state)
        self._known = None


def mixed_policy(
    game: Game,
    network: NetworkFactory,
    memory: MemoryFactory,
    use_scheduler: bool,
    mix_lambda: float,
    scheduler: SchedulerFactory,
    mixer: MixerFactory,
    cache_rows: int = 0,
) -> MixedPolicy:
    """The policy that an ARMAC with these arguments plays."""
    return MixedPolicy(
        regret=network(game),
        regret_policy=memory(game).regret_policy,
        actor=network(game) if use_scheduler or mix_lambda > 0 else None,
        scheduler=scheduler(game) if use_scheduler else FixedLambda(game, mix_lambda),
        mixer=mixer(),
        memo=Memo(game, cache_rows) if cache_rows else None,
    )
