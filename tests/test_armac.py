"""ARMAC: conditional regrets against twin and exact tree, the tabular algorithm against CFR, then the module."""

import dataclasses

import naive
import numpy as np
import pytest
import torch

from envs.game import load_game
from envs.vector_env import VectorEnv
from lit_rl.memory import Reservoir, RowMemory, Samples, new_index
from lit_rl.merge import merge_equal_rows
from lit_rl.mixing import regret_matching
from lit_rl.networks import MLP
from lit_rl.policy import ActorCritic, PolicyOutput, mask_logits
from lit_rl.returns import conditional_regrets
from lit_rl.rollout import collect


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

    def forward(self, obs, legal):
        return PolicyOutput(mask_logits(self.rows(obs, legal).clamp_min(1e-30).log(), legal), torch.zeros(len(obs)))


def exploring(num_envs):
    """[B, 2]: player (row mod 2) explores."""
    return torch.nn.functional.one_hot(torch.arange(num_envs) % 2, 2).float()


@pytest.mark.parametrize(("trace_lambda", "ratio_cap"), [(1.0, float("inf")), (0.7, 1.2), (0.0, 3.0)])
@pytest.mark.parametrize("others", [False, True])
def test_twin(leduc, trace_lambda, ratio_cap, others):
    env, previous = VectorEnv(leduc, 30, seed=1, observe_all=True), None
    network = MLP(leduc, hidden=(16,))
    torch.nn.init.normal_(network.policy_head.weight, std=1.0)
    for _ in range(3):
        previous = r = collect(env, network, 6, previous=previous, exploration=exploring(30) * 0.6)
        if others:
            r = dataclasses.replace(r, learner=torch.rand(*r.done.shape) < 0.6)
        probs, critic = r.logits.softmax(-1), torch.randn(*r.legal.shape)
        found = conditional_regrets(r, probs, critic, trace_lambda, ratio_cap)
        twin = naive.conditional_regrets(r, probs.numpy(), critic.numpy(), trace_lambda, ratio_cap)
        assert (found.valid.numpy() == twin[2]).all() and twin[2].any()
        assert found.regrets.numpy() == pytest.approx(twin[0], abs=1e-3, rel=1e-4)
        assert found.targets.numpy() == pytest.approx(twin[1], abs=1e-4)
        assert (probs * found.regrets).sum(-1).abs().max() < 1e-3  # nobody regrets having played as they do


def kuhn_policy(kuhn, seed):
    """A random policy, by (player, infostate bytes) and by infostate bytes alone."""
    rng = np.random.default_rng(seed)
    uniform = {key: np.full(2, 0.5) for key in naive.counterfactual_regrets(kuhn, Anything())}
    policy = {key: rng.dirichlet([1, 1]) for key in uniform}
    return policy, {obs: probs for (_, obs), probs in policy.items()}


class Anything(dict):
    def __missing__(self, key):
        return np.full(2, 0.5)


@pytest.mark.parametrize("trace_lambda", [1.0, 0.0])
def test_regrets_are_unbiased_whatever_the_critic_says(kuhn, trace_lambda):
    """Summed over games they are CFR's, times how often exploring gets there; without the trace they are not."""
    policy, by_obs = kuhn_policy(kuhn, seed=3)
    exact = naive.counterfactual_regrets(kuhn, policy)
    num_envs, table = 60_000, Table(by_obs)
    env = VectorEnv(kuhn, num_envs, seed=2, observe_all=True)
    r = collect(env, table, 3, exploration=exploring(num_envs), merge_rows=True)  # one whole game per row, and more
    first_game = (r.done.cumsum(0) - r.done.long()) == 0
    critic = torch.randn(8, 2, generator=torch.Generator().manual_seed(0))[r.history.flatten(2).sum(-1).long() % 8]
    found = conditional_regrets(r, r.logits.softmax(-1), critic, trace_lambda)
    worst = 0.0
    for (player, obs), (regrets, uniform_reach, _) in exact.items():
        here = first_game & (r.exploration > 0) & (r.player == player)
        here &= (r.obs == torch.from_numpy(np.frombuffer(obs, kuhn.obs_dtype).copy())).all(-1)
        per_game = torch.where(here.unsqueeze(-1), found.regrets, 0.0).sum(0)[player::2].double()  # [games, A]
        error = per_game.mean(0).numpy() - uniform_reach * regrets
        standard_error = per_game.std(0).numpy() / len(per_game) ** 0.5
        worst = max(worst, (np.abs(error) / standard_error).max())
    assert worst < 4.0 if trace_lambda == 1.0 else worst > 10.0, worst


def test_a_perfect_critic_leaves_no_noise(kuhn):
    """In Kuhn chance only deals: with exact values the regrets of one history are the same in every game."""
    policy, by_obs = kuhn_policy(kuhn, seed=4)
    env = VectorEnv(kuhn, 500, seed=2, observe_all=True)
    r = collect(env, Table(by_obs), 4, exploration=exploring(500), merge_rows=True)
    exact = history_values(kuhn, policy)
    found = conditional_regrets(r, r.logits.softmax(-1), critic_of(r, exact), 1.0)
    seen = {}
    for t, b in np.ndindex(*r.action.shape):
        if found.valid[t, b]:
            regrets = seen.setdefault(r.history[t, b].numpy().tobytes(), found.regrets[t, b])
            assert torch.allclose(regrets, found.regrets[t, b], atol=1e-5)
            target = exact[r.history[t, b].numpy().tobytes()][int(r.action[t, b])]
            assert found.targets[t, b].item() == pytest.approx(target, abs=1e-5)
    assert len(seen) > 20


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


def critic_of(r, values):
    """Q [T, B, A] looked up by history."""
    index, (t, b) = new_index(load_game("envs.kuhn_poker"), 2), r.action.shape
    row = index.find_or_add(r.history.flatten(0, 1), r.legal.flatten(0, 1))
    table = torch.stack([torch.from_numpy(values[history.numpy().tobytes()]) for history in index.obs])
    return table[row].view(t, b, -1)


def test_tabular_armac_follows_cfr(kuhn, kuhn_tree):
    """With tables for networks: the summed regrets of sampled games stay beside exact CFR+'s of the same policies, and
    the average policy approaches an equilibrium."""
    memory, num_envs = RowMemory(kuhn), 16_000
    env = VectorEnv(kuhn, num_envs, seed=5, observe_all=True)
    exact, uniform = {}, {}
    policy = Anything()
    for iteration in range(1, 61):
        table = Table({obs: probs for (_, obs), probs in policy.items()})
        env.reset()
        r = collect(env, table, 3, exploration=exploring(num_envs), merge_rows=True)
        probs = table.rows(r.obs.flatten(0, 1), r.legal.flatten(0, 1)).view(*r.legal.shape)
        found = conditional_regrets(r, probs, critic_of(r, history_values(kuhn, policy)))
        first_game = (r.done.cumsum(0) - r.done.long()) == 0  # played to its end within three steps
        learns, shows, games = first_game & (r.exploration > 0), first_game & (r.exploration == 0), num_envs / 2
        memory.add(
            Samples(r.obs[learns], r.legal[learns], found.regrets[learns] / games),
            Samples(r.obs[shows], r.legal[shows], probs[shows]),
            iteration,
            torch.Generator(),
        )
        for key, (regrets, reach, _) in naive.counterfactual_regrets(kuhn, policy).items():
            exact[key] = np.maximum(exact.get(key, 0) + reach * regrets, 0)
            uniform[key] = reach
        row = dict(zip((o.numpy().tobytes() for o in memory.index.obs), range(len(memory.index))))
        rows = regret_matching(torch.from_numpy(memory.regrets), memory.index.legal).numpy()
        policy = Anything({key: rows[row[key[1]]] for key in exact})
    sampled = np.stack([memory.regrets[row[key[1]]] for key in exact])
    truth = np.stack(list(exact.values()))
    assert np.abs(sampled - truth).max() < 0.12 * truth.max()
    assert np.corrcoef(sampled.flat, truth.flat)[0, 1] > 0.98
    average = memory.average_rows(torch.Generator())
    table = np.stack([average.target[row[o.tobytes()]].numpy() for o in kuhn_tree.obs])
    assert kuhn_tree.evaluate(table.astype(np.float64)).nash_conv < 0.06


def test_a_reservoir_keeps_every_sample_equally_often(kuhn):
    kept = np.zeros(60)
    for seed in range(400):
        reservoir, generator = Reservoir(kuhn, 10), torch.Generator().manual_seed(seed)
        for start in range(0, 60, 7):
            n = min(7, 60 - start)
            numbers = torch.arange(start, start + n).float()
            legal = torch.ones(n, 2, dtype=torch.bool)
            obs = torch.zeros(n, *kuhn.obs_shape, dtype=torch.uint8)
            reservoir.add(Samples(obs, legal, numbers.unsqueeze(1).expand(-1, 2)), 1.0, generator)
        assert len(reservoir) == 10
        kept[reservoir.vector[:, 0].long().numpy()] += 1
    assert kept.sum() == 4000 and (np.abs(kept - 4000 / 60) < 5 * (4000 / 60) ** 0.5).all()
