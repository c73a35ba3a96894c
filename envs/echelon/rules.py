"""The course of a game: chance deals a map, the mechs decide in turn, and the last one's intent moves the world.

Nobody sees what others have decided in the same tick: `envs.echelon.observe` tells how things stood before it.
"""

from numba import njit

from envs.echelon.maps import SPAWN, SPAWN_X, ZONE
from envs.echelon.mechs import (
    EWAR,
    HP,
    LEG_HP,
    MAX_TICKS,
    NUM_ACTIONS,
    OFF,
    SPECIAL,
    STABILITY,
    SUBSTEPS,
    WATCH,
    intent_of,
    is_up,
)
from envs.echelon.motion import move, settle
from envs.echelon.score import hold, judge, potential_of
from envs.echelon.senses import look
from envs.echelon.weapons import fade, fly, resolve, shoot
from envs.game import CHANCE, TERMINAL
from envs.jit import apart

ABREAST, APART = 3, 4.5  # a pack begins in rows of so many, so many metres apart


@apart
def clear(state):
    """A record without a map, but for `kind`."""
    for m in range(len(state.x)):
        state.x[m] = state.y[m] = state.z[m] = state.vx[m] = state.vy[m] = state.vz[m] = 0.0
        state.fx[m] = state.fy[m] = state.hp[m] = state.legs[m] = state.heat[m] = state.stability[m] = 0.0
        state.fallen[m] = state.suppressed[m] = state.painted[m] = state.quality[m] = state.jam[m] = 0.0
        state.hit_x[m] = state.hit_y[m] = state.before_x[m] = state.before_y[m] = state.before_z[m] = 0.0
        state.hurt[m] = state.hurt_legs[m] = state.shaken[m] = state.warmed[m] = 0.0
        state.potential[m] = state.approach[m] = state.credit[m] = 0.0
        state.alive[m] = state.shutdown[m] = state.ewar[m] = state.painter[m] = state.used[m] = 0
        state.arrived[m] = state.inside[m] = state.inbound[m] = state.hitter[m] = 0
        state.intent[m] = state.seen[m] = state.sighted[m] = state.hurt_by[m] = 0
        for w in range(state.cooldown.shape[1]):
            state.cooldown[m, w] = 0.0
        clear_rounds(state, m)
    for team in range(2):
        state.zone_points[team] = state.dealt[team] = state.control[team] = 0.0
        state.losses[team] = 0
    state.map = state.winner = -1
    state.tick = state.mover = state.advanced = state.over = 0


@apart
def clear_rounds(state, m):
    for r in range(state.round_left.shape[1]):
        state.round_left[m, r] = 0.0
        state.round_kind[m, r] = state.round_target[m, r] = 0
        for i in range(3):
            state.round_at[m, r, i] = state.round_to[m, r, i] = 0.0


@apart
def _deploy(state, number):
    """Both packs on their sides of map `number`, in rows, facing the zone."""
    state.map = number
    pack = len(state.x) // 2
    for m in range(len(state.x)):
        side, j = (-1.0 if m < pack else 1.0), m % pack
        row, place = j // ABREAST, j % ABREAST
        x = SPAWN_X + (row - 0.5 * ((pack - 1) // ABREAST)) * APART
        y = SPAWN[number] + (place - 0.5 * (min(pack, ABREAST) - 1)) * APART
        state.x[m], state.y[m] = side * x, y
        dx, dy = -x, ZONE[number, 0] - y
        size = (dx * dx + dy * dy) ** 0.5
        state.fx[m], state.fy[m] = side * dx / size, dy / size
        kind = state.kind[m]
        state.hp[m], state.legs[m], state.stability[m] = HP[kind], LEG_HP[kind], STABILITY
        state.alive[m] = 1
        state.potential[m] = potential_of(state, m)
    look(state)


@njit
def current_player(state):
    if state.over:
        return TERMINAL
    return CHANCE if state.map < 0 else state.mover


@njit
def _next(state, m):
    """The first player from m on who decides in this tick, or -1."""
    for o in range(m, len(state.x)):
        if state.alive[o] or state.tick % WATCH == 0:
            return o
    return -1


@njit
def legal_actions(state, legal):
    """Everything, but for who lies on the ground, is shut down or dead: nothing."""
    legal[0] = True
    if is_up(state, state.mover):
        for a in range(1, NUM_ACTIONS):
            legal[a] = True


@apart
def apply_action(state, action):
    state.advanced = 0
    if state.map < 0:
        _deploy(state, action)
        state.mover = 0
        return
    state.intent[state.mover] = action
    mover = _next(state, state.mover + 1)
    if mover < 0:
        advance(state)
        mover = max(_next(state, 0), 0)
    state.mover = mover


@apart
def advance(state):
    """A quarter of a second goes by."""
    for m in range(len(state.x)):
        state.hit_x[m] = state.hit_y[m] = state.approach[m] = state.credit[m] = 0.0
        on = is_up(state, m) and intent_of(state.intent[m]) == SPECIAL
        state.ewar[m] = EWAR[state.kind[m]] if on else OFF
    for _ in range(SUBSTEPS):
        move(state)
        shoot(state)
        fly(state)
        resolve(state)
        for m in range(len(state.x)):
            if state.alive[m]:
                settle(state, m)
                fade(state, m)
    for m in range(len(state.x)):
        state.intent[m] = 0
    state.tick += 1
    hold(state)
    look(state)
    judge(state)
    state.advanced = 1


def max_steps(pack: int) -> int:
    """Of a game: chance once, then every player in every tick."""
    return 1 + MAX_TICKS * 2 * pack
