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
from envs.expansion import GameTooLargeError
from envs.game import Game
from envs.jit import njit
from envs.structure import PhantomBoard

BITS = 5  # of the code of one cell; keys have n of them, cell 0 first
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
        self._records = [_Records(player, board, wins, self._check_size) for player in range(2)]
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
                won, lost = winner.ends(t, True), loser.ends(until, False)
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


class _Records:
    """The private records at which one player has to decide, shortest first: the rows of that player."""

    def __init__(self, player: int, board: PhantomBoard, wins: np.ndarray, check_size):
        self.player, self.abrupt, self.num_cells, self.wins = player, board.abrupt, board.num_cells, wins
        self.num_times = self.num_cells if board.abrupt else (self.num_cells + 1) // 2
        self.quiet = _largest_quiet(wins[1 - player])
        size, sizes = 1 << 12, np.array([1, 0])
        names = ("key", "above", "own", "seen", "times", "action", "need")
        kinds = (np.uint64, np.int32, np.int16, np.int16, np.int8, np.int8, np.int8)
        arrays = [np.zeros(size, kind) for kind in kinds]
        arrays[1][0] = -1
        arrays[6][0] = player  # an abrupt game's first attempt succeeds
        while not _enumerate(player, self.abrupt, self.num_cells, self.num_times, wins, self.quiet, sizes, *arrays):
            arrays = [np.concatenate([a, np.zeros_like(a)]) for a in arrays]
            check_size(sum(a.nbytes for a in arrays))
        self.num_rows = int(sizes[0])
        for name, array in zip(names, arrays):
            setattr(self, name, array[: self.num_rows].copy())
        self.known = self.own | self.seen
        self.first = np.concatenate([[0], np.cumsum(self.num_cells - _count(self.known))])
        self.num_sequences = int(self.first[-1])
        self.parent = _parents(self.above, self.action, self.known, self.first)

    def describe(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        n, count = self.num_cells, stop - start
        obs, legal = np.zeros((count, 2 + 3 * n + n * n), np.uint8), np.zeros((count, n), np.bool_)
        _describe(start, self.player, n, self.above, self.action, self.own, self.seen, obs, legal)
        return obs, legal, np.full(count, self.player, np.int8)

    def ends(self, time: int, won: bool) -> "_Ends":
        """The sequences whose last attempt completes own time `time`: with a win, or with the game going on."""
        arguments = (
            self.player, self.abrupt, self.num_cells, self.num_times, self.wins, self.quiet, self.key, self.own,
            self.seen, self.times, self.need, self.first, time, won,
        )  # fmt: skip
        count = _ends(*arguments, np.zeros(0, np.uint64), np.zeros(0, np.int64))
        key, sequence = np.empty(count, np.uint64), np.empty(count, np.int64)
        _ends(*arguments, key, sequence)
        return _Ends(self, time, key, sequence)


class _Ends:
    """Distinct records of some sequences, all complete until one own time; as output a trie by cells, as input sums
    over suffixes of cells.

    Attributes:
        key: [E] sorted; sequence: [Q] of the player, of which `number` [Q] is the record.
    """

    def __init__(self, records: _Records, time: int, key: np.ndarray, sequence: np.ndarray):
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


def estimate_records(board: PhantomBoard, num_games: int, seed: int = 0) -> float:
    """About how many rows an evaluator has, from random walks over each player's records (`envs.expansion`)."""
    wins = np.array(board.wins, np.bool_)
    n, found = board.num_cells, 0.0
    num_times = n if board.abrupt else (n + 1) // 2
    for player in range(2):
        quiet = _largest_quiet(wins[1 - player])
        draws = np.random.default_rng(seed).random((num_games, n))
        found += _estimate(player, board.abrupt, n, num_times, wins, quiet, draws) / num_games
    return found


@njit
def _estimate(player, abrupt, n, num_times, wins, quiet, draws):
    """The sum over walks of how many records each of them tells of; a record has at most `n` before it."""
    total = 0.0
    after = np.zeros((2 * n, 4), np.int64)
    for g in range(len(draws)):
        own, seen, times, need, here = np.int16(0), np.int16(0), 0, player, 1.0
        total += 1.0
        for step in range(n):
            found = 0
            for c in range(n):
                if ((own | seen) >> c) & 1:
                    continue
                for succeeds in range(2):
                    possible, o, s, t, least, _ = _after(
                        player, abrupt, n, num_times, wins, quiet, own, seen, times, need, c, succeeds
                    )
                    if possible and o | s != (1 << n) - 1:
                        after[found, 0], after[found, 1], after[found, 2], after[found, 3] = o, s, t, least
                        found += 1
            if found == 0:
                break
            here *= found
            total += here
            chosen = int(draws[g, step] * found)
            own, seen = np.int16(after[chosen, 0]), np.int16(after[chosen, 1])
            times, need = after[chosen, 2], after[chosen, 3]
    return total


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


@njit
def _count(cells):
    found = np.zeros(len(cells), np.int64)
    for i in range(len(cells)):
        left = cells[i]
        while left:
            left &= left - 1
            found[i] += 1
    return found


@njit
def _size(cells):
    n = 0
    while cells:
        cells &= cells - 1
        n += 1
    return n


@njit
def _largest_quiet(wins):
    """[2 ** n, 2 ** n]: the size of the largest set that does not win, contains the first and avoids the second."""
    num = len(wins)
    found = np.full((num, num), -1, np.int8)
    for avoided in range(num):
        for cells in range(num):
            if cells & avoided or wins[cells]:
                continue
            size, part = _size(cells), cells
            while True:
                found[part, avoided] = max(found[part, avoided], size)
                if part == 0:
                    break
                part = (part - 1) & cells
    return found


@njit
def _after(player, abrupt, n, num_times, wins, quiet, own, seen, times, need, cell, succeeds):
    """An attempt on `cell` with that outcome, the game going on: (possible, own, seen, times, need, code).

    need: the least number of stones that the other must have (abrupt) at the player's next decision.
    """
    bit = np.int16(1 << cell)
    before = times + player  # stones (classic) or attempts (abrupt) of the other's until now
    code = times + 1
    if succeeds:
        own |= bit
        if wins[player, own]:
            return False, own, seen, times, need, code
    else:
        seen |= bit
        code += num_times
        if _size(seen) > before or wins[1 - player, seen]:
            return False, own, seen, times, need, code
    need = max(need, _size(seen), before + 1 - _size(own)) if abrupt else before + succeeds
    possible = _size(own) + need <= n - 1 and quiet[seen, own] >= need
    return possible, own, seen, times + (1 if abrupt or succeeds else 0), need, code


@njit
def _enumerate(
    player, abrupt, n, num_times, wins, quiet, sizes, key, above, own, seen, times, action, need
):  # fmt: skip
    """Go on with the records, breadth first; False: the arrays are full. sizes: records, those expanded."""
    while sizes[1] < sizes[0]:
        i = sizes[1]
        if sizes[0] + 2 * n > len(key):
            return False
        for c in range(n):
            if ((own[i] | seen[i]) >> c) & 1:
                continue
            for succeeds in range(2):
                possible, o, s, t, least, code = _after(
                    player, abrupt, n, num_times, wins, quiet, own[i], seen[i], times[i], need[i], c, succeeds
                )
                if not possible or o | s == (1 << n) - 1:
                    continue
                j = sizes[0]
                key[j] = key[i] | (np.uint64(code) << np.uint64(BITS * (n - 1 - c)))
                above[j] = i
                own[j] = o
                seen[j] = s
                times[j] = t
                action[j] = c
                need[j] = least
                sizes[0] = j + 1
        sizes[1] = i + 1
    return True


@njit
def _ends(
    player, abrupt, n, num_times, wins, quiet, key, own, seen, times, need, first, time, won, out_key, out_sequence
):  # fmt: skip
    """Count, or with room also fill, the records of `_Records.ends`."""
    found = 0
    for i in range(len(key)):
        if times[i] != time - 1:
            continue
        sequence = first[i] - 1
        for c in range(n):
            if ((own[i] | seen[i]) >> c) & 1:
                continue
            sequence += 1
            for succeeds in range(2):
                if not succeeds and (won or not abrupt):
                    continue
                o, f, code = own[i], seen[i], time
                if succeeds:
                    o |= np.int16(1 << c)
                else:
                    f |= np.int16(1 << c)
                    code += num_times
                other = max(need[i], _size(f)) if abrupt else times[i] + player  # stones, until now
                possible = wins[player, o] == won and _size(f) <= times[i] + player and quiet[f, o] >= other
                possible = possible and _size(o) + other <= n - (not won)
                if not possible:
                    continue
                if len(out_key):
                    out_key[found] = key[i] | (np.uint64(code) << np.uint64(BITS * (n - 1 - c)))
                    out_sequence[found] = sequence
                found += 1
    return found


@njit
def _parents(above, action, known, first):
    """[R] the sequence that leads to each row; [0]: the empty one, which stands behind the others."""
    found = np.empty(len(above), np.int64)
    found[0] = first[-1]
    for i in range(1, len(above)):
        j = above[i]
        found[i] = first[j] + _size(~known[j] & ((1 << action[i]) - 1))
    return found


@njit(nogil=True)
def _describe(start, player, n, above, action, own, seen, obs, legal):
    for k in range(len(obs)):
        i = start + k
        obs[k, player] = 1
        for c in range(n):
            kind = ((own[i] >> c) & 1) + 2 * ((seen[i] >> c) & 1)
            obs[k, 2 + n * kind + c] = 1
            legal[k, c] = kind == 0
        place = _size(own[i] | seen[i]) - 1
        while above[i] >= 0:
            obs[k, 2 + 3 * n + n * place + action[i]] = 1
            place -= 1
            i = above[i]


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
