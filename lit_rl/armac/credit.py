"""What ARMAC learns from one rollout, as functions of it.

`credit` turns the games that are over into regrets, `lessons` turns regrets into what actor and scheduler are trained
on. Letters: T steps, B envs, N decisions of finished or unfinished games that were played, L decisions that regrets are
learned from, M infostates among those, A actions, K bins, D obs shape.
"""

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from envs.game import Game
from lit_rl.armac.infostates import Infostates, infostates
from lit_rl.armac.meta_regret import MetaRegret
from lit_rl.armac.mix_scheduler import MixStatistics
from lit_rl.armac.mix_utility import MixedDecisions, MixUtility
from lit_rl.armac.mixed_policy import Mixture
from lit_rl.armac.mixing import Mixer
from lit_rl.armac.rows import Rows, Samples
from lit_rl.armac.state_keys import StateKeys
from lit_rl.returns import conditional_regrets
from lit_rl.rollout import Rollout, explorer_seat
from lit_rl.row_index import obs_dtype
from lit_rl.run.saved_values import saved_dict, saved_legal, saved_tensor

Explorers = Literal["one", "all"]


class Credit(NamedTuple):
    """What the games of a rollout say of its N played decisions."""

    advantages: Tensor  # [N, A] float32, in the mover's view: what each action is worth beyond the policy that played
    values: Tensor  # [N] float32, in the mover's view: what that policy is worth
    targets: Tensor  # [N] float32, in player 0's view: what the critic is to say of the action taken
    valid: Tensor  # [N] bool, the learner's decisions in games that are over; elsewhere the three above are 0
    learned: Tensor  # [N] bool, those of them that train regrets
    regrets: Samples  # what the memory is told of them
    policies: Samples  # and of the decisions that show a policy for the average


def credit(
    rollout: Rollout,
    mixture: Mixture,
    q: Tensor,
    explorers: Explorers,
    trace_lambda: float = 1.0,
    ratio_cap: float = math.inf,
    luck: Tensor | None = None,
) -> Credit:
    """Regrets of the decisions in finished games, and which decisions teach what.

    Where one seat explores, its decisions train regrets and those of the others show the policy for the average; where
    all explore alike, every decision does both. Regrets are those of the regret policy itself, as if it alone had
    played. Where past policies sit in the other seats (`rollout.extras["past_probs"]`), the game is one of a past
    policy's on both sides: the learner's decisions train regrets of that policy, the others' decisions show it.

    Args:
        mixture: [N], the policy as it is now at the played decisions, in their order (`rollout.obs[rollout.played]`).
        q: [N, A] float32, the critic's values of their histories in player 0's view.
        explorers: one or all, see `lit_rl.rollout.Collecting`.
        trace_lambda, ratio_cap, luck: see `lit_rl.returns.conditional_regrets`.
    """
    played = rollout.played
    obs = rollout.obs[played]
    legal = rollout.legal[played]
    past = rollout.extras.get("past_probs")
    probs = mixture.probs if past is None else past[played]
    found = conditional_regrets(rollout, spread(probs, played), spread(q, played), trace_lambda, ratio_cap, luck)
    advantages = found.regrets[played]
    valid = found.valid[played]
    if past is not None:
        regrets = advantages
        learned = valid
        shown = (~rollout.learner & ~rollout.unfinished())[played]
    else:
        regrets = advantages - (mixture.regret * advantages).sum(-1, keepdim=True) * legal
        learned = shown = valid
        if explorers == "one":
            explores = explorer_moves(rollout)[played]
            learned = valid & explores
            shown = valid & ~explores
    return Credit(
        advantages,
        found.values[played],
        found.targets[played],
        valid,
        learned,
        Samples(obs[learned], legal[learned], regrets[learned]),
        Samples(obs[shown], legal[shown], probs[shown]),
    )


def explorer_moves(rollout: Rollout) -> Tensor:
    """[T, B] bool: the player to move is the one that explores in its row."""
    num_envs, num_players = rollout.rewards.shape[1:]
    seat = explorer_seat(num_envs, num_players).expand(len(rollout.player), -1, -1)
    return seat.gather(2, rollout.player.long().unsqueeze(2)).squeeze(2)


class ScheduleRows(NamedTuple):
    """What the scheduler sees at M infostates, and the bins it is to prefer there."""

    obs: Tensor  # [M, *D]
    legal: Tensor  # [M, A]
    actor: Tensor  # [M, A]
    regret: Tensor  # [M, A]
    q: Tensor  # [M, A], the critic's mean over the histories met, in the mover's view
    desired: Tensor  # [M, K]
    weight: Tensor  # [M], with sum 1


class MixedShares(NamedTuple):
    """Which shares of the actor were played at the decisions that the scheduler learned from; without one, at all."""

    mix_lambda: Tensor  # [L] float32, as it was played
    bin: Tensor  # [L] int64
    key: Tensor | None = None  # [L] int64, the state keys; None without a scheduler


class Lessons(NamedTuple):
    """What an iteration's batches are made of beside the memories. An algorithm keeps and saves it, since a run that is
    resumed in the middle of an iteration cannot work it out again."""

    actor: Rows | None = None  # target: mean advantages against the actor itself, in the mover's view
    scheduler: ScheduleRows | None = None
    shares: MixedShares | None = None  # None: there is no actor

    def state_dict(self) -> dict:
        return {name: None if part is None else part._asdict() for name, part in self._asdict().items()}

    @classmethod
    def of_state(cls, state: dict, game: Game, num_bins: int) -> "Lessons":
        """What `state_dict` returned, again.

        Raises:
            ArtefactError: a tensor has not the dtype, shape or range it must have in this game.
        """
        kinds = {"actor": Rows, "scheduler": ScheduleRows, "shares": MixedShares}
        saved_dict(state, "lessons", kinds)
        parts = {}
        for part, kind in kinds.items():
            if state[part] is None:
                parts[part] = None
                continue
            values, where = saved_dict(state[part], f"lessons.{part}", kind._fields), f"lessons.{part}"
            first = "mix_lambda" if part == "shares" else "legal"
            n = len(values[first]) if isinstance(values[first], Tensor) and values[first].ndim else 0
            parts[part] = kind(
                **{
                    name: None if value is None and name == "key" else _saved(name, value, where, n, game, num_bins)
                    for name, value in values.items()
                }
            )
        return cls(**parts)


def _saved(name: str, value: Tensor, where: str, n: int, game: Game, num_bins: int) -> Tensor:
    """A tensor of lessons out of a checkpoint, of n rows."""
    if name == "legal":
        return saved_legal(value, f"{where}.legal", n, game.num_actions)
    rows, one_weight = (n, game.num_actions), where.endswith("scheduler")
    kind, shape, low, high = {
        "obs": (obs_dtype(game), (n, *game.obs_shape), None, None),
        "target": (torch.float32, rows, None, None),
        "actor": (torch.float32, rows, 0.0, 1.0 + 1e-5),
        "regret": (torch.float32, rows, 0.0, 1.0 + 1e-5),
        "q": (torch.float32, rows, None, None),
        "desired": (torch.float32, (n, num_bins), 0.0, 1.0 + 1e-5),
        "weight": (torch.float32, (n,) if one_weight else rows, 0.0, 1.0 + 1e-5),
        "mix_lambda": (torch.float32, (n,), 0.0, 1.0),
        "bin": (torch.int64, (n,), 0, num_bins - 1),
        "key": (torch.int64, (n,), None, None),
    }[name]
    return saved_tensor(value, f"{where}.{name}", kind, shape, low, high)


class Judge(NamedTuple):
    """Who judges the shares of the actor. What it sees moves the table, and the baseline of a utility that has one."""

    utility: MixUtility
    mixer: Mixer
    state_keys: StateKeys
    meta_regret: MetaRegret

    def judge(
        self, states: Infostates, mixture: Mixture, player: Tensor, q: Tensor, values: Tensor
    ) -> tuple[ScheduleRows, Tensor]:
        """The scheduler's rows and the state keys [M] of decisions at which regrets are learned: there histories of one
        infostate weigh what chance and the other player's own policy make them weigh.

        Args:
            states: the M infostates of L decisions.
            mixture: [M]; player: [M].
            q: [L, A], the critic in the mover's view; values: [L], what the mover got or may expect.
        """
        q = states.mean(q)
        decisions = MixedDecisions(
            actor=mixture.actor,
            regret=mixture.regret,
            mix_lambda=mixture.mix_lambda,
            bin=mixture.bin,
            bin_prob=mixture.bin_prob,
            q=q,
            returns=states.mean(values.unsqueeze(1)).squeeze(1),
            count=states.visits,
        )
        utilities = self.utility(decisions, self.mixer, self.meta_regret.bins)
        keys = self.state_keys(states.obs, player)
        self.meta_regret.update(keys, utilities, states.visits)
        desired = self.meta_regret.desired(keys)
        rows = ScheduleRows(states.obs, states.legal, mixture.actor, mixture.regret, q, desired, states.weight)
        return rows, keys


def lessons(rollout: Rollout, mixture: Mixture, q: Tensor, found: Credit, judge: Judge | None) -> Lessons:
    """What actor and scheduler learn from the decisions that train regrets.

    Args:
        rollout: with the extras mix_lambda and bin [T, B], as they were played.
        mixture: [N]; q: [N, A], both as for `credit`, whose result is `found`.
        judge: None without a scheduler.
    """
    played = rollout.played
    learned = found.learned
    states = infostates(found.regrets.obs, found.regrets.legal)
    there = Mixture(*(x[learned][states.first] for x in mixture))
    actor = actor_rows(states, found.advantages[learned], there.actor)
    mix_lambda = rollout.extras["mix_lambda"][played]
    bin = rollout.extras["bin"][played]
    if judge is None:
        return Lessons(actor, None, MixedShares(mix_lambda, bin))
    player = rollout.player[played][learned]
    own_view = 1.0 - 2.0 * player.float()
    schedule, keys = judge.judge(
        states, there, player[states.first], own_view.unsqueeze(1) * q[learned], found.values[learned]
    )
    return Lessons(actor, schedule, MixedShares(mix_lambda[learned], bin[learned], keys[states.row]))


def mix_statistics(
    bins: tuple[float, ...], shares: MixedShares | None, state_keys: StateKeys | None, meta_regret: MetaRegret | None
) -> MixStatistics:
    """What is told of an iteration's shares: those of an actor that is not there (None) are 0."""
    if shares is None:
        return MixStatistics(bins, torch.zeros(1), torch.zeros(1, dtype=torch.int64))
    if meta_regret is None:
        return MixStatistics(bins, shares.mix_lambda, shares.bin)
    regrets = meta_regret.mean_regrets()
    return MixStatistics(bins, *shares, state_keys.describe, regrets, meta_regret.statistics())


def actor_rows(states: Infostates, advantages: Tensor, actor: Tensor) -> Rows:
    """Per infostate the mean of the advantages [L, A], against the actor [M, A] itself."""
    mean = states.mean(advantages)
    target = mean - (actor * mean).sum(-1, keepdim=True) * states.legal
    return Rows(states.obs, states.legal, target, states.weight.unsqueeze(1).expand_as(target))


def spread(rows: Tensor, played: Tensor) -> Tensor:
    """[N, ...] back to [T, B, ...], 0 where nothing was played."""
    whole = rows.new_zeros(*played.shape, *rows.shape[1:])
    whole[played] = rows
    return whole
