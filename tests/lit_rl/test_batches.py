"""Minibatches: every decision once a pass, nothing copied that is not handed out, equal rows only where asked."""

import pytest
import torch

from envs.vector_env import VectorEnv
from lit_rl import batches
from lit_rl.batches import Minibatches, infostate_weights, minibatches
from lit_rl.networks import MLP
from lit_rl.returns import gae
from lit_rl.rollout import collect
from lit_rl.run.errors import ConfigError


@pytest.fixture
def rollout(kuhn):
    return collect(VectorEnv(kuhn, 64, seed=0), MLP(kuhn, hidden=(8,)), 8)


def deal(rollout, **settings):
    advantages, valid = gae(rollout, 1.0, 0.95)
    generator = torch.Generator().manual_seed(0)
    return list(minibatches(rollout, advantages, advantages + rollout.value, valid, Minibatches(**settings), generator))


@pytest.mark.parametrize("merge_rows", [False, True])
@pytest.mark.parametrize("visit_exponent", [None, 0.5])
def test_a_batch_holds_what_was_played(rollout, merge_rows, visit_exponent):
    advantages, valid = gae(rollout, 1.0, 0.95)
    dealt = deal(rollout, update_epochs=2, num_minibatches=3, merge_rows=merge_rows, visit_exponent=visit_exponent)
    assert len(dealt) == 6 == Minibatches(2, 3).per_iteration
    for epoch in (dealt[:3], dealt[3:]):
        rows = [torch.cat([b.obs[b.row].float(), b.legal[b.row].float(), b.action[:, None].float()], 1) for b in epoch]
        rows = [torch.cat([r, b.advantages[:, None], b.log_prob[:, None]], 1) for r, b in zip(rows, epoch)]
        played = [x[valid].float() for x in (rollout.obs, rollout.legal)]
        played += [x[valid][:, None].float() for x in (rollout.action, advantages, rollout.log_prob)]
        dealt_rows, played_rows = (sorted(map(tuple, x.tolist())) for x in (torch.cat(rows), torch.cat(played, 1)))
        assert dealt_rows == played_rows
    assert (len(dealt[0].obs) < len(dealt[0].row)) == merge_rows


def test_equal_rows_are_looked_for_only_where_asked(rollout, monkeypatch):
    def never(*args):
        raise AssertionError("nobody asked")

    monkeypatch.setattr(batches, "merge_equal_rows", never)
    assert deal(rollout, merge_rows=False)
    for settings in ({"merge_rows": True}, {"merge_rows": False, "visit_exponent": 0.5}):
        with pytest.raises(AssertionError, match="nobody asked"):
            deal(rollout, **settings)


def test_too_few_decisions(leduc):
    rollout = collect(VectorEnv(leduc, 2, seed=0), MLP(leduc, hidden=(8,)), 4)
    with pytest.raises(ConfigError, match=r"num_minibatches=64, .*cut_games=bootstrap"):
        deal(rollout, num_minibatches=64)


@pytest.mark.parametrize(("name", "value"), [("update_epochs", 0), ("num_minibatches", -1), ("visit_exponent", 1.5)])
def test_ranges(name, value):
    with pytest.raises(ConfigError, match=f"{name}={value}"):
        Minibatches(**{name: value})


def test_unknown_rare_actions():
    with pytest.raises(ConfigError, match="rare_actions='some': unknown; use one of full, damped"):
        Minibatches(rare_actions="some")


@pytest.mark.parametrize("rare_actions", ["full", "damped"])
def test_infostate_weights_twin(rare_actions):
    generator = torch.Generator().manual_seed(1)
    row = torch.randint(0, 5, (300,), generator=generator)
    action = torch.randint(0, 3, (300,), generator=generator)
    log_prob = torch.log_softmax(torch.randn(5, 3, generator=generator), -1)[row, action]
    state, decision, share = infostate_weights(row, action, log_prob, 3, 0.5, rare_actions)
    assert torch.allclose(state.mean(), torch.ones(()))
    expected_state, expected_action, expected_share = (torch.empty(300) for _ in range(3))
    for i in range(300):
        n = sum(1 for r in row if r == row[i])
        drawn = sum(1 for r, a in zip(row, action) if r == row[i] and a == action[i])
        pi = log_prob[i].exp()
        expected_share[i] = drawn / n * (1 - (1 - pi) ** n if rare_actions == "full" else 1.0)
        expected_state[i] = n**-0.5
        expected_action[i] = n**-0.5 * pi / expected_share[i]
    scale = {"full": expected_state, "damped": expected_action}[rare_actions].mean()
    assert torch.allclose(share, expected_share)
    assert torch.allclose(state, expected_state / expected_state.mean())
    assert torch.allclose(decision, expected_action / scale, rtol=1e-4)


def test_where_no_infostate_repeats_full_weights_are_none():
    """The limit that a large game is in: all weights 1, and the action as often drawn as its probability says."""
    log_prob = torch.log_softmax(torch.randn(400, 3, generator=torch.Generator().manual_seed(0)), -1)[:, 0]
    zeros = torch.zeros(400, dtype=torch.int64)
    state, decision, drawn = infostate_weights(torch.arange(400), zeros, log_prob, 3, 0.5, "full")
    assert torch.equal(state, torch.ones(400)) and torch.allclose(decision, state, rtol=1e-5)
    assert torch.allclose(drawn, log_prob.exp(), rtol=1e-5)


@pytest.mark.parametrize("n", [1, 2, 5, 30])
@pytest.mark.parametrize(("rare_actions", "gradient", "drift"), [("full", 1.0, 0.0), ("damped", None, None)])
def test_the_gradient_of_a_rare_action(n, rare_actions, gradient, drift):
    """An action of probability .1 that is better by 1, each infostate met n times: the gradient on its logit in units
    of the true one, and the one that a critic gives that is wrong by the constant 1."""
    gradient = {1: 0.22, 2: 0.30, 5: 0.50, 30: 0.96}[n] if gradient is None else gradient
    drift = {1: -0.088, 2: -0.08, 5: -0.06, 30: -0.005}[n] if drift is None else drift
    action = (torch.rand(600_000, generator=torch.Generator().manual_seed(0)) < 0.1).long()
    probs = torch.tensor([0.9, 0.1])
    row = torch.arange(len(action)) // n
    _, weight, _ = infostate_weights(row, action, probs[action].log(), 2, 1.0, rare_actions)
    score = action - 0.1  # derivative of log pi(a) by the rare action's logit
    assert (weight * (action - 0.1) * score).mean() / 0.09 == pytest.approx(gradient, abs=0.02)
    assert (weight * score).mean() == pytest.approx(drift, abs=0.02 if drift else 0.003)


def test_damping_where_infostates_hardly_repeat_is_told(rollout, leduc):
    few = collect(VectorEnv(leduc, 4, seed=0), MLP(leduc, hidden=(8,)), 4)
    with pytest.warns(UserWarning, match=r"rare_actions=damped: half of the decisions .* use rare_actions=full"):
        deal(few, num_minibatches=2, visit_exponent=0.5, rare_actions="damped")
    deal(few, num_minibatches=2, visit_exponent=0.5, rare_actions="full")
    deal(rollout, num_minibatches=2, visit_exponent=0.5, rare_actions="damped")


def test_damped_weights_sum_to_the_policy():
    """Within one infostate the actions drawn weigh as the policy says, however often each was drawn."""
    row, action = torch.zeros(10, dtype=torch.int64), torch.tensor([0] * 9 + [1])
    log_prob = torch.tensor([0.5] * 10).log()
    _, weight, _ = infostate_weights(row, action, log_prob, 2, 0.25, "damped")
    assert weight[:9].sum() == pytest.approx(weight[9:].sum())
