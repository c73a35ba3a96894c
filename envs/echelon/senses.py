"""What mechs see: eyes, radar, paint, heat and the enemy's own transmitters; looked at once per decision."""

from envs.echelon.maps import SIGHT, column
from envs.echelon.mechs import ECCM, ECM, HEAT_CAP, MISSILE, ROUNDS, SENSOR
from envs.echelon.motion import eye
from envs.echelon.weapons import first_enemy
from envs.jit import apart

RADAR = 14.0  # metres, times the sensors' quality and the class's factor
EWAR_REACH = 50.0  # metres; ECM and ECCM grow weaker towards it
JAMMED, CLEARED = 0.85, 0.65  # quality lost to the strongest ECM, won by the strongest ECCM
WORST, BEST = 0.25, 1.5
GLOWS = 0.8  # of the heat that a mech bears: beyond, everybody sees it
LOOK_EVERY = 0.5  # metres along a line of sight; what hides less than that does not hide


@apart
def look(state):
    """Lines of sight, sensors, who sees whom, and whom a missile comes for."""
    pack = len(state.x) // 2
    for m in range(len(state.x)):
        state.sighted[m] = state.seen[m] = 0
        state.inbound[m] = 0
    for i in range(pack):
        for j in range(pack):
            a, b = i, pack + j
            if state.alive[a] and state.alive[b] and sees_through(state, a, b):
                state.sighted[a] |= 1 << j
                state.sighted[b] |= 1 << i
    for m in range(len(state.x)):
        if state.alive[m]:
            _tune(state, m)
            _search(state, m)
    for m in range(len(state.x)):
        for r in range(ROUNDS):
            if state.round_left[m, r] > 0.0 and state.round_kind[m, r] == MISSILE:
                state.inbound[state.round_target[m, r]] = 1


@apart
def sees_through(state, a, b):
    """Nothing stands between the eyes of a and those of b; the same, to the last bit, from either end."""
    ax, ay, az = float(state.x[a]), float(state.y[a]), eye(state, a)
    bx, by, bz = float(state.x[b]), float(state.y[b]), eye(state, b)
    dx, dy = bx - ax, by - ay
    looks = int((dx * dx + dy * dy) ** 0.5 / LOOK_EVERY) + 1
    for k in range(1, looks):
        i = looks - k
        x, y, z = (ax * i + bx * k) / looks, (ay * i + by * k) / looks, (az * i + bz * k) / looks
        if SIGHT[state.map, column(x), column(y)] > z:
            return False
    return True


@apart
def _tune(state, m):
    """The quality of m's sensors: between ECM of the other pack and ECCM of its own."""
    pack = len(state.x) // 2
    jam, clear = 0.0, 0.0
    for o in range(len(state.x)):
        same = m // pack == o // pack
        if state.ewar[o] == (ECCM if same else ECM):
            dx, dy = state.x[o] - state.x[m], state.y[o] - state.y[m]
            strength = 1.0 - (dx * dx + dy * dy) ** 0.5 / EWAR_REACH
            if same:
                clear = max(clear, strength)
            else:
                jam = max(jam, strength)
    state.jam[m] = jam
    state.quality[m] = min(max(1.0 - JAMMED * jam + CLEARED * clear, WORST), BEST)


@apart
def _search(state, m):
    first = first_enemy(state, m)
    reach = RADAR * state.quality[m] * SENSOR[state.kind[m]]
    for j in range(len(state.x) // 2):
        o = first + j
        if not state.alive[o]:
            continue
        dx, dy = state.x[o] - state.x[m], state.y[o] - state.y[m]
        if (
            state.sighted[m] >> j & 1
            or state.painted[o] > 0.0
            or state.ewar[o] != 0
            or state.heat[o] > GLOWS * HEAT_CAP[state.kind[o]]
            or dx * dx + dy * dy <= reach * reach
        ):
            state.seen[m] |= 1 << j
