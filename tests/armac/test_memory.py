"""Memories of regrets and policies, by hand; and that both are saved whole."""

import pytest
import torch

from lit_rl.armac.memory import Memory, ReservoirMemory, RowMemory
from lit_rl.armac.rows import Samples

GENERATOR = torch.Generator()


def samples(game, numbers, vectors):
    """Infostates that are different where the numbers are."""
    obs = torch.nn.functional.one_hot(torch.tensor(numbers, dtype=torch.int64), 11).to(torch.uint8)
    return Samples(obs, torch.ones(len(numbers), 2, dtype=torch.bool), torch.tensor(vectors).view(-1, 2))


def test_sums_of_regrets_are_cut_off_at_0(kuhn):
    """Per iteration, not per sample; the policy of the sums is what the network is to play."""
    memory, nothing = RowMemory(kuhn), samples(kuhn, [], [])
    memory.add(samples(kuhn, [1, 1, 2], [[-3.0, 1.0], [1.0, 1.0], [2.0, 6.0]]), nothing, 1, GENERATOR)
    assert memory.regrets.tolist() == [[0.0, 2.0], [2.0, 6.0]]
    memory.add(samples(kuhn, [1], [[1.0, 0.0]]), nothing, 2, GENERATOR)
    rows = memory.regret_rows(GENERATOR)
    assert rows.target.tolist() == [pytest.approx([1 / 3, 2 / 3]), pytest.approx([0.25, 0.75])]
    weight = 3**0.5 / (3**0.5 + 1)
    assert rows.weight[:, 0].tolist() == pytest.approx([weight, 1 - weight])


def test_a_fading_mean_of_regrets(kuhn):
    memory = RowMemory(kuhn, floor=False, regret_decay=0.5)
    for iteration, regret in enumerate(([-4.0, 2.0], [1.0, 1.0]), 1):
        memory.add(samples(kuhn, [1], [regret]), samples(kuhn, [1], [[0.5, 0.5]]), iteration, GENERATOR)
    assert memory.regrets.tolist() == [[-1.0, 2.0]]


def test_later_policies_weigh_more(kuhn):
    memory = RowMemory(kuhn, averaging_power=2.0)
    for iteration, policy in ((1, [1.0, 0.0]), (3, [0.0, 1.0])):
        memory.add(samples(kuhn, [1], [[0.0, 0.0]]), samples(kuhn, [1], [policy]), iteration, GENERATOR)
    assert memory.average_rows(GENERATOR).target.tolist() == [pytest.approx([0.1, 0.9])]


def test_raw_samples_say_what_sums_say(kuhn):
    """All of them kept, all of them looked at: weighted means of regrets and policies per infostate."""
    memory = ReservoirMemory(kuhn, capacity=100, batch_size=None, regret_power=1.0, averaging_power=2.0)
    for iteration, regret, policy in ((1, [4.0, 0.0], [1.0, 0.0]), (3, [0.0, 8.0], [0.0, 1.0])):
        memory.add(samples(kuhn, [1], [regret]), samples(kuhn, [1], [policy]), iteration, GENERATOR)
    scale = 0.4 * kuhn.max_return
    assert memory.regret_rows(GENERATOR).target.tolist() == [pytest.approx([1 / scale, 6 / scale])]
    assert memory.average_rows(GENERATOR).target.tolist() == [pytest.approx([0.1, 0.9])]


@pytest.mark.parametrize("batch_size", [8, None])
@pytest.mark.parametrize("make", [RowMemory, ReservoirMemory])
def test_saved_and_loaded(kuhn, tmp_path, make, batch_size):
    options = {"capacity": 5, "batch_size": batch_size} if make is ReservoirMemory else {}
    memory, loaded = make(kuhn, **options), make(kuhn, **options)

    def feed(each, seed):
        generator = torch.Generator().manual_seed(seed)
        numbers = torch.randint(0, 9, (7,), generator=generator).tolist()
        both = [samples(kuhn, numbers, torch.rand(7, 2, generator=generator).tolist()) for _ in range(2)]
        each.add(*both, 1 + seed, generator)

    feed(memory, 0)
    torch.save(memory.state_dict(), tmp_path / "memory.pt")
    loaded.load_state_dict(torch.load(tmp_path / "memory.pt", weights_only=True))
    for each in (memory, loaded):
        feed(each, 1)
    for ask in ("regret_rows", "average_rows"):
        ours, theirs = (getattr(each, ask)(torch.Generator().manual_seed(2)) for each in (memory, loaded))
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs))


def test_a_memory_of_ones_own_must_be_whole(kuhn):
    with pytest.raises(TypeError, match="does not define add"):
        Memory().add(None, None, 1, GENERATOR)
