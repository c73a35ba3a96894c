"""Policies and critics given as tables over the infostates of a game, for ARMAC's tests."""

import naive
import numpy as np
import torch

from envs.game import load_game
from lit_rl.networks import MLP
from lit_rl.policy import ActorCritic, PolicyOutput, mask_logits
from lit_rl.rollout import Collecting
from lit_rl.row_index import RowIndex, merge_equal_rows


class Table(ActorCritic):
    """A policy given as a table over infostates; anything not in it plays uniformly."""

    def __init__(self, probs: dict):
        super().__init__()
        self.probs, self.weight = probs, torch.nn.Parameter(torch.zeros(()))

    def rows(self, obs, legal):
        first, row = merge_equal_rows(obs, legal)
        uniform = legal[first] / legal[first].sum(-1, keepdim=True)
        found = [self.probs.get(o.numpy().tobytes()) for o in obs[first]]
        return torch.stack([u if p is None else torch.as_tensor(p).float() for p, u in zip(found, uniform)])[row]

    def forward(self, obs, legal, state=None):
        return PolicyOutput(mask_logits(self.rows(obs, legal).clamp_min(1e-30).log(), legal), torch.zeros(len(obs)))


class Anything(dict):
    def __missing__(self, key):
        return np.full(2, 0.5)


def kuhn_policy(kuhn, seed):
    """A random policy, by (player, infostate bytes) and by infostate bytes alone."""
    rng = np.random.default_rng(seed)
    uniform = {key: np.full(2, 0.5) for key in naive.counterfactual_regrets(kuhn, Anything())}
    policy = {key: rng.dirichlet([1, 1]) for key in uniform}
    return policy, {obs: probs for (_, obs), probs in policy.items()}


def history_values(game, policy, state=None, found=None):
    """{bytes of both players' infostates: value of each action for player 0 [A]}, exactly."""
    root = state is None
    state, found = (game.new_state(), {}) if root else (state, found)
    player = game.current_player(state[0])
    if player == naive.TERMINAL:
        return 0.0
    probs = naive.chance_of(game, state[0]) if player == naive.CHANCE else None
    if player != naive.CHANCE:
        probs = policy[player, naive.obs_of(game, state[0], player).tobytes()]
    values = np.zeros(len(probs))
    legal = probs > 0 if player == naive.CHANCE else naive.legal_of(game, state[0])
    for a in np.flatnonzero(legal):
        nxt = naive.child(game, state, int(a))
        values[a] = naive.rewards_of(game, nxt[0])[0] + history_values(game, policy, nxt, found)
    if player != naive.CHANCE:
        both = [naive.obs_of(game, state[0], p).tobytes() for p in range(2)]
        found[b"".join(both)] = values.astype(np.float32)
    return found if root else float(probs @ values)


def critic_of(r, values, game="envs.kuhn_poker"):
    """Q [T, B, A] looked up by history."""
    index, (t, b) = RowIndex.of(load_game(game), 2), r.action.shape
    row = index.find_or_add(r.history.flatten(0, 1), r.legal.flatten(0, 1))
    table = torch.stack([torch.from_numpy(values[history.numpy().tobytes()]) for history in index.obs])
    return table[row].view(t, b, -1)


def exact_reach(game, policy, key, state=None, reach=1.0):
    """Chance's and the other player's probability of an infostate (player, bytes)."""
    state = game.new_state() if state is None else state
    player = game.current_player(state[0])
    if player == naive.TERMINAL:
        return 0.0
    here = None if player == naive.CHANCE else (player, naive.obs_of(game, state[0], player).tobytes())
    if here == key:
        return reach
    probs = naive.chance_of(game, state[0]) if player == naive.CHANCE else policy[here]
    legal = probs > 0 if player == naive.CHANCE else naive.legal_of(game, state[0])
    return sum(
        exact_reach(game, policy, key, naive.child(game, state, int(a)), reach * (1 if player == key[0] else probs[a]))
        for a in np.flatnonzero(legal)
    )


def exploring(exploration=1.0, **options):
    """Player (row mod 2) explores."""
    return Collecting(exploration=exploration, explorers="one", **options)


def sharp_mlp(game):
    network = MLP(game, hidden=(16,), shared=True)
    torch.nn.init.normal_(network.policy_head.weight, std=2.0)
    return network
