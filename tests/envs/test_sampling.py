"""Drawing actions: the twin in plain numpy, frequencies, and what cannot be drawn from."""

import numpy as np
import pytest

from envs.bits import pack
from envs.env import NoLegalActionError
from envs.rng import make_streams, uniform
from envs.sampling import draw


class Rows:
    """As much of an env as drawing needs."""

    class game:
        name = "rows"

    def __init__(self, num_envs, seed=0):
        self.action_streams, self.player = make_streams(num_envs, seed, 2), np.zeros(num_envs, np.int8)


def twin(env, values, legal, is_probs, temperature, exploration):
    """Action and log-probability of each row, the textbook way."""
    actions, log_probs = [], []
    for b in range(len(values)):
        mass = np.where(legal[b], values[b].astype(float), 0.0)
        if not is_probs[b]:
            logits = np.where(legal[b], values[b].astype(float) / temperature, -np.inf)
            mass = np.exp(logits - logits.max())
        probs = mass / mass.sum()
        if exploration[b]:
            probs = (1 - exploration[b]) * probs + exploration[b] * legal[b] / legal[b].sum()
        threshold = uniform(env.action_streams, b)
        actions.append(int(np.searchsorted(np.cumsum(probs), threshold, side="right")))
        log_probs.append(np.log(probs[actions[-1]]))
    return np.array(actions), np.array(log_probs)


@pytest.mark.parametrize("num_actions", [2, 9, 300])
@pytest.mark.parametrize("temperature", [1.0, 0.3])
def test_twin(num_actions, temperature):
    rng = np.random.default_rng(1)
    values = rng.random((400, num_actions)).astype(np.float32) * 3
    legal = rng.random((400, num_actions)) < 0.5
    legal[np.arange(400), rng.integers(num_actions, size=400)] = True
    is_probs = rng.random(400) < 0.3
    exploration = np.where(is_probs, 0.0, rng.choice([0.0, 0.25, 1.0], 400)).astype(np.float32)
    action, log_prob = draw(
        Rows(400), values, pack(legal), is_probs=is_probs, temperature=temperature, exploration=exploration
    )
    expected = twin(Rows(400), values, legal, is_probs, temperature, exploration)
    assert (action == expected[0]).all() and legal[np.arange(400), action].all()
    assert log_prob == pytest.approx(expected[1], abs=1e-5)


def test_one_number_of_its_own_stream_a_row():
    """Rows do not touch each other: any subset of rows draws the same."""
    values, legal = np.random.default_rng(2).random((50, 5)).astype(np.float32), np.ones((50, 5), np.bool_)
    whole, part = Rows(50), Rows(50)
    part.action_streams = part.action_streams[10:20].copy()
    all_rows, _ = draw(whole, values, pack(legal))
    some, _ = draw(part, values[10:20], pack(legal[10:20]))
    assert (some == all_rows[10:20]).all()


def test_illegal_actions_may_hold_anything():
    values, legal = np.zeros((3, 4), np.float32), np.zeros((3, 4), np.bool_)
    values[:, :2], legal[:, 2:] = np.nan, True
    action, log_prob = draw(Rows(3), values, pack(legal))
    assert (action >= 2).all() and log_prob == pytest.approx(np.log(0.5))


def test_an_action_of_probability_0_is_never_drawn():
    values = np.tile(np.array([-1e30, 0.0, -1e30], np.float32), (2000, 1))
    action, log_prob = draw(Rows(2000), values, pack(np.ones((2000, 3), np.bool_)))
    assert (action == 1).all() and (log_prob == 0).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_refused(bad):
    values, legal = np.zeros((6, 3), np.float32), np.ones((6, 3), np.bool_)
    values[4, 1] = bad
    with pytest.raises(FloatingPointError, match=r"rows, env row 4: cannot sample from logits=\[0.0, (nan|inf), 0.0\]"):
        draw(Rows(6), values, pack(legal))


def test_no_mass_and_no_legal_action():
    legal = np.ones((6, 3), np.bool_)
    with pytest.raises(FloatingPointError, match="env row 0: cannot sample from probs"):
        draw(Rows(6), np.zeros((6, 3), np.float32), pack(legal), is_probs=np.ones(6, np.bool_))
    legal[2] = False
    with pytest.raises(NoLegalActionError, match="env row 2: player 0 has no legal action"):
        draw(Rows(6), np.zeros((6, 3), np.float32), pack(legal))
