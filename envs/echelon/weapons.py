"""Rays, rounds in the air, and what a hit does. What happens in one substep happens at once, whoever comes first."""

from numba import njit

from envs.echelon.maps import GROUND, column
from envs.echelon.mechs import (
    ARC,
    AUTOCANNON,
    COOLDOWN,
    DAMAGE,
    FIRES,
    FLIGHT,
    HEAT,
    LEG_PART,
    LOCKED_RANGE,
    MISSILE,
    PAINTER,
    RADIUS,
    RANGE,
    ROUNDS,
    SHAKE,
    SPLASH,
    STEP,
    TALL,
    WARMS,
    intent_of,
    is_up,
)
from envs.echelon.motion import eye
from envs.echelon.score import PAINT_USED, PAINT_WASTED, PAINTED, credit_damage, credit_death, earn
from envs.jit import apart

REAR = 0.707  # cosine of the angle between a shot and the facing of whom it hits: beyond, from behind
REAR_FACTOR, PAINT_FACTOR = 1.5, 1.1
LEG_SHARE = 0.5  # of a hit in the legs that the body feels, too
SPLASH_SHARE = 0.5
PAINT_LASTS = 5.0  # seconds
LOCK_QUALITY = 0.7  # of the sensors, to lock a missile on a painted mech
SUPPRESSION = 1.2  # seconds after a hit by an autocannon
MISSILE_LIFE = 5.0  # seconds; ours
STEERING = 4.0  # per second
FUSE = 1.0  # metres from its target's surface at which a missile goes off; it flies over everything in between
ROUND_RADIUS = 0.2


@apart
def shoot(state):
    """Everybody who wants to, and whose weapons are ready, fires at the nearest enemy that the weapon can reach."""
    for m in range(len(state.x)):
        if not is_up(state, m):
            continue
        intent, kind = intent_of(state.intent[m]), state.kind[m]
        for w in range(state.cooldown.shape[1]):
            if FIRES[kind, intent, w] and state.cooldown[m, w] <= 0.5 * STEP:
                target = target_of(state, m, w)
                if target >= 0:
                    _fire(state, m, w, target)


@njit
def first_enemy(state, m):
    """The player of number 0 in the pack that is not m's."""
    pack = len(state.x) // 2
    return pack if m < pack else 0


@apart
def target_of(state, m, w):
    """The nearest enemy in range, arc and sight of m's weapon w, or -1."""
    best, found = 1e18, -1
    first = first_enemy(state, m)
    for j in range(len(state.x) // 2):
        o = first + j
        if not state.alive[o]:
            continue
        reach, sighted = RANGE[w], state.sighted[m] >> j & 1
        if w == MISSILE and state.painted[o] > 0.0 and state.quality[m] >= LOCK_QUALITY:
            reach = LOCKED_RANGE
        elif not sighted:
            continue
        dx, dy = state.x[o] - state.x[m], state.y[o] - state.y[m]
        away = dx * dx + dy * dy
        if away > reach * reach or away >= best:
            continue
        if state.fx[m] * dx + state.fy[m] * dy >= ARC[w] * away**0.5:
            best, found = away, o
    return found


@apart
def _fire(state, m, w, target):
    state.cooldown[m, w] = COOLDOWN[w]
    state.warmed[m] += HEAT[w]
    dx, dy = state.x[target] - state.x[m], state.y[target] - state.y[m]
    away = max((dx * dx + dy * dy) ** 0.5, 1e-6)
    if w == PAINTER:
        if state.painted[target] <= 0.0:
            state.used[target] = 0
            earn(state, m, PAINTED)
        state.painted[target] = PAINT_LASTS
        state.painter[target] = m
        return
    dz = eye(state, target) - eye(state, m)
    if FLIGHT[w] == 0.0:
        near = min(RADIUS[state.kind[target]] / away, 1.0)  # the ray enters the body so much before its middle
        hit(state, m, target, w, 1.0, dx / away, dy / away, eye(state, target) - near * dz)
        return
    for r in range(ROUNDS):
        if state.round_left[m, r] <= 0.0:
            break
    else:
        return
    if w != MISSILE:  # leads its target
        late = away / FLIGHT[w]
        dx, dy = dx + late * state.vx[target], dy + late * state.vy[target]
    size = (dx * dx + dy * dy + dz * dz) ** 0.5
    state.round_at[m, r, 0], state.round_at[m, r, 1] = state.x[m], state.y[m]
    state.round_at[m, r, 2] = eye(state, m)
    state.round_to[m, r, 0], state.round_to[m, r, 1], state.round_to[m, r, 2] = dx / size, dy / size, dz / size
    state.round_left[m, r] = MISSILE_LIFE if w == MISSILE else RANGE[w] / FLIGHT[w] + STEP
    state.round_kind[m, r], state.round_target[m, r] = w, target


@apart
def fly(state):
    """Rounds go on, and hit mechs or walls. Those of the dead fly on."""
    for m in range(len(state.x)):
        for r in range(ROUNDS):
            if state.round_left[m, r] > 0.0:
                state.round_left[m, r] = max(state.round_left[m, r] - STEP, 0.0)
                if state.round_kind[m, r] == MISSILE:
                    _home(state, m, r)
                else:
                    _go_straight(state, m, r)


@apart
def _home(state, m, r):
    target = state.round_target[m, r]
    dx = state.x[target] - state.round_at[m, r, 0]
    dy = state.y[target] - state.round_at[m, r, 1]
    dz = eye(state, target) - state.round_at[m, r, 2]
    away = max((dx * dx + dy * dy + dz * dz) ** 0.5, 1e-6)
    if state.alive[target] and away <= RADIUS[state.kind[target]] + FUSE:
        state.round_left[m, r] = 0.0
        to_x, to_y = state.round_to[m, r, 0], state.round_to[m, r, 1]
        size = max((to_x * to_x + to_y * to_y) ** 0.5, 1e-6)
        hit(state, m, target, MISSILE, 1.0, to_x / size, to_y / size, eye(state, target))
        _splash(state, m, MISSILE, target, state.x[target], state.y[target], state.z[target])
        return
    pull = min(STEERING * STEP, 1.0) if state.alive[target] else 0.0
    tx = state.round_to[m, r, 0] + (dx / away - state.round_to[m, r, 0]) * pull
    ty = state.round_to[m, r, 1] + (dy / away - state.round_to[m, r, 1]) * pull
    tz = state.round_to[m, r, 2] + (dz / away - state.round_to[m, r, 2]) * pull
    size = max((tx * tx + ty * ty + tz * tz) ** 0.5, 1e-6)
    state.round_to[m, r, 0], state.round_to[m, r, 1], state.round_to[m, r, 2] = tx / size, ty / size, tz / size
    for i in range(3):
        state.round_at[m, r, i] += state.round_to[m, r, i] * FLIGHT[MISSILE] * STEP


@apart
def _go_straight(state, m, r):
    """One substep's way, looked at every half metre or so."""
    w = state.round_kind[m, r]
    way = FLIGHT[w] * STEP
    looks = int(way / 0.5) + 1
    to_x, to_y, to_z = state.round_to[m, r, 0], state.round_to[m, r, 1], state.round_to[m, r, 2]
    x, y, z = float(state.round_at[m, r, 0]), float(state.round_at[m, r, 1]), float(state.round_at[m, r, 2])
    first = first_enemy(state, m)
    for _ in range(looks):
        x, y, z = x + to_x * way / looks, y + to_y * way / looks, z + to_z * way / looks
        for j in range(len(state.x) // 2):
            o = first + j
            if not state.alive[o] or not state.z[o] <= z <= state.z[o] + TALL[state.kind[o]]:
                continue
            dx, dy = state.x[o] - x, state.y[o] - y
            reach = RADIUS[state.kind[o]] + ROUND_RADIUS
            if dx * dx + dy * dy <= reach * reach:
                state.round_left[m, r] = 0.0
                size = max((to_x * to_x + to_y * to_y) ** 0.5, 1e-6)
                hit(state, m, o, w, 1.0, to_x / size, to_y / size, z)
                _splash(state, m, w, o, x, y, z)
                return
        if GROUND[state.map, column(x), column(y)] > z:
            state.round_left[m, r] = 0.0
            _splash(state, m, w, -1, x, y, z)
            return
    state.round_at[m, r, 0], state.round_at[m, r, 1], state.round_at[m, r, 2] = x, y, z


@apart
def _splash(state, m, w, spared, x, y, z):
    """What goes off there hurts the legs of all enemies nearby, but for the one hit."""
    if SPLASH[w] == 0.0:
        return
    first = first_enemy(state, m)
    for j in range(len(state.x) // 2):
        o = first + j
        if o == spared or not state.alive[o]:
            continue
        dx, dy, dz = state.x[o] - x, state.y[o] - y, state.z[o] - z
        reach = SPLASH[w] + RADIUS[state.kind[o]]
        away = dx * dx + dy * dy
        if away <= reach * reach and abs(dz) <= SPLASH[w] + TALL[state.kind[o]]:
            size = max(away**0.5, 1e-6)
            hit(state, m, o, w, SPLASH_SHARE, dx / size, dy / size, state.z[o])


@apart
def hit(state, m, target, w, share, dx, dy, z):
    """Weapon w of m hits `target` in the direction (dx, dy), at the height z; `resolve` makes it felt."""
    damage = DAMAGE[w] * share
    if dx * state.fx[target] + dy * state.fy[target] > REAR:
        damage *= REAR_FACTOR
    if state.painted[target] > 0.0:
        damage *= PAINT_FACTOR
        if state.painter[target] != m and not state.used[target]:
            state.used[target] = 1
            earn(state, state.painter[target], PAINT_USED)
    if z < state.z[target] + LEG_PART * TALL[state.kind[target]]:
        state.hurt_legs[target] += damage
        damage *= LEG_SHARE
    state.hurt[target] += damage
    state.shaken[target] += SHAKE[w] * share
    state.warmed[target] += WARMS[w]
    if w == AUTOCANNON:
        state.suppressed[target] = SUPPRESSION
    state.hit_x[target], state.hit_y[target] = -dx, -dy
    state.hitter[target] = m
    pack = len(state.x) // 2
    state.hurt_by[target] |= 1 << (m % pack)
    state.dealt[m // pack] += damage
    credit_damage(state, m, damage)


@apart
def resolve(state):
    """The hits of a substep are felt, all at once."""
    for m in range(len(state.x)):
        if state.alive[m] and state.hurt[m] > 0.0:
            state.hp[m] -= state.hurt[m]
            state.legs[m] = max(state.legs[m] - state.hurt_legs[m], 0.0)
            if state.hp[m] <= 0.0:
                state.hp[m] = 0.0
                _die(state, m)
        state.hurt[m] = state.hurt_legs[m] = 0.0


@apart
def _die(state, m):
    """What is left neither moves, nor sees, nor is in anybody's way."""
    credit_death(state, m)
    state.alive[m] = state.shutdown[m] = state.ewar[m] = state.inside[m] = 0
    state.vx[m] = state.vy[m] = state.vz[m] = 0.0
    state.heat[m] = state.stability[m] = state.fallen[m] = state.suppressed[m] = state.painted[m] = 0.0
    state.shaken[m] = state.warmed[m] = 0.0
    state.losses[m // (len(state.x) // 2)] += 1


@njit
def fade(state, m):
    """Paint wears off."""
    if state.painted[m] > 0.0:
        state.painted[m] -= STEP
        if state.painted[m] <= 0.5 * STEP:
            state.painted[m] = 0.0
            if not state.used[m]:
                earn(state, state.painter[m], PAINT_WASTED)
