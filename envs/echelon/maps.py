"""The pool of maps: columns of a metre, each its own mirror image, with a way from both sides to the zone.

Four biomes of ours: open (hills and boulders), urban (houses, some of them of glass), forest (trees to hide in, rocks)
and canyon (long walls with gaps). All maps are drawn once, when the module is imported, by the streams of `envs.rng`.
Nothing changes them in a game, so all games share them. A map whose zone cannot be walked to has a road carved.
"""

from typing import NamedTuple

import numpy as np

from envs.jit import apart, njit
from envs.rng import GAMMA, make_streams, mix

SIZE = 60  # metres; columns in x and y
HALF = SIZE / 2
TALLEST = 7
STEP_UP = 1.1  # that legs can take
BIOMES = ("open", "urban", "forest", "canyon")
MAPS = 64  # in the pool, the biomes in turns
SEED = 21
SPAWN_X = 24.3  # of the packs' middle; nobody begins at a whole number, where mirrored columns differ
SPAWN_ROOM = 9  # half a side of the square cleared there
SPAWN_Y = 18.0  # |y| of spawns and zones is at most this
ZONE_RADIUS, ZONE_SPREAD = 7.5, (0.5, 1.5)
FOOTPRINT = 2  # columns around its middle that the widest mech needs
OFF_PATH = 200  # half metres: beyond, and where the widest mech never is, no path is told


class Pool(NamedTuple):
    """K maps. Arrays [K, x, y] uint8."""

    ground: np.ndarray  # height to walk on
    sight: np.ndarray  # height up to which it blocks the eye: more than ground under trees, less under glass
    path: np.ndarray  # half metres to walk to the zone, for the widest mech; OFF_PATH and more where there is no way
    zone: np.ndarray  # [K, 2] float64: y, radius; x is 0
    spawn: np.ndarray  # [K] float64: y of both spawns
    biome: np.ndarray  # [K]


class _Draws:
    """Numbers in [0, 1) of one map, in order."""

    def __init__(self, number: int):
        self._stream = make_streams(1, SEED, number)[0]

    def __call__(self, *shape: int) -> np.ndarray:
        count = int(np.prod(shape))
        with np.errstate(over="ignore"):
            states = self._stream + GAMMA * np.arange(1, count + 1, dtype=np.uint64)
            self._stream += GAMMA * np.uint64(count)
        return np.array([int(mix(z)) >> 11 for z in states]).reshape(shape) * 2.0**-53


def _square(field: np.ndarray, x: float, y: float, half: float, value: int) -> None:
    """Set the columns within `half` of (x, y), and nothing beyond the left half of the map."""
    lo, hi = max(int(x - half), 0), max(int(x + half), 0)
    field[lo:hi, max(int(y - half), 0) : max(int(y + half), 0)] = value


def _terrain(biome: int, draw: _Draws) -> tuple[np.ndarray, np.ndarray]:
    """ground, sight [SIZE / 2, SIZE]: the left half, before anything is cleared."""
    wide = SIZE // 2
    ground = np.zeros((wide, SIZE), np.uint8)
    if biome in (0, 2):  # hills: steps of one metre around some tops
        x, y = np.mgrid[0:wide, 0:SIZE]
        for top in draw(3, 4):
            away = np.hypot(x - top[0] * SIZE, y - top[1] * SIZE)
            ground = np.maximum(ground, np.clip(1 + 3 * top[2] - away / (3 + 3 * top[3]), 0, 3).astype(np.uint8))
    sight = ground.copy()
    if biome == 0:
        for rock in draw(10, 3):
            _both(ground, sight, rock, 1 + 1.5 * rock[2], 3 + int(3 * rock[2]))
    elif biome == 1:
        for house in draw(9, 5):
            half, tall = 2 + 3 * house[2], 3 + int(5 * house[3])
            _both(ground, sight, house, half, tall)
            if house[4] < 0.25:
                _square(sight, house[0] * wide, house[1] * SIZE, half, 0)  # glass
    elif biome == 2:
        for wood in draw(14, 3):
            _square(sight, wood[0] * wide, wood[1] * SIZE, 1.5 + 3 * wood[2], 5)  # trees
        sight = np.maximum(sight, ground)
        for rock in draw(4, 3):
            _both(ground, sight, rock, 1 + rock[2], 4)
    else:
        for wall in draw(4, 4):
            at, gap, tall = int(4 + wall[0] * (wide - 8)), int(wall[1] * (SIZE - 12)), 4 + int(4 * wall[2])
            ground[at : at + 3] = tall
            ground[at : at + 3, gap : gap + 12] = 0
            second = (gap + SIZE // 2) % (SIZE - 8)
            ground[at : at + 3, second : second + 8] = 0
        sight = ground.copy()
    return ground, sight


def _both(ground: np.ndarray, sight: np.ndarray, at: np.ndarray, half: float, tall: int) -> None:
    for field in (ground, sight):
        _square(field, at[0] * len(field), at[1] * SIZE, half, tall)


def _clear(ground: np.ndarray, sight: np.ndarray, spawn: float, zone: np.ndarray) -> None:
    """Flat ground at the spawn and in the middle of the zone; the rest of the zone keeps its cover."""
    for field in (ground, sight):
        _square(field, HALF - SPAWN_X, HALF + spawn, SPAWN_ROOM, 0)
        _square(field, HALF, HALF + zone[0], 0.6 * zone[1] + FOOTPRINT, 0)


def _carve(ground: np.ndarray, sight: np.ndarray, spawn: float, zone: float) -> None:
    """A flat road of seven metres from the spawn to the zone."""
    for share in np.linspace(0.0, 1.0, 4 * SIZE):
        x, y = HALF - SPAWN_X + share * SPAWN_X, HALF + spawn + share * (zone - spawn)
        for field in (ground, sight):
            _square(field, x, y, 3.5, 0)


def _whole(half: np.ndarray) -> np.ndarray:
    return np.concatenate([half, half[::-1]], 0)


@njit
def _stands(ground, stands):
    """The height at which the widest mech stands with its middle in each column."""
    size = len(ground)
    for x in range(size):
        for y in range(size):
            stands[x, y] = 0
            for i in range(max(x - FOOTPRINT, 0), min(x + FOOTPRINT + 1, size)):
                for j in range(max(y - FOOTPRINT, 0), min(y + FOOTPRINT + 1, size)):
                    stands[x, y] = max(stands[x, y], ground[i, j])


@njit
def _shorten(stands, path):
    """Lower `path` to what a walk from a neighbour makes of it, until nothing changes."""
    size, changed = len(stands), True
    while changed:
        changed = False
        for order in range(4):
            for a in range(size):
                for b in range(size):
                    x = a if order % 2 == 0 else size - 1 - a
                    y = b if order < 2 else size - 1 - b
                    for i in range(max(x - 1, 0), min(x + 2, size)):
                        for j in range(max(y - 1, 0), min(y + 2, size)):
                            step = path[i, j] + (3 if i != x and j != y else 2)
                            if step < path[x, y] and abs(stands[x, y] - stands[i, j]) <= STEP_UP:
                                path[x, y] = step
                                changed = True


def _paths(ground: np.ndarray, zone: np.ndarray) -> np.ndarray:
    """[x, y] int64: half metres that the widest mech walks to the zone (0 within); OFF_PATH where it does not."""
    stands = np.empty(ground.shape, np.int64)
    _stands(ground, stands)
    x, y = (np.mgrid[0:SIZE, 0:SIZE] + 0.5) - HALF
    inside = (np.hypot(x, y - zone[0]) <= zone[1]) & (stands == 0)
    path = np.where(inside, 0, OFF_PATH)
    _shorten(stands, path)
    return path


def _with_ways_out(path: np.ndarray) -> np.ndarray:
    """`path` as it is; beside it OFF_PATH and the half metres to where there is one, 254 at most."""
    out = np.where(path < OFF_PATH, 0, OFF_PATH)
    _shorten(np.zeros(path.shape, np.int64), out)
    return np.where(path < OFF_PATH, path, np.minimum(OFF_PATH + out, 254)).astype(np.uint8)


def _walkable(ground: np.ndarray, spawn: float, zone: np.ndarray) -> bool:
    """The widest mech can walk from the spawn to the zone."""
    return bool(_paths(ground, zone)[int(HALF - SPAWN_X), int(HALF + spawn)] < OFF_PATH)


def make_map(number: int) -> Pool:
    """Map `number` of the pool, alone."""
    draw, biome = _Draws(number), number % len(BIOMES)
    spawn, zone_y, size = draw(3)
    spawn = round((2 * spawn - 1) * SPAWN_Y) + 0.25
    radius = ZONE_RADIUS * (ZONE_SPREAD[0] + size * (ZONE_SPREAD[1] - ZONE_SPREAD[0]))
    zone = np.array([(2 * zone_y - 1) * SPAWN_Y, radius])
    ground, sight = _terrain(biome, draw)
    _clear(ground, sight, spawn, zone)
    if not _walkable(_whole(ground), spawn, zone):
        _carve(ground, sight, spawn, zone[0])
    ground, sight = _whole(ground), _whole(sight)
    path = _with_ways_out(_paths(ground, zone))
    found = Pool(ground, sight, path, zone, np.float64(spawn), np.int64(biome))
    return Pool(*(np.asarray(x)[None] for x in found))


def make_pool(count: int) -> Pool:
    return Pool(*(np.concatenate(found) for found in zip(*(make_map(k) for k in range(count)))))


def check_pool(pool: Pool) -> Pool:
    """The pool itself.

    Raises:
        ValueError: a map is no mirror image of itself, is too tall, or its zone cannot be walked to from a spawn.
    """
    for k, ground in enumerate(pool.ground):
        name = f"map {k} ({BIOMES[int(pool.biome[k])]})"
        for what, field in (("ground", ground), ("sight", pool.sight[k])):
            if (field != field[::-1]).any():
                raise ValueError(f"{name}: {what} is no mirror image of itself in x; make the right half from the left")
            if field.max() > TALLEST:
                raise ValueError(f"{name}: {what}={field.max()}, the tallest column may have {TALLEST} m")
        zone, spawn = pool.zone[k], float(pool.spawn[k])
        if not _walkable(ground, spawn, zone):
            raise ValueError(
                f"{name}: no path from the spawn at y={spawn:.2f} to the zone at y={zone[0]:.2f}, "
                f"radius {zone[1]:.1f}; lower a wall, or carve a road"
            )
    return pool


POOL = check_pool(make_pool(MAPS))
GROUND, SIGHT, PATH, ZONE, SPAWN = POOL.ground, POOL.sight, POOL.path, POOL.zone, POOL.spawn


def nearest_maps(count: int) -> np.ndarray:
    """[MAPS] bool: the `count` maps with the shortest way from the spawns to the zone.

    Raises:
        ValueError: there are not so many.
    """
    if not 1 <= count <= MAPS:
        raise ValueError(f"maps={count}: the pool has 1 to {MAPS}")
    at_spawn = [int(path[int(HALF - SPAWN_X), int(HALF + y)]) for path, y in zip(PATH, SPAWN)]
    chosen = np.zeros(MAPS, np.bool_)
    chosen[np.argsort(at_spawn, kind="stable")[:count]] = True
    return chosen


@njit
def column(at):
    """The column in which a coordinate lies; those beyond the map belong to its edge."""
    return min(max(int(at + HALF), 0), SIZE - 1)


@apart
def highest(field, number, x, y, radius):
    """The highest column of map `number` under a square of half a side `radius` around (x, y)."""
    found = 0
    for i in range(column(x - radius), column(x + radius) + 1):
        for j in range(column(y - radius), column(y + radius) + 1):
            found = max(found, field[number, i, j])
    return found


@apart
def way(number, x, y):
    """(dx, dy): the unit direction in which the path to the zone is shortest; the zone's middle where there is none."""
    here, zone_y = PATH[number, column(x), column(y)], ZONE[number, 0]
    best, best_x, best_y = np.inf, 0.0, 0.0
    for i in range(-1, 2):
        for j in range(-1, 2):
            reach = 1.5 if i == 0 or j == 0 else 1.1
            to_x, to_y = x + i * reach, y + j * reach
            there = PATH[number, column(to_x), column(to_y)]
            ties = 1e-5 * (to_x * to_x + (to_y - zone_y) * (to_y - zone_y))  # the nearer of equal ones
            if there < here and there + ties < best:
                best, best_x, best_y = there + ties, float(i), float(j)
    if best_x == 0.0 and best_y == 0.0:
        best_x, best_y = -x, zone_y - y
    size = (best_x * best_x + best_y * best_y) ** 0.5
    if size < 1e-6:
        return 0.0, 0.0
    return best_x / size, best_y / size
