"""What chance may do after an action: all of it, where a game that was played knows one outcome."""

from typing import NamedTuple

import numpy as np

from envs.driver import compile_views
from envs.expansion import compile_expansion
from envs.game import CHANCE, Game


class Outcomes(NamedTuple):
    """The M decisions or ends that some of N actions may lead to: those after which chance plays."""

    source: np.ndarray  # [M] int64, which of the N actions leads there; M = 0 where chance never plays
    prob: np.ndarray  # [M] float64, of chance; sums to 1 over each source
    earned: np.ndarray  # [M, P] float64, by the action and by chance after it
    player: np.ndarray  # [M] int8, who decides there, or TERMINAL
    legal: np.ndarray  # [M, A] bool; all False at an end
    history: np.ndarray  # [M, P, *D] every player's infostate


def chance_outcomes(game: Game, states: np.ndarray, actions: np.ndarray, most: int = 1_000_000) -> Outcomes:
    """All that chance may do after `actions` [N] in `states` [N], each at a decision at which its action is legal.

    Raises:
        ValueError: more than `most` outcomes.
    """
    describe, descend = compile_expansion(game)
    states, source = states.copy(), np.arange(len(states))
    prob, earned = np.ones(len(states)), np.zeros((len(states), game.num_players))
    descend(states, actions.astype(np.int64), earned)
    found = []
    for depth in range(game.max_steps + 1):
        player = np.empty(len(states), np.int8)
        obs = np.zeros((len(states), *game.obs_shape), game.obs_dtype)
        legal = np.zeros((len(states), game.num_actions), np.bool_)
        probs = np.zeros((len(states), game.num_chance_outcomes))
        describe(states, player, obs, legal, probs)
        if depth:
            there = player != CHANCE
            found.append((source[there], prob[there], earned[there], player[there], legal[there], states[there]))
        parent, outcome = np.nonzero(probs)
        if sum(len(each[0]) for each in found) + len(parent) > most:
            raise ValueError(f"{game.name}: chance has more than {most} outcomes after {len(actions)} actions")
        if not len(parent):
            break
        prob = prob[parent] * probs[parent, outcome]
        states, source, earned = states[parent], source[parent], earned[parent]
        descend(states, outcome, earned)
    if not found:
        found = [(source[:0], prob[:0], earned[:0], player[:0], legal[:0], states[:0])]
    source, prob, earned, player, legal, states = map(np.concatenate, zip(*found))
    history = np.zeros((len(states), game.num_players, *game.obs_shape), game.obs_dtype)
    compile_views(game)[0](0, 0, len(states), states, history)
    return Outcomes(source, prob, earned, player, legal, history)
