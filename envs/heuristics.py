"""Heuristics: players written by hand as scalar `@njit` functions, and the kernel compiled around each.

A heuristic is `(obs [*D], legal [A] bool, probs [A] float32) -> None`: it sees what the player to move may see, so it
cannot peek, and writes how likely it takes each action into `probs`, which arrives zeroed. It draws nothing itself.
`envs/leduc_heuristics.py` is the file to copy; an import path is a name: `envs.leduc_heuristics.always_call`.
"""

import importlib
from collections.abc import Callable
from functools import cache

import numpy as np
from numba import njit

from envs.game import Game


@njit
def uniform(obs, legal, probs):
    """Every legal action alike: the random player of any game."""
    count = 0
    for a in range(len(legal)):
        count += legal[a]
    for a in range(len(legal)):
        if legal[a]:
            probs[a] = 1.0 / count


@cache
def compile_heuristic(heuristic: Callable) -> Callable:
    """kernel(rows [n] int64, obs [B, *D], legal [B, A], probs [B, A]): writes `probs` of those rows."""

    @njit(nogil=True)
    def kernel(rows, obs, legal, probs):
        for i in range(len(rows)):
            b = rows[i]
            for a in range(probs.shape[1]):
                probs[b, a] = 0.0
            heuristic(obs[b], legal[b], probs[b])

    return kernel


def load_heuristic(path: str, game: Game) -> Callable:
    """The heuristic at the import path `path`, tried on the first decision of `game`.

    Raises:
        ValueError: no such function, or it is not one for this game.
    """
    module, _, name = path.rpartition(".")
    try:
        heuristic = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"{path!r}: no such heuristic; give an import path such as envs.heuristics.uniform") from error
    state = game.new_state()
    while game.current_player(state[0]) < 0:
        outcomes = np.zeros(game.num_chance_outcomes)
        game.chance_probs(state[0], outcomes)
        game.apply_action(state[0], int(outcomes.argmax()))
    obs, legal = np.zeros((1, *game.obs_shape), game.obs_dtype), np.zeros((1, game.num_actions), np.bool_)
    game.observe(state[0], game.current_player(state[0]), obs[0])
    game.legal_actions(state[0], legal[0])
    probs = np.zeros((1, game.num_actions), np.float32)
    try:
        compile_heuristic(heuristic)(np.zeros(1, np.int64), obs, legal, probs)
    except Exception as error:
        raise ValueError(f"{path!r}: is no heuristic for {game.name} ({type(error).__name__})") from error
    if not (np.isfinite(probs).all() and (probs >= 0).all() and probs[legal].sum() > 0):
        raise ValueError(f"{path!r}: writes probs={probs[0].tolist()} where {game.name} begins; legal are {legal[0]}")
    return heuristic
