"""What every exact evaluator answers, and how it asks a policy: in chunks of infostates, each answer checked.

A policy is a table [R, A], or a function (obs [n, *D], legal [n, A]) -> probs [n, A], or what `flat` made of one of
these. Letters: R rows (distinct infostates), A actions, P players, F legal actions of all rows together.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from envs.game import Game
from envs.jit import njit

CHUNK = 65_536  # infostates that a policy is asked of at once


@dataclass(frozen=True)
class Evaluation:
    """What exact evaluation knows of one policy; all values in the game's reward units (chips)."""

    nash_conv: float
    exploitability: float  # nash_conv / num_players
    returns: np.ndarray  # [P] expected return when everybody plays the policy
    best_response_returns: np.ndarray  # [P] what each player could get against the others' policy

    def __str__(self) -> str:
        returns = " ".join(f"{r:+.4f}" for r in self.returns)
        return f"NashConv {self.nash_conv:.6f}   exploitability {self.exploitability:.6f}   returns {returns}"

    @classmethod
    def of(cls, game: Game, returns: np.ndarray, best: np.ndarray) -> "Evaluation":
        """Raises ArithmeticError: a value outside what the game allows, a defect of the game or of an evaluator."""
        nash_conv = float((best - returns).sum())
        limit = game.num_players * 2 * game.max_return
        if not -1e-9 <= nash_conv <= limit + 1e-9:
            raise ArithmeticError(f"{game.name}: NashConv={nash_conv} lies outside [0, {limit}]")
        return cls(max(nash_conv, 0.0), max(nash_conv, 0.0) / game.num_players, returns, best)


class FlatPolicy(NamedTuple):
    """A policy in the order of one evaluator, which alone can read it: asked once, used often."""

    probs: np.ndarray  # [F] float64


Policy = np.ndarray | Callable[[np.ndarray, np.ndarray], np.ndarray] | FlatPolicy


class ExactEvaluator(Protocol):
    """A game's exact evaluation, prepared once."""

    game: Game
    num_rows: int
    num_infosets: int  # at least as many as rows; more where obs forgets

    def rows(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """obs [n, *D], legal [n, A] and the player [n] who is to move at some rows, rebuilt each time."""
        ...

    def flat(self, policy: Policy) -> FlatPolicy:
        """The policy's probabilities of all legal actions.

        Raises:
            ValueError: wrong shape, not finite, negative, mass on an illegal action, or a row that does not sum to 1.
        """
        ...

    def evaluate(self, policy: Policy) -> Evaluation:
        """NashConv, exploitability and returns; raises as `flat`."""
        ...

    def best_actions(self, policy: Policy) -> np.ndarray:
        """[R] int16: each player's best response to the others' `policy`; the first of equally good actions.

        Raises:
            ValueError: as `flat`; or the game's obs forgets, so that a best response is no function of the row.
        """
        ...


def all_rows(evaluator: ExactEvaluator, chunk: int = CHUNK) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """obs [n, *D], legal [n, A] and player [n] of all rows, chunk by chunk."""
    for start in range(0, evaluator.num_rows, chunk):
        yield evaluator.rows(start, min(start + chunk, evaluator.num_rows))


def answers(
    evaluator: ExactEvaluator, policy: np.ndarray | Callable, chunk: int = CHUNK
) -> Iterator[tuple[int, np.ndarray]]:
    """(first row, probs [n, A] float64 that sum to 1) of one chunk of rows after another.

    Raises:
        ValueError: see `ExactEvaluator.flat`.
    """
    shape = (evaluator.num_rows, evaluator.game.num_actions)
    if not callable(policy):
        policy = np.asarray(policy)
        if policy.shape != shape:
            raise ValueError(f"policy must have shape {shape} (rows, actions), got {policy.shape}")
    for start in range(0, shape[0], chunk):
        stop = min(start + chunk, shape[0])
        obs, legal, _ = evaluator.rows(start, stop)
        probs = policy(obs, legal) if callable(policy) else policy[start:stop]
        yield start, checked(probs, legal, start)


def checked(probs: np.ndarray, legal: np.ndarray, start: int = 0) -> np.ndarray:
    """A float64 copy of `probs` [n, A] whose rows sum to 1; rows are numbered from `start` in messages.

    Raises:
        ValueError: see `ExactEvaluator.flat`.
    """
    found = np.array(probs, np.float64, order="C")
    if found.shape != legal.shape:
        raise ValueError(f"policy must have shape {legal.shape} (rows, actions), got {found.shape}")
    row, fault = _normalise(found, legal)
    if fault:
        why = ("", "is not finite", "has a negative probability", "has mass on an illegal action", "does not sum to 1")
        raise ValueError(
            f"policy row {start + row} {why[fault]}: probs={found[row].tolist()}, "
            f"legal actions {np.flatnonzero(legal[row]).tolist()}"
        )
    return found


@njit
def _normalise(probs, legal):
    for i in range(len(probs)):
        total, illegal = 0.0, 0.0
        for a in range(probs.shape[1]):
            p = probs[i, a]
            if not np.isfinite(p):
                return i, 1
            if p < 0.0:
                return i, 2
            total += p
            if not legal[i, a]:
                illegal += p
        if illegal > 1e-9:
            return i, 3
        if abs(total - 1.0) > 1e-5:
            return i, 4
        for a in range(probs.shape[1]):
            probs[i, a] = probs[i, a] / total
    return -1, 0
