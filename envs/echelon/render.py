"""A game from above: as text, as pixels, as a PNG of some positions and as a GIF.

`python -m envs.echelon game.gif` makes one.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from envs.echelon.maps import BIOMES, GROUND, POOL, SIGHT, SIZE, ZONE, column
from envs.echelon.mechs import CLASSES, DECISION, HP, MISSILE, RADIUS

LETTERS = "SLMHP"  # scout, light, medium, heavy, leader of the pack; capital for team 0
SCALE, HEAD, GAP = 8, 26, 8  # pixels per metre, of the line above a picture, and between two
TEAM = np.array([[70, 130, 230], [225, 85, 70]], np.uint8)
GLASS, TREES, ZONE_COLOUR = np.array([150, 200, 210]), np.array([70, 125, 70]), np.array([235, 205, 110])


def render(state) -> str:
    """The map with north (y) up, two metres to a line, and who is where."""
    if state["map"] < 0:
        return "no map yet"
    number, pack = int(state["map"]), len(state["x"]) // 2
    ground, sight = GROUND[number], SIGHT[number]
    shown = np.where(ground > 0, ground + ord("0"), np.where(sight > 0, ord("%"), ord("."))).astype(np.uint8)
    x, y = np.mgrid[0:SIZE, 0:SIZE] + 0.5 - SIZE / 2
    shown[(np.hypot(x, y - ZONE[number, 0]) <= ZONE[number, 1]) & (shown == ord("."))] = ord("-")
    for m in range(2 * pack):
        if state["alive"][m]:
            letter = LETTERS[state["kind"][m]]
            row = column(float(state["y"][m])) // 2 * 2
            shown[column(float(state["x"][m])), row] = ord(letter if m < pack else letter.lower())
    lines = [bytes(shown[:, row]).decode() for row in range(SIZE - 2, -1, -2)]
    points, losses = state["zone_points"], state["losses"]
    head = (
        f"{BIOMES[int(POOL.biome[number])]} {number}, {int(state['tick']) * DECISION:.2f} s | zone {points[0]:.1f} : "
        f"{points[1]:.1f} | losses {losses[0]} : {losses[1]}"
    )
    crews = []
    for m in range(2 * pack):
        if state["alive"][m]:
            words = [f"{m} {CLASSES[state['kind'][m]]} hp {state['hp'][m]:.0f} heat {state['heat'][m]:.0f}"]
            words += [name for name in ("shutdown", "fallen", "painted") if state[name][m] > 0]
            crews.append(" ".join(words))
    return "\n".join([head, *lines, " | ".join(crews)])


def picture(state) -> np.ndarray:
    """[H, W, 3] uint8: one position; blue is team 0.

    Dark rims are damage, crosses wrecks, dots rounds in the air; a line leads from who has hit a mech in the last
    decision to where it stands.
    """
    number, pack = int(state["map"]), len(state["x"]) // 2
    ground, sight = (np.repeat(np.repeat(f[number], SCALE, 0), SCALE, 1).astype(float) for f in (GROUND, SIGHT))
    pixels = np.repeat((205 - 22 * ground)[..., None], 3, 2)
    pixels[sight > ground] = TREES
    pixels[sight < ground] = GLASS - 8 * ground[sight < ground][:, None]
    x, y = (np.mgrid[0 : SIZE * SCALE, 0 : SIZE * SCALE] + 0.5) / SCALE - SIZE / 2
    zone = np.hypot(x, y - ZONE[number, 0]) <= ZONE[number, 1]
    pixels[zone] = 0.55 * pixels[zone] + 0.45 * ZONE_COLOUR
    for m in range(2 * pack):
        if not state["alive"][m]:
            _draw_wreck(pixels, x, y, state, m, TEAM[m // pack])
    for m in range(2 * pack):
        if state["hit_x"][m] or state["hit_y"][m]:
            _draw_hit(pixels, state, int(state["hitter"][m]), m, TEAM[1 - m // pack])
    for m in range(2 * pack):
        if state["alive"][m]:
            _draw_mech(pixels, x, y, state, m, TEAM[m // pack])
    for m in range(2 * pack):
        for r in np.flatnonzero(state["round_left"][m] > 0):
            size = 0.35 if state["round_kind"][m, r] == MISSILE else 0.2
            at = state["round_at"][m, r]
            pixels[np.hypot(x - at[0], y - at[1]) <= size] = (20, 20, 20)
    _draw_bars(pixels, state)
    return pixels.astype(np.uint8).transpose(1, 0, 2)[::-1]


def _draw_mech(pixels, x, y, state, m, colour) -> None:
    radius = RADIUS[state["kind"][m]]
    dx, dy = x - state["x"][m], y - state["y"][m]
    away = np.hypot(dx, dy)
    health = float(state["hp"][m] / HP[state["kind"][m]])
    pixels[away <= radius + 0.25] = (250, 240, 90) if state["painted"][m] > 0 else (30, 30, 30)
    pixels[away <= radius] = 0.35 * colour
    pixels[away <= radius * np.sqrt(health)] = colour
    if state["shutdown"][m] or state["fallen"][m] > 0:
        pixels[away <= 0.45 * radius] = (250, 120, 30) if state["shutdown"][m] else (250, 250, 250)
    ahead, left = dx * state["fx"][m] + dy * state["fy"][m], dy * state["fx"][m] - dx * state["fy"][m]
    pixels[(ahead > 0) & (ahead <= radius + 0.9) & (np.abs(left) <= 0.18)] = (20, 20, 20)


def _draw_wreck(pixels, x, y, state, m, colour) -> None:
    dx, dy = np.abs(x - state["x"][m]), np.abs(y - state["y"][m])
    pixels[(np.abs(dx - dy) < 0.25) & (dx < 0.8)] = 0.5 * colour + 60


def _draw_hit(pixels, state, shooter, m, colour) -> None:
    share = np.linspace(0, 1, 4 * SIZE)
    at = [state[axis][shooter] + share * (state[axis][m] - state[axis][shooter]) for axis in ("x", "y")]
    i, j = (np.clip((SCALE * (a + SIZE / 2)).astype(int), 0, len(pixels) - 2) for a in at)
    for di in (0, 1):
        pixels[i + di, j] = pixels[i, j + di] = 0.6 * colour + 100


def _draw_bars(pixels, state) -> None:
    """Zone points of both sides along the lower edge; the whole width is a minute."""
    for team in range(2):
        wide = int(np.clip(state["zone_points"][team] / 60, 0, 1) * len(pixels))
        pixels[:wide, 5 * team : 5 * team + 4] = TEAM[team]


def frame(state):
    """An image of a position: the classes' letters, and a line that tells time and score; needs Pillow."""
    from PIL import Image, ImageDraw, ImageFont

    pixels, pack = np.ascontiguousarray(picture(state)), len(state["x"]) // 2
    image = Image.new("RGB", (pixels.shape[1], pixels.shape[0] + HEAD), "white")
    image.paste(Image.fromarray(pixels), (0, HEAD))
    draw, head = ImageDraw.Draw(image), ImageFont.load_default(15)
    time = f"{BIOMES[int(POOL.biome[state['map']])]} {state['map']}, {int(state['tick']) * DECISION:.0f} s"
    draw.text((6, 4), time, "black", head)
    for team, at in ((0, 0.36), (1, 0.68)):
        score = f"zone {state['zone_points'][team]:.0f}, lost {state['losses'][team]}"
        draw.text((at * pixels.shape[1], 4), score, tuple(TEAM[team].tolist()), head)
    for m in range(2 * pack):
        if state["alive"][m]:
            at = SCALE * (state["x"][m] + SIZE / 2), HEAD + SCALE * (SIZE / 2 - state["y"][m])
            size = ImageFont.load_default(int(6 + 6 * RADIUS[state["kind"][m]]))
            draw.text(at, LETTERS[state["kind"][m]], "white", size, "mm")
    return image


def strip(path: str | Path, states: Sequence[np.ndarray], count: int = 4) -> None:
    """Write some of the positions (records) side by side as a PNG; needs Pillow, which matplotlib brings."""
    from PIL import Image

    frames = [frame(states[round(i)]) for i in np.linspace(0, len(states) - 1, count)]
    wide, high = frames[0].size
    image = Image.new("RGB", (count * (wide + GAP) - GAP, high), "white")
    for i, each in enumerate(frames):
        image.paste(each, (i * (wide + GAP), 0))
    image.save(path)


def film(path: str | Path, states: Sequence[np.ndarray], milliseconds: int = 100) -> None:
    """Write positions (records) as a GIF; needs Pillow, which matplotlib brings."""
    frames = [frame(state) for state in states]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=milliseconds, loop=0)


def play(game, heuristic, seed: int) -> list[np.ndarray]:
    """A game of a heuristic against itself: the record after each tick, but for the last."""
    from envs.heuristics import compile_heuristic
    from envs.vector_env import VectorEnv

    env, rows = VectorEnv(game, 1, seed), np.arange(1)
    kernel, probs, states = compile_heuristic(heuristic, game), np.zeros(env.legal.shape, np.float32), []
    while not env.done[0]:
        kernel(rows, env.state, env.player, env.obs, env.legal, probs)
        env.step(env.sample(probs))
        if env.state[0]["advanced"]:
            states.append(env.state[0].copy())
    return states
