"""How mechs move, fall, grow hot and cool down, in one substep."""

from numba import njit

from envs.echelon.maps import GROUND, HALF, STEP_UP, highest
from envs.echelon.mechs import (
    AHEAD,
    ASIDE,
    DISSIPATION,
    ECM,
    EYE,
    HEAT_CAP,
    JET,
    LEFT,
    RADIUS,
    SCOUT,
    SPECIAL,
    SPEED,
    STABILITY,
    STEP,
    TALL,
    TURN_COS,
    TURN_SIN,
    VENT,
    heading_of,
    intent_of,
    is_up,
    turn_of,
)
from envs.jit import apart

GRAVITY = 9.81
LEGGED = 0.4  # of the speed, without legs
RESPONSE = 0.3  # seconds in which legs make up for most of a difference in speed
IN_THE_AIR = 0.2  # of that grip, off the ground
JET_HEAT = 25.0  # per second, twice what a light chassis gives off: five seconds of flight; ours
JET_LIMIT = 0.9  # of the heat that a mech bears: beyond, jets do not start
CLIMB = 6.0  # m/s, at most
CEILING = 10.0  # metres above which jets do not lift; ours
CROWD = 0.9  # of the sum of two radii: nearer than this mechs do not walk towards each other

VENTING = 3.0  # times the dissipation: the documents' additional two
COOL = 0.7  # of the heat that a mech bears: below, it obeys again after a shutdown
ECM_HEAT, ECCM_HEAT = 3.0, 2.0  # per second
REGEN = 10.0  # stability per second
WALKING, FLYING, CRIPPLED, HOT = 0.2, 0.5, 0.3, 0.1  # shares of it that are lost, added up; ours
REGEN_FLOOR = 0.1
SUPPRESSED = 0.25
HOT_FROM = 0.85
DOWN = 3.0  # seconds on the ground
STANDS_UP = 0.5  # with so much of its stability


@njit
def ground_under(state, m, x, y):
    return highest(GROUND, state.map, x, y, RADIUS[state.kind[m]])


@njit
def move(state):
    """Turn, walk, jump. Where others stood before the substep is what a mech gives way to."""
    for m in range(len(state.x)):
        state.before_x[m], state.before_y[m], state.before_z[m] = state.x[m], state.y[m], state.z[m]
    for m in range(len(state.x)):
        if state.alive[m]:
            _move(state, m)


@apart
def _move(state, m):
    kind, up, action = state.kind[m], is_up(state, m), state.intent[m]
    heading, turn = heading_of(action), turn_of(action)
    if up and turn > 0:
        cos, sin = TURN_COS[kind], TURN_SIN[kind] if turn == LEFT else -TURN_SIN[kind]
        fx, fy = state.fx[m] * cos - state.fy[m] * sin, state.fy[m] * cos + state.fx[m] * sin
        size = (fx * fx + fy * fy) ** 0.5
        state.fx[m], state.fy[m] = fx / size, fy / size
    speed = SPEED[kind] if up else 0.0
    if state.legs[m] <= 0.0:
        speed *= LEGGED
    wanted_x = (state.fx[m] * AHEAD[heading] - state.fy[m] * ASIDE[heading]) * speed
    wanted_y = (state.fy[m] * AHEAD[heading] + state.fx[m] * ASIDE[heading]) * speed
    grip = STEP / RESPONSE
    if state.z[m] > ground_under(state, m, state.x[m], state.y[m]) + 0.01:
        grip *= IN_THE_AIR
    vx = state.vx[m] + (wanted_x - state.vx[m]) * grip
    vy = state.vy[m] + (wanted_y - state.vy[m]) * grip
    x, y = float(state.x[m]), float(state.y[m])
    to_x, to_y = x + vx * STEP, y + vy * STEP
    walled = False
    if not _free(state, m, to_x, to_y):
        walled = not _low(state, m, to_x, to_y)
        if _free(state, m, to_x, y):  # slides along what is in the way
            to_y, vy = y, 0.0
        elif _free(state, m, x, to_y):
            to_x, vx = x, 0.0
        else:
            to_x, to_y, vx, vy = x, y, 0.0, 0.0
    state.x[m], state.y[m], state.vx[m], state.vy[m] = to_x, to_y, vx, vy
    _rise(state, m, up, walled)


@apart
def _rise(state, m, up, walled):
    """Jets burn where a scout wants them, and by themselves against a wall; gravity does the rest."""
    kind = state.kind[m]
    wanted = walled or (kind == SCOUT and intent_of(state.intent[m]) == SPECIAL)
    burns = up and wanted and JET[kind] > 0.0 and state.z[m] < CEILING and state.heat[m] < JET_LIMIT * HEAT_CAP[kind]
    lift = -GRAVITY
    if burns:
        lift += JET[kind]
        state.warmed[m] += JET_HEAT * STEP
    ground = ground_under(state, m, state.x[m], state.y[m])
    vz = min(state.vz[m] + lift * STEP, CLIMB)
    z = state.z[m] + vz * STEP
    if z <= ground:
        z, vz = float(ground), 0.0
    state.z[m], state.vz[m] = z, vz


@njit
def _low(state, m, x, y):
    """The ground there is no wall to it, nor the end of the map."""
    radius = RADIUS[state.kind[m]]
    if abs(x) > HALF - radius or abs(y) > HALF - radius:
        return False
    return ground_under(state, m, x, y) <= state.z[m] + STEP_UP


@apart
def _free(state, m, x, y):
    if not _low(state, m, x, y):
        return False
    kind = state.kind[m]
    for o in range(len(state.x)):
        if o == m or not state.alive[o] or abs(state.before_z[o] - state.before_z[m]) > TALL[state.kind[o]]:
            continue
        near = CROWD * (RADIUS[kind] + RADIUS[state.kind[o]])
        dx, dy = x - state.before_x[o], y - state.before_y[o]
        away = dx * dx + dy * dy
        if away < near * near:
            ox, oy = state.before_x[m] - state.before_x[o], state.before_y[m] - state.before_y[o]
            if away < ox * ox + oy * oy:
                return False
    return True


@apart
def settle(state, m):
    """Heat, cooldowns, stability and timers of a living mech after a substep."""
    kind = state.kind[m]
    venting = is_up(state, m) and intent_of(state.intent[m]) == VENT
    heat = state.heat[m] + state.warmed[m]
    if state.ewar[m]:
        heat += (ECM_HEAT if state.ewar[m] == ECM else ECCM_HEAT) * STEP
    state.heat[m] = max(heat - DISSIPATION[kind] * STEP * (VENTING if venting else 1.0), 0.0)
    state.warmed[m] = 0.0
    if state.heat[m] > HEAT_CAP[kind]:
        state.shutdown[m] = 1
    elif state.heat[m] < COOL * HEAT_CAP[kind]:
        state.shutdown[m] = 0
    for w in range(state.cooldown.shape[1]):
        state.cooldown[m, w] = max(state.cooldown[m, w] - STEP, 0.0)
    _balance(state, m)
    state.suppressed[m] = max(state.suppressed[m] - STEP, 0.0)


@njit
def _balance(state, m):
    kind = state.kind[m]
    if state.fallen[m] > 0.0:
        state.fallen[m] = max(state.fallen[m] - STEP, 0.0)
        if state.fallen[m] < 0.5 * STEP:
            state.fallen[m] = 0.0
            state.stability[m] = STANDS_UP * STABILITY
        state.shaken[m] = 0.0
        return
    speed = (state.vx[m] * state.vx[m] + state.vy[m] * state.vy[m]) ** 0.5
    share = 1.0 - WALKING * min(speed / SPEED[kind], 1.0)
    if state.vz[m] != 0.0:
        share -= FLYING
    if state.legs[m] <= 0.0:
        share -= CRIPPLED
    if state.heat[m] > HOT_FROM * HEAT_CAP[kind]:
        share -= HOT
    regen = REGEN * max(share, REGEN_FLOOR)
    if state.suppressed[m] > 0.0:
        regen *= SUPPRESSED
    state.stability[m] = min(state.stability[m] + regen * STEP, STABILITY) - state.shaken[m]
    state.shaken[m] = 0.0
    if state.stability[m] <= 0.0:
        state.stability[m] = 0.0
        state.fallen[m] = DOWN


@njit
def eye(state, m):
    """Height of a mech's eyes, and of the point that others aim at."""
    return state.z[m] + EYE * TALL[state.kind[m]]
