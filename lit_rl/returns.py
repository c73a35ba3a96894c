"""From rewards to advantages, per player: a decision's successor is the *same* player's next one."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jsonargparse.typing import ClosedUnitInterval
from torch import Tensor

from envs.jit import njit
from lit_rl.rollout import CutGames, Rollout, check_cut_games
from lit_rl.run.errors import check_ranges


@dataclass(frozen=True)
class Credit:
    """How rewards become advantages.

    Args:
        gamma: discount per own decision.
        gae_lambda: lambda of generalised advantage estimation, and of v-trace.
        cut_games: what becomes of games that are unfinished when a rollout ends: carry, bootstrap or drop, see
            `lit_rl.rollout.Collecting`.
    """

    gamma: ClosedUnitInterval = 1.0
    gae_lambda: ClosedUnitInterval = 0.95
    cut_games: CutGames = "carry"

    def __post_init__(self):
        check_ranges(Credit.__init__, vars(self))
        check_cut_games(self.cut_games)


def gae(rollout: Rollout, gamma: float, gae_lambda: float) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation (Schulman et al. 2016) along each player's own decisions.

        delta_t = r_(t..t') + gamma V(s_t') - V(s_t),      A_t = delta_t + gamma gae_lambda A_t'

    with t' the same player's next decision in the same game and r_(t..t') all that the player earns until then. gamma
    acts once per own decision. A game that ended by its rules is worth 0 afterwards, one that was cut off
    `rollout.bootstrap`, one that goes on after the rollout `rollout.last_value` for those players whose value there is
    known (`lit_rl.rollout.Collecting` says whose, and at what price). Decisions of a game of which nothing is known
    after the rollout are not valid yet. Decisions that are not the learner's are never valid; what is earned by them
    lies between two decisions of the learner's like any other part of the environment.

    Returns:
        advantages [T, B] float32, valid [T, B] bool (advantages are 0 where not valid).
    """
    advantages = np.zeros(rollout.value.shape, np.float32)
    valid = np.zeros(rollout.value.shape, np.bool_)
    _gae(
        rollout.player.numpy(), rollout.played.numpy(), rollout.learner.numpy(), rollout.value.numpy(),
        rollout.rewards.numpy(), rollout.done.numpy(), rollout.bootstrap.numpy(), rollout.last_value.numpy(),
        rollout.last_known.numpy(), gamma, gae_lambda, advantages, valid,
    )  # fmt: skip
    return torch.from_numpy(advantages), torch.from_numpy(valid)


@njit
def _gae(
    player, played, learner, value, rewards, done, bootstrap, last_value, last_known, gamma, gae_lambda, advantages,
    valid,
):  # fmt: skip
    num_steps, num_envs, num_players = rewards.shape
    next_value, next_advantage = np.zeros(num_players), np.zeros(num_players)
    earned, has_next = np.zeros(num_players), np.zeros(num_players, np.bool_)
    for b in range(num_envs):
        known = False  # whether what follows this step is known: else the game is unfinished
        for p in range(num_players):
            next_advantage[p] = earned[p] = 0.0
            next_value[p] = last_value[b, p]
            has_next[p] = last_known[b, p]
            known = known or last_known[b, p]
        for t in range(num_steps - 1, -1, -1):
            if not played[t, b]:
                break  # filler in front of a carried game
            if done[t, b]:
                known = True
                for p in range(num_players):
                    next_value[p] = bootstrap[t, b, p]
                    next_advantage[p] = 0.0
                    earned[p] = 0.0
                    has_next[p] = True
            if not known:
                continue
            for p in range(num_players):
                earned[p] += rewards[t, b, p]
            if not learner[t, b]:
                continue
            p = player[t, b]
            if has_next[p]:
                delta = earned[p] + gamma * next_value[p] - value[t, b]
                next_advantage[p] = delta + gamma * gae_lambda * next_advantage[p]
                advantages[t, b] = next_advantage[p]
                valid[t, b] = True
            else:
                next_advantage[p] = 0.0
            next_value[p] = value[t, b]
            earned[p] = 0.0
            has_next[p] = True


class Conditional(NamedTuple):
    """What a critic of histories and one sampled game say of each decision."""

    regrets: Tensor  # [T, B, A] float32, in the mover's view: q(a) - sum over b of pi(b) q(b); 0 where illegal
    values: Tensor  # [T, B] float32, in the mover's view: sum over b of pi(b) q(b)
    targets: Tensor  # [T, B] float32, in player 0's view: what the critic is to say of the action taken
    valid: Tensor  # [T, B] bool, the learner's decisions in games that are over; elsewhere all is 0


def conditional_regrets(
    rollout: Rollout,
    probs: Tensor,
    critic: Tensor,
    trace_lambda: float = 1.0,
    ratio_cap: float = math.inf,
    luck: Tensor | None = None,
) -> Conditional:
    """Regrets of all actions at each decision of a two-player zero-sum game, corrected by what happened.

    With Q(h, a) the critic in player 0's view, V(h) = sum over a of pi(a) Q(h, a), and G the value of what follows the
    decision, going backwards from the end,

        q(b) = Q(h, b) + 1[b = a] (r + G - Q(h, a)) / mu(a)
        G <- V(h) + trace_lambda min(ratio_cap, pi(a) / mu(a)) (r + G - Q(h, a))

    so that with trace_lambda = 1 and no cap q(b) is an unbiased estimate of the value of b against pi whatever the
    critic says, and the better the critic, the less it varies (a control variate: Davis et al. 2020; DREAM, Steinberger
    et al. 2020, has a baseline per infostate instead). The critic's target is the expected one-step value r + V(h').
    Decisions of others (not `learner`) are part of the world: what they earn and what follows is passed on as it is.

    Args:
        probs: pi [T, B, A], 0 where illegal; critic: Q [T, B, A]; mu: `rollout.log_prob`.
        luck: [T, B] of chance after each decision, in player 0's view, with mean 0: is taken off r, in the critic's
            target, too (`lit_rl.armac.chance`).
    """
    shape = rollout.action.shape
    regrets = np.zeros((*shape, probs.shape[-1]), np.float32)
    values, targets, valid = np.zeros(shape, np.float32), np.zeros(shape, np.float32), np.zeros(shape, np.bool_)
    earned = rollout.rewards[..., 0] if luck is None else rollout.rewards[..., 0] - luck
    _conditional_regrets(
        rollout.player.numpy(), rollout.played.numpy(), rollout.action.numpy(), rollout.legal.numpy(),
        rollout.log_prob.exp().numpy(), earned.numpy(), rollout.done.numpy(), rollout.learner.numpy(),
        probs.numpy(), critic.numpy(), trace_lambda, ratio_cap, regrets, values, targets, valid,
    )  # fmt: skip
    return Conditional(*(torch.from_numpy(x) for x in (regrets, values, targets, valid)))


@njit
def _conditional_regrets(
    player, played, action, legal, behaviour, earned, done, learner, probs, critic, trace_lambda, ratio_cap, regrets,
    values, targets, valid,
):  # fmt: skip
    num_steps, num_envs, num_actions = probs.shape
    for b in range(num_envs):
        known, following, expected = False, 0.0, 0.0  # of the game after this decision, in player 0's view
        for t in range(num_steps - 1, -1, -1):
            if not played[t, b]:
                break  # filler in front of a carried game
            if done[t, b]:
                known, following, expected = True, 0.0, 0.0
            if not known:
                continue
            if not learner[t, b]:
                following, expected = following + earned[t, b], expected + earned[t, b]
                continue
            a, mu = action[t, b], behaviour[t, b]
            value = 0.0
            for c in range(num_actions):
                value += probs[t, b, c] * critic[t, b, c]
            surprise = earned[t, b] + following - critic[t, b, a]
            own_view = 1.0 if player[t, b] == 0 else -1.0
            mean = value + probs[t, b, a] * surprise / mu
            for c in range(num_actions):
                if legal[t, b, c]:
                    regrets[t, b, c] = own_view * (critic[t, b, c] - mean)
            regrets[t, b, a] += own_view * surprise / mu
            values[t, b] = own_view * mean
            targets[t, b] = earned[t, b] + expected
            valid[t, b] = True
            following = value + trace_lambda * min(ratio_cap, probs[t, b, a] / mu) * surprise
            expected = value


def two_player_v_trace(
    rollout: Rollout,
    value: Tensor,
    log_prob: Tensor,
    kl: Tensor,
    *,
    eta: float,
    gamma: float,
    trace_lambda: float,
    rho_bar: float = math.inf,
    c_bar: float = 1.0,
) -> tuple[Tensor, Tensor, Tensor]:
    """V-trace of the regularised game for both players at once (Perolat et al. 2022, supplement; IMPALA's is for one).

    In that game each player pays eta log(pi(a) / rho(a)) for its own actions and is paid as much for the other's. With
    c = pi(a) / mu(a) the ratio of learner and behaviour policy at a decision and t' the same player's next one,

        W_t = c_t * product of c over the other's decisions between t and t'
        v_t = V_t + min(rho_bar, W_t) (r_t + gamma V_t' - V_t) + lambda min(c_bar, W_t) gamma (v_t' - V_t')
        d_t = R_t + gamma (W_t / c_t) v_t' - V_t

    where r_t holds the rewards until t', minus eta KL(pi || rho) at t and plus eta KL(pi || rho) at the other's
    decisions, and R_t the same without the part at t, each term corrected for the other's moves before it. So
    Q(a) = V - eta log(pi(a) / rho(a)) + 1[a = a_t] d_t / mu(a_t) is an estimate of all actions' values. gamma acts once
    per own decision. Games that go on after the rollout are worth `rollout.last_value` there if both players' values
    are known; else their decisions are not valid.

    A decision that is not the learner's is environment: its c is 1, it pays and is paid nothing, and it is never valid.
    Against a fixed opponent the learner so plays the game regularised for itself alone.

    Args:
        value: [T, B] of the target network for the mover; log_prob: [T, B] of the action under the learner;
        kl: [T, B], KL(pi || rho) at each decision; eta: reward units per nat; trace_lambda: lambda.
        rho_bar, c_bar: the bounds; DeepNash's by default.

    Returns:
        targets v [T, B], d [T, B], both float32, and valid [T, B] bool; the former are 0 where not valid.
    """
    targets, deltas = (np.zeros(rollout.value.shape, np.float32) for _ in range(2))
    valid = np.zeros(rollout.value.shape, np.bool_)
    ratio = (log_prob - rollout.log_prob).exp()
    _two_player_v_trace(
        rollout.player.numpy(), rollout.played.numpy(), rollout.learner.numpy(), value.numpy(), ratio.numpy(),
        kl.numpy(), rollout.rewards.numpy(), rollout.done.numpy(), rollout.bootstrap.numpy(),
        rollout.last_value.numpy(), rollout.last_known.numpy(), eta, gamma, trace_lambda, rho_bar, c_bar, targets,
        deltas, valid,
    )  # fmt: skip
    return torch.from_numpy(targets), torch.from_numpy(deltas), torch.from_numpy(valid)


@njit
def _two_player_v_trace(
    player, played, learner, value, ratio, kl, rewards, done, bootstrap, last_value, last_known, eta, gamma,
    trace_lambda, rho_bar, c_bar, targets, deltas, valid,
):  # fmt: skip
    num_steps, num_envs, num_players = rewards.shape
    reward, corrected = np.zeros(num_players), np.zeros(num_players)  # since the next own decision, going backwards
    next_value, next_target, others = np.zeros(num_players), np.zeros(num_players), np.ones(num_players)
    for b in range(num_envs):
        known = True
        for p in range(num_players):
            known = known and last_known[b, p]
            reward[p], corrected[p], others[p] = 0.0, 0.0, 1.0
            next_value[p] = next_target[p] = last_value[b, p]
        for t in range(num_steps - 1, -1, -1):
            if not played[t, b]:
                break  # filler in front of a carried game
            if done[t, b]:
                known = True
                for p in range(num_players):
                    reward[p], corrected[p], others[p] = 0.0, 0.0, 1.0
                    next_value[p] = next_target[p] = bootstrap[t, b, p]
            if not known:
                continue
            for p in range(num_players):
                reward[p] += rewards[t, b, p]
                corrected[p] += rewards[t, b, p]
            if not learner[t, b]:
                continue
            for p in range(num_players):
                if p == player[t, b]:
                    v, weight = value[t, b], ratio[t, b] * others[p]
                    target = v + min(rho_bar, weight) * (reward[p] - eta * kl[t, b] + gamma * next_value[p] - v)
                    target += trace_lambda * min(c_bar, weight) * gamma * (next_target[p] - next_value[p])
                    deltas[t, b] = corrected[p] + gamma * others[p] * next_target[p] - v
                    targets[t, b] = target
                    valid[t, b] = True
                    next_value[p], next_target[p] = v, target
                    reward[p], corrected[p], others[p] = 0.0, 0.0, 1.0
                else:
                    reward[p] += eta * kl[t, b]
                    corrected[p] = eta * kl[t, b] + ratio[t, b] * corrected[p]
                    others[p] *= ratio[t, b]
