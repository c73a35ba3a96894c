"""Pokémon VGC doubles on Pokémon Showdown's own simulator: sizes and names. README.md says what is what.

The rules are those of npm's `pokemon-showdown`, unmodified, in processes of Node (`host`); `env` plays B battles there.

Letters: B battles, A actions, D numbers of an observation.
"""

import json
from pathlib import Path

import numpy as np

from envs.game import Interface, Part

VERSION = "0.11.11"  # of the package pokemon-showdown: its numbers of species, moves, items are those of `layout.json`
OBSERVATION = 1  # of what `watcher.js` makes of it
LAYOUT = json.loads(Path(__file__).with_name("layout.json").read_text())
VGC = "gen9randomdoublesbattle@@@Team Preview,Picked Team Size = 4,Adjust Level = 50"  # with generated teams
SWITCH, PASS = LAYOUT["switch"], LAYOUT["pass"]  # switch to, or pick, whoever is at place i of the team: SWITCH + i
PREVIEW, MOVE, FORCED = 1, 2, 3  # kinds of requests
SLOT = LAYOUT["slot"] + LAYOUT["volatiles"]
SIDE = LAYOUT["side"] + LAYOUT["side_conditions"]


def _parts() -> dict[str, Part]:
    parts, at = {}, 0
    for name, shape in (
        ("own", (6, len(LAYOUT["mon"]))),
        ("foe", (6, len(LAYOUT["mon"]))),
        ("slots", (4, len(SLOT))),
        ("field", (len(LAYOUT["field"]),)),
        ("sides", (2, len(SIDE))),
        ("choice", (len(LAYOUT["choice"]),)),
    ):
        parts[name] = Part(at, shape)
        at = parts[name].stop
    return parts


def _action_names() -> tuple[str, ...]:
    aims = [f"{target:+d}" if target else "" for target in LAYOUT["targets"]]
    moves = [f"move {m}{f' {aim}' if aim else ''}{tera}" for m in range(1, 5) for tera in ("", " tera") for aim in aims]
    return (*moves, *(f"switch {i}" for i in range(1, 7)), "pass")


INTERFACE = Interface(
    name="showdown",
    version=f"{VERSION}-{OBSERVATION}",
    num_players=2,
    num_actions=LAYOUT["num_actions"],
    obs_shape=(LAYOUT["size"],),
    obs_dtype=np.dtype(np.int16),
    max_return=1.0,
    action_names=_action_names(),
    perfect_recall=False,
    obs_parts=_parts(),
)
