"""From rewards to advantages, per player: a decision's successor is the *same* player's next one."""

import numpy as np
import torch
from numba import njit
from torch import Tensor

from lit_rl.rollout import Rollout


def gae(rollout: Rollout, gamma: float, gae_lambda: float, whole_games: bool = True) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation (Schulman et al. 2016) along each player's own decisions.

        delta_t = r_(t..t') + gamma V(s_t') - V(s_t),      A_t = delta_t + gamma gae_lambda A_t'

    with t' the same player's next decision in the same game and r_(t..t') all that the player earns until then. gamma
    acts once per own decision. A game that ended by its rules is worth 0 afterwards, one that was cut off
    `rollout.bootstrap`.

    With `whole_games` the decisions of games that are unfinished at the end of the rollout are not valid yet; the next
    rollout carries them. Without, the player to move there is bootstrapped with its value, and the others' last
    decisions, whose successors nobody has seen, are lost. Which ones are lost depends on how the game went on, so the
    mean return of an action comes out wrong (tests/test_returns.py measures it). It is for games much longer than a
    rollout.

    Returns:
        advantages [T, B] float32, valid [T, B] bool (advantages are 0 where not valid).
    """
    advantages = np.zeros(rollout.value.shape, np.float32)
    valid = np.zeros(rollout.value.shape, np.bool_)
    last_player = rollout.last_player if not whole_games else torch.full_like(rollout.last_player, -1)
    _gae(
        rollout.player.numpy(), rollout.played.numpy(), rollout.value.numpy(), rollout.rewards.numpy(),
        rollout.done.numpy(), rollout.bootstrap.numpy(), last_player.numpy(), rollout.last_value.numpy(),
        gamma, gae_lambda, advantages, valid,
    )  # fmt: skip
    return torch.from_numpy(advantages), torch.from_numpy(valid)


@njit
def _gae(
    player, played, value, rewards, done, bootstrap, last_player, last_value, gamma, gae_lambda, advantages, valid
):  # fmt: skip
    num_steps, num_envs, num_players = rewards.shape
    next_value, next_advantage = np.zeros(num_players), np.zeros(num_players)
    earned, has_next = np.zeros(num_players), np.zeros(num_players, np.bool_)
    for b in range(num_envs):
        next_advantage[:] = 0.0
        earned[:] = 0.0
        has_next[:] = False
        if last_player[b] >= 0:
            has_next[last_player[b]] = True
            next_value[last_player[b]] = last_value[b]
        known = last_player[b] >= 0  # whether what follows this step is known: else the game is unfinished
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
