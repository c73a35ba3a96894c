"""Who holds the zone, who wins, and what a mech earns besides, for learning alone.

The bonus is the documents' reward in hundredths, so that a good game is worth about half of a win. Its part for the way
to the zone is a potential's differences (Ng et al. 1999, with gamma 1), so that it sums to the difference between the
last place and the first and cannot change who plays best.
"""

import numpy as np
from numba import njit

from envs.echelon.maps import OFF_PATH, PATH, SIZE, ZONE, column
from envs.echelon.mechs import DECISION, MAX_TICKS, TONS
from envs.jit import apart

UNIT = 0.01
APPROACH = 5.0  # for the length of the map; the documents' 0.05 is lost beside the rest
ARRIVAL = 2.0  # once in a game
PRESENCE = 0.1  # per decision, times the share of the zone, divided by the root of friends there
PER_DAMAGE = 0.05
KILL, ASSIST = 5.0, 2.0  # an assist: has hurt it in this life, or painted it last
IN_ZONE = 2.0  # times as much count damage, kill and assist from within the zone
PAINTER_SHARE = 0.4  # of a kill
DEATH_IN_ZONE, DEATH = -0.05, -1.0
PAINTED, PAINT_USED, PAINT_WASTED = 0.3, 1.0, -0.1  # used: somebody else hits what is painted
FORMATIONS = ("loose", "standard", "close")  # of the documents: how much staying together in the zone is worth
OF_PRESENCE, OF_DEATH, OF_APPROACH = (np.array(x) for x in ((0.3, 1.0, 2.0), (0.3, 1.0, 2.5), (0.5, 1.0, 1.5)))
CONTESTED = 0.5  # share of the zone that both have, the heavier side more
LEAD = 1.0  # zone points, which are seconds: the sides are even if they differ by no more


@njit
def earn(state, m, amount):
    state.credit[m] += UNIT * amount


@njit
def _earn_in_fight(state, m, amount):
    earn(state, m, amount * (IN_ZONE if state.inside[m] else 1.0))


@njit
def credit_damage(state, m, damage):
    _earn_in_fight(state, m, PER_DAMAGE * damage)


@apart
def credit_death(state, m):
    """m dies: who hit it last has killed it."""
    pack = len(state.x) // 2
    first = pack if m < pack else 0
    killer = state.hitter[m]
    painter = state.painter[m] if state.painted[m] > 0.0 else -1
    _earn_in_fight(state, killer, KILL)
    for j in range(pack):
        helper = first + j
        if helper != killer and (state.hurt_by[m] >> j & 1 or helper == painter):
            _earn_in_fight(state, helper, ASSIST)
    if painter >= 0:
        earn(state, painter, PAINTER_SHARE * KILL)
    earn(state, m, DEATH_IN_ZONE if state.inside[m] else DEATH * OF_DEATH[state.formation])


@njit
def potential_of(state, m):
    """Minus the way to the zone in lengths of the map; off all paths, on a roof say, what it was."""
    path = PATH[state.map, column(state.x[m]), column(state.y[m])]
    return -0.5 * path / SIZE if path < OFF_PATH else float(state.potential[m])


@njit
def in_zone(state, m):
    dx, dy = state.x[m], state.y[m] - ZONE[state.map, 0]
    return state.alive[m] != 0 and dx * dx + dy * dy <= ZONE[state.map, 1] ** 2


@apart
def hold(state):
    """After a decision: who is in the zone, how much of it each side has, and what that earns."""
    pack = len(state.x) // 2
    for m in range(len(state.x)):
        state.inside[m] = in_zone(state, m)
    for team in range(2):
        own, other = _tons(state, team), _tons(state, 1 - team)
        state.control[team] = 0.0
        if own > 0.0:
            state.control[team] = 1.0
            if other > 0.0:
                state.control[team] = CONTESTED + (1.0 - CONTESTED) * max(0.0, (own - other) / (own + other))
        state.zone_points[team] += DECISION * state.control[team]
        friends = 0
        for j in range(pack):
            friends += state.inside[team * pack + j]
        for j in range(pack):
            m = team * pack + j
            if state.inside[m]:
                earn(state, m, PRESENCE * OF_PRESENCE[state.formation] * state.control[team] / friends**0.5)
                if not state.arrived[m]:
                    state.arrived[m] = 1
                    earn(state, m, ARRIVAL)
    for m in range(len(state.x)):
        if state.alive[m]:
            now = potential_of(state, m)
            state.approach[m] += UNIT * APPROACH * OF_APPROACH[state.formation] * (now - state.potential[m])
            state.potential[m] = now


@apart
def _tons(state, team):
    pack, total = len(state.x) // 2, 0.0
    for j in range(pack):
        m = team * pack + j
        if state.inside[m]:
            total += TONS[state.kind[m]]
    return total


@apart
def judge(state):
    """The game is over once a side is gone or the time is up: zone, then losses, then damage decide."""
    pack = len(state.x) // 2
    gone = state.losses[0] == pack, state.losses[1] == pack
    if not (gone[0] or gone[1] or state.tick >= MAX_TICKS):
        return
    state.over, state.winner = 1, -1
    if gone[0] != gone[1]:
        state.winner = 1 if gone[0] else 0
        return
    zone = state.zone_points[0] - state.zone_points[1]
    if abs(zone) > LEAD:
        state.winner = 0 if zone > 0.0 else 1
    elif state.losses[0] != state.losses[1]:
        state.winner = 0 if state.losses[0] < state.losses[1] else 1
    elif state.dealt[0] != state.dealt[1]:
        state.winner = 0 if state.dealt[0] > state.dealt[1] else 1


@njit
def rewards(state, out):
    """1 for each of the winning team, -1 for each of the other, when the game is over."""
    if state.over and state.winner >= 0:
        pack = len(state.x) // 2
        for m in range(len(state.x)):
            out[m] = 1.0 if m // pack == state.winner else -1.0


@njit
def bonus(state, out):
    if state.advanced:
        for m in range(len(state.x)):
            out[m] = state.approach[m] + state.credit[m]
