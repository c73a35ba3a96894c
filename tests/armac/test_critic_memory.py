"""Targets of the critic: fading means by hand, forgetting, and the memory that keeps the last rollout alone."""

import numpy as np
import pytest
import torch

from lit_rl.armac.critic_memory import CriticMemory, FadingTargets, LastTargets
from lit_rl.networks import HistoryMLP
from lit_rl.run.errors import ConfigError

GENERATOR = torch.Generator()


def histories(game, *numbers):
    """Histories [N, P, *D] that are different where the numbers are, and everything legal."""
    bits = torch.tensor(numbers).unsqueeze(1) >> torch.arange(16) & 1
    history = torch.zeros(len(numbers), game.num_players, *game.obs_shape, dtype=torch.uint8)
    history.view(len(numbers), -1)[:, :16] = bits.to(torch.uint8)
    return history, torch.ones(len(numbers), game.num_actions, dtype=torch.bool)


def told(memory, history, legal, action, target):
    memory.add(memory.find(history, legal), torch.tensor(action), torch.tensor(target))


def test_old_targets_fade(kuhn):
    memory = FadingTargets(kuhn, decay=0.5)
    told(memory, *histories(kuhn, 3, 5, 3), [0, 1, 0], [1.0, 4.0, 3.0])
    told(memory, *histories(kuhn, 3), [0], [8.0])
    rows = memory.rows(GENERATOR)
    assert torch.equal(rows.obs, histories(kuhn, 3, 5)[0])
    assert rows.target.tolist() == [pytest.approx([(0.5 * 4 + 8) / 2, 0.0]), pytest.approx([0.0, 4.0])]
    assert rows.weight.tolist() == [pytest.approx([2 / 2.5, 0.0]), pytest.approx([0.0, 0.5 / 2.5])]
    last = FadingTargets(kuhn, decay=0.0)
    told(last, *histories(kuhn, 3), [0], [1.0])
    told(last, *histories(kuhn, 5), [1], [2.0])
    assert torch.equal(last.rows(GENERATOR).obs, histories(kuhn, 5)[0])


def test_what_has_faded_is_forgotten(kuhn):
    memory, size = FadingTargets(kuhn, decay=0.01), 5_000
    for start in range(0, 8 * size, size):
        told(memory, *histories(kuhn, *range(start, start + size)), [0] * size, [float(start)] * size)
    assert len(memory.index) == 3 * size  # thinned out when it held seven such rollouts
    rows = memory.rows(GENERATOR)
    assert set(rows.target[:, 0].tolist()) == {6.0 * size, 7.0 * size}
    assert torch.equal(rows.obs[-size:], histories(kuhn, *range(7 * size, 8 * size))[0])


def test_both_say_what_the_critic_says(kuhn):
    critic = HistoryMLP(kuhn)
    history, legal = histories(kuhn, 7, 7, 9, 2, 7, 9)
    asked = []
    critic.register_forward_hook(lambda module, inputs, output: asked.append(len(inputs[0])))
    with torch.no_grad():
        expected = critic(history)
        for memory, number in ((FadingTargets(kuhn), 3), (LastTargets(kuhn), 6), (LastTargets(kuhn, chunk=4), 2)):
            said = memory.values(critic, memory.find(history, legal))
            assert torch.allclose(said, expected, atol=1e-6) and asked[-1] == number


def test_the_last_rollouts_targets(kuhn):
    memory = LastTargets(kuhn)
    told(memory, *histories(kuhn, 1, 2), [0, 0], [5.0, 6.0])
    number = memory.find(*histories(kuhn, 3, 4, 3))
    memory.add(number[[0, 2]], torch.tensor([1, 0]), torch.tensor([7.0, 8.0]))  # the second game is not over
    rows = memory.rows(GENERATOR)
    assert torch.equal(rows.obs, histories(kuhn, 3, 3)[0])
    assert rows.target.tolist() == [[0.0, 7.0], [8.0, 0.0]] and rows.weight.tolist() == [[0.0, 0.5], [0.5, 0.0]]
    few = LastTargets(kuhn, batch_size=50)
    told(few, *histories(kuhn, 3, 4), [0, 1], [1.0, 2.0])
    drawn = few.rows(torch.Generator().manual_seed(0))
    assert drawn.target.shape == (50, 2) and drawn.weight.sum().item() == pytest.approx(1.0)
    assert set(drawn.target.sum(1).tolist()) == {1.0, 2.0}


def test_with_one_rollout_both_learn_the_same(kuhn):
    """Where no history comes twice: sums of weighted squares of the same errors."""
    fading, last = FadingTargets(kuhn), LastTargets(kuhn)
    target = np.linspace(-2, 2, 20).tolist()
    for memory in (fading, last):
        told(memory, *histories(kuhn, *range(20)), [n % 2 for n in range(20)], target)
    for a, b in zip(fading.rows(GENERATOR), last.rows(GENERATOR)):
        assert torch.allclose(a.float(), b.float())


@pytest.mark.parametrize("make", [FadingTargets, LastTargets])
def test_saved_and_loaded(kuhn, tmp_path, make):
    memory, loaded = make(kuhn), make(kuhn)
    told(memory, *histories(kuhn, 3, 5, 3), [0, 1, 0], [1.0, 4.0, 3.0])
    torch.save(memory.state_dict(), tmp_path / "critic.pt")
    loaded.load_state_dict(torch.load(tmp_path / "critic.pt", weights_only=True))
    assert all(torch.equal(a, b) for a, b in zip(memory.rows(GENERATOR), loaded.rows(GENERATOR)))
    for each in (memory, loaded):
        told(each, *histories(kuhn, 8), [1], [2.0])
    assert all(torch.equal(a, b) for a, b in zip(memory.rows(GENERATOR), loaded.rows(GENERATOR)))


def test_what_is_refused(kuhn):
    for make, options, words in (
        (FadingTargets, {"decay": 1.5}, "decay=1.5"), (LastTargets, {"batch_size": 0}, "batch_size=0"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=words):
            make(kuhn, **options)
    with pytest.raises(TypeError, match="does not define find"):
        CriticMemory().find(*histories(kuhn, 1))
