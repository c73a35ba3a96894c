"""The ten opponents of Beasty Bar as they are described, over the oracle's tables: the slow twin of
`envs.beasty_bar.heuristics`.

These see the true table, so that the card drawn next is in the hand that they judge.
"""

import copy

from games.beasty_oracle import POINTS, STRENGTH

MATERIAL = {"bar": 2.0, "queue_front": 1.1, "queue_back": 0.3, "hell": -0.5, "hand": 0.1}
OUTCOME = {
    "outcome_heuristic": {
        "my_bar": 3.0, "opp_bar": -2.0, "my_hell": -2.5, "opp_hell": 2.0, "queue": 1.5, "front": 2.0, "threat": 1.5,
        "parrot": 0.4, "skunk": 0.5, "monkey": 15, "early": 0.5, "late": 0.3,
    },
    "distilled_outcome": {
        "my_bar": 4.2, "opp_bar": -2.5, "my_hell": -3.5, "opp_hell": 2.8, "queue": 1.8, "front": 2.5, "threat": 2.2,
        "parrot": 0.6, "skunk": 0.7, "monkey": 18, "early": 0.6, "late": 0.4,
    },
}  # fmt: skip
THREATS = {"crocodile", "hippo", "lion", "zebra", "giraffe"}
RECURRING = {"hippo", "crocodile", "giraffe"}


def points(cards, owner):
    return sum(POINTS[card.species] for card in cards if card.owner == owner)


def material(table, me, parameters=MATERIAL, multiplier=None):
    def worth(card):
        return POINTS[card.species] * (multiplier or {}).get(card.species, 1)

    def sign(card):
        return 1 if card.owner == me else -1

    total = sum(sign(card) * parameters["bar"] * worth(card) for card in table.bar)
    for i, card in enumerate(table.queue):
        front = 1 - i / len(table.queue)
        at = parameters["queue_front"] * front + parameters["queue_back"] * (1 - front)
        total += sign(card) * worth(card) * at
    total += sum(sign(card) * parameters["hell"] * worth(card) for card in table.hell)
    return total + sum(parameters["hand"] * worth(card) for card in table.hands[me])


def in_queue(table, species, owner):
    return [i for i, card in enumerate(table.queue) if card.species == species and card.owner == owner]


def adjustment(before, after, me, species, choice):
    you = 1 - me
    opp_lost, my_lost = (points(after.hell, p) - points(before.hell, p) for p in (you, me))
    my_gain, opp_gain = (points(after.bar, p) - points(before.bar, p) for p in (me, you))
    if species == "skunk":
        if opp_lost >= 5:
            return 3
        if opp_lost >= 3:
            return 1.5
        if opp_lost == 0 and my_lost > 0:
            return -2
    if species == "parrot":
        target = before.queue[choice[0]]
        return (0.5 if target.owner == you else -0.5) * POINTS[target.species]
    if species == "lion" and in_queue(after, "lion", me) == [0]:
        return 2
    if species == "monkey" and opp_lost >= 4:
        return 2.5
    if species == "seal":
        return 1.5 if my_gain > opp_gain else -1 if my_gain < opp_gain else 0
    if species == "snake":
        mine = [sum(card.owner == me for card in table.queue) for table in (before, after)]
        if mine[1] > mine[0]:
            return 0.5 * points(after.queue[:2], me)
    if species == "zebra":
        return 1.5 if in_queue(after, "hippo", you) + in_queue(after, "crocodile", you) else -0.5
    if species == "kangaroo":
        return 1 if in_queue(after, "kangaroo", me) in ([0], [1]) else 0
    if species == "giraffe":
        return {(0,): 1.5, (1,): 0.5}.get(tuple(in_queue(after, "giraffe", me)), 0)
    if species == "crocodile":
        return 0.3 * opp_lost
    if species == "chameleon":
        return 0.1 * STRENGTH[before.queue[choice[0]].species]
    return 0


def advice(before, me, species, choice):
    you = 1 - me

    def has_played(name):
        return all(card.species != name for card in before.hands[you] + before.decks[you])

    if species == "crocodile":
        if any(card.species == "chameleon" for card in before.queue):
            return 5
        return 0 if has_played("chameleon") else -1
    if species == "skunk":
        kinds = sorted({card.species for card in before.queue} - {"skunk"}, key=STRENGTH.get)
        if len(kinds) < 2:
            return -1.5
        removed = [card for card in before.queue if card.species in kinds[-2:]]
        net = points(removed, you) - points(removed, me)
        return 4 if net >= 4 else 2 if net >= 2 else -3 if net <= -2 else 0
    if species == "lion":
        if in_queue(before, "lion", you):
            return -5
        return 3 if has_played("lion") else -2
    if species == "parrot":
        target = before.queue[choice[0]]
        if target.owner == you:
            return 0.3 * POINTS[target.species] + 2 * (1 - choice[0] / len(before.queue))
        return -0.5 * POINTS[target.species]
    return 0


def queue_value(table, me):
    weights = [0.53, 0.37, 0.25, 0.27, 0.10]
    return sum(POINTS[c.species] * w * (1 if c.owner == me else -0.6) for c, w in zip(table.queue, weights))


def outcome(before, after, me, species, choice, w):
    you = 1 - me
    opp_lost, my_lost = (points(after.hell, p) - points(before.hell, p) for p in (you, me))
    total = w["my_bar"] * (points(after.bar, me) - points(before.bar, me))
    total += w["opp_bar"] * (points(after.bar, you) - points(before.bar, you))
    total += w["my_hell"] * my_lost + w["opp_hell"] * opp_lost
    total += w["queue"] * (queue_value(after, me) - queue_value(before, me))
    total += w["front"] * any(card.owner == me for card in after.queue[:2])
    threats = [sum(c.species in THREATS and c.owner == you for c in table.queue) for table in (before, after)]
    total += w["threat"] * (threats[0] - threats[1])
    if species == "parrot":
        target = before.queue[choice[0]]
        if target.owner == you:
            total += w["parrot"] * POINTS[target.species] + 1.5 * (target.species in THREATS)
            total += (target.species in RECURRING) + 0.5 * (1 - choice[0] / len(before.queue))
        else:
            total -= 0.8 * POINTS[target.species]
    if species == "skunk":
        total += w["skunk"] * (opp_lost - my_lost)
    if species == "monkey":
        giants = [len(in_queue(t, "hippo", you) + in_queue(t, "crocodile", you)) for t in (before, after)]
        total += w["monkey"] * (giants[1] < giants[0])
        total += 0.8 * w["monkey"] * bool(in_queue(before, "monkey", you))
    played = len(before.queue) + len(before.bar) + len(before.hell)
    if played <= 3 and species in RECURRING:
        total += w["early"]
    if played >= 8 and species in ("parrot", "skunk", "crocodile"):
        total += w["late"]
    return total


def scores(table):
    """{opponent: {play: score}} for all that score plays, of the player to move."""
    me, found = table.player, {}
    variants = {
        "heuristic": ({}, None),
        "aggressive": ({"bar": 3.0}, None),
        "defensive": ({"bar": 1.0}, None),
        "queue": ({"queue_front": 2.0}, None),
        "skunk": ({}, {"skunk": 2}),
        "noisy": ({}, None),
    }
    for play in table.plays():
        slot, choice = play
        after, species = copy.deepcopy(table), table.hands[me][slot].species
        after.play(slot, choice)
        extra = adjustment(table, after, me, species, choice)
        for name, (changed, multiplier) in variants.items():
            found.setdefault(name, {})[play] = material(after, me, MATERIAL | changed, multiplier) + extra
        found.setdefault("online", {})[play] = material(after, me) + advice(table, me, species, choice)
        for name, weights in OUTCOME.items():
            found.setdefault(name, {})[play] = outcome(table, after, me, species, choice, weights)
    return found
