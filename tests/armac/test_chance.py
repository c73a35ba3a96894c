"""Luck: nothing of it is left where values are exact, its mean is 0 whatever they are, and ARMAC learns without it."""

import numpy as np
import pytest
import torch
from tables import Table, critic_of, exploring, history_values

from envs.vector_env import VectorEnv
from lit_rl.armac.chance import chances, luck
from lit_rl.returns import conditional_regrets
from lit_rl.rollout import collect


def random_policy(tree, seed):
    """By (player, infostate bytes), 0 where illegal."""
    rng = np.random.default_rng(seed)
    probs = rng.gamma(1.0, size=tree.legal.shape) * tree.legal
    probs /= probs.sum(1, keepdims=True)
    return {(int(p), o.tobytes()): row for p, o, row in zip(tree.row_player, tree.obs, probs)}


def played(leduc, tree, num_envs=300):
    """Two rollouts of exploring games, the second with carried rows; and the exact values of histories."""
    policy = random_policy(tree, seed=3)
    table = Table({obs: probs for (_, obs), probs in policy.items()})
    env, previous, rollouts = VectorEnv(leduc, num_envs, seed=2, observe_all=True), None, []
    for _ in range(2):
        previous = collect(env, table, 6, previous=previous, collecting=exploring(), keep_logits=True)
        rollouts.append(previous)
    return rollouts, history_values(leduc, policy), table


def luck_of(r, critic, game, table, values):
    """With the critic's values Q [T, B, A] of the rollout, and `values` of all histories."""
    might = chances(r, game)
    probs = table.rows(might.obs, might.legal)
    q = torch.stack([torch.from_numpy(values[history.numpy().tobytes()]) for history in might.history])
    return luck(r, (r.logits.softmax(-1) * critic).sum(-1), might, (probs * q).sum(-1))


def test_exact_values_leave_no_noise(leduc, leduc_tree):
    """Regrets and targets are the exact ones in every game; with the luck of the public card in them they are not."""
    rollouts, exact, table = played(leduc, leduc_tree)
    for r in rollouts:
        critic = critic_of(r, exact, "envs.leduc_poker")
        probs = r.logits.softmax(-1)
        plain = conditional_regrets(r, probs, critic)
        found = conditional_regrets(r, probs, critic, luck=luck_of(r, critic, leduc, table, exact))
        mean = (probs * critic).sum(-1, keepdim=True)
        expected = (critic - mean) * torch.where(r.player == 0, 1.0, -1.0).unsqueeze(-1) * r.legal
        error = {name: (x.regrets - expected)[x.valid].abs().max() for name, x in (("luck", plain), ("none", found))}
        assert found.valid.any() and error["none"] < 1e-4 and error["luck"] > 3.0
        taken = critic.gather(2, r.action.unsqueeze(2)).squeeze(2)
        assert torch.allclose(found.targets[found.valid], taken[found.valid], atol=1e-5)


def test_luck_has_mean_0_whatever_the_values(leduc, leduc_tree):
    (r, _), exact, table = played(leduc, leduc_tree, num_envs=6000)
    rng = np.random.default_rng(5)
    wrong = {key: rng.normal(size=3).astype(np.float32) for key in sorted(exact)}
    found = luck_of(r, critic_of(r, wrong, "envs.leduc_poker"), leduc, table, wrong)
    there = (found != 0) & (r.done.flip(0).cummax(0).values.flip(0))
    keys = r.history.flatten(2).numpy()
    by_action = {}
    for t, b in there.nonzero().tolist():
        by_action.setdefault((keys[t, b].tobytes(), int(r.action[t, b])), []).append(found[t, b].item())
    samples = [np.array(x) for x in by_action.values() if len(x) >= 20]
    z = [x.mean() / (x.std(ddof=1) / len(x) ** 0.5) for x in samples]
    assert len(z) > 50 and abs(np.mean(z)) < 4 / len(z) ** 0.5
    assert 0.8 < np.std(z) < 1.25  # as large as sampling makes it


def test_nothing_where_chance_only_deals(kuhn):
    env = VectorEnv(kuhn, 20, seed=2, observe_all=True)
    r = collect(env, Table({}), 6, collecting=exploring(), keep_logits=True)
    might = chances(r, kuhn)
    assert len(might.step) == len(might.prob) == 0
    assert not luck(r, torch.randn(6, 20), might, torch.zeros(0)).any()


@pytest.mark.parametrize("steps", [1, 2])
def test_games_that_go_on_are_left_alone(leduc, steps):
    """A rollout may end right after chance played: the next one, which repeats the decision, knows what came of it."""
    env = VectorEnv(leduc, 50, seed=2, observe_all=True)
    r = collect(env, Table({}), steps, collecting=exploring(), keep_logits=True)
    might = chances(r, leduc)
    found = luck(r, torch.randn(steps, 50), might, torch.randn(len(might.prob)))
    assert not found[-1].any()
