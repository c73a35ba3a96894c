"""Two packs of one roster against each other, as a `Game`."""

from collections.abc import Sequence

import numpy as np
from numba import njit

from envs.echelon.maps import MAPS, nearest_maps
from envs.echelon.mechs import ACTION_NAMES, CLASSES, NUM_ACTIONS, SLOTS, VERSION, state_dtype
from envs.echelon.observe import observe, parts_of, redact
from envs.echelon.render import render
from envs.echelon.rules import (
    apply_action,
    clear,
    current_player,
    legal_actions,
    max_steps,
)
from envs.echelon.score import FORMATIONS, bonus, rewards
from envs.game import Game


def echelon(name: str, roster: Sequence[int], maps: int = MAPS, formation: str = "standard") -> Game:
    """Two packs of the classes in `roster`, numbers of `envs.echelon.mechs.CLASSES`.

    Args:
        name: of the game; games that differ in anything need different names.
        maps: chance deals one of so many, those with the shortest ways to the zone.
        formation: of the bonus, one of `envs.echelon.score.FORMATIONS`.

    Raises:
        ValueError: an empty pack, one that is larger than the slots, a class or formation that does not exist, or more
            maps than there are.
    """
    roster = tuple(roster)
    if not 1 <= len(roster) <= SLOTS:
        raise ValueError(f"{name}: a pack of {len(roster)} mechs, there are slots for 1 to {SLOTS}")
    if unknown := [kind for kind in roster if kind not in range(len(CLASSES))]:
        raise ValueError(
            f"{name}: no class {unknown[0]!r} in the pack; use 0 to {len(CLASSES) - 1}: {', '.join(CLASSES)}"
        )
    if formation not in FORMATIONS:
        raise ValueError(f"{name}: formation={formation!r}: must be one of {', '.join(FORMATIONS)}")
    try:
        dealt = nearest_maps(maps)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    pack = len(roster)
    kinds = np.array(roster * 2, np.int8)
    style = FORMATIONS.index(formation)

    @njit
    def init(state):
        clear(state)
        for m in range(len(kinds)):
            state.kind[m] = kinds[m]
        state.formation = style

    @njit
    def chance_probs(state, probs):
        for number in range(MAPS):
            if dealt[number]:
                probs[number] = 1.0 / maps

    parts = parts_of(pack)
    return Game(
        name=name,
        version=VERSION,
        num_players=2 * pack,
        num_actions=NUM_ACTIONS,
        num_chance_outcomes=MAPS,
        max_steps=max_steps(pack),
        obs_shape=(max(part.stop for part in parts.values()),),
        obs_dtype=np.dtype(np.float32),
        state_dtype=state_dtype(pack),
        max_return=1.0,
        init=init,
        current_player=current_player,
        legal_actions=legal_actions,
        chance_probs=chance_probs,
        apply_action=apply_action,
        rewards=rewards,
        bonus=bonus,
        observe=observe,
        redact=redact,
        render=render,
        perfect_recall=False,
        roles=tuple(sorted({*roster}).index(kind) for kind in roster * 2),
        teams=(0,) * pack + (1,) * pack,
        obs_parts=parts,
        action_names=ACTION_NAMES,
        chance_names=tuple(f"map {number}" for number in range(MAPS)),
    )
