"""Exact evaluation: a game's whole tree compiled once to flat arrays, then NashConv in microseconds.

    NashConv(pi) = sum over players p of  max over sigma of u_p(sigma, pi_-p)  -  u_p(pi)
    exploitability = NashConv / P

A policy is a table [R, A]: one row per distinct infostate (`tree.obs`, `tree.legal`, `tree.row_player`), one column per
action. Evaluation runs in the sequence form (von Stengel 1996): reach probabilities once down, values once up, both
over arrays in topological order. Best responders have perfect recall even where `obs` forgets (tic-tac-toe), because
an infoset here is the pair (what the player saw and did before, the row it sees now). `unfolded` is the same tree with
a row for each infoset: there a policy that remembers is a table, too.

Letters: R rows, I infosets, S = P + I * A sequences, Z terminal histories, P players, A actions.
"""

import copy
import math
from collections.abc import Iterable, Sequence
from functools import cached_property

import numpy as np

from envs.exact.evaluation import Evaluation, FlatPolicy, Policy, answers
from envs.expansion import Level, compile_expansion, expand, first_paths, refuse_if_too_large
from envs.game import TERMINAL, Game
from envs.jit import njit


class GameTree:
    """The tree of `game` as flat arrays; build once, evaluate many policies.

    A tree that a few random games show to be far too large is refused before it is expanded: see `envs.expansion`. A
    tree of at most `max_nodes` histories is wrongly refused so with probability below 1 % (over the games' seed).

    Args:
        game: any `Game` whose chance and action sequences can be enumerated.
        max_nodes: refuse larger trees.

    Attributes:
        obs: [R, *D], legal: [R, A] bool, row_player: [R] int8: the infostates, in order of first appearance.
        player, state: `row_player`, and [R] of `game.state_dtype` where one history stands that looks like the row:
            with them the tree can be handed to players as an env is.
        num_infosets: I; equals R where `game.perfect_recall`.
        num_nodes, num_terminals: sizes of the tree of histories.

    Raises:
        GameTooLargeError: more than `max_nodes` histories.
        ValueError: two histories with the same infostate have different legal actions.
    """

    def __init__(self, game: Game, max_nodes: int = 2_000_000):
        self.game = game
        refuse_if_too_large(game, max_nodes)
        levels = expand(game)
        self.num_nodes = sum(len(level.player) for level in levels)
        row_of_node = self._collect_rows(levels)
        self._collect_sequences(levels, row_of_node)
        self._paths = first_paths(levels, row_of_node, len(self.legal))

    @cached_property
    def unfolded(self) -> "GameTree":
        """The same tree with one row for each infoset, in an order in which own pasts come first."""
        tree, row = copy.copy(self), self._infoset_row
        tree.__dict__.pop("state", None)
        tree.__dict__["unfolded"] = tree
        tree.obs, tree.legal, tree.row_player = self.obs[row], self.legal[row], self.row_player[row]
        tree._infoset_row = np.arange(len(row))
        if self.num_infosets == self.num_rows:
            tree._paths = self._paths[row]
        else:
            levels = expand(self.game)
            infosets = tree._collect_sequences(levels, self._collect_rows(levels))
            tree._infoset_row = np.arange(len(row))
            tree._paths = first_paths(levels, infosets, len(row))
        return tree

    @property
    def before(self) -> np.ndarray:
        """[I] int64: the infoset at which the same player decided last, -1 where it had not yet; rows of `unfolded`."""
        return np.maximum(self._infoset_parent - self.game.num_players, -1) // self.game.num_actions

    @property
    def player(self) -> np.ndarray:
        return self.row_player

    @cached_property
    def state(self) -> np.ndarray:
        states = np.repeat(self.game.new_state(), self.num_rows)
        _, descend = compile_expansion(self.game)
        for actions in self._paths.T:
            going = np.flatnonzero(actions >= 0)
            moved = states[going]
            descend(moved, actions[going], np.zeros((len(going), self.game.num_players)))
            states[going] = moved
        return states

    @property
    def num_rows(self) -> int:
        return len(self.legal)

    @property
    def num_infosets(self) -> int:
        return len(self._infoset_row)

    @property
    def num_terminals(self) -> int:
        return len(self._terminal_prob)

    def _collect_rows(self, levels: list[Level]) -> list[np.ndarray]:
        """Find the distinct (player, obs) pairs; return for each level its nodes' row (-1: not a decision)."""
        decides = [level.player >= 0 for level in levels]
        player = np.concatenate([level.player[d] for level, d in zip(levels, decides, strict=True)])
        obs = np.concatenate([level.obs[d] for level, d in zip(levels, decides, strict=True)])
        legal = np.concatenate([level.legal[d] for level, d in zip(levels, decides, strict=True)])
        key = np.concatenate([player[:, None].view(np.uint8), obs.reshape(len(obs), -1).view(np.uint8)], axis=1)
        key = np.ascontiguousarray(key).view(np.dtype((np.void, key.shape[1])))[:, 0]
        _, first, inverse = np.unique(key, return_index=True, return_inverse=True)
        order = np.argsort(first)
        row = np.empty(len(order), np.int64)
        row[order] = np.arange(len(order))
        row = row[inverse]
        first = first[order]
        self.obs, self.legal, self.row_player = obs[first], legal[first], player[first]
        clash = (self.legal[row] != legal).any(axis=1)
        if clash.any():
            raise ValueError(
                f"{self.game.name}: an infostate of player {player[clash][0]} has different legal actions in two "
                f"histories; obs={obs[clash][0].tolist()}"
            )
        rows_of_level, start = [], 0
        for d in decides:
            rows = np.full(len(d), -1)
            rows[d] = row[start : start + d.sum()]
            start += d.sum()
            rows_of_level.append(rows)
        return rows_of_level

    def _collect_sequences(self, levels: list[Level], row_of_node: list[np.ndarray]) -> list[np.ndarray]:
        """Number infosets and sequences; sequence p is player p's empty one, P + I * A + a is action a at infoset I.

        Returns for each level its nodes' infoset (-1: not a decision).
        """
        num_players, num_actions = self.game.num_players, self.game.num_actions
        infoset_of: dict[tuple[int, int], int] = {}
        infoset_row, infoset_parent, infosets = [], [], []
        terminal_seq, terminal_prob, terminal_returns = [], [], []
        last_seq, prob, infoset = np.arange(num_players)[None], np.ones(1), np.empty(0, np.int64)
        for depth, (level, row) in enumerate(zip(levels, row_of_node, strict=True)):
            if depth > 0:
                parent, action = level.parent, level.action
                last_seq, prob = last_seq[parent], prob[parent] * level.edge_prob
                mover = levels[depth - 1].player[parent]
                by_player = np.flatnonzero(mover >= 0)
                sequence = num_players + infoset[parent] * num_actions + action
                last_seq[by_player, mover[by_player]] = sequence[by_player]
            infoset = np.full(len(row), -1)
            nodes = np.flatnonzero(row >= 0)
            own_seq = last_seq[nodes, level.player[nodes]]
            pairs, inverse = np.unique(np.stack([own_seq, row[nodes]], axis=1), axis=0, return_inverse=True)
            ids = []
            for seq, r in pairs.tolist():
                if (seq, r) not in infoset_of:
                    infoset_of[seq, r] = len(infoset_row)
                    infoset_row.append(r)
                    infoset_parent.append(seq)
                ids.append(infoset_of[seq, r])
            infoset[nodes] = np.array(ids, np.int64)[inverse.reshape(-1)]
            infosets.append(infoset)
            ends = level.player == TERMINAL
            terminal_seq.append(last_seq[ends])
            terminal_prob.append(prob[ends])
            terminal_returns.append(level.returns[ends])
        self._infoset_row = np.array(infoset_row, np.int64)
        self._infoset_parent = np.array(infoset_parent, np.int64)
        self._terminal_seq = np.concatenate(terminal_seq)
        self._terminal_prob = np.concatenate(terminal_prob)
        self._terminal_returns = np.concatenate(terminal_returns)
        return infosets

    def uniform_policy(self) -> np.ndarray:
        """All legal actions equally likely: [R, A] float64."""
        return self.legal / self.legal.sum(axis=1, keepdims=True)

    def first_action_policy(self) -> np.ndarray:
        """Always the legal action with the smallest id: [R, A] float64."""
        return np.eye(self.game.num_actions)[self.legal.argmax(axis=1)]

    def rows(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """obs, legal and player of some rows: views."""
        return self.obs[start:stop], self.legal[start:stop], self.row_player[start:stop]

    def flat(self, policy: Policy) -> FlatPolicy:
        """Here the table itself, checked; see `envs.exact.evaluation.ExactEvaluator`."""
        if isinstance(policy, FlatPolicy):
            return policy
        return FlatPolicy(np.concatenate([probs for _, probs in answers(self, policy)]))

    def evaluate(self, policy: Policy) -> Evaluation:
        """NashConv, exploitability and returns of `policy`; see `envs.exact.evaluation.ExactEvaluator`."""
        returns, values, _ = self._best_response(self.flat(policy).probs)
        return Evaluation.of(self.game, returns, values[: self.game.num_players].copy())

    def best_actions(self, policy: Policy) -> np.ndarray:
        """[R] int16; see `envs.exact.evaluation.ExactEvaluator`."""
        self._needs_one_infoset_per_row("a best response")
        _, _, action = self._best_response(self.flat(policy).probs)
        found = np.empty(self.num_rows, np.int16)
        found[self._infoset_row] = action
        return found

    def best_response(self, policy: Policy) -> np.ndarray:
        """`best_actions` as a deterministic table [R, A]."""
        return np.eye(self.game.num_actions)[self.best_actions(policy)]

    def cfr_plus(self, iterations: int) -> np.ndarray:
        """The linearly weighted average policy [R, A] after `iterations` of tabular CFR+ (Tammelin 2014).

        Alternating updates, regret matching+; for two-player zero-sum games. The yardstick for sampled methods.

        Raises:
            ValueError: iterations < 1, or obs forgets.
        """
        if iterations < 1:
            raise ValueError(f"iterations={iterations}: needs at least one")
        self._needs_one_infoset_per_row("cfr_plus")
        average = _cfr_plus(iterations, self.game.num_players, self.row_player[self._infoset_row], *self._arrays())
        total = average.sum(axis=1, keepdims=True)
        policy = np.zeros(self.legal.shape)
        policy[self._infoset_row] = np.divide(average, total, where=total > 0, out=np.zeros_like(average))
        return np.where(policy.sum(axis=1, keepdims=True) > 0, policy, self.uniform_policy())

    def average(self, policies: Iterable[Policy], weights: Sequence[float] | None = None) -> np.ndarray:
        """The policy [R, A] of players who each draw one of `policies` before a game, by `weights`, and play it:

            pi(a|s) = sum over k of w_k reach_k(s) pi_k(a|s) / sum over k of w_k reach_k(s)

        with reach_k(s) the product of the mover's own probabilities on the way to s (Kuhn 1953). Against whatever the
        others play, a player's return is the weighted mean of what the policies return.

        Raises:
            ValueError: obs forgets, or there are not as many weights, all of them at least 0, as policies.
        """
        self._needs_one_infoset_per_row("average")
        tables = [self.flat(policy).probs for policy in policies]
        weights = [1.0] * len(tables) if weights is None else list(weights)
        if not tables or len(weights) != len(tables) or min(weights) < 0 or sum(weights) == 0:
            raise ValueError(f"weights={weights}: needs one for each of {len(tables)} policies, >= 0 and not all 0")
        total = np.zeros(self.legal.shape)
        for table, weight in zip(tables, weights):
            reach = _reach(table, self._infoset_row, self._infoset_parent, self.game.num_players)
            total[self._infoset_row] += weight * reach[self._infoset_parent, None] * table[self._infoset_row]
        reached = total.sum(axis=1, keepdims=True)
        return np.where(reached > 0, total / np.where(reached > 0, reached, 1.0), self.uniform_policy())

    def quantal_response(self, temperature: float, tolerance: float = 1e-6, max_iterations: int = 50_000) -> np.ndarray:
        """The agent quantal response equilibrium [R, A] at so many reward units per nat (McKelvey and Palfrey 1998):

            pi(.|s) = softmax(q(s, .) / temperature),     q(s, a) the mean return of a at s while everybody plays pi

        Self-play with that entropy coefficient rests there, if it rests, however long it runs and whatever it learns
        with. Found by magnetic mirror descent from the uniform policy with full feedback (Sokota et al. 2023, arXiv
        2206.05825), made optimistic; half the step where it does not settle.

        Raises:
            ValueError: temperature <= 0, or obs forgets.
            ArithmeticError: some probability still differs from the softmax by more than `tolerance`.
        """
        if not 0 < temperature < np.inf:
            raise ValueError(f"temperature={temperature}: must be positive and finite")
        self._needs_one_infoset_per_row("quantal_response")
        for halvings in range(6):
            step = 0.5**halvings / self.game.max_return
            policy, error = _quantal_response(
                temperature, step, tolerance, max_iterations, self.game.num_players, *self._arrays()
            )
            if error <= tolerance:
                return policy
        raise ArithmeticError(
            f"{self.game.name}: temperature={temperature}: not settled after {max_iterations} iterations, the last "
            f"error is {error:.2g}; allow more iterations or a higher temperature"
        )

    def _arrays(self):
        return (
            self.legal, self._infoset_row, self._infoset_parent,
            self._terminal_seq, self._terminal_prob, self._terminal_returns,
        )  # fmt: skip

    def _best_response(self, policy):
        return _best_response(policy, *self._arrays())

    def _needs_one_infoset_per_row(self, what: str) -> None:
        if self.num_infosets != self.num_rows:
            raise ValueError(
                f"{what} of {self.game.name}: {self.num_infosets} infosets share {self.num_rows} observations, so the "
                "result is not a table over observations; this needs a game with perfect_recall=True"
            )


@njit
def _reach(policy, infoset_row, infoset_parent, num_players):
    """Realisation plan [S]: the product of a player's own probabilities along each of its sequences."""
    num_infosets, num_actions = len(infoset_row), policy.shape[1]
    reach = np.empty(num_players + num_infosets * num_actions)
    reach[:num_players] = 1.0
    for i in range(num_infosets):
        for a in range(num_actions):
            reach[num_players + i * num_actions + a] = reach[infoset_parent[i]] * policy[infoset_row[i], a]
    return reach


@njit
def _best_response(policy, legal, infoset_row, infoset_parent, terminal_seq, terminal_prob, terminal_returns):
    """Returns [P] under `policy`, values [S] of each sequence under best play, best action [I]."""
    num_players, num_actions, num_infosets = terminal_seq.shape[1], policy.shape[1], len(infoset_row)
    reach = _reach(policy, infoset_row, infoset_parent, num_players)
    values = np.zeros(len(reach))
    returns = np.zeros(num_players)
    for z in range(len(terminal_prob)):
        for p in range(num_players):
            others = terminal_prob[z]
            for q in range(num_players):
                if q != p:
                    others *= reach[terminal_seq[z, q]]
            value = others * terminal_returns[z, p]
            values[terminal_seq[z, p]] += value
            returns[p] += value * reach[terminal_seq[z, p]]
    best = np.empty(num_infosets, np.int64)
    for i in range(num_infosets - 1, -1, -1):
        best[i] = -1
        for a in range(num_actions):
            value = values[num_players + i * num_actions + a]
            if legal[infoset_row[i], a] and (best[i] < 0 or value > values[num_players + i * num_actions + best[i]]):
                best[i] = a
        values[infoset_parent[i]] += values[num_players + i * num_actions + best[i]]
    return returns, values, best


@njit
def _cfr_plus(
    iterations, num_players, infoset_player, legal, infoset_row, infoset_parent, terminal_seq, terminal_prob,
    terminal_returns,
):  # fmt: skip
    num_infosets, num_actions = len(infoset_row), legal.shape[1]
    regrets = np.zeros((num_infosets, num_actions))
    average = np.zeros((num_infosets, num_actions))
    policy = np.zeros(legal.shape)
    for i in range(num_infosets):
        policy[infoset_row[i]] = legal[infoset_row[i]] / legal[infoset_row[i]].sum()
    for t in range(1, iterations + 1):
        for p in range(num_players):
            reach = _reach(policy, infoset_row, infoset_parent, num_players)
            values = np.zeros(len(reach))
            for z in range(len(terminal_prob)):
                others = terminal_prob[z]
                for q in range(num_players):
                    if q != p:
                        others *= reach[terminal_seq[z, q]]
                values[terminal_seq[z, p]] += others * terminal_returns[z, p]
            for i in range(num_infosets - 1, -1, -1):
                if infoset_player[i] != p:
                    continue
                row, first = infoset_row[i], num_players + i * num_actions
                mean = 0.0
                for a in range(num_actions):
                    mean += policy[row, a] * values[first + a]
                    average[i, a] += t * reach[infoset_parent[i]] * policy[row, a]
                values[infoset_parent[i]] += mean
                total = 0.0
                for a in range(num_actions):
                    if legal[row, a]:
                        regrets[i, a] = max(regrets[i, a] + values[first + a] - mean, 0.0)
                        total += regrets[i, a]
                for a in range(num_actions):
                    if total > 0.0:
                        policy[row, a] = regrets[i, a] / total
                    else:
                        policy[row, a] = legal[row, a] / legal[row].sum()
    return average


@njit
def _quantal_response(
    temperature, step, tolerance, max_iterations, num_players, legal, infoset_row, infoset_parent, terminal_seq,
    terminal_prob, terminal_returns,
):  # fmt: skip
    """Policy [R, A], and the most that a probability differs from the softmax of the policy's own values."""
    num_infosets, num_actions = len(infoset_row), legal.shape[1]
    logits, before, q = np.zeros(legal.shape), np.zeros(legal.shape), np.zeros(num_actions)
    policy, error = legal / legal.sum(1).reshape(-1, 1), np.inf
    for _ in range(max_iterations):
        reach = _reach(policy, infoset_row, infoset_parent, num_players)
        values, others_reach = np.zeros(len(reach)), np.zeros(len(reach))
        for z in range(len(terminal_prob)):
            for p in range(num_players):
                others = terminal_prob[z]
                for other in range(num_players):
                    if other != p:
                        others *= reach[terminal_seq[z, other]]
                values[terminal_seq[z, p]] += others * terminal_returns[z, p]
                others_reach[terminal_seq[z, p]] += others
        error = 0.0
        for i in range(num_infosets - 1, -1, -1):
            row, first = infoset_row[i], num_players + i * num_actions
            for a in range(num_actions):
                if legal[row, a]:
                    q[a] = values[first + a] / others_reach[first + a]
                    values[infoset_parent[i]] += policy[row, a] * values[first + a]
                    others_reach[infoset_parent[i]] += policy[row, a] * others_reach[first + a]
            response = _softmax(q / temperature, legal[row])
            error = max(error, np.abs(response - policy[row]).max())
            for a in range(num_actions):
                if legal[row, a]:
                    ahead = 2.0 * q[a] - before[row, a]
                    logits[row, a] = (logits[row, a] + step * ahead) / (1.0 + step * temperature)
                    before[row, a] = q[a]
            policy[row] = _softmax(logits[row], legal[row])
        if error <= tolerance:
            break
    return policy, error


@njit
def _softmax(logits, legal):
    largest = -np.inf
    for a in range(len(logits)):
        if legal[a]:
            largest = max(largest, logits[a])
    probs = np.zeros(len(logits))
    for a in range(len(logits)):
        if legal[a]:
            probs[a] = math.exp(logits[a] - largest)
    return probs / probs.sum()
