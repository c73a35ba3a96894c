"""Mechs and weapons in numbers, what an action says, and the record of a game.

Metres, seconds, degrees of heat; the ground plane is x, y with the origin in the middle of the map, z is up. Team 0
begins at negative x, team 1 at positive x, and a map is its own mirror image. Directions are kept as vectors and never
as angles, so that a mirrored game is the same game to the last bit.
"""

import math

import numpy as np
from numba import njit

VERSION = "1.0"  # of the world: of every constant in this folder that changes how a game goes

STEP, SUBSTEPS = 0.05, 5  # seconds of a substep; substeps of a decision
DECISION = STEP * SUBSTEPS
MAX_TICKS = 240  # decisions of each mech, 60 s: then the game is judged
WATCH = 16  # a wreck decides every so many ticks, and has one action: its player learns what became of its team
SLOTS = 8  # mechs in a pack, at most

SCOUT, LIGHT, MEDIUM, HEAVY, LEADER = range(5)
CLASSES = ("scout", "light", "medium", "heavy", "leader")
SIX = (SCOUT, LIGHT, MEDIUM, MEDIUM, HEAVY, LEADER)

# By class: scout, light, medium, heavy, leader (a light chassis).
RADIUS = np.array([0.6, 0.75, 1.25, 1.75, 0.75])  # half of the documents' width
TALL = np.array([1.8, 2.0, 3.0, 4.0, 2.0])
SPEED = np.array([7.0, 6.8, 5.5, 2.5, 6.8])
YAW = np.array([1.8, 1.5, 1.0, 0.6, 1.5])  # rad/s
JET = np.array([18.0, 16.0, 0.0, 0.0, 16.0])  # m/s2, upwards
HP = np.array([60.0, 80.0, 150.0, 200.0, 80.0])
LEG_HP = np.array([30.0, 40.0, 75.0, 100.0, 40.0])
HEAT_CAP = np.array([75.0, 80.0, 100.0, 130.0, 80.0])
DISSIPATION = np.array([13.0, 12.0, 11.0, 10.0, 12.0])
TONS = np.array([20.0, 35.0, 55.0, 85.0, 35.0])
SENSOR = np.array([1.5, 1.2, 1.0, 0.8, 1.2])  # factor on the radar's range; the documents' suites

EYE = 0.6  # height of eyes, muzzles and the point aimed at, as a share of the body
LEG_PART = 0.3  # of the body, from below
STABILITY = 100.0

LASER, FLAMER, AUTOCANNON, GAUSS, MISSILE, PAINTER = range(6)
WEAPONS = ("laser", "flamer", "autocannon", "gauss", "missile", "painter")
# By weapon, in this order.
RANGE = np.array([8.0, 4.5, 12.0, 20.0, 12.0, 10.0])  # on the ground plane
LOCKED_RANGE = 50.0  # of missiles
DAMAGE = np.array([14.0, 4.0, 8.0, 50.0, 40.0, 0.0])
SHAKE = np.array([0.0, 0.0, 5.0, 60.0, 15.0, 0.0])  # of stability
HEAT = np.array([22.0, 10.0, 6.0, 15.0, 45.0, 5.0])
WARMS = np.array([6.0, 15.0, 0.0, 0.0, 0.0, 0.0])  # heat to the target
COOLDOWN = np.array([0.6, 0.15, 0.2, 4.0, 3.0, 1.0])
ARC = np.cos(np.array([60.0, 45.0, 45.0, math.degrees(0.2), 90.0, 30.0]) * math.pi / 180)  # of half the arc
FLIGHT = np.array([0.0, 0.0, 25.0, 40.0, 12.0, 0.0])  # m/s; 0: a ray
SPLASH = np.array([0.0, 0.0, 0.0, 1.5, 2.5, 0.0])  # radius; half of the damage within

HOLD, PRIMARY, ALL, SPECIAL, VENT = range(5)
INTENTS = ("hold", "primary", "all", "special", "vent")
# Which weapons an intent fires, by class. Special is jets for a scout, ECM for a light mech, ECCM for the leader.
LOADOUT = {
    SCOUT: {PRIMARY: (PAINTER,), ALL: (PAINTER,)},
    LIGHT: {PRIMARY: (FLAMER,), ALL: (FLAMER, LASER, PAINTER)},
    MEDIUM: {PRIMARY: (LASER,), ALL: (LASER, AUTOCANNON), SPECIAL: (PAINTER,)},
    HEAVY: {PRIMARY: (LASER,), ALL: (LASER, GAUSS, MISSILE), SPECIAL: (GAUSS, MISSILE)},
    LEADER: {PRIMARY: (FLAMER,), ALL: (FLAMER, LASER, PAINTER)},
}
FIRES = np.zeros((5, 5, 6), np.int8)  # class, intent, weapon
for _kind, _intents in LOADOUT.items():
    for _intent, _weapons in _intents.items():
        FIRES[_kind, _intent, list(_weapons)] = 1
CARRIES = FIRES.max(1)  # class, weapon
OFF, ECM, ECCM = range(3)
EWAR = np.array([OFF, ECM, OFF, OFF, ECCM])  # by class

# An action is (heading * 3 + turn) * 5 + intent; heading 0 stands, 1 to 8 walk at 0, 45, 90 ... degrees to the left.
NUM_HEADINGS, NUM_TURNS, NUM_INTENTS = 9, 3, 5
NUM_ACTIONS = NUM_HEADINGS * NUM_TURNS * NUM_INTENTS
STRAIGHT, LEFT, RIGHT = range(3)
_S = math.sqrt(0.5)
AHEAD = np.array([0.0, 1.0, _S, 0.0, -_S, -1.0, -_S, 0.0, _S])  # of a heading
ASIDE = np.array([0.0, 0.0, _S, 1.0, _S, 0.0, -_S, -1.0, -_S])  # to the left
TURN_COS, TURN_SIN = np.cos(YAW * STEP), np.sin(YAW * STEP)

ROUNDS = 3  # of each mech in the air at once; no weapon has more
FLOATS = (
    "x", "y", "z", "vx", "vy", "vz", "fx", "fy",  # place, velocity, facing
    "hp", "legs", "heat", "stability",
    "fallen", "suppressed", "painted",  # seconds left
    "quality", "jam",  # of its sensors
    "hit_x", "hit_y",  # where the last hit came from: a direction; 0 if none in the last decision
    "before_x", "before_y", "before_z",  # place before the substep
    "hurt", "hurt_legs", "shaken", "warmed",  # in this substep
    "potential", "approach", "credit",  # of the bonus, see `score`
)  # fmt: skip
BYTES = (
    "kind", "alive", "shutdown", "ewar",
    "painter",  # who painted it last
    "used",  # the paint on it has been of use
    "arrived",  # has been in the zone
    "inside",  # is in the zone
    "inbound",  # a missile is on its way to it
    "hitter",  # who hit it last
)  # fmt: skip


def state_dtype(pack: int) -> np.dtype:
    """The record of a game of two packs of so many mechs: team 0's come first."""
    m = 2 * pack
    return np.dtype(
        [(name, np.float32, m) for name in FLOATS]
        + [(name, np.int8, m) for name in BYTES]
        + [
            ("cooldown", np.float32, (m, len(WEAPONS))),
            ("intent", np.int16, m),  # the action of this tick
            ("seen", np.uint16, m),  # bit j: enemy number j of the other pack
            ("sighted", np.uint16, m),  # likewise: in line of sight
            ("hurt_by", np.uint16, m),  # bit j: by number j of the other pack, in this life
            ("round_at", np.float32, (m, ROUNDS, 3)),  # place of a round in the air
            ("round_to", np.float32, (m, ROUNDS, 3)),  # its direction
            ("round_left", np.float32, (m, ROUNDS)),  # seconds to fly; 0: none
            ("round_kind", np.int8, (m, ROUNDS)),  # weapon
            ("round_target", np.int8, (m, ROUNDS)),
            ("zone_points", np.float32, 2),
            ("losses", np.int8, 2),
            ("dealt", np.float32, 2),  # damage
            ("control", np.float32, 2),  # share of the zone in the last decision
            ("map", np.int16),  # -1: not dealt yet
            ("tick", np.int16),
            ("mover", np.int8),
            ("advanced", np.int8),  # the last action has advanced the world
            ("over", np.int8),
            ("winner", np.int8),  # team; -1: nobody
            ("formation", np.int8),  # of the bonus; the same in all games of one `Game`
        ]
    )


@njit
def heading_of(action):
    return action // (NUM_TURNS * NUM_INTENTS)


@njit
def turn_of(action):
    return action // NUM_INTENTS % NUM_TURNS


@njit
def intent_of(action):
    return action % NUM_INTENTS


@njit
def action_of(heading, turn, intent):
    return (heading * NUM_TURNS + turn) * NUM_INTENTS + intent


@njit
def is_up(state, m):
    """It is alive, stands, and obeys."""
    return state.alive[m] != 0 and state.fallen[m] <= 0.0 and state.shutdown[m] == 0


def mirrored(action: int) -> int:
    """The same action in a mirror: left is right."""
    heading, turn, intent = heading_of(action), turn_of(action), intent_of(action)
    heading = 10 - heading if heading > 1 else heading
    return action_of(heading, (STRAIGHT, RIGHT, LEFT)[turn], intent)


_POINTS = ("stand", "ahead", "ahead-left", "left", "back-left", "back", "back-right", "right", "ahead-right")
ACTION_NAMES = tuple(
    f"{heading}, {turn}, {intent}"
    for heading in _POINTS
    for turn in ("no turn", "turn left", "turn right")
    for intent in INTENTS
)
