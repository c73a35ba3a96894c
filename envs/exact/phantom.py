"""Exact evaluation of phantom boards without a walk over their histories, of which there are 10^10.

Give each cell of a player's private record one code: 0 nothing, i an own stone put there at the player's own time i,
T + i an attempt that failed there at time i. Time counts own stones (classic) or own attempts (abrupt). A record of
player 0 and one of player 1 belong to the same history if and only if each cell on its own agrees:

    nothing, nothing | nothing, stone | stone, nothing | stone_i of 0, fail_j of 1 with i <= j | fail_i of 0, stone_j of
    1 with j < i

So the 0/1 matrix of histories is a Kronecker product of one small matrix per cell. What a finished game is worth hangs
on the winner's record alone, so the values of all sequences are this matrix times the reach of the other's records:
depth first over the output records cell by cell, adding up inputs that agree on the cells still to come. The codes
that agree with an output code are nested (fail_1, fail_2, ... agree with more and more stones), so each block of inputs
is added once for all of them. Nothing is approximated, and any policy on perfect-recall infosets can be evaluated.

Letters: n cells, T own times, R rows (infosets), F sequences (row, legal action) of a player, in that order.
"""

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from envs.exact.evaluation import Evaluation, FlatPolicy, Policy, answers
from envs.exact.records import BITS, Records
from envs.expansion import GameTooLargeError
from envs.game import Game
from envs.jit import njit
from envs.structure import PhantomBoard

CODE = np.uint64(2**BITS - 1)
PER_ROW = 190  # bytes, about, as measured on boards of nine cells
ADD = 6e-10  # seconds for one of the operators' additions, about; those left out count


class PhantomEvaluator:
    """Exact evaluation by operators on private records; see `envs.exact.evaluation.ExactEvaluator`.

    Args:
        game: a `Game` with `structure=PhantomBoard(...)`.
        max_seconds: of preparation, and of one evaluation as forecast.
        max_bytes: refuse games that need more memory than this.
        threads: that evaluate.

    Attributes:
        num_additions: of one evaluation, at most; seconds: the forecast.

    Raises:
        ValueError: the game does not have that structure.
        GameTooLargeError: more seconds or bytes.
    """

    def __init__(self, game: Game, max_seconds: float = 60.0, max_bytes: int = 4 << 30, threads: int = 1):
        board = game.structure
        if not isinstance(board, PhantomBoard):
            raise ValueError(f"{game.name}: needs structure=PhantomBoard(...), see envs.structure")
        self.game, self.threads = game, threads
        self._max_bytes, self._until, self._max_seconds = max_bytes, time.thread_time() + max_seconds, max_seconds
        wins = np.array(board.wins, np.bool_)
        self._records = [Records(player, board, wins, self._check_size) for player in range(2)]
        self._split = self._records[0].num_rows
        self.num_rows = self.num_infosets = sum(records.num_rows for records in self._records)
        if self.num_rows * PER_ROW > max_bytes:
            raise GameTooLargeError(
                f"{game.name}: {self.num_rows} infosets need about {self.num_rows * PER_ROW:.1e} bytes, while "
                f"max_bytes={max_bytes:.1e}; too large for exact evaluation"
            )
        self._prepare()

    def _check_size(self, size: int) -> None:
        late = time.thread_time() > self._until
        if late or size > self._max_bytes:
            what = "max_seconds" if late else "max_bytes"
            raise GameTooLargeError(
                f"{self.game.name}: {what}={self._max_seconds if late else self._max_bytes:g} reached; too large for "
                "exact evaluation"
            )

    def _prepare(self) -> None:
        """The operators: player p wins at its own time t, the other's records then are complete until t - 1 or t."""
        first, second = self._records
        self._wins = []
        for t in range(1, first.num_times + 1):
            for winner, loser, until in ((first, second, t - 1), (second, first, t)):
                won, lost = _Ends(winner, t, *winner.ends(t, True)), _Ends(loser, until, *loser.ends(until, False))
                if len(won.key) and len(lost.key):
                    self._wins.append((winner.player, won, lost))
                    self._check_size(self.nbytes)
        self.num_additions = sum(won.additions(lost) + lost.additions(won) for _, won, lost in self._wins)
        self.seconds = self.num_additions * ADD / self.threads
        if self.seconds > self._max_seconds:
            raise GameTooLargeError(
                f"{self.game.name}: about {self.seconds:.0f} s for each evaluation, while max_seconds="
                f"{self._max_seconds:g}; too large for exact evaluation"
            )
        for _, won, lost in self._wins:
            won.open()
            lost.open()
            self._check_size(self.nbytes)

    @property
    def nbytes(self) -> int:
        """Memory of one evaluation and of what is kept."""
        kept = sum(_size_of(records) for records in self._records)
        kept += sum(_size_of(won) + _size_of(lost) for _, won, lost in self._wins)
        return kept + 3 * 8 * sum(records.num_sequences for records in self._records)

    # What every evaluator answers

    def rows(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        stop = min(stop, self.num_rows)
        found = []
        for records, offset in zip(self._records, (0, self._split)):
            low, high = max(start - offset, 0), min(stop - offset, records.num_rows)
            if low < high:
                found.append(records.describe(low, high))
        obs, legal, player = (np.concatenate(part) for part in zip(*found))
        return obs, legal, player

    def flat(self, policy: Policy) -> FlatPolicy:
        if isinstance(policy, FlatPolicy):
            return policy
        first, second = self._records
        out = np.empty(first.num_sequences + second.num_sequences)
        for start, probs in answers(self, policy):
            here = min(max(self._split - start, 0), len(probs))
            _gather(probs[:here], start, first.first, first.known, out[: first.num_sequences])
            _gather(probs[here:], start + here - self._split, second.first, second.known, out[first.num_sequences :])
        return FlatPolicy(out)

    def evaluate(self, policy: Policy) -> Evaluation:
        returns, best, _ = self._respond(policy)
        return Evaluation.of(self.game, returns, best)

    def best_actions(self, policy: Policy) -> np.ndarray:
        return self._respond(policy)[2]

    def won_histories(self) -> int:
        """How many histories end with a win, counted by the operators."""
        return round(
            sum(
                won.apply(lost, np.bincount(lost.number).astype(np.float64), self.threads)[won.number].sum()
                for _, won, lost in self._wins
            )
        )

    def _respond(self, policy: Policy) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns [2], values of best responses [2] and their actions [R]."""
        probs, split = self.flat(policy).probs, self._records[0].num_sequences
        reach, values = [], []
        for records, own in zip(self._records, (probs[:split], probs[split:])):
            reach.append(np.empty(records.num_sequences + 1))
            _forward(own, records.first, records.parent, reach[-1])
            values.append(np.zeros(records.num_sequences + 1))
        for winner, won, lost in self._wins:
            _add(won.apply(lost, lost.collect(reach[1 - winner]), self.threads), won, 1.0, values[winner])
            _add(lost.apply(won, won.collect(reach[winner]), self.threads), lost, -1.0, values[1 - winner])
        returns = np.array([reach[p] @ values[p] for p in range(2)])
        best, actions = np.empty(2), np.empty(self.num_rows, np.int16)
        for p, own in enumerate((actions[: self._split], actions[self._split :])):
            records = self._records[p]
            best[p] = _backward(records.first, records.parent, records.known, values[p], own)
        return returns, best, actions


def _size_of(thing) -> int:
    found = 0
    for value in vars(thing).values():
        for part in value if isinstance(value, list) else [value]:
            found += sum(a.nbytes for a in (part if isinstance(part, tuple) else [part]) if isinstance(a, np.ndarray))
    return found


def _add(found: np.ndarray, ends: "_Ends", sign: float, values: np.ndarray) -> None:
    _scatter(found, ends.number, ends.sequence, sign, values)


class _Ends:
    """Distinct records of some sequences, all complete until one own time; as output a trie by cells, as input sums
    over suffixes of cells.

    Attributes:
        key: [E] sorted; sequence: [Q] of the player, of which `number` [Q] is the record.
    """

    def __init__(self, records: Records, time: int, key: np.ndarray, sequence: np.ndarray):
        self.records, self.time, self.sequence = records, time, sequence
        self.key, number = np.unique(key, return_inverse=True)
        self.number = number.astype(np.int32)
        n = records.num_cells
        self._shift = [np.uint64(BITS * (n - 1 - c)) for c in range(n)]
        self._prefixes, self._suffixes, suffix = [], [], self.key
        for shift in self._shift:
            prefix = self.key >> shift
            self._prefixes.append(prefix[np.append(True, prefix[1:] != prefix[:-1])] if len(prefix) else prefix)
            suffix, inverse = np.unique(suffix & ((np.uint64(1) << shift) - np.uint64(1)), return_inverse=True)
            self._suffixes.append((suffix, inverse.astype(np.int32)))
        self._num_prefixes = [1, *(len(p) for p in self._prefixes)]
        self._num_suffixes = [len(self.key), *(len(s) for s, _ in self._suffixes)]
        self._opened = False

    def additions(self, inputs: "_Ends") -> int:
        """At most so many additions take the sums over `inputs`."""
        return sum(p * s for p, s in zip(self._num_prefixes, inputs._num_suffixes))

    def open(self) -> None:
        """Lay out the trie and the runs of suffixes; once."""
        if not self._opened:
            self._opened = True
            self._lay_trie()
            self._lay_runs()
            del self._prefixes, self._suffixes

    def _lay_trie(self) -> None:
        """Each level's nodes: code of the last cell, and the first child on the next level."""
        codes, first, above = [], [], np.zeros(1, np.uint64)
        for level, prefix in enumerate(self._prefixes):
            parent = prefix >> np.uint64(BITS) if level else np.zeros(len(prefix), np.uint64)
            first.append(np.append(np.searchsorted(parent, above), len(prefix)).astype(np.int32))
            codes.append((prefix & CODE).astype(np.uint8))
            above = prefix
        self._code, self._code_at = np.concatenate(codes), _starts(codes)
        self._child, self._child_at = np.concatenate(first), _starts(first)

    def _lay_runs(self) -> None:
        """For each level and code: which stretches of its suffixes (source) are added to where (target) on the next.

        Suffixes are ordered by the set of own times in them, so that what is added lies together; runs of one set are
        a group, which is left out where the set does not occur.
        """
        num_times, abrupt = self.records.num_times, self.records.abrupt
        bit = np.zeros(
            2 * num_times + 1, np.int32
        )  # of the own time of each code; failures of a classic game have none
        bit[1 : num_times + 1] = 1 << np.arange(num_times)
        bit[num_times + 1 :] = bit[1 : num_times + 1] * abrupt
        codes = np.arange(2 * num_times + 2)
        runs, groups, self._group_at, num_runs, num_groups = [], [], [], 0, 0
        suffix, place = self.key, np.arange(len(self.key), dtype=np.int32)
        times = np.full(len(suffix), (1 << self.time) - 1, np.int32)
        for shift, (rest, inverse) in zip(self._shift, self._suffixes):
            code = (suffix >> shift).astype(np.int64)
            rest_times = np.empty(len(rest), np.int32)
            rest_times[inverse] = times & ~bit[code]
            rest_place = np.empty(len(rest), np.int32)
            rest_place[np.argsort(rest_times, kind="stable")] = np.arange(len(rest))
            order = np.argsort(code * len(place) + place)
            source, target, code = place[order], rest_place[inverse[order]], code[order]
            before, after = times[order], rest_times[inverse[order]]
            new_group = (np.diff(code) != 0) | (np.diff(before) != 0)
            at = np.flatnonzero(np.append(True, new_group | (np.diff(source) != 1) | (np.diff(target) != 1)))
            length = np.diff(np.append(at, len(source)))
            runs.append(np.stack([source[at], target[at], length], axis=1).astype(np.int32))
            begins = np.append(0, np.flatnonzero(new_group) + 1)
            first = num_runs + np.searchsorted(at, begins)
            num_runs += len(at)
            groups.append(np.stack([first, np.append(first[1:], num_runs), before[begins], after[begins]], axis=1))
            self._group_at.append(num_groups + np.searchsorted(code[begins], codes))
            num_groups += len(begins)
            suffix, place, times = rest, rest_place, rest_times
        self._runs, self._groups = np.concatenate(runs), np.concatenate(groups).astype(np.int32)
        self._group_at = np.stack(self._group_at)

    def collect(self, reach: np.ndarray) -> np.ndarray:
        """[E] reach [F + 1] of the sequences of each record, added up."""
        found = np.zeros(len(self.key))
        _collect(self.number, self.sequence, reach, found)
        return found

    def apply(self, inputs: "_Ends", weight: np.ndarray, threads: int) -> np.ndarray:
        """[E] for each of these records: the sum of `weight` of all `inputs` that belong to a history with it."""
        out = np.zeros(len(self.key))
        steps = _steps(self.records.player, self.records.num_times)
        sizes = np.array(inputs._num_suffixes)

        def part(which: int) -> None:
            _apply(
                inputs._runs, inputs._groups, inputs._group_at, sizes, self._code, self._code_at, self._child,
                self._child_at, steps, weight, out, which, threads,
            )  # fmt: skip

        if threads == 1:
            part(0)
        else:
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(part, range(threads)))
        return out


def _starts(arrays: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([[0], np.cumsum([len(a) for a in arrays])])


def _steps(player: int, num_times: int) -> np.ndarray:
    """[steps, 5]: output code, whether its sum begins anew, how many input codes (0 to 2) it adds to the one before,
    and these codes."""
    stone, fail = list(range(num_times + 1)), [num_times + i for i in range(num_times + 1)]
    found = []
    for i in range(1, num_times + 1):  # more and more stones; player 0's own time i comes before player 1's
        added = [stone[i]] if player == 1 else [stone[i - 1]] if i > 1 else []
        found.append((fail[i], i == 1, added))
    found.append((0, False, [0] if player == 1 else [stone[num_times], 0]))
    for i in range(num_times, 0, -1):  # more and more failures
        added = [fail[i]] if player == 0 else [fail[i + 1]] if i < num_times else []
        found.append((stone[i], i == num_times, [0, *added] if i == num_times else added))
    return np.array([(code, anew, len(added), *(added + [0, 0])[:2]) for code, anew, added in found])


@njit(nogil=True)
def _gather(probs, start, first, known, out):
    for k in range(len(probs)):
        s = first[start + k]
        for c in range(probs.shape[1]):
            if not (known[start + k] >> c) & 1:
                out[s] = probs[k, c]
                s += 1


@njit(nogil=True)
def _forward(probs, first, parent, reach):
    reach[-1] = 1.0
    for i in range(len(parent)):
        before = reach[parent[i]]
        for s in range(first[i], first[i + 1]):
            reach[s] = before * probs[s]


@njit(nogil=True)
def _backward(first, parent, known, values, action):
    """values [F + 1] of what follows at once become those under best play; returns that of the empty sequence."""
    for i in range(len(parent) - 1, -1, -1):
        top = first[i]
        for s in range(top + 1, first[i + 1]):
            if values[s] > values[top]:
                top = s
        left, c = top - first[i], 0
        while left > 0 or (known[i] >> c) & 1:
            left -= not (known[i] >> c) & 1
            c += 1
        action[i] = c
        values[parent[i]] += values[top]
    return values[-1]


@njit(nogil=True)
def _collect(number, sequence, reach, out):
    for q in range(len(number)):
        out[number[q]] += reach[sequence[q]]


@njit(nogil=True)
def _scatter(found, number, sequence, sign, values):
    for q in range(len(number)):
        values[sequence[q]] += sign * found[number[q]]


@njit(nogil=True, error_model="numpy")
def _apply(runs, groups, group_at, sizes, code, code_at, child, child_at, steps, weight, out, part, parts):
    """Depth first over the output trie; the sums over input suffixes of every level are kept while below it.

    Of the nodes of the second level only every `parts`-th is done, beginning with `part`.
    """
    n, num_codes = len(sizes) - 1, group_at.shape[1] - 1
    start = np.zeros(n + 2, np.int64)  # of each level's sums
    for m in range(n + 1):
        start[m + 1] = start[m] + sizes[m]
    sums = np.zeros(start[n + 1])
    sums[: sizes[0]] = weight
    occurs = np.zeros((n + 1, groups[:, 2:].max() + 1), np.bool_)  # sets of own times in suffixes
    occurs[0] = True
    node = np.full((n, num_codes), -1, np.int64)  # child of this level's node with each code
    step, waiting, num_waiting = np.zeros(n, np.int64), np.zeros((n, num_codes + 1), np.int64), np.zeros(n, np.int64)
    anew = np.zeros(n, np.bool_)
    m, turn = 0, -1
    for k in range(child[child_at[0]], child[child_at[0] + 1]):
        node[0, code[code_at[0] + k]] = k
    while m >= 0:
        if step[m] == len(steps):
            node[m] = -1
            m -= 1
            continue
        s = step[m]
        step[m] += 1
        if steps[s, 1]:
            anew[m] = True
            num_waiting[m] = 0
        for k in range(steps[s, 2]):
            waiting[m, num_waiting[m]] = steps[s, 3 + k]
            num_waiting[m] += 1
        here = node[m, steps[s, 0]]
        if here < 0:
            continue
        if m == 1:
            turn += 1
            if turn % parts != part:
                continue
        source, target = start[m], start[m + 1]
        if anew[m]:
            sums[target : target + sizes[m + 1]] = 0.0
            occurs[m + 1] = False
            anew[m] = False
        for k in range(num_waiting[m]):
            c = waiting[m, k]
            for g in range(group_at[m, c], group_at[m, c + 1]):
                if not occurs[m, groups[g, 2]]:
                    continue
                occurs[m + 1, groups[g, 3]] = True
                for r in range(groups[g, 0], groups[g, 1]):
                    a, b = np.uint64(source + runs[r, 0]), np.uint64(target + runs[r, 1])
                    for i in range(np.uint64(runs[r, 2])):
                        sums[b + i] += sums[a + i]
        num_waiting[m] = 0
        if m == n - 1:
            out[here] = sums[target]
            continue
        m += 1
        step[m] = 0
        for k in range(child[child_at[m] + here], child[child_at[m] + here + 1]):
            node[m, code[code_at[m] + k]] = k
