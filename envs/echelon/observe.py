"""What a mech knows of the game, as numbers, and what is left of a record when the rest is erased.

Everything is told in the mech's own frame: ahead and to the left of where it faces. It knows itself, its own pack (by
radio), those of the enemies that it sees, the map, and the score. obs [D] float32, in four parts:

    self   [54]         the mech and the game, see `SELF`
    squad  [pack - 1, 24]   the others of its pack, see `OTHER`; zeros for the dead
    enemy  [pack, 24]       likewise; zeros for whom it does not see
    ground [9, 9]       heights around it, 2.5 m apart, ahead first, as seen from its feet
"""

from envs.echelon.maps import GROUND, MAPS, PATH, SIGHT, SIZE, TALLEST, ZONE, column, way
from envs.echelon.mechs import CARRIES, COOLDOWN, HEAT_CAP, HP, LEG_HP, MAX_TICKS, STABILITY, is_up
from envs.echelon.rules import clear_rounds
from envs.echelon.weapons import first_enemy
from envs.game import Part
from envs.jit import apart

SELF = (
    "alive", "shut down", "fallen", "without legs", "in the air", "hp", "leg hp", "heat", "stability",
    "cooldown of laser", "of flamer", "of autocannon", "of gauss", "of missile", "of painter",  # -1: not carried
    "painted", "hit ahead", "hit left", "suppressed", "missile inbound", "sensor quality", "jammed",
    "speed ahead", "speed left", "speed up", "height", "in the zone",
    "zone ahead", "zone left", "zone's distance", "zone's radius", "way ahead", "way left", "way's length",
    "own share of the zone", "the enemy's", "lead in zone points", "own points", "own losses", "the enemy's losses",
    "lead in damage", "time gone", "x from the own side", "y", "facing x", "facing y", "map",
    "scout", "light", "medium", "heavy", "leader", "trees above", "up",
)  # fmt: skip
OTHER = (
    "there", "ahead", "left", "above", "distance", "bearing ahead", "bearing left", "speed ahead", "speed left",
    "facing ahead", "facing left", "hp", "heat", "stability", "shut down", "fallen", "without legs", "painted",
    "in line of sight", "scout", "light", "medium", "heavy", "leader",
)  # fmt: skip
PATCH, PATCH_STEP = 9, 2.5
NEAR, FAST, PACE = 20.0, 10.0, 60.0  # metres, metres per second, zone points that count as 1
DAMAGE_UNIT = 500.0


def parts_of(pack: int) -> dict[str, Part]:
    found, start = {}, 0
    for name, shape in (
        ("self", (len(SELF),)),
        ("squad", (pack - 1, len(OTHER))),
        ("enemy", (pack, len(OTHER))),
        ("ground", (PATCH, PATCH)),
    ):
        if 0 not in shape:
            found[name] = Part(start, shape)
            start = found[name].stop
    return found


NUM_SELF, NUM_OTHER = len(SELF), len(OTHER)


@apart
def observe(state, player, obs):
    if state.map < 0:
        return
    pack = len(state.x) // 2
    _observe_self(state, player, obs)
    at, own = NUM_SELF, player // pack * pack
    for j in range(pack):
        if own + j != player:
            if state.alive[own + j]:
                _observe_other(state, player, own + j, obs[at : at + NUM_OTHER])
            at += NUM_OTHER
    first = first_enemy(state, player)
    for j in range(pack):
        if state.seen[player] >> j & 1:
            _observe_other(state, player, first + j, obs[at : at + NUM_OTHER])
            if state.sighted[player] >> j & 1:
                obs[at + 18] = 1.0
        at += NUM_OTHER
    _observe_ground(state, player, obs[at:])


@apart
def _observe_self(state, m, obs):
    kind, pack = state.kind[m], len(state.x) // 2
    team = m // pack
    side = 1.0 if team == 0 else -1.0
    fx, fy = float(state.fx[m]), float(state.fy[m])
    x, y = float(state.x[m]), float(state.y[m])
    zone_x, zone_y = -x, ZONE[state.map, 0] - y
    away = (zone_x * zone_x + zone_y * zone_y) ** 0.5
    way_x, way_y = way(state.map, x, y)
    here_x, here_y = column(x), column(y)
    obs[0], obs[1], obs[2] = state.alive[m], state.shutdown[m], state.fallen[m] > 0.0
    obs[3], obs[4] = state.legs[m] <= 0.0, state.vz[m] != 0.0
    obs[5], obs[6] = state.hp[m] / HP[kind], state.legs[m] / LEG_HP[kind]
    obs[7], obs[8] = state.heat[m] / HEAT_CAP[kind], state.stability[m] / STABILITY
    for w in range(state.cooldown.shape[1]):
        obs[9 + w] = state.cooldown[m, w] / COOLDOWN[w] if CARRIES[kind, w] else -1.0
    obs[15] = state.painted[m] > 0.0
    obs[16] = state.hit_x[m] * fx + state.hit_y[m] * fy
    obs[17] = (state.hit_y[m] * fx - state.hit_x[m] * fy) * side
    obs[18], obs[19] = state.suppressed[m] > 0.0, state.inbound[m]
    obs[20], obs[21] = state.quality[m], state.jam[m]
    obs[22] = (state.vx[m] * fx + state.vy[m] * fy) / FAST
    obs[23] = (state.vy[m] * fx - state.vx[m] * fy) / FAST
    obs[24], obs[25], obs[26] = state.vz[m] / FAST, state.z[m] / TALLEST, state.inside[m]
    obs[27], obs[28] = (zone_x * fx + zone_y * fy) / NEAR, (zone_y * fx - zone_x * fy) / NEAR
    obs[29], obs[30] = away / NEAR, ZONE[state.map, 1] / NEAR
    obs[31], obs[32] = way_x * fx + way_y * fy, way_y * fx - way_x * fy
    obs[33] = 0.5 * PATH[state.map, here_x, here_y] / SIZE
    obs[34], obs[35] = state.control[team], state.control[1 - team]
    obs[36] = (state.zone_points[team] - state.zone_points[1 - team]) / PACE
    obs[37] = state.zone_points[team] / PACE
    obs[38], obs[39] = state.losses[team] / pack, state.losses[1 - team] / pack
    obs[40] = (state.dealt[team] - state.dealt[1 - team]) / DAMAGE_UNIT
    obs[41] = state.tick / MAX_TICKS
    obs[42], obs[43], obs[44], obs[45] = side * x / SIZE, y / SIZE, side * fx, fy
    obs[46] = state.map / MAPS
    obs[47 + kind] = 1.0
    obs[52] = SIGHT[state.map, here_x, here_y] > GROUND[state.map, here_x, here_y] + state.z[m]
    obs[53] = is_up(state, m)


@apart
def _observe_other(state, m, o, out):
    kind, fx, fy = state.kind[o], float(state.fx[m]), float(state.fy[m])
    dx, dy = float(state.x[o] - state.x[m]), float(state.y[o] - state.y[m])
    ahead, left = dx * fx + dy * fy, dy * fx - dx * fy
    away = max((dx * dx + dy * dy) ** 0.5, 1e-6)
    out[0] = 1.0
    out[1], out[2], out[3] = ahead / NEAR, left / NEAR, (state.z[o] - state.z[m]) / TALLEST
    out[4], out[5], out[6] = away / NEAR, ahead / away, left / away
    out[7] = (state.vx[o] * fx + state.vy[o] * fy) / FAST
    out[8] = (state.vy[o] * fx - state.vx[o] * fy) / FAST
    out[9] = state.fx[o] * fx + state.fy[o] * fy
    out[10] = state.fy[o] * fx - state.fx[o] * fy
    out[11], out[12], out[13] = state.hp[o] / HP[kind], state.heat[o] / HEAT_CAP[kind], state.stability[o] / STABILITY
    out[14], out[15], out[16] = state.shutdown[o], state.fallen[o] > 0.0, state.legs[o] <= 0.0
    out[17] = state.painted[o] > 0.0
    out[19 + kind] = 1.0


@apart
def _observe_ground(state, m, out):
    fx, fy = state.fx[m] * PATCH_STEP, state.fy[m] * PATCH_STEP
    middle = PATCH // 2
    for i in range(PATCH):
        for j in range(PATCH):
            ahead, left = middle - i, middle - j
            x, y = state.x[m] + ahead * fx - left * fy, state.y[m] + ahead * fy + left * fx
            out[i * PATCH + j] = (GROUND[state.map, column(x), column(y)] - state.z[m]) / TALLEST


@apart
def redact(state, player):
    """Erase what `player` does not see: intents, rounds in the air, clocks of others, and enemies out of sight."""
    pack = len(state.x) // 2
    first = first_enemy(state, player)
    for m in range(len(state.x)):
        enemy = first <= m < first + pack
        if (enemy and not state.seen[player] >> (m - first) & 1) or (m != player and not state.alive[m]):
            _forget(state, m)
        _forget_clocks(state, m, m == player)
    state.advanced = 0


@apart
def _forget(state, m):
    """Nothing is known of m, but for its class."""
    state.x[m] = state.y[m] = state.z[m] = state.vx[m] = state.vy[m] = state.vz[m] = 0.0
    state.fx[m] = state.fy[m] = state.hp[m] = state.legs[m] = state.heat[m] = state.stability[m] = 0.0
    state.fallen[m] = state.painted[m] = 0.0
    state.alive[m] = state.shutdown[m] = state.inside[m] = 0


@apart
def _forget_clocks(state, m, own):
    """What nobody is told of m, and what only m itself is."""
    state.before_x[m] = state.before_y[m] = state.before_z[m] = 0.0
    state.hurt[m] = state.hurt_legs[m] = state.shaken[m] = state.warmed[m] = 0.0
    state.potential[m] = state.approach[m] = state.credit[m] = 0.0
    state.painter[m] = state.used[m] = state.arrived[m] = state.hitter[m] = 0
    state.intent[m] = state.hurt_by[m] = 0
    state.ewar[m] = 0
    clear_rounds(state, m)
    state.fallen[m] = 1.0 if state.fallen[m] > 0.0 else 0.0
    state.painted[m] = 1.0 if state.painted[m] > 0.0 else 0.0
    state.suppressed[m] = 1.0 if state.suppressed[m] > 0.0 and own else 0.0
    if not own:
        state.vz[m] = 0.0
        state.legs[m] = 1.0 if state.legs[m] > 0.0 else 0.0
        state.hit_x[m] = state.hit_y[m] = state.quality[m] = state.jam[m] = 0.0
        state.inbound[m] = 0
        state.seen[m] = state.sighted[m] = 0
        for w in range(state.cooldown.shape[1]):
            state.cooldown[m, w] = 0.0
