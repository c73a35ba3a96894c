"""From a rollout to shuffled minibatches: what policy-gradient algorithms have in common between data and loss.

Letters: N decisions of a minibatch, M distinct infostates among them, A actions, D obs shape. With a memory M are the
rows of C chunks, of which N are learned from: decisions of one seat in one game, cut where the game ends, so that no
chunk holds a reset. L decisions of a chunk, W = burn_in + L, T steps, B envs, S shape of a memory.
"""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch
from jsonargparse.typing import ClosedUnitInterval, NonNegativeInt, PositiveInt
from torch import Tensor, nn

from envs.jit import njit
from lit_rl.policy import Chunks, state_shape_of
from lit_rl.rollout import Rollout, legal_of
from lit_rl.row_index import merge_equal_rows, repeats
from lit_rl.run.errors import ConfigError, check_ranges

RareActions = Literal["full", "damped"]
FEW_VISITS = 3  # of an infostate in a minibatch: with fewer, "damped" damps nearly everything


class Batch(NamedTuple):
    """One minibatch: M infostates and N decisions made in them; M = N and `row` = 0..N-1 where nothing was merged."""

    obs: Tensor  # [M, *D]
    legal: Tensor  # [M, A] bool
    row: Tensor  # [N] int64, the infostate of each decision
    action: Tensor  # [N] int64
    log_prob: Tensor  # [N] float32, as sampled
    value: Tensor  # [N] float32, the critic's when sampled
    advantages: Tensor  # [N] float32
    returns: Tensor  # [N] float32, the critic's target
    state_weight: Tensor  # [N] float32 with mean 1: what a decision counts in value loss and entropy
    action_weight: Tensor  # [N] float32 with mean 1: what it counts in the policy loss
    drawn: Tensor  # [N] float32, how often the action is drawn there: its probability, or see `infostate_weights`
    temperature: float  # of the behaviour policy
    decision: Tensor  # [N] int64, which of the rollout's T * B
    chunks: Chunks | None = None  # how the M rows follow one another, where the policy has a memory


@dataclass(frozen=True)
class Minibatches:
    """How a rollout is cut into minibatches.

    Args:
        update_epochs: passes over each rollout.
        num_minibatches: minibatches per pass.
        visit_exponent: an infostate seen n times in a minibatch counts n to this power in the losses, and its actions
            as often as the policy expects them, see `infostate_weights`; None counts every decision the same.
        rare_actions: full, and an action that was drawn also stands for the times that it was not, so that a minibatch
            without repeated infostates is plain PPO's; or damped, and it does not, which is for games whose infostates
            repeat often.
        merge_rows: hand each distinct infostate of the rollout to the network once, where that saves work.
        chunk_length: a network with memory learns from chunks of so many consecutive own decisions of one seat; null:
            from all that the rollout has of a game. The gradient goes back to the first row of a chunk.
        burn_in: so many decisions before each chunk are gone through once more, without being learned from. The
            gradient goes back through them, too, unlike in R2D2: what they should have remembered is learned.
        refresh: from the second pass on, chunks begin with what the network remembers by then, not when it played.
    """

    update_epochs: PositiveInt = 4
    num_minibatches: PositiveInt = 4
    visit_exponent: ClosedUnitInterval | None = None
    rare_actions: RareActions = "full"
    merge_rows: bool = True
    chunk_length: PositiveInt | None = None
    burn_in: NonNegativeInt = 0
    refresh: bool = False

    def __post_init__(self):
        check_ranges(Minibatches.__init__, vars(self))
        if self.rare_actions not in get_args(RareActions):
            raise ConfigError(f"rare_actions={self.rare_actions!r}: unknown; use one of full, damped")

    @property
    def per_iteration(self) -> int:
        return self.update_epochs * self.num_minibatches

    def check(self, policy: nn.Module) -> None:
        """Raise ConfigError for settings that mean nothing for this policy, whose memory is none or some."""
        kind, remembers = type(policy).__name__, bool(state_shape_of(policy))
        for name, default in (("chunk_length", None), ("burn_in", 0), ("refresh", False)):
            if not remembers and getattr(self, name) != default:
                raise ConfigError(
                    f"minibatches.{name}={getattr(self, name)}: {kind} has no memory; use {name}="
                    f"{'null' if default is None else str(default).lower()}, or a network with one"
                )
        if remembers and self.visit_exponent is not None:
            raise ConfigError(
                f"minibatches.visit_exponent={self.visit_exponent}: counts infostates by obs, and what {kind} "
                "remembers beside it is another in each game; use visit_exponent=null"
            )


def minibatches(
    rollout: Rollout,
    advantages: Tensor,
    returns: Tensor,
    valid: Tensor,
    settings: Minibatches,
    generator: torch.Generator,
    policy: nn.Module | None = None,
    kept: dict[str, Tensor] | None = None,
) -> Iterator[Batch]:
    """Shuffled passes over the decisions that are `valid`; over chunks of them where the policy has a memory.

    Nothing of the rollout is copied but the rows of the batch that is handed out, and equal rows are looked for only
    where `settings` want them merged or weighed.

    Args:
        advantages, returns: [T, B] float32; valid: [T, B] bool.
        policy, kept: needed where memories are refreshed: whose, and where they are kept for a resumed run.

    Raises:
        ConfigError: fewer valid decisions than minibatches.
    """
    chosen = valid.flatten().nonzero().squeeze(1)  # [n] of the T * B rows
    n, num_actions = len(chosen), rollout.num_actions
    if n < settings.num_minibatches:
        raise ConfigError(
            f"num_minibatches={settings.num_minibatches}, but the rollout holds {n} decisions to learn from; "
            "raise data.num_steps or data.num_envs, or set model.credit.cut_games=bootstrap where games are longer"
        )
    if rollout.state.shape[2:] != (0,):
        yield from _minibatches_of_chunks(rollout, advantages, returns, valid, settings, generator, policy, kept)
        return
    obs, bits = rollout.obs.flatten(0, 1), rollout.legal_bits.flatten(0, 1)
    action, log_prob, value, advantages, returns = (
        x.flatten()[chosen] for x in (rollout.action, rollout.log_prob, rollout.value, advantages, returns)
    )
    merged = None
    if settings.visit_exponent is not None or (settings.merge_rows and repeats(obs, bits, chosen)):
        first, row = merge_equal_rows(obs[chosen], bits[chosen])
        if settings.merge_rows and len(first) <= n // settings.num_minibatches // 2:
            merged = obs[chosen[first]], legal_of(bits[chosen[first]], num_actions)
        if settings.visit_exponent is not None and settings.rare_actions == "damped":
            _warn_of_few_visits(row, settings.num_minibatches)
    for _ in range(settings.update_epochs):
        for i in torch.randperm(n, generator=generator).tensor_split(settings.num_minibatches):
            state_weight = action_weight = torch.ones(len(i))
            drawn = log_prob[i].exp()
            if settings.visit_exponent is not None:
                state_weight, action_weight, drawn = infostate_weights(
                    row[i], action[i], log_prob[i], num_actions, settings.visit_exponent, settings.rare_actions
                )
            seen, legal = merged or (obs[chosen[i]], legal_of(bits[chosen[i]], num_actions))
            which = row[i] if merged else torch.arange(len(i))
            yield Batch(
                seen, legal, which, action[i], log_prob[i], value[i], advantages[i], returns[i], state_weight,
                action_weight, drawn, rollout.temperature, chosen[i],
            )  # fmt: skip


def _minibatches_of_chunks(
    rollout: Rollout,
    advantages: Tensor,
    returns: Tensor,
    valid: Tensor,
    settings: Minibatches,
    generator: torch.Generator,
    policy: nn.Module | None,
    kept: dict[str, Tensor] | None,
) -> Iterator[Batch]:
    rows, learned = cut_into_chunks(rollout, valid, settings.chunk_length, settings.burn_in)  # [C, W]
    if len(rows) < settings.num_minibatches:
        raise ConfigError(
            f"num_minibatches={settings.num_minibatches}, but the rollout holds {len(rows)} chunks of decisions to "
            "learn from; lower minibatches.chunk_length, or raise data.num_envs"
        )
    obs, bits, state = (x.flatten(0, 1) for x in (rollout.obs, rollout.legal_bits, rollout.state))
    action, log_prob, value, advantages, returns = (
        x.flatten() for x in (rollout.action, rollout.log_prob, rollout.value, advantages, returns)
    )
    for epoch in range(settings.update_epochs):
        if epoch > 0 and settings.refresh:
            state = _refreshed(policy, rollout, epoch, kept).flatten(0, 1)
        for i in torch.randperm(len(rows), generator=generator).tensor_split(settings.num_minibatches):
            by_time = rows[i].T  # [W, C]
            length = int((by_time >= 0).any(1).sum())
            place = (by_time >= 0).flatten().nonzero().squeeze(1)  # [M]
            m = by_time.flatten()[place]
            row = learned[i].T.flatten()[place].nonzero().squeeze(1)  # [N]
            n, weight, first = m[row], torch.ones(len(row)), by_time[0]
            yield Batch(
                obs[m], legal_of(bits[m], rollout.num_actions), row, action[n], log_prob[n], value[n], advantages[n],
                returns[n], weight, weight, log_prob[n].exp(), rollout.temperature, n,
                Chunks(state[first], place, length, first),
            )  # fmt: skip


def _refreshed(policy: nn.Module, rollout: Rollout, epoch: int, kept: dict[str, Tensor]) -> Tensor:
    """[T, B, *S]: what the policy remembers as the pass `epoch` begins; worked out once, since a run that is resumed in
    the middle of the pass has newer weights."""
    if int(kept.get("refreshed_for", -1)) != epoch:
        if epoch < int(kept.get("refreshed_for", -1)):
            return rollout.state  # of a pass that is over: nobody looks at its batches
        kept["refreshed"] = memories(policy, rollout)
        kept["refreshed_for"] = torch.tensor(epoch)
    return kept["refreshed"]


def _warn_of_few_visits(row: Tensor, num_minibatches: int) -> None:
    visits = torch.bincount(row)[row].median() / num_minibatches
    if visits < FEW_VISITS:
        warnings.warn(
            f"rare_actions=damped: half of the decisions are at infostates met less than {FEW_VISITS} times in a "
            "minibatch, and a rare action learns at a fraction of its gradient there; use rare_actions=full, "
            "visit_exponent=null, or larger rollouts",
            stacklevel=3,
        )


def infostate_weights(
    row: Tensor,
    action: Tensor,
    log_prob: Tensor,
    num_actions: int,
    visit_exponent: float,
    rare_actions: RareActions = "full",
) -> tuple[Tensor, Tensor, Tensor]:
    """Weights that make N sampled decisions count as infostates: (state_weight, action_weight, drawn), each [N].

    With n(s) decisions at infostate s, n(s, a) of them action a, and the policy pi that drew them:

        state_weight  = c n(s)^(visit_exponent - 1),     c such that its mean is 1
        drawn         = n(s, a) / n(s)                              damped
                      = n(s, a) / n(s) (1 - (1 - pi(a|s))^n(s))     full
        action_weight = state_weight pi(a|s) / drawn

    A loss averaged with state_weight gives an infostate the weight n(s)^visit_exponent instead of n(s): seldom visited
    ones count, which a best responder would seek out. action_weight moreover gives each action that was drawn a share
    of its own choosing, not the one it happened to get; the policy loss is then that of the mean advantages of (s, a),
    as in expected policy gradients.

    full: an action that was drawn, whose chance of that is 1 - (1 - pi)^n, stands for the minibatches in which it was
    not. The sum of its weights is n pi in expectation, so the gradient is that of the advantages whatever their
    baseline, and at n(s) = 1, where drawn = pi, all is plain PPO.

    damped: an action that was drawn has the weight n pi, and no other stands for one that was not. So the gradient of a
    rare action is too small by the factor 1 - (1 - pi)^n (a tenth at pi = .1 and n = 1), while entropy and KL act in
    full, and an error of the critic pushes towards likely actions: all that is right where n is large. action_weight is
    scaled to mean 1 by itself here. On Leduc it ended closer after 10 M decisions, not after 3 M (single seeds,
    configs/LOG.md).

    Not from a paper; configs/LOG.md says what the parts bring.

    Args:
        row [N]: which infostate each decision belongs to; action, log_prob [N]: as sampled; num_actions: A.
    """
    visits = torch.bincount(row)[row].float()
    drawn = torch.bincount(row * num_actions + action)[row * num_actions + action].float() / visits
    state_weight = visits ** (visit_exponent - 1)
    state_weight = state_weight / state_weight.mean()
    if rare_actions == "full":
        drawn = drawn * -torch.expm1(visits * torch.log1p(-log_prob.exp()))
        return state_weight, state_weight * log_prob.exp() / drawn, drawn
    action_weight = state_weight * log_prob.exp() / drawn
    return state_weight, action_weight / action_weight.mean(), drawn


def own_past(rollout: Rollout) -> tuple[np.ndarray, np.ndarray]:
    """before, ordinal: [T * B] int64 each, of the learner's decisions.

    before: which decision the same seat made last in the same game; -1 where the rollout holds none. ordinal: how many
    it holds before this one; -1 where the row is no decision of the learner's.
    """
    before, ordinal = (np.full(rollout.player.shape, -1) for _ in range(2))
    num_players = rollout.rewards.shape[2]
    played, learner, done = (x.numpy() for x in (rollout.played, rollout.learner, rollout.done))
    _fill_own_past(rollout.player.numpy(), played, learner, done, num_players, before, ordinal)
    return before.reshape(-1), ordinal.reshape(-1)


@njit
def _fill_own_past(player, played, learner, done, num_players, before, ordinal):
    num_steps, num_envs = player.shape
    last, count = np.empty(num_players, np.int64), np.empty(num_players, np.int64)
    for b in range(num_envs):
        last[:] = -1
        count[:] = 0
        for t in range(num_steps):
            p = player[t, b]
            if played[t, b] and learner[t, b]:
                before[t, b], ordinal[t, b] = last[p], count[p]
                last[p] = t * num_envs + b
                count[p] += 1
            if done[t, b] or not played[t, b]:
                last[:] = -1
                count[:] = 0


def cut_into_chunks(rollout: Rollout, valid: Tensor, length: int | None, burn_in: int) -> tuple[Tensor, Tensor]:
    """The `valid` [T, B] decisions of the learner as chunks of up to `length` consecutive ones of one seat in one game.

    A chunk follows on the one before it. `burn_in` decisions before a chunk, as many as the rollout holds, come first
    in it. Without `length` all of a game's decisions in the rollout are one chunk.

    Returns:
        rows [C, W] int64: the decisions of each chunk among the T * B, then -1; learned [C, W] bool: those of them that
        are learned from, which is every valid decision once.
    """
    before, ordinal = own_past(rollout)
    chosen = valid.numpy().reshape(-1) & (ordinal >= 0)
    longest = int(ordinal[chosen].max(initial=-1)) + 1
    length = longest if length is None else min(length, longest)
    followers = np.flatnonzero(chosen & (before >= 0))
    after = np.full(len(before), -1)
    after[before[followers]] = followers
    start = np.flatnonzero(chosen & (ordinal % max(length, 1) == 0))
    warm = np.minimum(ordinal[start], burn_in)  # decisions of burn-in
    now = start.copy()
    for step in range(burn_in):
        now = np.where(step < warm, before[now], now)
    width = burn_in + length
    rows, step = np.full((len(start), width), -1), np.arange(width)
    for w in range(width):
        rows[:, w] = np.where(w < warm + length, now, -1)
        now = np.where(now >= 0, after[now], -1)
    return torch.from_numpy(rows), torch.from_numpy((rows >= 0) & (step >= warm[:, None]))


def one_by_one(states: Tensor) -> Chunks:
    """Every row of states [T, B, *S] as a chunk of its own: with `memories`, for what needs no gradient."""
    states = states.flatten(0, 1)
    rows = torch.arange(len(states), device=states.device)
    return Chunks(states, rows, 1, rows)


@torch.no_grad()
def memories(policy: nn.Module, rollout: Rollout) -> Tensor:
    """[T, B, *S]: what `policy` as it is now would have remembered before each decision of the learner.

    It goes along each seat's decisions from the first one in the rollout. There it begins with what is stored, which is
    nothing where a game begins, and the memory of the policy that played where a game began before the rollout.
    """
    before, ordinal = own_past(rollout)
    device = next(policy.parameters()).device
    obs, state, steps = rollout.obs.flatten(0, 1), rollout.state.flatten(0, 1).clone(), len(rollout.obs)
    legal, after = rollout.legal.flatten(0, 1), torch.zeros_like(state)
    order = np.argsort(ordinal, kind="stable")
    bounds = np.searchsorted(ordinal[order], np.arange(ordinal.max(initial=-1) + 2))
    for i, (low, high) in enumerate(zip(bounds[:-1], bounds[1:])):
        rows = torch.from_numpy(order[low:high])
        if i > 0:
            state[rows] = after[torch.from_numpy(before[order[low:high]])]
        now = state[rows]
        after[rows] = policy(obs[rows].to(device), legal[rows].to(device), now.to(device)).state.float().cpu()
    return state.view(steps, -1, *state.shape[1:])
