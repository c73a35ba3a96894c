"""The table of regrets over the bins against a dictionary that does the same, its memory, its speed, its save games."""

import math
import os
import time
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch

from lit_rl.armac.meta_regret import MetaRegret
from lit_rl.run.errors import ArtefactError

BINS = (0.0, 0.25, 0.5, 0.75, 1.0)


class Twin:
    """What MetaRegret does, in Python: the order of the dictionary is the order of use."""

    def __init__(self, num_bins, max_states):
        self.num_bins, self.max_states, self.states = num_bins, max_states, OrderedDict()
        self.rows = self.hits = self.misses = self.evictions = 0

    def update(self, keys, utilities):
        seen = {}
        for key, row in zip(keys, utilities):
            if key in self.states:
                self.hits += 1
                self.states.move_to_end(key)
            else:
                self.misses += 1
                if len(self.states) == self.max_states:
                    self.evictions += 1
                    leaver, _ = self.states.popitem(last=False)
                    seen.pop(leaver, None)
                self.states[key] = {"born": self.rows, "u": [0.0] * self.num_bins, "r": [0.0] * self.num_bins}
            seen.setdefault(key, []).append(row)
            self.rows += 1
        for key, rows in seen.items():
            state = self.states[key]
            p = self.desired(key)
            for k in range(self.num_bins):
                mean = 0.0
                for row in rows:
                    mean += row[k]
                u = 0.995 * state["u"][k] + (1 - 0.995) * (mean / len(rows))
                state["u"][k] = min(max(u, -5.0), 5.0)
            baseline = sum(p[k] * state["u"][k] for k in range(self.num_bins))
            state["r"] = [min(max(r + 0.1 * (u - baseline), 0.0), 10.0) for r, u in zip(state["r"], state["u"])]

    def desired(self, key):
        if key not in self.states:
            return [1 / self.num_bins] * self.num_bins
        weights = [max(r, 0.0) + 1e-6 for r in self.states[key]["r"]]
        return [w / sum(weights) for w in weights]


def same(table, twin):
    saved = table.state_dict()
    assert saved["key"].tolist() == list(twin.states)  # from the least to the most recently used
    assert saved["born"].tolist() == [s["born"] for s in twin.states.values()]
    for name, short in (("utilities", "u"), ("regrets", "r")):
        expected = np.array([s[short] for s in twin.states.values()]).reshape(-1, twin.num_bins)
        np.testing.assert_allclose(saved[name].numpy(), expected, rtol=1e-12, atol=1e-13)
    numbers = table.statistics()
    assert [numbers[n] for n in ("size", "hits", "misses", "evictions")] == [
        len(twin.states), twin.hits, twin.misses, twin.evictions
    ]  # fmt: skip
    born = [s["born"] for s in twin.states.values()]
    assert numbers["mean_age"] == pytest.approx(twin.rows - sum(born) / len(born))
    keys = torch.tensor([*twin.states, 987654321])
    np.testing.assert_allclose(
        table.desired(keys).numpy(), [twin.desired(k) for k in keys.tolist()], rtol=1e-5, atol=1e-7
    )


@pytest.mark.parametrize(
    ("max_states", "num_keys", "num_bins"), [(1, 3, 2), (2, 5, 5), (7, 9, 5), (64, 200, 5), (50, 60, 3)]
)
def test_against_its_twin(max_states, num_keys, num_bins):
    """Also single rows, keys that come several times in one call, and some that leave and return within one."""
    rng = np.random.default_rng(max_states)
    names = rng.integers(-(2**63), 2**63 - 1, num_keys)
    names[:3] = 0, -1, 2**62
    table, twin = MetaRegret(np.linspace(0, 1, num_bins), max_states), Twin(num_bins, max_states)
    for size in (1, 1, 3, 40, 1, 300, 2, 77) * 4:
        keys = names[np.minimum(rng.geometric(min(4 / num_keys, 0.8), size), num_keys) - 1]
        utilities = rng.normal(0, 300, (size, num_bins)) if size == 77 else rng.normal(0, 1, (size, num_bins))
        table.update(torch.from_numpy(keys), torch.from_numpy(utilities))
        twin.update(keys.tolist(), utilities.tolist())
        same(table, twin)


def test_the_order_of_use_decides_who_leaves():
    """By wall clock, as in the documents, updates of one instant have no order."""
    table = MetaRegret(BINS, max_states=3)
    one = torch.zeros(1, 5)
    for key in (1, 2, 3, 1, 4):
        table.desired(torch.tensor([2]))  # looking does not count as use
        table.update(torch.tensor([key]), one)
    assert table.state_dict()["key"].tolist() == [3, 1, 4]
    table.update(torch.tensor([3, 5, 3, 6]), one.expand(4, 5))
    assert table.state_dict()["key"].tolist() == [5, 3, 6]
    numbers = {"size": 3, "hits": 3, "misses": 6, "evictions": 3, "mean_age": (3 + 7 + 1) / 3}  # of 9 rows
    assert table.statistics() == pytest.approx(numbers)


def test_one_observation_by_hand():
    table = MetaRegret((0.0, 0.5, 1.0))
    key = torch.tensor([42])
    assert table.desired(key)[0].tolist() == pytest.approx([1 / 3] * 3)
    table.update(key, torch.tensor([[-1.0, 0.0, 4.0]]))  # u = .005 U; baseline: the mean, as p is uniform
    saved = table.state_dict()
    assert saved["utilities"][0].tolist() == pytest.approx([-0.005, 0.0, 0.02])
    assert saved["regrets"][0].tolist() == pytest.approx([0.0, 0.0, 0.1 * (0.02 - 0.005)])
    assert table.desired(key)[0].tolist() == pytest.approx([1e-6 / 0.001503, 1e-6 / 0.001503, 0.001501 / 0.001503])
    assert table.mean_regrets().tolist() == pytest.approx([0.0, 0.0, 0.0015])


def test_bounds():
    table = MetaRegret((0.0, 1.0))
    key = torch.tensor([1])
    for _ in range(600):
        table.update(key, torch.tensor([[-1e6, 1e6]]))
    assert table.state_dict()["utilities"][0].tolist() == [-5.0, 5.0]
    bounded = MetaRegret((0.0, 0.5, 1.0), max_regret=0.01)
    for _ in range(600):
        bounded.update(key, torch.tensor([[-10.0, 9.0, 10.0]]))
    regrets = bounded.state_dict()["regrets"][0]
    assert regrets.min() == 0.0 and regrets.max() == pytest.approx(0.01)


@pytest.mark.parametrize("best", [0, 3, 4])
def test_the_best_bin_wins(best):
    """However close the second: the documents' baseline, the plain mean, leaves all above it at 10."""
    table = MetaRegret(BINS)
    utilities = -(torch.tensor(BINS) - BINS[best]).abs()[None]
    for _ in range(5000):
        table.update(torch.tensor([7]), utilities)
    assert table.desired(torch.tensor([7]))[0, best] > 0.9


def test_a_constant_changes_nothing():
    a, b = MetaRegret(BINS), MetaRegret(BINS)
    for seed in range(50):
        utilities = torch.randn(8, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        keys = torch.arange(8) % 3
        a.update(keys, utilities)
        b.update(keys, utilities + 2.5)
    assert torch.allclose(a.state_dict()["regrets"], b.state_dict()["regrets"], atol=1e-12)
    assert a.state_dict()["regrets"].max() > 1e-3


def test_a_call_is_one_observation_per_key():
    a, b = MetaRegret(BINS), MetaRegret(BINS)
    utilities = torch.randn(6, 5, dtype=torch.float64)
    a.update(torch.full((6,), 9), utilities)
    b.update(torch.tensor([9]), utilities.mean(0, keepdim=True))
    assert torch.allclose(a.state_dict()["regrets"], b.state_dict()["regrets"], atol=1e-15)
    counted = MetaRegret(BINS)
    means = torch.stack([utilities[:4].mean(0), utilities[4:].mean(0)])
    counted.update(torch.tensor([9, 9]), means, torch.tensor([4.0, 2.0]))
    assert torch.allclose(a.state_dict()["regrets"], counted.state_dict()["regrets"], atol=1e-15)


def test_saved_and_loaded_bit_by_bit(tmp_path):
    """Going on after load = going on: regrets, order of use, statistics."""
    rng = np.random.default_rng(5)

    def feed(table, seed):
        rng = np.random.default_rng(seed)
        for _ in range(30):
            keys = torch.from_numpy(rng.integers(0, 90, 25))
            table.update(keys, torch.from_numpy(rng.normal(0, 3, (25, 5))))

    table = MetaRegret(BINS, max_states=40)
    feed(table, rng.integers(1 << 30))
    torch.save(table.state_dict(), tmp_path / "table.pt")
    loaded = MetaRegret(BINS, max_states=40)
    feed(loaded, 3)  # whatever it was before
    loaded.load_state_dict(torch.load(tmp_path / "table.pt", weights_only=True))
    for step in range(3):
        ours, theirs = table.state_dict(), loaded.state_dict()
        assert ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)
        assert table.statistics() == loaded.statistics()
        for each in (table, loaded):
            feed(each, 10 + step)
    roomier = MetaRegret(BINS, max_states=100)
    roomier.load_state_dict(table.state_dict())
    assert torch.equal(roomier.state_dict()["regrets"], table.state_dict()["regrets"])


def test_an_empty_table():
    table = MetaRegret(BINS)
    table.load_state_dict(MetaRegret(BINS).state_dict())
    table.update(torch.zeros(0, dtype=torch.int64), torch.zeros(0, 5))
    assert len(table) == 0 and table.statistics()["mean_age"] == 0 and table.mean_regrets().tolist() == [0.0] * 5


def test_a_save_game_that_does_not_fit_is_refused():
    table = MetaRegret(BINS, max_states=10)
    table.update(torch.arange(6), torch.ones(6, 5))
    state = table.state_dict()
    with pytest.raises(ArtefactError, match=r"bins=\[0.0, 0.25, 0.5, 0.75, 1.0\], this run has \[0.0, 1.0\]"):
        MetaRegret((0.0, 1.0)).load_state_dict(state)
    with pytest.raises(ArtefactError, match="holds 6 states, here max_states=5; use at least 6"):
        MetaRegret(BINS, max_states=5).load_state_dict(state)
    doubled = state | {"key": torch.zeros(6, dtype=torch.int64)}
    with pytest.raises(ArtefactError, match="does not hold 6 different states"):
        MetaRegret(BINS).load_state_dict(doubled)
    for broken in ({"bins": state["bins"]}, state | {"regrets": state["regrets"][:3]}):
        with pytest.raises(ArtefactError, match="meta-regret table"):
            MetaRegret(BINS).load_state_dict(broken)
    table.update(torch.arange(2), torch.ones(2, 5))  # the one that was saved has not changed with it
    assert state["counters"].tolist() == [6, 6, 0, 6, 0]


def test_bad_rows_are_refused():
    table = MetaRegret(BINS)
    for keys, shape in ((torch.zeros(3), (3, 5)), (torch.zeros(3, dtype=torch.int32), (3, 5))):
        with pytest.raises(ValueError, match=r"must be \[N\] int64"):
            table.update(keys, torch.zeros(shape))
    for shape in ((3, 1, 5), (3, 4), (2, 5)):
        with pytest.raises(ValueError, match=r"utilities .* must be \[N, K\] = \(3, 5\)"):
            table.update(torch.arange(3), torch.zeros(shape))
    for count in (torch.ones(2), torch.tensor([1.0, 0.0, 1.0]), torch.full((3,), math.nan)):
        with pytest.raises(ValueError, match=r"count .* must be positive"):
            table.update(torch.arange(3), torch.zeros(3, 5), count)
    utilities = torch.zeros(3, 5)
    utilities[1, 2] = math.nan
    with pytest.raises(FloatingPointError, match="utilities of key 8 are"):
        table.update(torch.tensor([7, 8, 9]), utilities)
    assert len(table) == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"max_states": 0}, "max_states=0"),
        ({"bins": (0.5,)}, r"bins=\[0.5\]: needs at least two"),
        ({"bins": (0.0, 0.0, 1.0)}, "0.0 stands there twice"),
        ({"regret_rate": 0.0}, "regret_rate=0"),
        ({"utility_decay": 1.5}, "utility_decay=1.5"),
        ({"utility_clip": -5.0}, "utility_clip=-5"),
        ({"max_regret": math.inf}, "max_regret=inf"),
    ],
)
def test_bad_arguments_are_refused_by_name(options, words):
    with pytest.raises(ValueError, match=words):
        MetaRegret(**({"bins": BINS} | options))


def resident() -> float:
    """MiB of the process that are in memory now; its peak would hide what grows below it."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def distinct_keys(table, total, chunk=65_536):
    """Feed `total` keys that never come back: (updates per second, growth of the process in MiB)."""
    utilities = torch.randn(chunk, 5)
    table.update(torch.arange(-chunk, 0), utilities)
    before = resident()
    began = time.perf_counter()
    for start in range(0, total, chunk):
        table.update(torch.arange(start, start + chunk) * 1_000_003, utilities)
    seconds = time.perf_counter() - began
    return (total // chunk + 1) * chunk / seconds, resident() - before


def test_distinct_keys_keep_memory_flat():
    table = MetaRegret(BINS)
    arrays = table._entries, table._slots
    _, grown = distinct_keys(table, 500_000)  # 500,000 entries would take 76 MiB
    assert len(table) == 10_000 and table._entries is arrays[0] and table._slots is arrays[1]
    assert (table._slots >= 0).sum() == 10_000  # an evicted key leaves its slot
    assert grown < 16


def test_growth_would_show():
    before = resident()
    kept = np.ones(40 * 2**17)  # 40 MiB
    assert resident() - before > 30 and len(kept)


@pytest.mark.slow
def test_ten_million_distinct_keys():
    """The goal: at least a million updates per second, memory flat."""
    table = MetaRegret(BINS)
    per_second, grown = distinct_keys(table, 10_000_000)
    print(f"\n{per_second / 1e6:.1f} M updates/s, memory grew by {grown:.1f} MiB")
    assert per_second > 1_000_000 and grown < 16
    assert table.statistics()["evictions"] > 10_000_000 - 10_000
