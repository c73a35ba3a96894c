"""Any game's exact evaluation by walking its histories depth first, keeping infosets and four bytes a history.

The walk meets the terminal histories one by one and adds what they are worth to each player's last sequence, by the
chance of everybody else to come there; the infosets, in order of first appearance, then give values from the last to
the first. An infoset is the pair (the player's sequence so far, its obs now), found by a hash of 64 bits; when the
game is prepared every meeting is compared with what was stored, so two infosets that hash alike are an error then.

Those four bytes are the tape: of each history in the order of the walk, its infoset, or which chances or which worth it
has. Played back it spares the rules, the obs and the hash. Where it takes too much memory, it is left out, and each
evaluation walks by the rules.

Letters: I infosets, R rows, F legal actions of all rows, S of all infosets, P players, A actions.
"""

import time
from functools import cache

import numpy as np

from envs.exact.evaluation import Evaluation, FlatPolicy, Policy, answers
from envs.expansion import GameTooLargeError, compile_expansion, longest, refuse_longer
from envs.game import CHANCE, TERMINAL, Game
from envs.jit import njit

SLICE = 2_000_000  # histories between two looks at the clock
BUILD, EVALUATE = 0, 1  # what a walk is for
ENDED, PAUSED, FULL, CLASH, TOO_LONG = 0, 1, 2, 3, 4  # how it came back
WORTHS, ODDS, USED, TAPING = 4, 5, 6, 7  # of a store's counts: distinct ones, entries on the tape, is there a tape
EMPTY = -1
TAPED = 4  # bytes of a history on the tape


class StreamEvaluator:
    """Exact evaluation that remembers infosets only; see `envs.exact.evaluation.ExactEvaluator`.

    Args:
        game: any `Game` whose chance and action sequences can be enumerated.
        max_seconds: of preparation: refuse games that take longer to walk once.
        max_bytes: leave out the tape, or refuse games, that would need more memory than this.

    Attributes:
        state: [R] of `game.state_dtype`: the first history that looks like the row.
        num_nodes, num_terminals: histories, of which so many are finished games.
        taped: whether there is a tape.

    Raises:
        GameTooLargeError: more seconds or bytes.
        RulesError: a game goes on after max_steps.
        ValueError: two histories with the same infostate have different legal actions.
    """

    def __init__(self, game: Game, max_seconds: float = 60.0, max_bytes: int = 4 << 30):
        self.game = game
        began, store, walk = time.thread_time(), _Store(game), _Walk(game)
        self._tape: list[np.ndarray] = []
        while True:
            ended = walk.go(BUILD, store, SLICE)
            self._tape.append(store.taken())
            if store.nbytes + TAPED * walk.counts[0] > max_bytes:
                store.stop_tape()
                self._tape.clear()
            if ended == CLASH:
                raise ValueError(
                    f"{game.name}: an infostate has different legal actions in two histories, or two infostates hash "
                    f"alike; one of them: {game.render(walk.state[walk.depth[0]])}"
                )
            if ended == TOO_LONG:
                refuse_longer(game)
            if ended == FULL:
                store.grow()
            seconds, size = time.thread_time() - began, store.nbytes_to_evaluate
            if size > max_bytes or (seconds > max_seconds and ended != ENDED):
                what = f"max_bytes={max_bytes}" if size > max_bytes else f"max_seconds={max_seconds}"
                raise GameTooLargeError(
                    f"{game.name}: {walk.counts[0]} histories with {store.num_infosets} infosets walked, not all, and "
                    f"{what} reached; too large for exact evaluation"
                )
            if ended == ENDED:
                break
        self.taped = bool(store.counts[TAPING])
        store.trim()
        self._store, self._walk = store, walk
        self.num_nodes, self.num_terminals = int(walk.counts[0]), int(walk.counts[1])
        self.num_rows, self.num_infosets = store.num_rows, store.num_infosets
        self.state = store.row_state

    @property
    def nbytes(self) -> int:
        """Memory of one evaluation and of what is kept."""
        return self._store.nbytes_to_evaluate + sum(part.nbytes for part in self._tape)

    def rows(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        states, n = self.state[start:stop], min(stop, self.num_rows) - start
        obs = np.zeros((n, *self.game.obs_shape), self.game.obs_dtype)
        legal, player = np.zeros((n, self.game.num_actions), np.bool_), np.empty(n, np.int8)
        describe, _ = compile_expansion(self.game)
        describe(states, player, obs, legal, np.zeros((n, self.game.num_chance_outcomes)))
        return obs, legal, player

    def flat(self, policy: Policy) -> FlatPolicy:
        if isinstance(policy, FlatPolicy):
            return policy
        store, found = self._store, np.empty(len(self._store.row_action))
        for start, probs in answers(self, policy):
            _gather(probs, start, store.row_first, store.row_action, found)
        return FlatPolicy(found)

    def evaluate(self, policy: Policy) -> Evaluation:
        returns, best, _ = self._respond(policy)
        return Evaluation.of(self.game, returns, best)

    def best_actions(self, policy: Policy) -> np.ndarray:
        if self.num_infosets != self.num_rows:
            raise ValueError(
                f"a best response of {self.game.name}: {self.num_infosets} infosets share {self.num_rows} "
                "observations, so the result is not a table over observations; this needs a game with "
                "perfect_recall=True"
            )
        _, _, action = self._respond(policy)
        found = np.empty(self.num_rows, np.int16)
        found[self._store.infoset_row[: self.num_infosets]] = action
        return found

    def _respond(self, policy: Policy) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns [P], values of best responses [P] and their actions [I]."""
        store, walk = self._store, self._walk
        store.reach = np.empty(store.num_sequences)
        store.values = np.zeros(store.num_sequences)
        store.returns[:] = 0.0
        arrays = store.infoset_row, store.infoset_first, store.infoset_parent, store.row_first
        _forward(self.flat(policy).probs, *arrays, store.num_infosets, store.reach)
        walk.begin()
        if self.taped:
            odds = store.odds.view(np.float64)
            for part in self._tape:
                _compile_play(self.game.num_players)(
                    part, walk.depth, walk.next, walk.infoset, walk.last, walk.own, walk.chance, store.infoset_player,
                    store.infoset_first, odds, store.worth.view(np.float64), store.reach, store.values, store.returns,
                )  # fmt: skip
        else:
            while walk.go(EVALUATE, store, SLICE) != ENDED:
                pass
        best, action = np.zeros(self.game.num_players), np.empty(store.num_infosets, np.int16)
        _backward(*arrays, store.num_infosets, store.infoset_player, store.row_action, store.values, best, action)
        returns = store.returns.copy()
        store.reach = store.values = np.zeros(1)
        return returns, best, action


class _Store:
    """The infosets and rows met so far; arrays grow by doubling."""

    def __init__(self, game: Game):
        self.game = game
        infosets, slots, sequences = 1 << 10, 1 << 11, 1 << 12
        self.counts = np.zeros(8, np.int64)  # infosets, rows, sequences, legal actions of rows, and see below
        self.slot = np.full(slots, EMPTY, np.int32)  # of the hash table of infosets
        self.key = np.zeros(infosets, np.uint64)
        self.infoset_parent = np.zeros(infosets, np.int64)  # sequence; -1 for the empty one
        self.infoset_player = np.zeros(infosets, np.int8)
        self.infoset_row = np.zeros(infosets, np.int32)
        self.infoset_first = np.zeros(infosets + 1, np.int64)  # sequence of the first legal action
        self.row_slot = np.full(slots, EMPTY, np.int32)
        self.row_key = np.zeros(infosets, np.uint64)
        self.row_first = np.zeros(infosets + 1, np.int64)
        self.row_state = np.zeros(infosets, game.state_dtype)
        self.row_action = np.zeros(sequences, np.int16)
        self.worth, self.worth_slot = np.zeros((16, game.num_players), np.uint64), np.full(32, EMPTY, np.int32)
        self.odds = np.zeros((16, max(game.num_chance_outcomes, 1)), np.uint64)  # as bits, as worth
        self.odds_slot = np.full(32, EMPTY, np.int32)
        self.tape = np.zeros(SLICE, np.int32)
        self.counts[TAPING] = True
        self.reach, self.values, self.returns = np.zeros(1), np.zeros(1), np.zeros(game.num_players)

    @property
    def num_infosets(self) -> int:
        return int(self.counts[0])

    @property
    def num_rows(self) -> int:
        return int(self.counts[1])

    @property
    def num_sequences(self) -> int:
        return int(self.counts[2])

    @property
    def nbytes(self) -> int:
        return sum(a.nbytes for a in vars(self).values() if isinstance(a, np.ndarray))

    @property
    def nbytes_to_evaluate(self) -> int:
        return self.nbytes + 8 * (int(self.counts[3]) + 2 * self.num_sequences + 2 * self.num_infosets)

    def taken(self) -> np.ndarray:
        """What was written on the tape since the last time."""
        found, self.counts[USED] = self.tape[: self.counts[USED]].copy(), 0
        return found

    def stop_tape(self) -> None:
        self.counts[TAPING], self.tape = False, np.zeros(1, np.int32)
        self.worth, self.odds = self.worth[:1], self.odds[:1]

    def grow(self) -> None:
        """Double whatever is nearly full."""
        spare = self.game.num_actions + 1
        infosets, rows, _, actions = self.counts[:4]
        if infosets + 1 >= len(self.key):
            for name in ("key", "infoset_parent", "infoset_player", "infoset_row", "infoset_first"):
                setattr(self, name, _longer(getattr(self, name)))
            self.slot = _hashed(self.key, infosets, 2 * len(self.slot))
        if rows + 1 >= len(self.row_key):
            for name in ("row_key", "row_first", "row_state"):
                setattr(self, name, _longer(getattr(self, name)))
            self.row_slot = _hashed(self.row_key, rows, 2 * len(self.row_slot))
        for name, count in (("worth", WORTHS), ("odds", ODDS)):
            if self.counts[TAPING] and self.counts[count] >= len(getattr(self, name)):
                words = _longer(getattr(self, name))
                setattr(self, name, words)
                setattr(self, f"{name}_slot", _hashed(_hashes(words), self.counts[count], 2 * len(words)))
        while actions + spare >= len(self.row_action):
            self.row_action = _longer(self.row_action)

    def trim(self) -> None:
        """Drop what is not used, and all that only building needs."""
        infosets, rows, _, actions = self.counts[:4]
        for name in ("key", "infoset_parent", "infoset_player", "infoset_row"):
            setattr(self, name, getattr(self, name)[:infosets].copy())
        self.infoset_first = self.infoset_first[: infosets + 1].copy()
        self.row_first = self.row_first[: rows + 1].copy()
        self.row_state = self.row_state[:rows].copy()
        self.row_action = self.row_action[:actions].copy()
        self.tape = np.zeros(1, np.int32)
        self.row_key, self.row_slot = np.zeros(1, np.uint64), np.full(1, EMPTY, np.int32)


def _longer(array: np.ndarray) -> np.ndarray:
    found = np.zeros((2 * len(array), *array.shape[1:]), array.dtype)
    found[: len(array)] = array
    return found


@njit
def _hashed(key, count, num_slots):
    slot = np.full(num_slots, EMPTY, np.int32)
    mask = np.uint64(num_slots - 1)
    for i in range(count):
        at = key[i] & mask
        while slot[at] != EMPTY:
            at = (at + np.uint64(1)) & mask
        slot[at] = i
    return slot


class _Walk:
    """A depth-first walk over all histories that can pause: the stack, one level per action."""

    def __init__(self, game: Game):
        self.game, depth, players = game, longest(game) + 1, game.num_players
        self.state = np.zeros(depth, game.state_dtype)
        self.depth = np.zeros(2, np.int64)  # the level; whether it was entered already
        self.next = np.zeros(depth, np.int64)
        self.player = np.zeros(depth, np.int64)
        self.infoset = np.zeros(depth, np.int64)
        self.last = np.zeros((depth, players), np.int64)  # sequence of each player
        self.own = np.ones((depth, players))  # reach of each player's sequence, on the tape
        self.chance = np.zeros(depth)  # probability of chance's outcomes so far
        self.earned = np.zeros((depth, players))
        self.probs = np.zeros((depth, max(game.num_chance_outcomes, 1)))
        self.raw = np.zeros((2, 4 * -(-int(np.prod(game.obs_shape)) * game.obs_dtype.itemsize // 32)), np.uint64)
        self.obs = [_as_obs(game, raw) for raw in self.raw]
        self.legal = np.zeros(game.num_actions, np.bool_)
        self.counts = np.zeros(2, np.int64)  # histories, finished games
        self.begin()

    def begin(self) -> None:
        self.game.init(self.state[0])
        self.depth[:] = 0
        self.last[0], self.own[0], self.chance[0], self.earned[0] = EMPTY, 1.0, 1.0, 0.0
        self.counts[:] = 0

    def go(self, what: int, store: _Store, budget: int) -> int:
        """Up to `budget` histories more: ENDED, PAUSED, FULL (grow the store, go on), CLASH or TOO_LONG."""
        return compile_walk(self.game)(
            what, budget, self.state, self.depth, self.next, self.player, self.infoset, self.last, self.chance,
            self.earned, self.earned.view(np.uint64), self.probs, self.probs.view(np.uint64), self.raw, self.obs[0],
            self.obs[1], self.legal, self.counts,
            store.counts, store.slot, store.key, store.infoset_parent, store.infoset_player, store.infoset_row,
            store.infoset_first, store.row_slot, store.row_key, store.row_first, store.row_state, store.row_action,
            store.worth, store.worth_slot, store.odds, store.odds_slot, store.tape, store.reach, store.values,
            store.returns,
        )  # fmt: skip


def _as_obs(game: Game, raw: np.ndarray) -> np.ndarray:
    size = int(np.prod(game.obs_shape)) * game.obs_dtype.itemsize
    return raw.view(np.uint8)[:size].view(game.obs_dtype).reshape(game.obs_shape)


@njit(inline="always")
def _mixed(h, word):
    """All bits of the result hang on all of both; by the finaliser of splitmix64 (Steele et al. 2014)."""
    h = h * np.uint64(0x9E3779B97F4A7C15) + word
    h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return h ^ (h >> np.uint64(31))


@njit
def _hash(words):
    """Four words at once, so that they do not wait for each other."""
    a, b, c, d = np.uint64(1), np.uint64(2), np.uint64(3), np.uint64(4)
    n = len(words)
    for i in range(0, n - 3, 4):
        a = _mixed(a, words[i])
        b = _mixed(b, words[i + 1])
        c = _mixed(c, words[i + 2])
        d = _mixed(d, words[i + 3])
    for i in range(n - n % 4, n):
        a = _mixed(a, words[i])
    return _mixed(_mixed(_mixed(a, b), c), d)


@njit
def _hashes(words):
    found = np.empty(len(words), np.uint64)
    for i in range(len(words)):
        found[i] = _hash(words[i])
    return found


@njit
def _number(words, known, slot, counts, which):
    """The row of `known` that equals `words`, a new one where there is room; else EMPTY."""
    mask = np.uint64(len(slot) - 1)
    at = _hash(words) & mask
    while slot[at] != EMPTY:
        same = True
        for i in range(len(words)):
            same = same and known[slot[at], i] == words[i]
        if same:
            return slot[at]
        at = (at + np.uint64(1)) & mask
    if counts[which] == len(known):
        return EMPTY
    slot[at] = counts[which]
    known[slot[at]] = words
    counts[which] += 1
    return slot[at]


@cache
def compile_walk(game: Game):
    """The walk around the rules of `game`, to build and to evaluate."""
    current_player, legal_actions, chance_probs = game.current_player, game.legal_actions, game.chance_probs
    apply_action, rewards, observe = game.apply_action, game.rewards, game.observe
    num_actions, num_players, num_outcomes = game.num_actions, game.num_players, game.num_chance_outcomes

    @njit(nogil=True)
    def walk(
        what, budget, state, depth, next_, player, infoset, last, chance, earned, earned_bits, probs, probs_bits, raw,
        obs, other_obs, legal, counts, sizes, slot, key, infoset_parent, infoset_player, infoset_row, infoset_first,
        row_slot, row_key, row_first, row_state, row_action, worth, worth_slot, odds, odds_slot, tape, reach, values,
        returns,
    ):  # fmt: skip
        d, entered = depth[0], depth[1]
        mask, row_mask = np.uint64(len(slot) - 1), np.uint64(len(row_slot) - 1)
        while d >= 0:
            if not entered:
                if budget == 0:
                    depth[0], depth[1] = d, 0
                    return PAUSED
                p = current_player(state[d])
                if p == TERMINAL:
                    if what == BUILD and sizes[TAPING]:
                        n = _number(earned_bits[d], worth, worth_slot, sizes, WORTHS)
                        if n == EMPTY:
                            depth[0], depth[1] = d, 0
                            return FULL
                        tape[sizes[USED]] = -1 - 2 * n
                        sizes[USED] += 1
                    budget -= 1
                    counts[0] += 1
                    counts[1] += 1
                    if what == EVALUATE:
                        for q in range(num_players):
                            weight = chance[d]
                            for k in range(num_players):
                                if k != q and last[d, k] >= 0:
                                    weight *= reach[last[d, k]]
                            value = weight * earned[d, q]
                            if last[d, q] >= 0:
                                values[last[d, q]] += value
                                value *= reach[last[d, q]]
                            returns[q] += value
                    d -= 1
                    entered = 1
                    continue
                if p == CHANCE:
                    probs[d, :] = 0.0
                    chance_probs(state[d], probs[d])
                    if what == BUILD and sizes[TAPING]:
                        n = _number(probs_bits[d], odds, odds_slot, sizes, ODDS)
                        if n == EMPTY:
                            depth[0], depth[1] = d, 0
                            return FULL
                        tape[sizes[USED]] = -2 - 2 * n
                        sizes[USED] += 1
                else:
                    raw[0, :] = 0
                    observe(state[d], p, obs)
                    row_hash = _mixed(_hash(raw[0]), np.uint64(p + 1))
                    h = _mixed(row_hash, np.uint64(last[d, p] + 1))
                    at = h & mask
                    while slot[at] != EMPTY and key[slot[at]] != h:
                        at = (at + np.uint64(1)) & mask
                    if what == BUILD:
                        legal[:] = False
                        legal_actions(state[d], legal)
                        if slot[at] == EMPTY:
                            full = sizes[0] + 1 >= len(key) or sizes[1] + 1 >= len(row_key)
                            if full or sizes[3] + num_actions + 1 >= len(row_action):
                                depth[0], depth[1] = d, 0
                                return FULL
                            row_at = row_hash & row_mask
                            while row_slot[row_at] != EMPTY and row_key[row_slot[row_at]] != row_hash:
                                row_at = (row_at + np.uint64(1)) & row_mask
                            if row_slot[row_at] == EMPTY:
                                r = sizes[1]
                                row_slot[row_at] = r
                                row_key[r] = row_hash
                                row_state[r] = state[d]
                                n = sizes[3]
                                for a in range(num_actions):
                                    if legal[a]:
                                        row_action[n] = a
                                        n += 1
                                sizes[1] += 1
                                sizes[3] = n
                                row_first[r + 1] = n
                            r = row_slot[row_at]
                            i = sizes[0]
                            slot[at] = i
                            key[i] = h
                            infoset_parent[i] = last[d, p]
                            infoset_player[i] = p
                            infoset_row[i] = r
                            infoset_first[i + 1] = infoset_first[i] + row_first[r + 1] - row_first[r]
                            sizes[0] += 1
                            sizes[2] = infoset_first[i + 1]
                        i = slot[at]
                        r = infoset_row[i]
                        n = row_first[r]
                        same = infoset_parent[i] == last[d, p] and infoset_player[i] == p
                        for a in range(num_actions):
                            if legal[a]:
                                same = same and n < row_first[r + 1] and row_action[n] == a
                                n += 1
                        same = same and n == row_first[r + 1]
                        raw[1, :] = 0
                        observe(row_state[r], p, other_obs)
                        for k in range(raw.shape[1]):
                            same = same and raw[0, k] == raw[1, k]
                        if not same:
                            depth[0], depth[1] = d, 0
                            return CLASH
                        if sizes[TAPING]:
                            tape[sizes[USED]] = i
                            sizes[USED] += 1
                    infoset[d] = slot[at]
                budget -= 1
                counts[0] += 1
                player[d] = p
                next_[d] = 0
            p, a = player[d], next_[d]
            p_next = 1.0
            if p == CHANCE:
                while a < num_outcomes and probs[d, a] <= 0.0:
                    a += 1
                next_[d] = a + 1
                if a == num_outcomes:
                    d -= 1
                    entered = 1
                    continue
                p_next = probs[d, a]
                action = a
            else:
                i = infoset[d]
                r = infoset_row[i]
                next_[d] = a + 1
                if a == row_first[r + 1] - row_first[r]:
                    d -= 1
                    entered = 1
                    continue
                action = row_action[row_first[r] + a]
            if d + 1 == len(state):
                return TOO_LONG
            state[d + 1] = state[d]
            apply_action(state[d + 1], action)
            for q in range(num_players):
                last[d + 1, q] = last[d, q]
                earned[d + 1, q] = 0.0
            rewards(state[d + 1], earned[d + 1])
            for q in range(num_players):
                earned[d + 1, q] += earned[d, q]
            chance[d + 1] = chance[d] * p_next
            if p != CHANCE:
                last[d + 1, p] = infoset_first[i] + a
            d += 1
            entered = 0
        return ENDED

    return walk


@cache
def _compile_play(num_players: int):
    @njit(nogil=True)
    def play(
        tape, depth, next_, entry, last, own, chance, infoset_player, infoset_first, odds, worth, reach, values, returns
    ):  # fmt: skip
        """Go on with a walk by the tape: what an evaluating `walk` does."""
        d = depth[0]
        for n in range(len(tape)):
            e = tape[n]
            if e < 0 and e & 1:
                z = (-1 - e) >> 1
                for q in range(num_players):
                    value = chance[d] * worth[z, q]
                    for k in range(num_players):
                        if k != q:
                            value *= own[d, k]
                    if last[d, q] >= 0:
                        values[last[d, q]] += value
                    returns[q] += value * own[d, q]
                d -= 1
            else:
                entry[d] = e
                next_[d] = 0
            while d >= 0:
                e, k = entry[d], next_[d]
                if e >= 0:
                    s = infoset_first[e] + k
                    if s < infoset_first[e + 1]:
                        for q in range(num_players):
                            last[d + 1, q] = last[d, q]
                            own[d + 1, q] = own[d, q]
                        last[d + 1, infoset_player[e]] = s
                        own[d + 1, infoset_player[e]] = reach[s]
                        chance[d + 1] = chance[d]
                        next_[d] = k + 1
                        d += 1
                        break
                else:
                    c = (-2 - e) >> 1
                    while k < odds.shape[1] and odds[c, k] <= 0.0:
                        k += 1
                    if k < odds.shape[1]:
                        for q in range(num_players):
                            last[d + 1, q] = last[d, q]
                            own[d + 1, q] = own[d, q]
                        chance[d + 1] = chance[d] * odds[c, k]
                        next_[d] = k + 1
                        d += 1
                        break
                d -= 1
        depth[0] = d

    return play


@njit
def _gather(probs, start, row_first, row_action, out):
    for i in range(len(probs)):
        for n in range(row_first[start + i], row_first[start + i + 1]):
            out[n] = probs[i, row_action[n]]


@njit
def _forward(probs, infoset_row, infoset_first, infoset_parent, row_first, num_infosets, reach):
    """reach [S]: the product of a player's own probabilities along each of its sequences."""
    for i in range(num_infosets):
        r = infoset_row[i]
        before = 1.0 if infoset_parent[i] < 0 else reach[infoset_parent[i]]
        for k in range(row_first[r + 1] - row_first[r]):
            reach[infoset_first[i] + k] = before * probs[row_first[r] + k]


@njit
def _backward(
    infoset_row,
    infoset_first,
    infoset_parent,
    row_first,
    num_infosets,
    infoset_player,
    row_action,
    values,
    best,
    action,
):
    """values [S] of what follows each sequence at once become those under best play; best [P], action [I]."""
    for i in range(num_infosets - 1, -1, -1):
        top = infoset_first[i]
        for s in range(top + 1, infoset_first[i + 1]):
            if values[s] > values[top]:
                top = s
        action[i] = row_action[row_first[infoset_row[i]] + top - infoset_first[i]]
        if infoset_parent[i] >= 0:
            values[infoset_parent[i]] += values[top]
        else:
            best[infoset_player[i]] += values[top]
