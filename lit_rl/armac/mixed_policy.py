"""The policy that ARMAC plays: regret matching, and an actor mixed in.

Letters: N rows, A actions, D obs, K bins.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from envs.game import Game
from lit_rl.armac.memory import MemoryFactory, new_index
from lit_rl.armac.mix_scheduler import FixedLambda, Scheduler, SchedulerFactory
from lit_rl.armac.mixing import Mixer, MixerFactory
from lit_rl.policy import MASKED, ActorCritic, NetworkFactory, PolicyOutput
from lit_rl.row_index import uniform_of_rows

MAX_CACHED_ROWS = 8192


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
    function of the infostate.
    """

    def __init__(
        self, regret: ActorCritic, regret_policy, actor: ActorCritic | None, scheduler: Scheduler, mixer: Mixer
    ):
        super().__init__()
        self.regret, self.actor, self.scheduler = regret, actor, scheduler
        self.regret_policy, self.mixer = regret_policy, mixer
        self.draws = True  # bins at random, as in training; false: the likeliest (after the next eval() or train())
        self.register_buffer("draw_key", torch.zeros((), dtype=torch.int64))
        self.train(self.training)

    def train(self, mode: bool = True) -> "MixedPolicy":
        """Dropout and the like by `mode`; whether the scheduler draws is told by `draws` alone."""
        super().train(mode)
        self.scheduler.train(self.draws)
        return self

    def mixture(self, obs: Tensor, legal: Tensor) -> Mixture:
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

    def forward(self, obs: Tensor, legal: Tensor) -> PolicyOutput:
        return output_of(self.mixture(obs, legal).probs)


def mixed_policy(
    game: Game,
    network: NetworkFactory,
    memory: MemoryFactory,
    use_scheduler: bool,
    mix_lambda: float,
    scheduler: SchedulerFactory,
    mixer: MixerFactory,
) -> MixedPolicy:
    """The policy that an ARMAC with these arguments plays."""
    return MixedPolicy(
        regret=network(game),
        regret_policy=memory(game).regret_policy,
        actor=network(game) if use_scheduler or mix_lambda > 0 else None,
        scheduler=scheduler(game) if use_scheduler else FixedLambda(game, mix_lambda),
        mixer=mixer(),
    )


def output_of(probs: Tensor) -> PolicyOutput:
    """Probabilities [N, A] as logits, those of 0 at MASKED, and no value."""
    logits = torch.where(probs > 0, probs.clamp_min(torch.finfo(probs.dtype).tiny).log(), MASKED)
    return PolicyOutput(logits.float(), probs.new_zeros(len(probs), dtype=torch.float32))


class CachedPolicy:
    """A policy that looks at each infostate once per iteration and then remembers; for games with few infostates."""

    def __init__(self, policy: MixedPolicy, game: Game):
        self.policy, self.game = policy, game
        self.index, self._known = new_index(game), None

    def parameters(self):
        return self.policy.parameters()

    def renew(self) -> None:
        """The policy has changed: ask it about all known infostates at once when next needed."""
        if len(self.index) > MAX_CACHED_ROWS:
            self.index = new_index(self.game)
        self._known = None

    @torch.no_grad()
    def mixture(self, obs: Tensor, legal: Tensor) -> Mixture:
        row, known = self.index.find_or_add(obs, legal), 0 if self._known is None else len(self._known.probs)
        if len(self.index) > known:
            self._add(known)
        return Mixture(*(x[row] for x in self._known))

    def __call__(self, obs: Tensor, legal: Tensor) -> PolicyOutput:
        return output_of(self.mixture(obs, legal).probs)

    def _add(self, known: int) -> None:
        device = next(self.parameters()).device
        obs, legal = self.index.obs[known:].to(device), self.index.legal[known:].to(device)
        new = Mixture(*(x.cpu() for x in self.policy.mixture(obs, legal)))
        self._known = new if not known else Mixture(*(torch.cat(pair) for pair in zip(self._known, new)))
