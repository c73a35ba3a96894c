"""What a game is: sizes, one named state record and a handful of scalar `@njit` functions over it.

A game is written once, as rules, and everything else is compiled around it: the vectorized driver
(`envs.vector_env`), the contract test (`envs.contract`) and the exact solver (`envs.exact`).
Chance is a player: the driver samples it, the solver enumerates it, and a game record is a list of integers.
Who only learns or plays needs the sizes and names alone: `Interface`, which a simulator has, too.
"""

import importlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import NamedTuple, TypeVar

import numpy as np

from envs.jit import kept
from envs.structure import DealtThenPublic, PhantomBoard

CHANCE, TERMINAL = -1, -4  # player ids, as in OpenSpiel
Array = TypeVar("Array")  # of numpy or torch


class Part(NamedTuple):
    """A named part of a flat obs: as many numbers as `shape` has places, from `start` on."""

    start: int
    shape: tuple[int, ...]

    @property
    def stop(self) -> int:
        return self.start + math.prod(self.shape)


@dataclass(frozen=True, kw_only=True)
class Interface:
    """Sizes and names: all of a game that learners, players and leagues know.

    Letters: A = `num_actions`, P = `num_players`, D = `obs_shape`.
    """

    name: str
    version: str  # a learning curve is comparable only for one version of the rules
    num_players: int
    num_actions: int
    obs_shape: tuple[int, ...]
    obs_dtype: np.dtype
    max_return: float  # no player ever stands at more than this in one game, nor at less than minus this
    action_names: tuple[str, ...] = ()
    zero_sum: bool = True
    perfect_recall: bool = True  # obs tells a player everything it has seen and done
    perfect_information: bool = False  # nothing is hidden from anybody
    bonus_zero_sum: bool = False  # bonuses, where there are any, sum to 0 too
    teams: tuple[int, ...] = ()  # the team of each player, numbered from 0; (): everybody plays alone
    roles: tuple[int, ...] = ()  # what each player is for, numbered from 0, where players differ; (): all are alike
    obs_parts: Mapping[str, Part] = field(default_factory=dict, hash=False)  # of a flat obs; see `parts`

    @property
    def team(self) -> tuple[int, ...]:
        """[P] the team of each player, also where everybody plays alone."""
        return self.teams or tuple(range(self.num_players))

    @property
    def num_teams(self) -> int:
        return max(self.team) + 1


@dataclass(frozen=True, kw_only=True)
class Game(Interface):
    """Rules as scalar `@njit` functions over one record `state`, with the sizes a learner has to know.

    Letters as in `Interface`; C = `num_chance_outcomes`.
    Buffers handed to the functions (`legal`, `probs`, `out`, `obs`) arrive zeroed; a function writes what is not zero.
    No rewards are earned before the first decision. `envs.contract.check_game` tests all of this.

    `names_of` is for games where what players call an action depends on the position. They see the first name, and may
    type any.

    `redact` is for players written by hand that want the state itself: what is left of the record is a function of the
    player's obs, wherever that player is to move. `bonus` is seen by learning alone, if at all: what a game is worth,
    who won it and how players rate is told by `rewards`.
    """

    num_chance_outcomes: int  # 0: no chance in this game
    chance_names: tuple[str, ...] = ()  # [C] of its outcomes, if they have names
    max_steps: int  # longest game, counted in actions of players and chance together
    state_dtype: np.dtype  # structured; arrays in it of int8, not of bool, for numba; `state.tobytes()` is a save game

    init: Callable  # (state) -> None: begins a game, also over the remains of another
    current_player: Callable  # (state) -> int: 0..P-1, CHANCE or TERMINAL
    legal_actions: Callable  # (state, legal [A] bool) -> None: of the player to move
    chance_probs: Callable  # (state, probs [C] float64) -> None: sums to 1 at a chance node
    apply_action: Callable  # (state, action) -> None: players' and chance's actions alike
    rewards: Callable  # (state, out [P] float64) -> None: earned by the last action
    observe: Callable  # (state, player, obs [*D]) -> None: that player's infostate
    render: Callable[[np.record], str]  # ordinary Python: one position as text
    hidden_from: Callable | None = None  # (state, player) -> bool: player never sees the action taken here, nor later
    redact: Callable | None = None  # (state, player) -> None: erases what player, who is to move, may not know
    bonus: Callable | None = None  # (state, out [P] float64) -> None: earned by the last action besides, for learning
    out: Callable | None = None  # (state, player) -> bool: will not decide again in this game; worth 0 from here on
    names_of: Callable[[np.record, int], tuple[str, ...]] | None = None  # ordinary Python: of a legal action
    structure: DealtThenPublic | PhantomBoard | None = None  # lets exact evaluation be fast, see `envs.structure`

    def __post_init__(self) -> None:
        for each in fields(self):
            kept(getattr(self, each.name))

    def new_state(self) -> np.ndarray:
        """One fresh state: a structured array of shape [1]; element 0 is the record."""
        state = np.zeros(1, self.state_dtype)
        self.init(state[0])
        return state


def parts(game: Interface, obs: Array) -> dict[str, Array]:
    """The named parts of `obs` [..., D], of numpy or torch: views [..., *shape] by name, nothing is copied."""
    ahead = tuple(obs.shape[:-1])
    return {name: obs[..., part.start : part.stop].reshape(ahead + part.shape) for name, part in game.obs_parts.items()}


def action_names(game: Interface, state: np.record, action: int) -> tuple[str, ...]:
    """What players call an action that is legal in `state`; its number where it has no name."""
    names_of = getattr(game, "names_of", None)  # an `Interface` has none
    if names_of is not None:
        return names_of(state, action)
    return (game.action_names[action] if game.action_names else str(action),)


def load_game(path: str) -> Game:
    """Import the module `path` and return its `GAME`, so that an import path is the whole registry.

    Raises:
        ValueError: no such module, one that is no Python, or one that defines no `GAME` of type `Game`; or the game is
            one of OpenSpiel's.
    """
    if path.startswith("openspiel:"):
        raise ValueError(
            f"game={path!r}: its rules are OpenSpiel's, and this needs a game whose rules are written here"
        )
    module = _import(path)
    game = getattr(module, "GAME", None)
    if isinstance(getattr(module, "INTERFACE", None), Interface):
        raise ValueError(f"game={path!r}: its rules are a simulator's, and this needs rules that are written here")
    if not isinstance(game, Game):
        raise ValueError(f"game={path!r}: the module defines no GAME = Game(...); see envs/kuhn_poker.py")
    return game


def load_interface(path: str) -> Interface:
    """Import the module `path` and return its `GAME`, or the `INTERFACE` of a game whose rules are not written here.

    `openspiel:<name>` is a game of OpenSpiel, see `envs.openspiel`.

    Raises:
        ValueError: no such module, one that is no Python, or one that defines neither.
    """
    if path.startswith("openspiel:"):
        try:
            return importlib.import_module("envs.openspiel").interface(path.removeprefix("openspiel:"))
        except ModuleNotFoundError as error:
            raise ValueError(f"game={path!r}: {error}") from None
    module = _import(path)
    for name in ("GAME", "INTERFACE"):
        interface = getattr(module, name, None)
        if isinstance(interface, Interface):
            return interface
    raise ValueError(f"game={path!r}: the module defines neither GAME = Game(...) nor INTERFACE = Interface(...)")


def _import(path: str):
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError as error:
        if error.name is None or not (path == error.name or path.startswith(error.name + ".")):
            raise  # the game exists, and something it imports does not
        raise ValueError(
            f"game={path!r}: no such module; give an import path such as 'envs.leduc_poker', "
            "or a module of yours that lies in the current folder"
        ) from None
    except SyntaxError as error:
        raise ValueError(f"game={path!r}: {error.filename}, line {error.lineno}: {error.msg}") from None
