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


def test_infostate_weights_twin():
    generator = torch.Generator().manual_seed(1)
    row = torch.randint(0, 5, (300,), generator=generator)
    action = torch.randint(0, 3, (300,), generator=generator)
    log_prob = torch.log_softmax(torch.randn(5, 3, generator=generator), -1)[row, action]
    state, decision, share = infostate_weights(row, action, log_prob, 3, 0.5)
    assert torch.allclose(state.mean(), torch.ones(())) and torch.allclose(decision.mean(), torch.ones(()))
    expected_state, expected_action, expected_share = (torch.empty(300) for _ in range(3))
    for i in range(300):
        n = sum(1 for r in row if r == row[i])
        drawn = sum(1 for r, a in zip(row, action) if r == row[i] and a == action[i])
        expected_state[i], expected_share[i] = n**-0.5, drawn / n
        expected_action[i] = n**-0.5 * log_prob[i].exp() * n / drawn
    assert torch.allclose(share, expected_share)
    assert torch.allclose(state, expected_state / expected_state.mean())
    assert torch.allclose(decision, expected_action / expected_action.mean())


def test_infostate_weights_sum_to_the_policy():
    """Within one infostate the actions drawn weigh as the policy says, however often each was drawn."""
    row, action = torch.zeros(10, dtype=torch.int64), torch.tensor([0] * 9 + [1])
    log_prob = torch.tensor([0.5] * 10).log()
    _, weight, _ = infostate_weights(row, action, log_prob, 2, 0.25)
    assert weight[:9].sum() == pytest.approx(weight[9:].sum())
