"""Scripted opponents for leagues and matches: `MaxBasePower`, `MaxDamage` and `Doubles` of `envs.showdown.players`.

They see what any player sees, `table.obs` and `table.legal`, and the tables of `dex`. In previews they take any legal
action alike; the first two also where no move can be made. The random opponent is `random`, as in every game.

Letters: B rows of a table, n rows where the player is to move, A actions.
"""

import numpy as np

from envs.game import Interface, parts
from envs.showdown import FORCED, INTERFACE, LAYOUT, MOVE, PASS, SWITCH
from envs.showdown.dex import STATS, load_dex

MON = {name: i for i, name in enumerate(LAYOUT["mon"])}
SPECIES, MOVE_1, PLACE = MON["species"], MON["move_1"], MON["place"]
FIRST_PLACE = 3  # of whoever stands in the first slot; the second has one more
FOE_1 = LAYOUT["targets"].index(1)
UNAIMED = LAYOUT["targets"].index(0)
PHYSICAL = 1
SPREAD, STAB, BURN = 0.75, 1.5, LAYOUT["mon"].index("status")
STALLED = LAYOUT["slot"].index("stalled")  # it protected itself the turn before
PROTECTING = (
    "Protect",
    "Detect",
    "Spiky Shield",
    "Baneful Bunker",
    "King's Shield",
    "Silk Trap",
    "Burning Bulwark",
    "Obstruct",
)
FINISH = 0.3  # of a Pokémon's HP: what it is worth that it goes down
RISK = 0.5  # that a foe attacks the one that could protect itself
ASSUMED_POWER = 80  # of a foe's moves that are not known, of its own types


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


class Doubles(MaxDamage):
    """Thinks for both slots together, in shares of HP: what goes down counts more, the second slot reckons with what
    the first one is going to do, one protects itself where both foes could put it down, and whoever comes in is to deal
    more than it takes. It neither switches of its own will nor terastallises.

    Of a foe's attacks it knows those it has seen; else it takes them for moves of the foe's types of power 80.
    """

    def __init__(self, game: Interface):
        super().__init__(game)
        self.protecting = {self.dex.names["moves"].index(name) + 1 for name in PROTECTING}

    def scores(self, told: dict[str, np.ndarray], legal: np.ndarray) -> np.ndarray:
        kind, slot = told["choice"][:2].tolist()
        if kind == FORCED:
            score = np.full(INTERFACE.num_actions, -1.0)
            for action in np.flatnonzero(legal[SWITCH:PASS]).tolist():
                score[SWITCH + action] = 10.0 + self.entrance(told, slot, told["own"][action])
            return score
        first = int(told["choice"][-1]) - 1
        if kind == MOVE and slot == 1 and 0 <= first < SWITCH:
            told = told | {"foe": self.afterwards(told, *divmod(first, 10))}
        score = super().scores(told, legal)
        if kind == MOVE and slot == 1 and 0 <= first < SWITCH and self.move(told, 0, first) in self.protecting:
            for action in np.flatnonzero(legal[:SWITCH]).tolist():
                if self.move(told, 1, action) in self.protecting:
                    score[action] = min(score[action], 0.0)  # one of the two attacks
        return score

    def move(self, told: dict[str, np.ndarray], slot: int, action: int) -> int:
        """The number of the move that an action of that slot is."""
        return int(told["own"][slot][MOVE_1 + action // 10])

    def worth(self, told: dict[str, np.ndarray], slot: int, user: np.ndarray, move: int, target: int) -> float:
        if move not in self.protecting:
            return super().worth(told, slot, user, move, target)
        left = user[MON["hp"]] / 1000
        danger = sum(self.threat(told, place, foe, slot, user) for place, foe in self.standing(told))
        if told["slots"][slot][STALLED] or danger < left:
            return 0.0
        return RISK * (left + FINISH)

    def afterwards(self, told: dict[str, np.ndarray], move: int, rest: int) -> np.ndarray:
        """The foes as the first slot's move is expected to leave them."""
        user, foes = told["own"][0], told["foe"].copy()
        number, target = int(user[MOVE_1 + move]), rest % 5
        spread = self.dex.moves[number][4]
        for place, foe in self.standing(told):
            if spread or target == FOE_1 + place:
                alone = told | {"foe": np.array([foe])}
                taken = super().worth(alone, 0, user, number, FOE_1 + place)
                row = next(i for i in range(len(foes)) if foes[i][PLACE] == FIRST_PLACE + place)
                foes[row][MON["hp"]] = max(foes[row][MON["hp"]] - int(1000 * taken), 0)
        return foes

    def taken(self, slot: np.ndarray, mon: np.ndarray, attack: float, power: float, physical: bool, kind: int) -> float:
        share = super().taken(slot, mon, attack, power, physical, kind)
        return share + FINISH if share >= mon[MON["hp"]] / 1000 else share

    def threat(self, told: dict[str, np.ndarray], place: int, foe: np.ndarray, slot: int, mon: np.ndarray) -> float:
        """The share of its full HP that a foe's best attack may take off an own Pokémon in that slot."""
        base, level = self.dex.species[foe[SPECIES]][2:], max(int(foe[MON["level"]]), 1)
        known = [self.dex.moves[move] for move in foe[MOVE_1 : MOVE_1 + 4].tolist() if move]
        attacks = [(int(kind), power, [category == PHYSICAL]) for kind, power, category, *_ in known if power > 0]
        attacks += [(kind, ASSUMED_POWER, [True, False]) for kind in self.types(foe) if kind]
        most = 0.0
        for kind, power, ways in attacks:
            for physical in ways:
                stat = STATS.index("atk" if physical else "spa")
                attack = _stat(base[stat], level) * _boost(told["slots"][2 + place][0 if physical else 2])
                stab = STAB if kind in self.types(foe) else 1.0
                most = max(most, super().taken(told["slots"][slot], mon, attack, power * stab, physical, kind))
        return most

    def entrance(self, told: dict[str, np.ndarray], slot: int, mon: np.ndarray) -> float:
        """What a Pokémon of the team deals to those in front, less what it may take of them."""
        foes = self.standing(told)
        deals = [super(Doubles, self).worth(told, slot, mon, move, FOE_1 + place)
                 for move in mon[MOVE_1 : MOVE_1 + 4].tolist() for place, _ in foes]  # fmt: skip
        takes = [self.threat(told, place, foe, slot, mon) for place, foe in foes]
        return max(deals, default=0.0) - max(takes, default=0.0)


def _boost(stage: int) -> float:
    return (2 + max(int(stage), 0)) / (2 - min(int(stage), 0))


def _stat(base: float, level: int) -> float:
    """Without nature, 31 IVs, 85 EVs: the generator's spread."""
    return (2 * float(base) + 31 + 85 // 4) * level / 100 + 5
