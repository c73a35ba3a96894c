"""Heuristics: players written by hand as scalar `@njit` functions, and the kernel compiled around each.

Two kinds, told apart by their number of arguments; both draw nothing themselves and write how likely the player to move
takes each action into `probs` [A] float32, which arrives zeroed:

    (obs [*D], legal [A] bool, probs)             sees the infostate; in every game
    (state, player, legal [A] bool, probs)        reads the record with its named fields, in games with `Game.redact`

Neither can peek: the state of the second kind is a copy from which `redact` has erased what the player may not know.
`envs/leduc_heuristics.py` is the file to copy; an import path is a name: `envs.leduc_heuristics.always_call`.
"""

import importlib
import inspect
from collections.abc import Callable
from functools import cache

import numpy as np

from envs.game import Game, Interface
from envs.jit import njit


@njit
def uniform(obs, legal, probs):
    """Every legal action alike: the random player of any game."""
    count = 0
    for a in range(len(legal)):
        count += legal[a]
    for a in range(len(legal)):
        if legal[a]:
            probs[a] = 1.0 / count


def reads_state(heuristic: Callable) -> bool:
    """It is of the kind that reads the state, and not an obs."""
    return len(inspect.signature(getattr(heuristic, "py_func", heuristic)).parameters) == 4


def compile_heuristic(heuristic: Callable, game: Interface) -> Callable:
    """kernel(rows [n] int64, state [B], player [B], obs [B, *D], legal [B, A], probs [B, A]): writes `probs` of `rows`.

    A heuristic that sees obs asks for no state and no player: None will do for them. The other kind asks for no obs.

    Raises:
        ValueError: it reads the state of a game that does not say what a player may not know.
    """
    if not reads_state(heuristic):
        return _compile_for_obs(heuristic)
    if getattr(game, "redact", None) is None:
        raise ValueError(
            f"a heuristic (state, player, legal, probs) would see everything in {game.name}, which has no "
            "Game(..., redact=...); write it as (obs, legal, probs)"
        )
    return _compile_for_state(heuristic, game.redact)


@cache
def _compile_for_obs(heuristic: Callable) -> Callable:
    @njit(nogil=True)
    def kernel(rows, state, player, obs, legal, probs):
        for i in range(len(rows)):
            b = rows[i]
            for a in range(probs.shape[1]):
                probs[b, a] = 0.0
            heuristic(obs[b], legal[b], probs[b])

    return kernel


@cache
def _compile_for_state(heuristic: Callable, redact: Callable) -> Callable:
    @njit(nogil=True)
    def kernel(rows, state, player, obs, legal, probs):
        copy = state[:1].copy()
        for i in range(len(rows)):
            b = rows[i]
            for a in range(probs.shape[1]):
                probs[b, a] = 0.0
            copy[0] = state[b]
            redact(copy[0], player[b])
            heuristic(copy[0], player[b], legal[b], probs[b])

    return kernel


def load_heuristic(path: str, game: Interface) -> Callable:
    """The heuristic at the import path `path`, tried on the first decision of `game` where its rules are known.

    Raises:
        ValueError: no such function, or it is not one for this game.
    """
    module, _, name = path.rpartition(".")
    try:
        heuristic = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"{path!r}: no such heuristic; give an import path such as envs.heuristics.uniform") from error
    obs, legal = np.zeros((1, *game.obs_shape), game.obs_dtype), np.zeros((1, game.num_actions), np.bool_)
    probs = np.zeros((1, game.num_actions), np.float32)
    known = isinstance(game, Game)
    state, player = _first_decision(game, obs, legal) if known else (None, None)
    try:
        kernel = compile_heuristic(heuristic, game)
        kernel(np.arange(len(obs) if known else 0), state, player, obs, legal, probs)
    except Exception as error:
        reason = error if type(error) is ValueError else type(error).__name__
        raise ValueError(f"{path!r}: is no heuristic for {game.name} ({reason})") from error
    if known and not (np.isfinite(probs).all() and (probs >= 0).all() and probs[legal].sum() > 0):
        raise ValueError(f"{path!r}: writes probs={probs[0].tolist()} where {game.name} begins; legal are {legal[0]}")
    return heuristic


def _first_decision(game: Game, obs: np.ndarray, legal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """State [1] and player [1] at the first decision, with chance's likeliest outcomes; writes `obs` and `legal`."""
    state = game.new_state()
    while game.current_player(state[0]) < 0:
        outcomes = np.zeros(game.num_chance_outcomes)
        game.chance_probs(state[0], outcomes)
        game.apply_action(state[0], int(outcomes.argmax()))
    player = np.array([game.current_player(state[0])], np.int8)
    game.observe(state[0], int(player[0]), obs[0])
    game.legal_actions(state[0], legal[0])
    return state, player
