"""What a game is: sizes, one named state record and a handful of scalar `@njit` functions over it.

A game is written once, as rules, and everything else is compiled around it: the vectorized driver
(`envs.vector_env`), the contract test (`envs.contract`) and the exact solver (`envs.exact`).
Chance is a player: the driver samples it, the solver enumerates it, and a game record is a list of integers.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

CHANCE, TERMINAL = -1, -4  # player ids, as in OpenSpiel


class Betting(NamedTuple):
    """What N infostates of a game of bets say to everybody, as shares that mean the same in large and small games."""

    round: np.ndarray  # [N] int64, from 0
    pot: np.ndarray  # [N] float64, of the largest pot that this game can have
    stack: np.ndarray  # [N] float64, of what the player who observes began with, still in hand


@dataclass(frozen=True)
class Game:
    """Rules as scalar `@njit` functions over one record `state`, with the sizes a learner has to know.

    Letters: A = `num_actions`, P = `num_players`, D = `obs_shape`, C = `num_chance_outcomes`.
    Buffers handed to the functions (`legal`, `probs`, `out`, `obs`) arrive zeroed; a function writes what is not zero.
    No rewards are earned before the first decision. `envs.contract.check_game` tests all of this.
    """

    name: str
    version: str  # a learning curve is comparable only for one version of the rules
    num_players: int
    num_actions: int
    num_chance_outcomes: int  # 0: no chance in this game
    max_steps: int  # longest game, counted in actions of players and chance together
    obs_shape: tuple[int, ...]
    obs_dtype: np.dtype
    state_dtype: np.dtype  # a structured dtype; `state.tobytes()` is a save game
    max_return: float  # no player ever stands at more than this in one game, nor at less than minus this

    init: Callable  # (state) -> None: begins a game, also over the remains of another
    current_player: Callable  # (state) -> int: 0..P-1, CHANCE or TERMINAL
    legal_actions: Callable  # (state, legal [A] bool) -> None: of the player to move
    chance_probs: Callable  # (state, probs [C] float64) -> None: sums to 1 at a chance node
    apply_action: Callable  # (state, action) -> None: players' and chance's actions alike
    rewards: Callable  # (state, out [P] float64) -> None: earned by the last action
    observe: Callable  # (state, player, obs [*D]) -> None: that player's infostate
    render: Callable[[np.record], str]  # ordinary Python: one position as text
    action_names: tuple[str, ...] = ()
    hidden_from: Callable | None = None  # (state, player) -> bool: player will not see the action taken here
    betting: Callable[[np.ndarray], Betting] | None = None  # (obs [N, *D]): ordinary numpy; None: nobody bets here

    zero_sum: bool = True
    perfect_recall: bool = True  # obs tells a player everything it has seen and done
    perfect_information: bool = False  # nothing is hidden from anybody

    def new_state(self) -> np.ndarray:
        """One fresh state: a structured array of shape [1]; element 0 is the record."""
        state = np.zeros(1, self.state_dtype)
        self.init(state[0])
        return state


def load_game(path: str) -> Game:
    """Import the module `path` and return its `GAME`, so that an import path is the whole registry.

    Raises:
        ValueError: no such module, or the module defines no `GAME` of type `Game`.
    """
    try:
        module = importlib.import_module(path)
    except ModuleNotFoundError as error:
        if error.name is None or not (path == error.name or path.startswith(error.name + ".")):
            raise  # the game exists, and something it imports does not
        raise ValueError(
            f"game={path!r}: no such module; give an import path such as 'envs.leduc_poker', "
            "or a module of yours that lies in the current folder"
        ) from None
    game = getattr(module, "GAME", None)
    if not isinstance(game, Game):
        raise ValueError(f"game={path!r}: the module defines no GAME = Game(...); see envs/kuhn_poker.py")
    return game
