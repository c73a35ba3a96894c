"""What a game may declare of its tree, so that exact evaluation need not walk it: `Game.structure`.

Both are for two players, and neither is needed: a game without one is evaluated by its tree.
"""

from collections.abc import Callable
from dataclasses import dataclass

from envs.jit import kept


@dataclass(frozen=True)
class DealtThenPublic:
    """Hands are dealt first; whatever happens later is seen by both, and who may do what does not depend on hands.

    `payoff_class` numbers finished games from 0: two that have the same number and the same hands are worth the same.
    Hands may decide how likely chance's later outcomes are (no card lies twice).
    """

    payoff_class: Callable  # @njit (state) -> int, of a finished game

    def __post_init__(self) -> None:
        kept(self.payoff_class)


@dataclass(frozen=True)
class PhantomBoard:
    """Two players put stones on a board in turn and see their own only; an attempt on a taken cell shows the stone.

    Who completes a winning set of stones wins 1; a full board without one is a draw. See `envs.phantom_board`.
    """

    wins: tuple[tuple[bool, ...], tuple[bool, ...]]  # [2][2 ** cells]: of each player, does this set of stones win
    abrupt: bool  # a failed attempt costs the turn; else the player tries again

    @property
    def num_cells(self) -> int:
        return len(self.wins[0]).bit_length() - 1
