"""The private records of a phantom board: all that a player may have seen, and how many that will be.

A record has a code for each cell, see `envs.exact.phantom`, where they are added up.
"""

import numpy as np

from envs.jit import njit
from envs.structure import PhantomBoard

BITS = 5  # of the code of one cell; keys have n of them, cell 0 first


class Records:
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

    def ends(self, time: int, won: bool) -> tuple[np.ndarray, np.ndarray]:
        """The sequences [Q] whose last attempt completes own time `time`, with a win or with the game going on: their
        records' keys, and their numbers."""
        arguments = (
            self.player, self.abrupt, self.num_cells, self.num_times, self.wins, self.quiet, self.key, self.own,
            self.seen, self.times, self.need, self.first, time, won,
        )  # fmt: skip
        count = _ends(*arguments, np.zeros(0, np.uint64), np.zeros(0, np.int64))
        key, sequence = np.empty(count, np.uint64), np.empty(count, np.int64)
        _ends(*arguments, key, sequence)
        return key, sequence


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
    """Count, or with room also fill, the records of `Records.ends`."""
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
