"""Scenes for Echelon's tests: mechs where a test wants them, on ground that it knows."""

from envs.echelon import maps, motion, senses
from envs.echelon.two import GAME as TWO

AHEAD, BACK = 1, 5


def begun(game=TWO, number=0):
    """A game on a map, both packs at their spawns."""
    state = game.new_state()[0]
    game.apply_action(state, number)
    return state


def on_flat_ground(game=TWO, number=0, **places):
    """The mechs at the places (x, y, fx, fy) given by number (m0=...), the others far off; low ground all around."""
    state = begun(game, number)
    for m in range(game.num_players):
        state["x"][m], state["y"][m] = (-29.0, -29.0 + 4 * m) if m < game.num_players // 2 else (29.0, -29.0 + 4 * m)
    for name, (x, y, fx, fy) in places.items():
        m = int(name[1:])
        state["x"][m], state["y"][m], state["fx"][m], state["fy"][m] = x, y, fx, fy
    for m in range(game.num_players):
        state["z"][m] = motion.ground_under(state, m, float(state["x"][m]), float(state["y"][m]))
    senses.look(state)
    return state


def tick(game, state, **acts):
    """One tick; m0=action, everybody else does nothing."""
    for _ in range(game.num_players):
        player = game.current_player(state)
        game.apply_action(state, acts.get(f"m{player}", 0))
        if state["advanced"]:
            return


def flat_spot():
    """(map, y) with flat ground for 16 m around x = 0."""
    for number in range(len(maps.GROUND)):
        for y in range(10, 50):
            if (
                maps.GROUND[number, 14:46, y - 8 : y + 8].max() == 0
                and maps.SIGHT[number, 14:46, y - 8 : y + 8].max() == 0
            ):
                return number, y - 30 + 0.5
    raise AssertionError("no flat ground anywhere")


NUMBER, Y = flat_spot()
