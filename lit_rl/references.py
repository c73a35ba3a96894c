"""Reference policies: frozen earlier policies that learning is held close to, for both forms of R-NaD.

A reference is a module built as `reference(policy, game)`. Called with infostates it gives log rho(a|s), one policy's
worth, however many it keeps; `update` takes in the learner once per iteration. What it keeps is registered: saved with
every checkpoint, moved with the module, without gradients, always in eval mode, and masked by the same legal set as
the learner, since it looks through the same `PolicyOutput`. Everything follows from the iteration number and the
weights it was shown: no random numbers, so that a resumed run goes on bit by bit.

Measured on Leduc (configs/LOG.md): a portfolio that takes its copies when its main reference does holds a copy of that
one as its newest, and so does what a single reference does; a mixture of the members holds back.

Of policies with a memory each has one of its own: what it would have remembered, had it seen the same decisions.

Letters: M infostates, A actions, K members of a portfolio, L policies (the main reference and K members), R probe rows.
"""

import copy
import math
import warnings
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from jsonargparse.typing import NonNegativeInt, OpenUnitInterval, PositiveFloat, PositiveInt
from torch import Tensor, nn

from envs.game import Game
from envs.vector_env import VectorEnv
from lit_rl.losses import reference_kl
from lit_rl.policy import ActorCritic, Chunks, output_of, state_shape_of
from lit_rl.row_index import merge_equal_rows
from lit_rl.run.errors import ConfigError, check_ranges


class Reference(nn.Module):
    """What a policy is held close to: the type that references subclass. Built as `reference(policy, game)`."""

    def forward(
        self, obs: Tensor, legal: Tensor, log_probs: Tensor, weight: Tensor, chunks: Sequence[Chunks] = ()
    ) -> Tensor:
        """log rho(a|s) [M, A] at obs [M, *D], legal [M, A], without a gradient.

        Args:
            log_probs: [M, A] of the learner there, for references that choose among several policies.
            weight: [M], what each infostate counts in that choice.
            chunks: of policies with a memory: how the rows follow one another, for each of `consulted()` with its own
                memory; not given to others.
        """
        raise TypeError(f"{type(self).__name__} does not define forward(obs, legal, log_probs, weight) -> log rho")

    def consulted(self) -> list[nn.Module]:
        """The policies that it keeps, in the order of `chunks`."""
        raise TypeError(f"{type(self).__name__} does not define consulted(), which a network with memory needs")

    def update(self, policy: nn.Module, iteration: int) -> None:
        """Take in `policy` at the end of `iteration` (counted from 0)."""
        raise TypeError(f"{type(self).__name__} does not define update(policy, iteration)")

    def metrics(self) -> dict[str, Tensor]:
        """Scalars worth logging."""
        return {}

    def train(self, mode: bool = True) -> "Reference":
        """Stays in eval mode: a reference has no dropout, and no batch may change it."""
        return super().train(False)


ReferenceFactory = Callable[[ActorCritic, Game], Reference]


def frozen(policy: nn.Module) -> nn.Module:
    """A copy that takes no gradient."""
    return copy.deepcopy(policy).requires_grad_(False).eval()


@torch.no_grad()
def copy_weights(target: nn.Module, source: nn.Module, rate: float = 1.0) -> None:
    """target <- target + rate (source - target), parameters and float buffers; rate 1 copies exactly.

    Raises:
        ConfigError: the two are not of one architecture.
    """
    mine, theirs = target.state_dict(), source.state_dict()
    shapes, given = ({k: tuple(v.shape) for k, v in x.items()} for x in (mine, theirs))
    if shapes != given:
        name = next(k for k in [*shapes, *given] if shapes.get(k) != given.get(k))
        raise ConfigError(
            f"reference: weight {name} has shape {given.get(name)}, the reference's {shapes.get(name)}; a reference "
            "must come from the same game and network as the policy"
        )
    for name, tensor in mine.items():
        if rate == 1.0 or not tensor.is_floating_point():
            tensor.copy_(theirs[name])
        else:
            tensor.lerp_(theirs[name], rate)


def log_policy(policy: nn.Module, obs: Tensor, legal: Tensor, chunks: Chunks | None = None) -> Tensor:
    """log pi(a|s) [M, A]; illegal actions hugely negative but finite."""
    return torch.log_softmax(output_of(policy, obs, legal, chunks).logits, dim=-1)


class Magnet(Reference):
    """A moving reference: the exponential moving average of the learner's weights.

        theta_rho <- theta_rho + rate (theta - theta_rho)      once per iteration

    The moving magnet of MMD (Sokota et al. 2023, section 4) in weight space, as in EMAgnet (arXiv 2606.23995). Where
    the learner rests, so does the magnet, and the KL is 0: with entropy 0 the fixed point is the equilibrium itself,
    with an entropy coefficient tau the agent quantal response equilibrium of tau, whatever alpha (scripts/aqre.py).

    Args:
        policy: the learner, copied.
        game: not needed.
        rate: share of the way to the learner that the magnet goes per iteration.
    """

    def __init__(self, policy: ActorCritic, game: Game, rate: OpenUnitInterval = 0.01):
        check_ranges(Magnet.__init__, locals())
        super().__init__()
        self.policy = frozen(policy)
        self.rate = float(rate)

    @torch.no_grad()
    def forward(
        self, obs: Tensor, legal: Tensor, log_probs: Tensor, weight: Tensor, chunks: Sequence[Chunks] = ()
    ) -> Tensor:
        return log_policy(self.policy, obs, legal, *chunks)

    def consulted(self) -> list[nn.Module]:
        return [self.policy]

    def update(self, policy: nn.Module, iteration: int) -> None:
        copy_weights(self.policy, policy, self.rate)


class Refreshed(Reference):
    """A hard copy of the learner, taken every so many iterations; with `interpolate` R-NaD's own schedule.

        log rho = w log rho_n + (1 - w) log rho_(n-1),     w = min(1, 2 (i + 1) / every)

    with rho_n the newest copy, rho_(n-1) the one before and i the iterations since the newest was taken (Perolat et al.
    2022): the reference glides from one copy to the next over half of the interval. Without `interpolate` w = 1.

    Args:
        policy: the learner, copied.
        game: not needed.
        every: iterations between copies.
        interpolate: glide between the last two copies instead of jumping to the newest.
    """

    def __init__(self, policy: ActorCritic, game: Game, every: PositiveInt = 100, interpolate: bool = False):
        check_ranges(Refreshed.__init__, locals())
        super().__init__()
        self.policy = frozen(policy)
        self.before = frozen(policy) if interpolate else None
        self.every = int(every)
        self.register_buffer("share", torch.ones(()))  # w, of the newest copy

    @torch.no_grad()
    def forward(
        self, obs: Tensor, legal: Tensor, log_probs: Tensor, weight: Tensor, chunks: Sequence[Chunks] = ()
    ) -> Tensor:
        newest = log_policy(self.policy, obs, legal, *chunks[:1])
        if self.before is None:
            return newest
        return torch.lerp(log_policy(self.before, obs, legal, *chunks[1:]), newest, self.share)

    def consulted(self) -> list[nn.Module]:
        return [self.policy] if self.before is None else [self.policy, self.before]

    def update(self, policy: nn.Module, iteration: int) -> None:
        since = (iteration + 1) % self.every
        if since == 0:
            if self.before is not None:
                copy_weights(self.before, self.policy)
            copy_weights(self.policy, policy)
        self.share.fill_(min(1.0, 2 * (since + 1) / self.every))


class Magnets(Reference):
    """Moving magnets of several rates, old and young; at each infostate the one that is closest there.

        log rho(s) = log rho_l(s) of the smallest KL(pi(s) || rho_l(s)),      each rho_l as in `Magnet`

    Ours. Where the learner turns, the faster ones stand behind it and the slower ones ahead.

    Args:
        policy: the learner, copied.
        game: not needed.
        rates: one magnet each.
    """

    def __init__(self, policy: ActorCritic, game: Game, rates: Sequence[OpenUnitInterval] = (0.001, 0.005, 0.02)):
        super().__init__()
        if not rates or not all(0.0 < rate < 1.0 for rate in rates) or len(set(rates)) < len(rates):
            raise ConfigError(f"rates={list(rates)}: need to be distinct and between 0 and 1, such as [0.001, 0.01]")
        self.rates = [float(rate) for rate in rates]
        self.policies = nn.ModuleList(frozen(policy) for _ in rates)
        self.register_buffer("selected", torch.zeros(len(rates)))  # share of the last batch

    @torch.no_grad()
    def forward(
        self, obs: Tensor, legal: Tensor, log_probs: Tensor, weight: Tensor, chunks: Sequence[Chunks] = ()
    ) -> Tensor:
        pasts = chunks or [None] * len(self.policies)
        asked = zip(self.policies, pasts, strict=True)
        logs = torch.stack([log_policy(policy, obs, legal, past) for policy, past in asked])  # [L, M, A]
        closest = torch.stack([reference_kl(log_probs, log_rho) for log_rho in logs]).argmin(0)  # [M]
        chosen = torch.zeros_like(self.selected).index_add_(0, closest, weight.to(self.selected.dtype))
        self.selected.copy_(chosen / weight.sum())
        return logs[closest, torch.arange(len(closest), device=closest.device)]

    def consulted(self) -> list[nn.Module]:
        return list(self.policies)

    def update(self, policy: nn.Module, iteration: int) -> None:
        for magnet, rate in zip(self.policies, self.rates):
            copy_weights(magnet, policy, rate)

    def metrics(self) -> dict[str, Tensor]:
        """The share of the last batch's infostates at which each was the closest."""
        return {f"selected/{rate:g}": share for rate, share in zip(self.rates, self.selected)}


class Portfolio(Reference):
    """A main reference and up to K frozen earlier policies; the learner is held close to the closest of them all.

    With KL_l the batch's weighted mean of KL(pi || rho_l), over the main reference and the members:

        min:      log rho = log rho_l of the smallest KL_l
        each:     the same at each infostate on its own: log rho(s) = log rho_l(s) of the smallest KL there
        softmin:  log rho = sum over l of w_l log rho_l,      w = softmax(-KL / softness)
        mixture:  log rho = log mean over l of rho_l

    so that KL(pi || rho) has the gradient of min_l KL_l, of -softness log sum_l exp(-KL_l / softness), and of the KL to
    the mixture. A member counts from the age of `min_age` on: a copy just taken is the closest of all, and holds
    nothing back. Every `add_every` iterations the learner joins the members. Where there is no room one leaves:

        recent:   the oldest
        best:     the one least often the closest, per iteration since it joined
        diverse:  the one without which the smallest pairwise divergence among those that stay is largest, the
                  newcomer included (it may be turned away); on a tie the one that `best` would drop. The divergence
                  is KL(a || b) + KL(b || a), the mean over a fixed set of infostates met by random play.

    The main reference is no member: its updates never touch one. A member that gives NaN leaves with a warning.
    After the portfolio of EliteFurretAI (min, recent, best); the rest is ours. The slots exist from the start, which
    keeps checkpoints and devices in step.

    Args:
        policy: the learner, copied.
        game: where the infostates of `diverse` come from.
        capacity: K.
        add_every: iterations between additions.
        distance: how the policies make one reference.
        drop: who leaves a full portfolio.
        main: builds the main reference.
        softness: of softmin, in nats.
        num_probes: at most so many distinct infostates for `diverse`.
        min_age: iterations from a member's joining until it counts.
    """

    def __init__(
        self,
        policy: ActorCritic,
        game: Game,
        capacity: PositiveInt = 5,
        add_every: PositiveInt = 200,
        distance: Literal["min", "each", "softmin", "mixture"] = "min",
        drop: Literal["recent", "best", "diverse"] = "diverse",
        main: ReferenceFactory = Magnet,
        softness: PositiveFloat = 0.01,
        num_probes: PositiveInt = 256,
        min_age: NonNegativeInt = 0,
    ):
        check_ranges(Portfolio.__init__, locals())
        for name, value, known in (
            ("distance", distance, ("min", "each", "softmin", "mixture")),
            ("drop", drop, ("recent", "best", "diverse")),
        ):
            if value not in known:
                raise ConfigError(f"{name}={value!r}: unknown; use one of {', '.join(known)}")
        if drop == "diverse" and state_shape_of(policy):
            raise ConfigError(
                f"drop='diverse': compares policies at single infostates, and {type(policy).__name__} has a memory; "
                "use best or recent"
            )
        if drop == "diverse" and not isinstance(game, Game):
            raise ConfigError(f"drop='diverse': {game.name} has no rules here to play by; use best or recent")
        super().__init__()
        self.main = main(policy, game)
        self.members = nn.ModuleList(frozen(policy) for _ in range(capacity))
        self.add_every, self.distance, self.drop, self.softness = int(add_every), distance, drop, float(softness)
        self.min_age = int(min_age)
        self.register_buffer("valid", torch.zeros(len(self.members), dtype=torch.bool))  # [K] slot in use
        self.register_buffer("joined", torch.zeros(len(self.members), dtype=torch.int64))  # [K] iteration
        self.register_buffer("counts", torch.zeros(len(self.members), dtype=torch.bool))  # [K] in use and old enough
        self.register_buffer("selected", torch.zeros(len(self.members) + 1, dtype=torch.int64))  # [L] batches; main: 0
        self.register_buffer("kl", torch.zeros(len(self.members) + 1))  # [L] of the last batch
        if drop == "diverse":
            obs, legal = _random_play(game, num_probes)
            self.register_buffer("probe_obs", obs, persistent=False)
            self.register_buffer("probe_legal", legal, persistent=False)

    @torch.no_grad()
    def forward(
        self, obs: Tensor, legal: Tensor, log_probs: Tensor, weight: Tensor, chunks: Sequence[Chunks] = ()
    ) -> Tensor:
        size = len(chunks) - len(self.members) if chunks else 0  # policies of the main reference
        main = self.main(obs, legal, log_probs, weight, *([chunks[:size]] if chunks else []))
        pasts = chunks[size:] or [None] * len(self.members)
        members = [log_policy(member, obs, legal, past) for member, past in zip(self.members, pasts, strict=True)]
        logs = torch.stack([main, *members])  # [L, M, A]
        rows = torch.stack([reference_kl(log_probs, log_rho) for log_rho in logs])  # [L, M]
        self.kl.copy_((rows * weight).sum(1) / weight.sum())
        usable = torch.cat([self.valid.new_ones(1), self.counts & torch.isfinite(self.kl[1:])])
        kl = torch.where(usable, self.kl, math.inf)
        closest = kl.argmin()
        self.selected[closest] += 1
        if self.distance == "min":
            return logs[closest]
        if self.distance == "each":
            nearest = rows.masked_fill(~usable[:, None], math.inf).argmin(0)  # [M]
            return logs[nearest, torch.arange(len(nearest), device=nearest.device)]
        logs = torch.where(usable[:, None, None], logs, 0.0)
        if self.distance == "softmin":
            return torch.einsum("l,lma->ma", torch.softmax(-kl / self.softness, 0), logs)
        share = torch.where(usable, -usable.sum().float().log(), -math.inf)
        return torch.logsumexp(logs + share[:, None, None], dim=0)

    def consulted(self) -> list[nn.Module]:
        return [*self.main.consulted(), *self.members]

    def update(self, policy: nn.Module, iteration: int) -> None:
        self.main.update(policy, iteration)
        broken = self.valid & ~torch.isfinite(self.kl[1:])
        if bool(broken.any()):
            self.valid &= ~broken
            for k in broken.nonzero().flatten().tolist():  # a NaN left in a slot would stand in the checkpoint too
                copy_weights(self.members[k], policy)
                self.kl[k + 1] = 0.0
            warnings.warn(
                f"reference: member {broken.nonzero().flatten().tolist()} of the portfolio gave a KL that is not "
                f"finite at iteration {iteration} and was dropped",
                stacklevel=2,
            )
        if (iteration + 1) % self.add_every == 0:
            self.add(policy, iteration)
        self.counts.copy_(self.valid & (iteration - self.joined >= self.min_age))

    def add(self, policy: nn.Module, iteration: int) -> None:
        """Let `policy` join, or turn it away (`diverse`, or weights that are not finite: with a warning).

        Raises:
            ConfigError: it is of another architecture.
        """
        if not all(bool(torch.isfinite(p).all()) for p in policy.parameters()):
            warnings.warn(f"reference: the policy of iteration {iteration} is not finite and stays out", stacklevel=2)
            return
        slot = self._slot(policy, iteration)
        if slot is None:
            return
        copy_weights(self.members[slot], policy)
        self.valid[slot] = True
        self.joined[slot] = iteration
        self.selected[slot + 1] = 0
        self.kl[slot + 1] = 0.0

    def _slot(self, policy: nn.Module, iteration: int) -> int | None:
        """Where a newcomer goes; None: nowhere."""
        valid = self.valid.tolist()
        if False in valid:
            return valid.index(False)
        joined, selected = self.joined.tolist(), self.selected[1:].tolist()
        if self.drop == "recent":
            return joined.index(min(joined))
        rate = [s / max(iteration - j, 1) for s, j in zip(selected, joined)]
        if self.drop == "best":
            return min(range(len(rate)), key=lambda k: (rate[k], joined[k]))
        apart = self._divergences([*self.members, policy])
        newcomer = len(self.members)
        rate.append(math.inf)
        joined.append(iteration)

        def spread_without(k: int) -> float:
            stay = [i for i in range(newcomer + 1) if i != k]
            return min((float(apart[i, j]) for i in stay for j in stay if i < j), default=math.inf)

        leaver = max(range(newcomer + 1), key=lambda k: (spread_without(k), -rate[k], -joined[k]))
        return None if leaver == newcomer else leaver

    @torch.no_grad()
    def _divergences(self, policies: list[nn.Module]) -> Tensor:
        """[n, n] float64: KL(a || b) + KL(b || a) on the probe infostates."""
        logs = [log_policy(policy, self.probe_obs, self.probe_legal).double() for policy in policies]
        kl = torch.stack([torch.stack([reference_kl(a, b).mean() for b in logs]) for a in logs])
        return kl + kl.T

    def metrics(self) -> dict[str, Tensor]:
        """The size, and of the main reference and each member: last KL, and batches in which it was the closest."""
        policies = {"main": 0} | {f"member_{k}": k + 1 for k, valid in enumerate(self.valid.tolist()) if valid}
        metrics = {"size": self.valid.sum()}
        for name, index in policies.items():
            metrics |= {f"kl/{name}": self.kl[index], f"selected/{name}": self.selected[index]}
        return metrics


def _random_play(game: Game, num_rows: int) -> tuple[Tensor, Tensor]:
    """The first `num_rows` distinct infostates (obs [R, *D], legal [R, A]) that uniformly random games meet."""
    env = VectorEnv(game, 64, seed=0)
    obs, legal = [], []
    for _ in range(max(game.max_steps, 16)):
        obs.append(torch.from_numpy(env.obs.copy()))
        legal.append(torch.from_numpy(env.legal.copy()))
        env.step(env.sample((env.legal / env.legal.sum(1, keepdims=True)).astype("float32")))
    obs, legal = torch.cat(obs), torch.cat(legal)
    first, _ = merge_equal_rows(obs, legal)
    return obs[first[:num_rows]], legal[first[:num_rows]]
