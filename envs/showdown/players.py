"""Scripted opponents for leagues and matches: `envs.showdown.players.MaxBasePower`, `envs.showdown.players.MaxDamage`.

They see what any player sees, `table.obs` and `table.legal`, and the tables of `dex`. In previews, and where no move
can be made, they take any legal action alike. The random opponent is `random`, as in every game.

Letters: B rows of a table, n rows where the player is to move, A actions.
"""

import numpy as np

from envs.game import Interface, parts
from envs.showdown import INTERFACE, LAYOUT, MOVE, SWITCH
from envs.showdown.dex import STATS, load_dex

MON = {name: i for i, name in enumerate(LAYOUT["mon"])}
SPECIES, MOVE_1, PLACE = MON["species"], MON["move_1"], MON["place"]
FIRST_PLACE = 3  # of whoever stands in the first slot; the second has one more
FOE_1 = LAYOUT["targets"].index(1)
UNAIMED = LAYOUT["targets"].index(0)
PHYSICAL = 1
SPREAD, STAB, BURN = 0.75, 1.5, LAYOUT["mon"].index("status")


class MaxBasePower:
    """The legal move of the greatest base power, on any foe; it aims at no ally, and neither switches nor terastallises
    where it has another choice.

    Args:
        game: `envs.showdown`.
    """

    def __init__(self, game: Interface):
        if game.obs_shape != INTERFACE.obs_shape or game.num_actions != INTERFACE.num_actions:
            raise ValueError(f"{type(self).__name__}: plays showdown, not {game.name}")
        self.dex = load_dex()

    def act(self, table, rows: np.ndarray, probs: np.ndarray) -> None:
        for row in rows.tolist():
            legal = table.legal[row]
            score = self.scores(parts(INTERFACE, table.obs[row]), legal)
            probs[row] = score == score.max() if score.max() >= 0 else legal

    def begin(self, rows: np.ndarray) -> None:
        """Nothing is remembered."""

    def scores(self, told: dict[str, np.ndarray], legal: np.ndarray) -> np.ndarray:
        """[A]: how good each action is; -1 for what is taken only if nothing else is legal."""
        score = np.full(INTERFACE.num_actions, -1.0)
        kind, slot = told["choice"][:2].tolist()
        if kind != MOVE:
            return score
        user = told["own"][slot]
        for action in np.flatnonzero(legal[:SWITCH]).tolist():
            move, rest = divmod(action, 10)
            if rest >= 5 or rest < UNAIMED:
                continue
            score[action] = self.worth(told, slot, user, int(user[MOVE_1 + move]), rest)
        return score

    def worth(self, told: dict[str, np.ndarray], slot: int, user: np.ndarray, move: int, target: int) -> float:
        """Of a move, by its number, of the own Pokémon `user`, aimed at place `target` of LAYOUT["targets"]."""
        return float(self.dex.moves[move][1])


class MaxDamage(MaxBasePower):
    """The move that is expected to take most off the foes, in shares of their full HP: power, attack and defence with
    boosts, same-type bonus, type chart, burn, spread moves at 3/4 on each foe less what they do to the ally, accuracy.

    Of a foe it knows species and boosts, and takes its stats for those of no nature, 31 IVs and 85 EVs. Abilities,
    items, weather, moves of changing power and the original types of who has terastallised are left out.
    """

    def worth(self, told: dict[str, np.ndarray], slot: int, user: np.ndarray, move: int, target: int) -> float:
        kind, power, category, accuracy, both, ally_too, _ = self.dex.moves[move].tolist()
        if power == 0:
            return 0.0
        physical = category == PHYSICAL
        attack = user[MON["atk" if physical else "spa"]] * _boost(told["slots"][slot][0 if physical else 2])
        if physical and user[BURN] == 1:
            attack /= 2
        types = self.types(user)
        stab = STAB if kind in types else 1.0
        foes = self.standing(told)
        aimed = foes if both or target == UNAIMED else [foe for foe in foes if foe[0] == target - FOE_1]
        if target == UNAIMED and not both:  # at random, or at itself
            aimed, share = foes, 1.0 / max(len(foes), 1)
        else:
            share = SPREAD if both else 1.0
        total = 0.0
        for place, foe in aimed:
            total += share * self.taken(told["slots"][2 + place], foe, attack, power * stab, physical, int(kind))
        mate = told["own"][1 - slot]
        if ally_too and mate[PLACE] >= FIRST_PLACE and mate[MON["hp"]] > 0:
            total -= SPREAD * self.taken(told["slots"][1 - slot], mate, attack, power * stab, physical, int(kind))
        return max(total, 0.0) * accuracy / 100

    def standing(self, told: dict[str, np.ndarray]) -> list[tuple[int, np.ndarray]]:
        """(slot, Pokémon) of the foes in front."""
        return [(int(mon[PLACE]) - FIRST_PLACE, mon) for mon in told["foe"]
                if mon[PLACE] >= FIRST_PLACE and mon[MON["hp"]] > 0]  # fmt: skip

    def types(self, mon: np.ndarray) -> tuple[int, int]:
        if mon[MON["terastallized"]] and mon[MON["tera_type"]]:
            return int(mon[MON["tera_type"]]), 0
        first, second = self.dex.species[mon[SPECIES]][:2].astype(int).tolist()
        return first, second if second != first else 0

    def taken(self, slot: np.ndarray, mon: np.ndarray, attack: float, power: float, physical: bool, kind: int) -> float:
        """The share of its full HP that a hit takes off a Pokémon, not counting that it can only lose what it has."""
        base, level = self.dex.species[mon[SPECIES]][2:], max(int(mon[MON["level"]]), 1)
        hp, stats = _stat(base[0], level) + level + 5, [_stat(b, level) for b in base]
        which = "def" if physical else "spd"
        defence = stats[STATS.index(which)] * _boost(slot[1 if physical else 3])
        first, second = self.types(mon)
        effect = self.dex.chart[kind, first] * self.dex.chart[kind, second]
        damage = ((2 * level / 5 + 2) * power * attack / max(defence, 1.0) / 50 + 2) * effect
        return min(damage / hp, mon[MON["hp"]] / 1000)


def _boost(stage: int) -> float:
    return (2 + max(int(stage), 0)) / (2 - min(int(stage), 0))


def _stat(base: float, level: int) -> float:
    """Without nature, 31 IVs, 85 EVs: the generator's spread."""
    return (2 * float(base) + 31 + 85 // 4) * level / 100 + 5
