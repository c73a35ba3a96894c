"""Meta-regret: per state key, how much each share of the actor would have been better than those that were chosen.

Per observation U [K] of a key, the utilities of all K bins (`lit_rl.armac.mix_utility`), constants as in the documents:

    p = desired distribution,  p_k proportional to max(R_k, 0) + 1e-6
    u_k <- clip(0.995 u_k + 0.005 U_k, -5, 5)
    R_k <- clip(R_k + 0.1 (u_k - sum over j of p_j u_j), 0, 10)

Regret matching+ (Tammelin 2014) on smoothed utilities. Ours: all bins are updated; the regret is against p, as in
regret matching, where the documents take the plain mean of u, for which any bin better than average ends at 10 beside
the best; and rows of one call that share a key are one observation, their mean, since a batch of games holds thousands
of them. A constant added to all of U changes nothing.

The table holds `max_states` keys; a new one takes the place of the least recently updated. Open addressing with linear
probing and backward-shift deletion finds a key, a linked list through the entries keeps their order of use: O(1) per
row, and no memory beyond what the constructor takes. Letters: N rows, K bins, S states in the table.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jsonargparse.typing import ClosedUnitInterval, PositiveFloat, PositiveInt
from torch import Tensor

from envs.jit import njit
from envs.rng import mix
from lit_rl.armac.mixing import check_bins
from lit_rl.run.errors import ArtefactError, check_ranges
from lit_rl.run.resume import well_formed
from lit_rl.run.saved_values import LARGEST, need, saved_dict, saved_tensor

FLOOR = 1e-6  # added to each regret in the desired distribution, so that no bin is ever ruled out

COUNTERS = np.dtype([(name, np.int64) for name in ("size", "rows", "hits", "misses", "evictions")])


def _entry(num_bins: int) -> np.dtype:
    return np.dtype(
        [
            ("key", np.int64),
            ("older", np.int64),  # neighbours in order of use; the last entry of the array closes the ring
            ("newer", np.int64),
            ("born", np.int64),  # number of the row that brought it in
            ("weight", np.float64),  # of its rows in this call
            ("total", np.float64, num_bins),  # of the utilities in this call
            ("utilities", np.float64, num_bins),
            ("regrets", np.float64, num_bins),
        ]
    )


class MetaRegret:
    """A bounded table of regrets per state key. Built as `meta_regret(bins)`.

    Args:
        bins: the shares that the columns stand for; those of the scheduler.
        max_states: keys it holds.
        regret_rate: how far one observation moves a regret.
        utility_decay: of the moving average of the utilities.
        utility_clip: bound on that average.
        max_regret: bound on a regret.
    """

    def __init__(
        self,
        bins: Sequence[float],
        max_states: PositiveInt = 10_000,
        regret_rate: PositiveFloat = 0.1,
        utility_decay: ClosedUnitInterval = 0.995,
        utility_clip: PositiveFloat = 5.0,
        max_regret: PositiveFloat = 10.0,
    ):
        check_ranges(MetaRegret.__init__, locals())
        self.bins, self.max_states = check_bins(bins), int(max_states)
        self.regret_rate, self.utility_decay = float(regret_rate), float(utility_decay)
        self.utility_clip, self.max_regret = float(utility_clip), float(max_regret)
        self._clear()

    def _clear(self) -> None:
        self._entries = np.zeros(self.max_states + 1, _entry(len(self.bins)))
        self._entries[-1]["older"] = self._entries[-1]["newer"] = self.max_states
        self._slots = np.full(1 << (2 * self.max_states - 1).bit_length(), -1, np.int64)
        self._counters = np.zeros(1, COUNTERS)

    def __len__(self) -> int:
        return int(self._counters[0]["size"])

    def update(self, keys: Tensor, utilities: Tensor, count: Tensor | None = None) -> None:
        """Take in utilities [N, K] at keys [N] int64, in the order of the rows; each row stands for `count` [N] of them
        (default 1) in the mean of its key.

        Raises:
            ValueError: other shapes or types, or a count that is not positive.
            FloatingPointError: a utility that is not finite.
        """
        keys_array = self._checked(keys)
        if utilities.shape != (len(keys), len(self.bins)):
            raise ValueError(
                f"utilities {tuple(utilities.shape)} must be [N, K] = ({len(keys)}, {len(self.bins)}): one column for "
                f"each of bins={list(self.bins)}"
            )
        count = torch.ones(len(keys)) if count is None else count
        if count.shape != keys.shape or not bool((count > 0).all()):
            raise ValueError(f"count {tuple(count.shape)}: must be positive numbers [N] = {tuple(keys.shape)}")
        array, counts = (x.detach().to("cpu", torch.float64).contiguous().numpy() for x in (utilities, count))
        finite = np.isfinite(array)
        if not finite.all():
            row = int(np.flatnonzero(~finite.all(axis=1))[0])
            raise FloatingPointError(f"utilities of key {int(keys_array[row])} are {array[row].tolist()}")
        _update(
            keys_array, array, counts, self._entries, self._slots, self._counters,
            self.regret_rate, self.utility_decay, self.utility_clip, self.max_regret,
        )  # fmt: skip

    def desired(self, keys: Tensor) -> Tensor:
        """The regret-matched distribution over the bins at keys [N] int64: [N, K] float32, uniform for unknown keys.

        Looking leaves the table, its order of use and its statistics as they are.
        """
        out = np.empty((len(keys), len(self.bins)), np.float32)
        _desired(self._checked(keys), self._entries, self._slots, out)
        return torch.from_numpy(out).to(keys.device)

    def mean_regrets(self) -> Tensor:
        """[K] float64: each bin's regret, averaged over the states; 0 of an empty table."""
        entries = self._entries[:-1][: len(self)]
        return torch.from_numpy(entries["regrets"].sum(axis=0) / max(len(self), 1))

    def statistics(self) -> dict[str, float]:
        """States, rows that met a known or an unknown key, evictions, and the mean age of the states: rows since a
        state's first."""
        counters, born = self._counters[0], self._entries[:-1][: len(self)]["born"]
        age = float(counters["rows"] - born.mean()) if len(self) else 0.0
        numbers = {name: float(counters[name]) for name in ("size", "hits", "misses", "evictions")}
        return numbers | {"mean_age": age}

    def state_dict(self) -> dict[str, Tensor]:
        """All that it is, as plain tensors: the states from the least to the most recently updated."""
        order = np.empty(len(self), np.int64)
        _order(self._entries, order)
        entries = self._entries[order]
        state = {name: torch.from_numpy(entries[name].copy()) for name in ("key", "born", "utilities", "regrets")}
        counters = torch.tensor([int(self._counters[0][name]) for name in COUNTERS.names])
        return state | {"counters": counters, "bins": torch.tensor(self.bins, dtype=torch.float64)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Become what `state_dict` returned.

        Raises:
            ArtefactError: it has other bins, more states than fit here, or is nothing that `state_dict` returns.
        """
        with well_formed("the meta-regret table"):
            saved_dict(state, "the meta-regret table", ("key", "born", "utilities", "regrets", "counters", "bins"))
            bins = tuple(saved_tensor(state["bins"], "meta-regret table.bins", torch.float64, (None,)).tolist())
            kinds = {  # dtype, columns, smallest, largest
                "counters": (torch.int64, (), 0, LARGEST),
                "key": (torch.int64, (), None, None),
                "born": (torch.int64, (), 0, LARGEST),
                "utilities": (torch.float64, bins, -self.utility_clip, self.utility_clip),
                "regrets": (torch.float64, bins, 0.0, self.max_regret),
            }
            arrays = {
                name: saved_tensor(
                    state[name],
                    f"meta-regret table.{name}",
                    kind,
                    (None, len(columns)) if columns else (None,),
                    low,
                    high,
                ).numpy()
                for name, (kind, columns, low, high) in kinds.items()
            }
            counters = arrays.pop("counters").tolist()
            if bins != self.bins:
                raise ArtefactError(
                    f"checkpoint: its meta-regret table has bins={list(bins)}, this run has {list(self.bins)}; use the "
                    "config.yaml beside it"
                )
            size = len(arrays["key"])
            shapes = [array.shape for array in arrays.values()]
            if shapes != [(size,)] * 2 + [(size, len(bins))] * 2 or len(counters) != len(COUNTERS):
                raise ArtefactError(f"checkpoint: the meta-regret table's shapes do not fit together: {shapes}")
            need(
                int(arrays["born"].max(initial=0)) <= counters[1],
                "meta-regret table.born is later than the last row",
            )
            if counters[0] != size or len(np.unique(arrays["key"])) != size:
                raise ArtefactError(f"checkpoint: the meta-regret table does not hold {counters[0]} different states")
            if size > self.max_states:
                raise ArtefactError(
                    f"checkpoint: its meta-regret table holds {size} states, here max_states={self.max_states}; "
                    f"use at least {size}"
                )
        self._clear()
        for name, array in arrays.items():
            self._entries[name][:size] = array
        self._counters[0] = tuple(counters)
        _link(self._entries, self._slots, size)

    def _checked(self, keys: Tensor) -> np.ndarray:
        if keys.dtype != torch.int64 or keys.ndim != 1:
            raise ValueError(f"keys {tuple(keys.shape)} {keys.dtype} must be [N] int64")
        return keys.detach().cpu().contiguous().numpy()


MetaRegretFactory = Callable[[Sequence[float]], MetaRegret]


@njit(error_model="numpy")
def _home(key, slots):
    return np.int64(mix(np.uint64(key)) & np.uint64(len(slots) - 1))


@njit(error_model="numpy")
def _find(key, entries, slots):
    """The slot of `key`, or the free one where it belongs."""
    slot = _home(key, slots)
    while slots[slot] >= 0 and entries[slots[slot]].key != key:
        slot = (slot + 1) & (len(slots) - 1)
    return slot


@njit(error_model="numpy")
def _free(slot, entries, slots):
    """Empty `slot` and move up those behind it that had to pass it, so that every search still ends at a free slot."""
    last = len(slots) - 1
    slots[slot] = -1
    at = (slot + 1) & last
    while slots[at] >= 0:
        passed = (at - _home(entries[slots[at]].key, slots)) & last
        if passed >= (at - slot) & last:
            slots[slot] = slots[at]
            slots[at] = -1
            slot = at
        at = (at + 1) & last


@njit(error_model="numpy")
def _unlink(e, entries):
    older, newer = entries[e].older, entries[e].newer
    entries[older].newer = newer
    entries[newer].older = older


@njit(error_model="numpy")
def _append(e, entries):
    """Make `e` the most recently used."""
    ring = len(entries) - 1
    newest = entries[ring].older
    entries[newest].newer = e
    entries[e].older = newest
    entries[e].newer = ring
    entries[ring].older = e


@njit(error_model="numpy")
def _update(keys, utilities, counts, entries, slots, counters, regret_rate, utility_decay, utility_clip, max_regret):
    ring, num_bins, c = len(entries) - 1, utilities.shape[1], counters[0]
    for n in range(len(keys)):
        slot = _find(keys[n], entries, slots)
        e = slots[slot]
        if e >= 0:
            c.hits += 1
            _unlink(e, entries)
        else:
            c.misses += 1
            if c.size < ring:
                e = c.size
                c.size += 1
            else:
                c.evictions += 1
                e = entries[ring].newer  # the least recently used
                _unlink(e, entries)
                _free(_find(entries[e].key, entries, slots), entries, slots)
                slot = _find(keys[n], entries, slots)
            slots[slot] = e
            entries[e].key = keys[n]
            entries[e].born = c.rows
            entries[e].weight = 0.0
            entries[e].total[:] = 0.0
            entries[e].utilities[:] = 0.0
            entries[e].regrets[:] = 0.0
        _append(e, entries)
        entries[e].weight += counts[n]
        for k in range(num_bins):
            entries[e].total[k] += counts[n] * utilities[n, k]
        c.rows += 1
    e = entries[ring].older
    while e != ring and entries[e].weight > 0:  # those of this call are the most recent ones
        entry = entries[e]
        weighted, weights = 0.0, 0.0
        for k in range(num_bins):
            seen = entry.total[k] / entry.weight
            mean = utility_decay * entry.utilities[k] + (1.0 - utility_decay) * seen
            entry.utilities[k] = min(max(mean, -utility_clip), utility_clip)
            entry.total[k] = 0.0
            weight = entry.regrets[k] + FLOOR
            weighted += weight * entry.utilities[k]
            weights += weight
        for k in range(num_bins):
            regret = entry.regrets[k] + regret_rate * (entry.utilities[k] - weighted / weights)
            entry.regrets[k] = min(max(regret, 0.0), max_regret)
        entry.weight = 0.0
        e = entry.older


@njit(error_model="numpy")
def _desired(keys, entries, slots, out):
    num_bins = out.shape[1]
    for n in range(len(keys)):
        e = slots[_find(keys[n], entries, slots)]
        if e < 0:
            out[n, :] = 1.0 / num_bins
            continue
        total = entries[e].regrets.sum() + num_bins * FLOOR
        for k in range(num_bins):
            out[n, k] = (entries[e].regrets[k] + FLOOR) / total


@njit(error_model="numpy")
def _order(entries, order):
    e = entries[len(entries) - 1].newer
    for i in range(len(order)):
        order[i] = e
        e = entries[e].newer


@njit(error_model="numpy")
def _link(entries, slots, size):
    for e in range(size):
        slots[_find(entries[e].key, entries, slots)] = e
        _append(e, entries)
