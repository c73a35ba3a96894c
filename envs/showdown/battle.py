"""A battle as far as Python knows it: who is to choose what, and what has been chosen of one request.

A turn is several decisions: both sides choose one after the other without seeing the other's choice, and a side chooses
slot by slot (in the preview pick by pick). A side that is asked nothing is skipped, and so is a choice among one.

Letters: A actions, D numbers of an observation.
"""

import base64
from dataclasses import dataclass, field

import numpy as np

from envs.showdown import FORCED, INTERFACE, LAYOUT, PASS, PREVIEW, SWITCH
from envs.showdown.host import Host

CHOICE = INTERFACE.obs_parts["choice"].start
MOST_PICKS = 6


@dataclass
class Battle:
    """One running battle, as far as Python knows it."""

    host: Host
    key: int
    seeds: tuple[int, int, int]  # of the battle and of both teams, where the format makes them
    teams: tuple[int, int]  # drawn from the pool; -1 where the format makes them
    asked: list = field(default_factory=list)  # of each side: kind, legal actions of both slots, passes, picks; or None
    made: list[list[int]] = field(default_factory=lambda: [[], []])  # of each side, for this request
    seen: list[np.ndarray] = field(default_factory=list)  # of each side [D] int16
    moves: list[int] = field(default_factory=list)  # the players' decisions so far
    player: int = 0
    legal: list[int] = field(default_factory=list)

    def look(self) -> bool:
        """Find who is to decide what, taking choices among one; False where the simulator is to be asked first."""
        for self.player in (0, 1):
            while self.asked[self.player] is not None:
                self.legal = legal_actions(self.asked[self.player], self.made[self.player])
                if len(self.legal) != 1:
                    break
                self.made[self.player] += self.legal
            if self.asked[self.player] is not None and self.legal:
                return True
        return False

    def take(self, action: int) -> None:
        self.made[self.player].append(action)
        self.moves.append(action)

    def take_in(self, answer: list) -> None:
        """What the simulator has answered, where the battle goes on."""
        _, self.asked, seen, _ = answer
        self.made = [[], []]
        self.seen = [np.frombuffer(base64.b64decode(each), "<i2") for each in seen]

    def choices(self) -> list[str]:
        """What is sent to the simulator, of each side."""
        return ["" if asked is None else choice_text(asked, made) for asked, made in zip(self.asked, self.made)]

    def observe(self, player: int) -> np.ndarray:
        """[D] int16: what a side has been told, and how far it has come in choosing."""
        obs, asked, made = self.seen[player].copy(), self.asked[player], self.made[player]
        if asked is not None:
            picks = made if asked[0] == PREVIEW else []
            obs[CHOICE : CHOICE + 3] = asked[0], min(len(made), 1) if asked[0] != PREVIEW else 0, len(picks)
            for i, pick in enumerate(picks):
                obs[CHOICE + 3 + i] = pick - SWITCH + 1
            if asked[0] != PREVIEW and made:
                obs[CHOICE + 3 + MOST_PICKS] = made[0] + 1
        return obs


def legal_actions(asked: list, made: list[int]) -> list[int]:
    """What a side may do next, after what it has chosen of this request; [] where nothing is left to choose."""
    kind, *slots, passes, picks = asked
    if kind == PREVIEW:
        return [a for a in slots[0] if a not in made] if len(made) < picks else []
    if len(made) == 2:
        return []
    if not made:
        return slots[0]
    first, second = made[0], slots[1]
    if SWITCH <= first < PASS:
        second = [a for a in second if a != first]
    if is_tera(first):
        second = [a for a in second if not is_tera(a)]
    if kind == FORCED and first == PASS and slots[0] != [PASS]:  # a pass of its own will
        passes -= 1
    if kind == FORCED and passes == 0 and second != [PASS]:
        second = [a for a in second if a != PASS]
    return second or [PASS]


def is_tera(action: int) -> bool:
    return action < SWITCH and action % 10 >= 5


def choice_text(asked: list, made: list[int]) -> str:
    """A side's whole choice in Showdown's words."""
    if asked[0] == PREVIEW:
        return "team " + ",".join(str(a - SWITCH + 1) for a in made)
    return ", ".join(map(_word, made))


def _word(action: int) -> str:
    if action == PASS:
        return "pass"
    if action >= SWITCH:
        return f"switch {action - SWITCH + 1}"
    move, rest = divmod(action, 10)
    target = LAYOUT["targets"][rest % 5]
    return f"move {move + 1}{f' {target:+d}' if target else ''}{' terastallize' if rest >= 5 else ''}"
