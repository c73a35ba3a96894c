"""How lucky chance was: what it did in a game against the mean of all that it might have done, by the rules.

Where chance plays between two decisions, the value of what follows differs from the value of the action by luck alone.
Its mean is 0 whatever the values are, so that taking it off makes regrets vary less and leaves them right in the mean
(VR-MCCFR's baseline at chance nodes, Schmid et al. 2019; MIVAT, White and Bowling 2009). What chance does before the
first decision of a game is not looked at: no action leads there.

Letters: T steps, B envs, N decisions, M outcomes, A actions, P players, D obs shape.
"""

from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from envs.game import TERMINAL, Game
from envs.outcomes import Outcomes, chance_outcomes
from envs.vector_env import Games, VectorEnv
from lit_rl.rollout import Rollout
from lit_rl.run.errors import ConfigError


class Chances(NamedTuple):
    """The actions of a rollout after which chance played, and what it might have done, M decisions to come."""

    step: Tensor  # [N] int64, t of the action
    row: Tensor  # [N] int64, b of the action
    source: Tensor  # [N] int64, which of the distinct actions it is
    value: (
        Tensor  # [S] float64 of each distinct action: the mean earned by it and by chance after it, in player 0's view
    )
    to: Tensor  # [M] int64, which of the distinct actions may lead to this decision
    prob: Tensor  # [M] float64, with this probability
    obs: Tensor  # [M, *D] the mover's infostate
    legal: Tensor  # [M, A] bool
    history: Tensor  # [M, P, *D] every player's infostate


def chances(rollout: Rollout, game: Game) -> Chances:
    """Play the games of a rollout again, and ask the rules what chance might have done after each action.

    Raises:
        ConfigError: it might have done too much to look at.
    """
    first, lengths, moves = rollout.games()
    stream = rollout.game_stream.T.contiguous().numpy().view(np.uint64).reshape(-1)
    games = Games(_replayer(game), stream[first], lengths, moves)
    states, actions, places = [], [], []
    for i in range(games.longest):
        n = games.going_on(i)
        states.append(games.buffers.state[:n].copy())
        actions.append(games.moves[:n, i].astype(np.int64))
        places.append(first[games.rows[:n]] + i)
        games.play(i)
    states, actions, places = map(np.concatenate, (states, actions, places))
    keys = np.concatenate([states.view(np.uint8).reshape(len(states), -1), actions.view(np.uint8).reshape(-1, 8)], 1)
    _, one, source = np.unique(keys.view(f"V{keys.shape[1]}").ravel(), return_index=True, return_inverse=True)
    try:
        found = chance_outcomes(game, states[one], actions[one])
    except ValueError as error:
        raise ConfigError(f"model.expected_chance=true: {error}; use false") from None
    return _of(found, places, source.ravel(), len(one), len(rollout.player))


def _of(found: Outcomes, places: np.ndarray, source: np.ndarray, num_sources: int, num_steps: int) -> Chances:
    """Of the actions at `places` [N], b * T + t, those after which chance plays."""
    plays = np.bincount(found.source, minlength=num_sources) > 0
    mean = np.bincount(found.source, found.prob * found.earned[:, 0], num_sources).astype(np.float64)  # of nothing too
    there, goes_on = plays[source], found.player != TERMINAL
    mover = found.player[goes_on].astype(np.int64)
    history = found.history[goes_on]
    arrays = (
        places[there] % num_steps, places[there] // num_steps, source[there], mean, found.source[goes_on],
        found.prob[goes_on], history[np.arange(len(mover)), mover], found.legal[goes_on], history,
    )  # fmt: skip
    return Chances(*map(torch.from_numpy, arrays))


def luck(rollout: Rollout, values: Tensor, chances: Chances, outcome_values: Tensor) -> Tensor:
    """[T, B] float32, in player 0's view: what was earned and may be expected after each action, beyond the mean over
    what chance might have done; 0 where chance did not play.

    Args:
        values: [T, B] of the decisions in the rollout, in player 0's view.
        outcome_values: [M], likewise of the decisions in `chances`.
    """
    mean = chances.value.index_add(0, chances.to, chances.prob * outcome_values.double())[chances.source]
    step, row = chances.step, chances.row
    earned, done = rollout.rewards[step, row, 0].double(), rollout.done[step, row]
    following = values[(step + 1).clamp_max(len(values) - 1), row].double()
    known = done | (step + 1 < len(values))  # else the game goes on in the next rollout, and nobody learns yet
    found = torch.zeros_like(values)
    found[step, row] = torch.where(known, earned + torch.where(done, 0.0, following) - mean, 0.0).float()
    return found


@cache
def _replayer(game: Game) -> VectorEnv:
    """Only its kernels are used."""
    return VectorEnv(game, 1, seed=0, observe_all=True)
