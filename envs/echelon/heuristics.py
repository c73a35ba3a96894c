"""Opponents: from one who stands still to the documents' lieutenant, who knows everything.

    random                     any legal action
    idle                       nothing
    zone_walker                walks to the zone and fires at nobody
    lieutenant_05, _10, _20,   walks to the zone, turns to the nearest enemy that it sees, keeps its distance, vents,
    _50, _100                  and fires where it can, with that probability (in percent) at each decision
    Cheater                    the same at 100, but it knows where every enemy is: a class of players, since no
                               heuristic of `envs.heuristics` can peek

None has a memory. The documents' lieutenant gets stuck at walls and shakes itself free by chance; these go by the map's
paths. Its handicaps other than the fire probability are left out.
"""

import numpy as np
from numba import njit

from envs.echelon.maps import ZONE, way
from envs.echelon.mechs import (
    AHEAD,
    ALL,
    ASIDE,
    AUTOCANNON,
    FLAMER,
    GAUSS,
    HEAT_CAP,
    HEAVY,
    HOLD,
    LASER,
    LEFT,
    LIGHT,
    MEDIUM,
    MISSILE,
    NUM_HEADINGS,
    PAINTER,
    PRIMARY,
    RIGHT,
    SCOUT,
    SPECIAL,
    STRAIGHT,
    VENT,
    YAW,
    action_of,
    is_up,
)
from envs.echelon.mechs import DECISION as QUARTER
from envs.echelon.weapons import first_enemy, target_of
from envs.heuristics import uniform as random
from envs.jit import apart

KEEPS = 5.5  # metres from the nearest enemy
VENTS_FROM = 0.75  # of the heat that it bears
CARES_WITHIN = 30.0  # metres: enemies farther off are not turned to


@njit
def idle(state, player, legal, probs):
    """Does nothing."""
    probs[0] = 1.0


@njit
def zone_walker(state, player, legal, probs):
    """Walks to the middle of the zone."""
    if not is_up(state, player):
        probs[0] = 1.0
        return
    to_x, to_y = _to_zone(state, player)
    probs[action_of(heading_to(state, player, to_x, to_y), turn_to(state, player, to_x, to_y), HOLD)] = 1.0


@apart
def _to_zone(state, m):
    """The direction to walk in; (0, 0) in the middle of the zone."""
    x, y = float(state.x[m]), float(state.y[m])
    dx, dy, radius = -x, ZONE[state.map, 0] - y, ZONE[state.map, 1]
    away = (dx * dx + dy * dy) ** 0.5
    if away <= 0.5 * radius:
        return 0.0, 0.0
    if away <= radius:
        return dx / away, dy / away
    return way(state.map, x, y)


@njit
def heading_to(state, m, dx, dy):
    """The heading nearest to a direction in the world; 0 for (0, 0)."""
    ahead, left = state.fx[m] * dx + state.fy[m] * dy, state.fx[m] * dy - state.fy[m] * dx
    best, found = 1e-6, 0
    for heading in range(1, NUM_HEADINGS):
        fit = AHEAD[heading] * ahead + ASIDE[heading] * left
        if fit > best + 1e-9:
            best, found = fit, heading
    return found


@njit
def turn_to(state, m, dx, dy):
    """The turn that brings m to face a direction, none if it is nearer already than half a decision's turn."""
    ahead, left = state.fx[m] * dx + state.fy[m] * dy, state.fx[m] * dy - state.fy[m] * dx
    if abs(left) <= 0.5 * YAW[state.kind[m]] * QUARTER * (dx * dx + dy * dy) ** 0.5 and ahead >= 0.0:
        return STRAIGHT
    return LEFT if left >= 0.0 else RIGHT


@apart
def nearest(state, m, known):
    """The nearest living enemy of those `known` (bits), or -1, and how far off it is."""
    best, found, first = 1e18, -1, first_enemy(state, m)
    for j in range(len(state.x) // 2):
        o = first + j
        if known >> j & 1 and state.alive[o]:
            dx, dy = state.x[o] - state.x[m], state.y[o] - state.y[m]
            if dx * dx + dy * dy < best:
                best, found = dx * dx + dy * dy, o
    return found, best**0.5


@apart
def intent_for(state, m):
    """What to fire at what is in reach of the weapons, not hotter than it can bear; or to vent."""
    kind, heat = state.kind[m], state.heat[m] / HEAT_CAP[state.kind[m]]
    if heat > VENTS_FROM:
        return VENT
    laser, flamer = target_of(state, m, LASER), target_of(state, m, FLAMER)
    if kind == SCOUT:
        return PRIMARY if _unpainted(state, m) else HOLD
    if kind == MEDIUM:
        if _unpainted(state, m) and laser < 0:
            return SPECIAL
        return ALL if target_of(state, m, AUTOCANNON) >= 0 or laser >= 0 else HOLD
    if kind == HEAVY:
        big = (state.cooldown[m, GAUSS] <= 0.0 and target_of(state, m, GAUSS) >= 0) or (
            state.cooldown[m, MISSILE] <= 0.0 and target_of(state, m, MISSILE) >= 0
        )
        if big:
            return SPECIAL if heat > 0.4 or laser < 0 else ALL
        return PRIMARY if laser >= 0 else HOLD
    if flamer >= 0 and heat > 0.5:
        return PRIMARY
    if flamer >= 0 or laser >= 0 or _unpainted(state, m):
        return ALL
    return SPECIAL if kind == LIGHT and state.sighted[m] == 0 and heat < 0.3 else HOLD


@njit
def _unpainted(state, m):
    """The painter is ready, and reaches somebody who is not painted."""
    o = target_of(state, m, PAINTER)
    return o >= 0 and state.cooldown[m, PAINTER] <= 0.0 and state.painted[o] <= 0.0


@apart
def advise(state, m, known, fire, probs):
    """What a lieutenant does who knows of the enemies `known` (bits), firing with the probability `fire`."""
    if not is_up(state, m):
        probs[0] = 1.0
        return
    go_x, go_y = _to_zone(state, m)
    enemy, away = nearest(state, m, known)
    look_x, look_y = go_x, go_y
    if enemy >= 0 and away <= CARES_WITHIN:
        look_x, look_y = state.x[enemy] - state.x[m], state.y[enemy] - state.y[m]
        holds = state.kind[m] == HEAVY and state.inside[m]
        if away < KEEPS and not holds:
            go_x, go_y = -look_x / max(away, 1e-6), -look_y / max(away, 1e-6)
    if look_x == 0.0 and look_y == 0.0:  # guards the zone towards the enemy's side
        look_x = 1.0 if m < len(state.x) // 2 else -1.0
    heading, turn = heading_to(state, m, go_x, go_y), turn_to(state, m, look_x, look_y)
    intent = intent_for(state, m)
    if intent in (HOLD, VENT):
        probs[action_of(heading, turn, intent)] = 1.0
        return
    probs[action_of(heading, turn, intent)] = fire
    probs[action_of(heading, turn, HOLD)] += 1.0 - fire


def lieutenant(fire: float):
    """A lieutenant who fires with this probability at each decision in which it could."""

    @njit
    def heuristic(state, player, legal, probs):
        advise(state, player, state.seen[player], fire, probs)

    return heuristic


lieutenant_05, lieutenant_10, lieutenant_20 = lieutenant(0.05), lieutenant(0.1), lieutenant(0.2)
lieutenant_50, lieutenant_100 = lieutenant(0.5), lieutenant(1.0)
OPPONENTS = {
    "random": random,
    "idle": idle,
    "zone_walker": zone_walker,
    "lieutenant_05": lieutenant_05,
    "lieutenant_10": lieutenant_10,
    "lieutenant_20": lieutenant_20,
    "lieutenant_50": lieutenant_50,
    "lieutenant_100": lieutenant_100,
}


@njit(nogil=True)
def _cheat(rows, state, player, fire, probs):
    for i in range(len(rows)):
        b = rows[i]
        for a in range(probs.shape[1]):
            probs[b, a] = 0.0
        advise(state[b], player[b], 0xFFFF, fire, probs[b])


class Cheater:
    """A player who reads the true state: a lieutenant who knows where every enemy is.

    Args:
        game: Echelon, of any size.
        fire: the probability of firing.

    Raises:
        ValueError: another game, or no probability.
    """

    def __init__(self, game, fire: float = 1.0):
        if not game.name.startswith("echelon"):
            raise ValueError(f"Cheater: plays Echelon, not {game.name}")
        if not 0.0 <= fire <= 1.0:
            raise ValueError(f"Cheater: fire={fire}: needs a probability")
        self.fire = float(fire)

    def act(self, table, rows: np.ndarray, probs: np.ndarray) -> None:
        _cheat(rows, table.state, table.player, self.fire, probs)

    def begin(self, rows: np.ndarray) -> None: ...
