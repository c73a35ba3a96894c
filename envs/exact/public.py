"""Exact evaluation of games whose hands are dealt first and where all that follows is public.

Such a game is a tree of public positions; at each of them every hand of a player is an infoset. One walk over the
public positions carries the reach of all hands of both players down, and values of all hands up:

    v_p(z)[h] = sum over hands k of the other:  M_p(z)[h, k] * reach(z)[k]        at a finished game z

where M(z)[h, k] is what z is worth with hands h and k, times the probability that chance deals them and brings what
chance brought on the way to z. Games with equal payoffs and equal chance share one matrix. See Johanson et al. (2011),
Accelerating best response calculation in large extensive games, IJCAI.

Letters: N public positions in the order of the walk, H_p hands of player p, K matrices, C classes of chance's
outcomes, R rows, A actions, F the policy's numbers: for each position where a player moves, [legal actions, H_p].
"""

import time
from functools import cache

import numpy as np

from envs.exact.evaluation import Evaluation, FlatPolicy, Policy, answers
from envs.expansion import GameTooLargeError, longest, refuse_longer
from envs.game import CHANCE, TERMINAL, Game
from envs.jit import njit
from envs.structure import DealtThenPublic

PLAYS_CHANCE, ENDS = 2, 3  # kinds of public positions; 0 and 1: that player moves
ENDED, FULL, NEW_CHANCE, NEW_PAYOFF, TOO_LONG = 0, 1, 2, 3, 4  # how a walk came back
UNKNOWN = -1


class PublicEvaluator:
    """Exact evaluation over public positions and hands; see `envs.exact.evaluation.ExactEvaluator`.

    Args:
        game: a `Game` with `structure=DealtThenPublic(...)`.
        max_seconds: of preparation.
        max_bytes: refuse games that need more memory than this.

    Attributes:
        hands: [2] number of hands of each player.
        num_nodes: public positions, finished games included.

    Raises:
        ValueError: the game does not have that structure.
        GameTooLargeError: more seconds or bytes.
    """

    def __init__(self, game: Game, max_seconds: float = 60.0, max_bytes: int = 4 << 30):
        if not isinstance(game.structure, DealtThenPublic) or game.num_players != 2:
            raise ValueError(f"{game.name}: needs two players and structure=DealtThenPublic(...), see envs.structure")
        self.game, self._until, self._max_bytes = game, time.thread_time() + max_seconds, max_bytes
        self._deal()
        self._walk()
        self._number_rows()

    # The hands

    def _deal(self) -> None:
        """Find all ways to deal, and number each player's hands by what the player sees."""
        game = self.game
        deals, unfinished = [], [((), 1.0)]
        while unfinished:
            actions, probability = unfinished.pop()
            state = self._after(actions)
            if game.current_player(state[0]) != CHANCE:
                deals.append((actions, probability, state))
                continue
            self._check_size(len(deals) * (game.state_dtype.itemsize + 400))
            probs = np.zeros(game.num_chance_outcomes)
            game.chance_probs(state[0], probs)
            unfinished += [((*actions, int(a)), probability * probs[a]) for a in np.flatnonzero(probs)[::-1]]
        numbers: tuple[dict[bytes, int], dict[bytes, int]] = ({}, {})
        pairs = []
        for _, _, state in deals:
            seen = []
            for p in range(2):
                obs = np.zeros(game.obs_shape, game.obs_dtype)
                game.observe(state[0], p, obs)
                seen.append(numbers[p].setdefault(obs.tobytes(), len(numbers[p])))
            pairs.append(tuple(seen))
        self.hands = (len(numbers[0]), len(numbers[1]))
        self._dealt = np.zeros(self.hands, game.state_dtype)  # a history for each pair of hands
        self._weight = np.zeros(self.hands)  # its probability
        for (_, probability, state), pair in zip(deals, pairs):
            self._dealt[pair] = state[0]
            self._weight[pair] += probability

    def _after(self, actions: tuple[int, ...]) -> np.ndarray:
        state = self.game.new_state()
        for action in actions:
            self.game.apply_action(state[0], action)
        return state

    # The public positions

    def _walk(self) -> None:
        """All public positions, depth first; each by one history that leads there."""
        game = self.game
        walk, classes, tree = _compile_walk(game), _Classes(game, self._dealt, self._weight), _Tree()
        depth = longest(game) + 1
        state, path = np.zeros(depth, game.state_dtype), np.zeros(depth, np.int16)
        branch = np.zeros((depth, max(game.num_chance_outcomes, 1)), game.state_dtype)  # a history after each outcome
        branch_class = np.full(branch.shape, UNKNOWN, np.int32)
        at = np.zeros(2, np.int64)  # the level; whether it was entered already
        next_, node, chance = np.zeros(depth, np.int64), np.zeros(depth, np.int64), np.zeros(depth, np.int64)
        legal = np.zeros((depth, game.num_actions), np.bool_)
        state[0] = self._dealt[tuple(np.argwhere(self._weight > 0)[0])]
        payoff_class = game.structure.payoff_class
        while True:
            ended = walk(
                state, path, branch, branch_class, at, next_, node, chance, legal, classes.matrix_of,
                tree.sizes, tree.depth, tree.kind, tree.edge, tree.link, tree.parent, tree.action, tree.chance,
                tree.first_action, tree.actions, tree.actor,
            )  # fmt: skip
            if ended == ENDED:
                break
            d = int(at[0])
            if ended == TOO_LONG:
                refuse_longer(game)
            elif ended == FULL:
                tree.grow(game.num_actions)
            elif ended == NEW_CHANCE:
                classes.open_chance(int(chance[d]), path[:d], branch[d], branch_class[d])
                at[1] = 1
            else:
                classes.add_matrix(int(chance[d]), int(payoff_class(state[d])), path[:d])
            policy = 8 * int(tree.sizes[2]) * max(self.hands)
            self._check_size(tree.nbytes + classes.nbytes + policy)
        tree.trim()
        self._tree, self._classes = tree, classes
        self.num_nodes = len(tree.depth)
        to_one, to_zero = (np.array(m) for m in (classes.worth_0, classes.worth_1))
        self._matrices = np.ascontiguousarray(to_one.transpose(0, 2, 1)), to_zero

    def _check_size(self, size: int) -> None:
        late = time.thread_time() > self._until
        if late or size > self._max_bytes:
            what = "max_seconds" if late else f"max_bytes={self._max_bytes}"
            raise GameTooLargeError(f"{self.game.name}: {what} reached; too large for exact evaluation")

    def _number_rows(self) -> None:
        tree, weights = self._tree, np.array(self._classes.weights)
        hands = max(self.hands)
        self._partner = np.full((len(weights), 2, hands), UNKNOWN, np.int32)  # a hand of the other's that is possible
        for p in range(2):
            possible = (weights if p == 0 else weights.transpose(0, 2, 1)) > 0
            found = np.where(possible.any(axis=2), possible.argmax(axis=2), UNKNOWN)
            self._partner[:, p, : self.hands[p]] = found
        counts = (self._partner >= 0).sum(axis=2)[tree.chance, tree.actor]
        self._row_first = np.concatenate([[0], np.cumsum(counts)])
        self.num_rows = self.num_infosets = int(self._row_first[-1])
        held = np.array(self.hands)[tree.actor]
        self._probs_first = np.concatenate([[0], np.cumsum(np.diff(tree.first_action) * held)])
        self._hand_first = np.concatenate([[0], np.cumsum(held)])
        self._check_size(self.nbytes)

    @property
    def nbytes(self) -> int:
        """Memory of one evaluation and of what is kept."""
        return self._tree.nbytes + self._classes.nbytes + 8 * int(self._probs_first[-1]) + 40 * len(self._tree.actor)

    # What every evaluator answers

    def rows(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        game, tree = self.game, self._tree
        n = min(stop, self.num_rows) - start
        obs = np.zeros((n, *game.obs_shape), game.obs_dtype)
        legal, player = np.zeros((n, game.num_actions), np.bool_), np.empty(n, np.int8)
        same = _compile_rows(game)(
            start, self._row_first, tree.node, tree.parent, tree.action, tree.depth, tree.chance, tree.actor,
            tree.first_action, tree.actions, self._partner, self._dealt, obs, legal, player,
        )  # fmt: skip
        if not same:
            raise ValueError(f"{game.name}: legal actions depend on hands; structure=DealtThenPublic(...) is wrong")
        return obs, legal, player

    def flat(self, policy: Policy) -> FlatPolicy:
        if isinstance(policy, FlatPolicy):
            return policy
        tree, found = self._tree, np.zeros(self._probs_first[-1])
        for start, probs in answers(self, policy):
            _gather(
                probs, start, self._row_first, self._probs_first, tree.first_action, tree.actions, tree.chance,
                tree.actor, self._partner, np.array(self.hands), found,
            )  # fmt: skip
        return FlatPolicy(found)

    def evaluate(self, policy: Policy) -> Evaluation:
        returns, best, _ = self._respond(policy, np.zeros(0, np.int16))
        return Evaluation.of(self.game, returns, best)

    def best_actions(self, policy: Policy) -> np.ndarray:
        tree = self._tree
        _, _, chosen = self._respond(policy, np.zeros(self._hand_first[-1], np.int16))
        possible = self._partner[tree.chance, tree.actor] >= 0  # [positions, hands]
        held = np.arange(possible.shape[1]) < np.array(self.hands)[tree.actor][:, None]
        return chosen[possible[held]]

    def _respond(self, policy: Policy, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        tree, returns, best = self._tree, np.zeros(2), np.zeros(2)
        respond = _record if len(chosen) else _respond
        respond(
            tree.depth, tree.kind, tree.edge, tree.link, self._probs_first, self.flat(policy).probs, *self._matrices,
            longest(self.game) + 1, returns, best, self._hand_first, tree.first_action, tree.actions, chosen,
        )  # fmt: skip
        return returns, best, chosen


class _Classes:
    """What chance brought, told apart by how likely it is with each pair of hands; and matrices of payoffs."""

    def __init__(self, game: Game, dealt: np.ndarray, weight: np.ndarray):
        self.game, self.dealt = game, dealt
        self.weights, self._known = [weight], {weight.tobytes(): 0}
        self.worth_0: list[np.ndarray] = []  # [H_0, H_1] of player 0, by the probability of the hands and of chance
        self.worth_1: list[np.ndarray] = []
        self.matrix_of = np.full((1, 64), UNKNOWN, np.int32)  # [classes of chance, classes of payoffs]

    @property
    def nbytes(self) -> int:
        return (len(self.weights) + 4 * len(self.worth_0)) * self.weights[0].nbytes + self.matrix_of.nbytes

    def open_chance(self, chance: int, path: np.ndarray, branch: np.ndarray, branch_class: np.ndarray) -> None:
        """For each outcome after `path`: its class (UNKNOWN: impossible) and one history that goes on with it."""
        replay, weight = _compile_replay(self.game), self.weights[chance]
        states, _ = replay(self.dealt, path)
        probs = np.zeros((*weight.shape, self.game.num_chance_outcomes))
        for pair in np.argwhere(weight > 0):
            self.game.chance_probs(states[tuple(pair)], probs[tuple(pair)])
        for outcome in range(self.game.num_chance_outcomes):
            after = weight * probs[:, :, outcome]
            branch_class[outcome] = UNKNOWN
            if not after.any():
                continue
            branch_class[outcome] = self._known.setdefault(after.tobytes(), len(self.weights))
            if branch_class[outcome] == len(self.weights):
                self.weights.append(after)
                self.matrix_of = np.concatenate([self.matrix_of, np.full_like(self.matrix_of[:1], UNKNOWN)])
            branch[outcome] = states[tuple(np.argwhere(after > 0)[0])]
            self.game.apply_action(branch[outcome], outcome)

    def add_matrix(self, chance: int, payoff: int, path: np.ndarray) -> None:
        """What a finished game is worth whose payoffs and chance are of these classes; `path` leads to one."""
        if payoff < 0:
            raise ValueError(f"{self.game.name}: payoff_class={payoff} of a finished game; must not be negative")
        while payoff >= self.matrix_of.shape[1]:
            self.matrix_of = np.concatenate([self.matrix_of, np.full_like(self.matrix_of, UNKNOWN)], axis=1)
        _, earned = _compile_replay(self.game)(self.dealt, path)
        self.matrix_of[chance, payoff] = len(self.worth_0)
        self.worth_0.append(self.weights[chance] * earned[:, :, 0])
        self.worth_1.append(self.weights[chance] * earned[:, :, 1])


class _Tree:
    """Public positions in the order of the walk, [N] each; those where a player moves have numbers of their own."""

    def __init__(self):
        n = 1 << 12
        self.sizes = np.zeros(3, np.int64)  # positions, those where a player moves, actions of these
        self.depth, self.kind, self.edge = np.zeros(n, np.int16), np.zeros(n, np.int8), np.zeros(n, np.int16)
        self.link = np.zeros(n, np.int32)  # number of the position where a player moves, or of the matrix
        self.parent, self.action = np.zeros(n, np.int32), np.zeros(n, np.int16)
        self.chance, self.actor = np.zeros(n, np.int32), np.zeros(n, np.int8)  # where a player moves
        self.first_action, self.actions = np.zeros(n, np.int64), np.zeros(n, np.int16)

    @property
    def nbytes(self) -> int:
        return sum(a.nbytes for a in vars(self).values())

    def grow(self, spare: int) -> None:
        for sizes, names in (
            (self.sizes[0], ("depth", "kind", "edge", "link", "parent", "action")),
            (self.sizes[1] + 1, ("chance", "actor", "first_action")),
            (self.sizes[2] + spare, ("actions",)),
        ):
            for name in names:
                array = getattr(self, name)
                while sizes >= len(array):
                    array = np.concatenate([array, np.zeros_like(array)])
                setattr(self, name, array)

    def trim(self) -> None:
        nodes, moves, actions = self.sizes
        for name in ("depth", "kind", "edge", "link", "parent", "action"):
            setattr(self, name, getattr(self, name)[:nodes].copy())
        self.chance, self.actor = self.chance[:moves].copy(), self.actor[:moves].copy()
        self.first_action, self.actions = self.first_action[: moves + 1].copy(), self.actions[:actions].copy()
        self.node = np.flatnonzero(self.kind < PLAYS_CHANCE).astype(np.int32)  # of each number


@cache
def _compile_replay(game: Game):
    apply_action, rewards = game.apply_action, game.rewards

    @njit
    def replay(dealt, path):
        """The histories [H_0, H_1] that `path` leads to, and what they earned [H_0, H_1, 2]."""
        states, earned = dealt.copy(), np.zeros((*dealt.shape, 2))
        now = np.zeros(2)
        for h in range(dealt.shape[0]):
            for k in range(dealt.shape[1]):
                for i in range(len(path)):
                    apply_action(states[h, k], path[i])
                    now[:] = 0.0
                    rewards(states[h, k], now)
                    earned[h, k] += now
        return states, earned

    return replay


@cache
def _compile_walk(game: Game):
    current_player, legal_actions, apply_action = game.current_player, game.legal_actions, game.apply_action
    payoff_class, num_actions, num_outcomes = game.structure.payoff_class, game.num_actions, game.num_chance_outcomes

    @njit(nogil=True)
    def walk(
        state, path, branch, branch_class, at, next_, node, chance, legal, matrix_of, sizes, depth, kind, edge, link,
        parent, action, position_chance, first_action, actions, actor,
    ):  # fmt: skip
        d, entered = at[0], at[1]
        while d >= 0:
            if not entered:
                n, m = sizes[0], sizes[1]
                full = n >= len(depth) or m + 1 >= len(actor) or sizes[2] + num_actions >= len(actions)
                at[0], at[1] = d, 0
                if full:
                    return FULL
                p = current_player(state[d])
                if p == TERMINAL:
                    worth = payoff_class(state[d])
                    if worth < 0 or worth >= matrix_of.shape[1] or matrix_of[chance[d], worth] == UNKNOWN:
                        return NEW_PAYOFF
                    kind[n] = ENDS
                    link[n] = matrix_of[chance[d], worth]
                elif p == CHANCE:
                    kind[n] = PLAYS_CHANCE
                else:
                    kind[n] = p
                    link[n] = m
                    actor[m] = p
                    position_chance[m] = chance[d]
                    legal[d] = False
                    legal_actions(state[d], legal[d])
                    k = sizes[2]
                    for a in range(num_actions):
                        if legal[d, a]:
                            actions[k] = a
                            k += 1
                    sizes[2] = k
                    sizes[1] = m + 1
                    first_action[m + 1] = k
                depth[n] = d
                parent[n] = node[d - 1] if d > 0 else -1
                action[n] = path[d - 1] if d > 0 else -1
                edge[n] = 0
                if d > 0 and kind[node[d - 1]] < PLAYS_CHANCE:
                    edge[n] = next_[d - 1] - 1 - first_action[link[node[d - 1]]]
                node[d] = n
                sizes[0] = n + 1
                if kind[n] == ENDS:
                    d -= 1
                    entered = 1
                    continue
                next_[d] = 0 if p == CHANCE else first_action[m]
                entered = 1
                if p == CHANCE:
                    at[0], at[1] = d, 1
                    return NEW_CHANCE
            n = node[d]
            if kind[n] == PLAYS_CHANCE:
                a = next_[d]
                while a < num_outcomes and branch_class[d, a] == UNKNOWN:
                    a += 1
                next_[d] = a + 1
                if a == num_outcomes:
                    d -= 1
                    continue
                if d + 1 == len(state):
                    return TOO_LONG
                state[d + 1] = branch[d, a]
                chance[d + 1] = branch_class[d, a]
            else:
                k = next_[d]
                next_[d] = k + 1
                if k == first_action[link[n] + 1]:
                    d -= 1
                    continue
                if d + 1 == len(state):
                    return TOO_LONG
                a = actions[k]
                state[d + 1] = state[d]
                apply_action(state[d + 1], a)
                chance[d + 1] = chance[d]
            path[d] = a
            d += 1
            entered = 0
        return ENDED

    return walk


@cache
def _compile_rows(game: Game):
    legal_actions, apply_action, observe = game.legal_actions, game.apply_action, game.observe

    @njit(nogil=True)
    def rows(
        start, row_first, node, parent, action, depth, chance, actor, first_action, actions, partner, dealt, obs, legal,
        player,
    ):  # fmt: skip
        """Fill what is to be known of `len(obs)` rows; False where a history has other legal actions."""
        path, state = np.zeros(depth.max() + 1, np.int16), dealt[:1, 0].copy()
        allowed = np.zeros(legal.shape[1], np.bool_)
        m = np.searchsorted(row_first, start, side="right") - 1
        skip, i = start - row_first[m], 0
        while i < len(obs):
            p, n = actor[m], node[m]
            length, up = depth[n], n
            for d in range(length - 1, -1, -1):
                path[d] = action[up]
                up = parent[up]
            for h in range(dealt.shape[p]):
                other = partner[chance[m], p, h]
                if other < 0:
                    continue
                if skip > 0:
                    skip -= 1
                    continue
                if i == len(obs):
                    break
                state[0] = dealt[h, other] if p == 0 else dealt[other, h]
                for d in range(length):
                    apply_action(state[0], path[d])
                observe(state[0], p, obs[i])
                for k in range(first_action[m], first_action[m + 1]):
                    legal[i, actions[k]] = True
                allowed[:] = False
                legal_actions(state[0], allowed)
                for a in range(len(allowed)):
                    if allowed[a] != legal[i, a]:
                        return False
                player[i] = p
                i += 1
            m += 1
        return True

    return rows


@njit(nogil=True)
def _gather(probs, start, row_first, probs_first, first_action, actions, chance, actor, partner, hands, out):
    m = np.searchsorted(row_first, start, side="right") - 1
    skip, i = start - row_first[m], 0
    while i < len(probs):
        p = actor[m]
        for h in range(hands[p]):
            if partner[chance[m], p, h] < 0:
                continue
            if skip > 0:
                skip -= 1
                continue
            if i == len(probs):
                break
            for k in range(first_action[m + 1] - first_action[m]):
                out[probs_first[m] + k * hands[p] + h] = probs[i, actions[first_action[m] + k]]
            i += 1
        m += 1


def _make_respond(record: bool):
    @njit(nogil=True, error_model="numpy")
    def respond(
        depth, kind, edge, link, probs_first, probs, worth_0, worth_1, levels, returns, best, hand_first, first_action,
        actions, chosen,
    ):  # fmt: skip
        """worth_0 [K, H_1, H_0], worth_1 [K, H_0, H_1]: what is added up last lies together."""
        hands = (worth_1.shape[1], worth_1.shape[2])
        most = max(hands[0], hands[1])
        reach = np.ones((levels, 2, most))
        values = np.zeros((levels, 2, most))
        level = np.zeros((levels, 2), np.int64)  # where the reach of this level is kept
        here = np.zeros(levels, np.int64)  # position of each level
        now = -1
        for n in range(len(depth) + 1):
            d = depth[n] if n < len(depth) else 0
            while now >= max(d, 1):
                above = here[now - 1]
                for q in range(2):
                    if kind[above] == q:
                        if record:
                            m = link[above]
                            action = actions[first_action[m] + edge[here[now]]]
                            for h in range(hands[q]):
                                if values[now, q, h] > values[now - 1, q, h]:
                                    chosen[hand_first[m] + h] = action
                        for h in range(hands[q]):
                            values[now - 1, q, h] = max(values[now - 1, q, h], values[now, q, h])
                    else:
                        for h in range(hands[q]):
                            values[now - 1, q, h] += values[now, q, h]
                now -= 1
            if n == len(depth):
                break
            if d > 0:
                above = here[d - 1]
                level[d, 0] = level[d - 1, 0]
                level[d, 1] = level[d - 1, 1]
                if kind[above] < PLAYS_CHANCE:
                    p = kind[above]
                    block = probs_first[link[above]] + edge[n] * hands[p]
                    before, after = reach[level[d - 1, p], p], reach[d, p]
                    for h in range(hands[p]):
                        after[h] = before[h] * probs[block + h]
                    level[d, p] = d
            here[d] = n
            now = d
            if kind[n] == ENDS:
                mine, theirs = reach[level[d, 0], 0], reach[level[d, 1], 1]
                at_0, at_1 = values[d, 0], values[d, 1]
                for h in range(hands[0]):
                    at_0[h] = 0.0
                for h in range(hands[1]):
                    at_1[h] = 0.0
                for k in range(hands[1]):
                    weight, worth = theirs[k], worth_0[link[n], k]
                    for h in range(hands[0]):
                        at_0[h] += weight * worth[h]
                for k in range(hands[0]):
                    weight, worth = mine[k], worth_1[link[n], k]
                    for h in range(hands[1]):
                        at_1[h] += weight * worth[h]
                for h in range(hands[0]):
                    returns[0] += mine[h] * at_0[h]
                for h in range(hands[1]):
                    returns[1] += theirs[h] * at_1[h]
            else:
                for q in range(2):
                    start = -np.inf if kind[n] == q else 0.0
                    for h in range(hands[q]):
                        values[d, q, h] = start
        for q in range(2):
            for h in range(hands[q]):
                best[q] += values[0, q, h]

    return respond


_respond, _record = _make_respond(False), _make_respond(True)
