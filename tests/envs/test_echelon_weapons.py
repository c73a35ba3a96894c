"""Echelon's scenes: each weapon, each sensor, what hits do, how the score is kept; and the opponents."""

import numpy as np
import pytest
from games.echelon_scenes import AHEAD, NUMBER, TWO, Y, begun, on_flat_ground, tick

from envs.echelon import heuristics, maps, score, senses, weapons
from envs.echelon.mechs import (
    ALL,
    ARC,
    AUTOCANNON,
    COOLDOWN,
    DAMAGE,
    ECCM,
    ECM,
    FIRES,
    FLAMER,
    GAUSS,
    HEAT,
    HEAT_CAP,
    HEAVY,
    HOLD,
    HP,
    LASER,
    LEADER,
    LIGHT,
    MEDIUM,
    MISSILE,
    PAINTER,
    PRIMARY,
    RANGE,
    SCOUT,
    SPECIAL,
    action_of,
)
from envs.game import TERMINAL

FIRE = action_of(0, 0, PRIMARY)
OURS, THEIRS = 1, 3  # a heavy of each side; 0 and 2 are the scouts


def duel(ours=HEAVY, theirs=HEAVY, away=6.0, facing=-1.0):
    """Two mechs `away` metres from each other; ours faces theirs, which faces it, too, where `facing` is -1."""
    state = on_flat_ground(number=NUMBER)
    for m, kind, x, fx in ((OURS, ours, -away / 2, 1.0), (THEIRS, theirs, away / 2, facing)):
        state["kind"][m], state["hp"][m] = kind, HP[kind]
        state["x"][m], state["y"][m], state["z"][m], state["fx"][m], state["fy"][m] = x, Y, 0.0, fx, 0.0
    senses.look(state)
    return state


def lost(state, m=THEIRS):
    return HP[state["kind"][m]] - float(state["hp"][m])


CASES = [  # class, intent, weapon, metres, shots in the first tick
    (HEAVY, PRIMARY, LASER, 6.0, 1),
    (LIGHT, PRIMARY, FLAMER, 4.0, 2),
    (MEDIUM, ALL, AUTOCANNON, 10.0, 2),
    (HEAVY, ALL, GAUSS, 15.0, 1),
]


@pytest.mark.parametrize(("kind", "intent", "weapon", "away", "shots"), CASES)
def test_each_weapon_hits_what_stands_before_it(kind, intent, weapon, away, shots):
    state = duel(kind, away=away)
    tick(TWO, state, m1=action_of(0, 0, intent))
    for _ in range(2):
        tick(TWO, state)  # rounds arrive
    assert lost(state) == pytest.approx(shots * DAMAGE[weapon])
    assert state["dealt"].tolist() == pytest.approx([shots * DAMAGE[weapon], 0])


@pytest.mark.parametrize(("kind", "intent", "weapon", "away", "shots"), CASES)
def test_and_not_beyond_its_range_nor_behind_it(kind, intent, weapon, away, shots):
    state = duel(kind, away=RANGE[weapon] + 0.5)
    tick(TWO, state, m1=action_of(0, 0, intent))
    assert state["cooldown"][OURS, weapon] == 0 and not lost(state)
    state = duel(kind, away=away)
    state["fx"][OURS], state["fy"][OURS] = ARC[weapon] - 0.02, (1 - (ARC[weapon] - 0.02) ** 2) ** 0.5
    tick(TWO, state, m1=action_of(0, 0, intent))
    assert state["cooldown"][OURS, weapon] == 0


def test_heat_and_cooldown():
    state = duel()
    tick(TWO, state, m1=FIRE)
    assert state["heat"][OURS] == pytest.approx(HEAT[LASER] - 2.5, abs=1e-3)
    assert state["heat"][THEIRS] == pytest.approx(6 - 2.5 + 0.5, abs=0.6)  # what lasers warm
    for _ in range(9):
        tick(TWO, state, m1=FIRE)
    assert lost(state) == pytest.approx(DAMAGE[LASER] * (1 + 49 // round(COOLDOWN[LASER] / 0.05)))


@pytest.mark.parametrize(("facing", "factor"), [(-1.0, 1.0), (1.0, 1.5)])
def test_hits_from_behind_count_more(facing, factor):
    state = duel(facing=facing)
    tick(TWO, state, m1=FIRE)
    assert lost(state) == pytest.approx(DAMAGE[LASER] * factor)


def test_hits_in_the_legs():
    state = duel()
    weapons.hit(state, OURS, THEIRS, LASER, 1.0, 1.0, 0.0, 0.5)  # half a metre above the ground
    before = float(state["legs"][THEIRS])
    weapons.resolve(state)
    assert lost(state) == pytest.approx(7) and before - state["legs"][THEIRS] == pytest.approx(14)


def test_gauss_fells_a_mech_and_autocannon_keeps_it_unsteady():
    state = duel(away=12.0)
    state["stability"][THEIRS] = 55
    tick(TWO, state, m1=action_of(0, 0, SPECIAL))
    tick(TWO, state)
    assert state["fallen"][THEIRS] > 0
    state = duel(MEDIUM, away=10.0)
    state["stability"][THEIRS] = 50
    tick(TWO, state, m1=action_of(0, 0, ALL))
    tick(TWO, state)
    assert state["suppressed"][THEIRS] > 0
    now = float(state["stability"][THEIRS])
    tick(TWO, state)
    assert state["stability"][THEIRS] - now <= 10 * 0.25 * 0.25 + 10


def a_wall():
    """(map, x, y) of the first column of a wall of three metres, with flat ground on both sides."""
    for number in range(3, 64, 4):  # canyons
        for wall in range(9, 20):
            for y in range(4, 56):
                ground = maps.GROUND[number, :, y - 2 : y + 3]
                flat = ground[wall - 7 : wall].max() == 0 and ground[wall + 3 : wall + 12].max() == 0
                if flat and ground[wall : wall + 3].min() >= 5:
                    return number, wall, y
    raise AssertionError("no such wall")


def test_walls_stop_rounds_and_sight_and_missiles_fly_over_them():
    number, wall, y = a_wall()
    state = begun(TWO, number)
    for m, x, fx in ((OURS, wall - 30 - 3.0, 1.0), (THEIRS, wall - 30 + 6.0, -1.0)):
        state["x"][m], state["y"][m], state["z"][m], state["fx"][m], state["fy"][m] = x, y - 29.5, 0.0, fx, 0.0
    senses.look(state)
    assert not senses.sees_through(state, OURS, THEIRS) and not state["sighted"][OURS] >> 1 & 1
    tick(TWO, state, m1=action_of(0, 0, ALL))
    assert not state["cooldown"][OURS].any()
    state["painted"][THEIRS], state["painter"][THEIRS] = 5.0, 0
    tick(TWO, state, m1=action_of(0, 0, ALL))
    assert state["cooldown"][OURS, MISSILE] > 0 and state["inbound"][THEIRS]
    for _ in range(8):
        tick(TWO, state)
    assert lost(state) == pytest.approx(DAMAGE[MISSILE] * weapons.PAINT_FACTOR)


def test_a_lock_needs_paint_and_good_sensors():
    for painted, quality, expected in ((5.0, 1.0, THEIRS), (0.0, 1.0, -1), (5.0, 0.69, -1)):
        state = duel(away=25.0)
        state["painted"][THEIRS], state["quality"][OURS] = painted, quality
        assert weapons.target_of(state, OURS, MISSILE) == expected
    assert weapons.target_of(duel(away=11.0), OURS, MISSILE) == THEIRS  # within sight none is needed


def test_splash_hurts_the_legs_of_those_nearby_and_no_friends():
    state = duel(away=10.0)
    for m, x in ((2, 7.0), (0, 6.5)):  # a scout of each side beside the heavy
        state["x"][m], state["y"][m], state["z"][m] = x, Y + 2.0, 0.0
    senses.look(state)
    tick(TWO, state, m1=action_of(0, 0, SPECIAL))
    for _ in range(6):
        tick(TWO, state)
    assert lost(state) == pytest.approx(DAMAGE[GAUSS] + DAMAGE[MISSILE])
    assert state["legs"][2] < 30 and lost(state, 2) > 0
    assert lost(state, 0) == 0


def test_paint_marks_for_five_seconds_and_pays_once():
    state, other = (duel(SCOUT, away=8.0) for _ in range(2))
    tick(TWO, state, m1=FIRE)
    tick(TWO, other)
    assert state["painted"][THEIRS] == pytest.approx(5.0 - 0.25, abs=0.051)
    assert state["credit"][OURS] - other["credit"][OURS] == pytest.approx(0.01 * score.PAINTED, abs=1e-6)
    state["x"][OURS] = -29
    wasted = 0.0
    while state["painted"][THEIRS] > 0:
        assert state["seen"][0] >> 1 & 1  # the whole pack sees what is painted
        tick(TWO, state)
        wasted += state["credit"][OURS]
    assert wasted == pytest.approx(0.01 * score.PAINT_WASTED)


def test_radar_sees_through_walls_as_far_as_its_sensors_are_good():
    number, wall, y = a_wall()
    state = begun(TWO, number)
    state["y"][[1, 3]], state["z"][[1, 3]] = y - 29.5, 0
    state["x"][1] = wall - 30 - 2.0
    state["y"][[0, 2]] = y - 29.5
    state["x"][0], state["x"][2] = wall - 30 - 2.0, 29
    for gap, seen in ((10.0, True), (11.4, False)):  # 14 m times 0.8 of a heavy
        state["x"][3] = state["x"][1] + gap
        senses.look(state)
        assert bool(state["seen"][1] >> 1 & 1) == seen
        assert state["seen"][0] >> 1 & 1  # a scout's radar reaches 21 m
    assert not state["sighted"][1] >> 1 & 1 and not state["seen"][1] >> 1 & 1
    state["heat"][3] = 0.81 * HEAT_CAP[HEAVY]  # glows
    senses.look(state)
    assert state["seen"][1] >> 1 & 1


def test_ecm_blinds_and_eccm_clears():
    state = duel(away=25.0)
    state["ewar"][THEIRS] = ECM
    senses.look(state)
    assert state["jam"][OURS] == pytest.approx(0.5) and state["quality"][OURS] == pytest.approx(1 - 0.85 * 0.5)
    assert state["seen"][OURS] >> 1 & 1  # it gives itself away
    state["ewar"][OURS] = ECCM
    senses.look(state)
    assert state["quality"][OURS] == pytest.approx(1 - 0.85 * 0.5 + 0.65)
    assert FIRES[LEADER, SPECIAL].sum() == FIRES[LIGHT, SPECIAL].sum() == 0
    state = duel(LIGHT)
    tick(TWO, state, m1=action_of(0, 0, SPECIAL))
    assert state["ewar"][OURS] == ECM
    tick(TWO, state)
    assert state["ewar"][OURS] == 0


# The score.


def to_the_zone(state, *mechs):
    for k, m in enumerate(mechs):
        state["x"][m], state["y"][m], state["z"][m] = 0.5 * k, maps.ZONE[state["map"], 0], 0.0


def test_shares_of_the_zone():
    state = begun(TWO, NUMBER)
    to_the_zone(state, 1)
    score.hold(state)
    assert state["control"].tolist() == [1, 0]
    to_the_zone(state, 1, 2)  # 85 tons against 20
    score.hold(state)
    assert state["control"].tolist() == pytest.approx([0.5 + 0.5 * 65 / 105, 0.5])


@pytest.mark.parametrize(
    ("points", "losses", "dealt", "winner"),
    [
        ((9, 2), (1, 0), (0, 9), 0),
        ((9, 8.5), (1, 0), (9, 0), 1),
        ((0, 0), (0, 0), (3, 4), 1),
        ((0, 0), (0, 0), (4, 4), -1),
    ],
)
def test_zone_then_losses_then_damage(points, losses, dealt, winner):
    state = begun()
    state["zone_points"], state["losses"], state["dealt"], state["tick"] = points, losses, dealt, 240
    score.judge(state)
    out = np.zeros(4)
    TWO.rewards(state, out)
    assert state["over"] and state["winner"] == winner
    assert out.tolist() == ([0] * 4 if winner < 0 else [1, 1, -1, -1] if winner == 0 else [-1, -1, 1, 1])


def test_who_is_gone_has_lost_and_what_a_kill_earns():
    state = duel()
    state["alive"][2], state["losses"][1], state["zone_points"][1] = 0, 1, 50
    state["hp"][THEIRS] = 5
    tick(TWO, state, m1=FIRE)
    assert TWO.current_player(state) == TERMINAL and state["winner"] == 0 and not state["alive"][THEIRS]
    near = 2.0 if state["inside"][OURS] else 1.0
    assert state["credit"][OURS] >= 0.01 * (score.KILL + 14 * score.PER_DAMAGE) - 1e-6
    assert state["credit"][OURS] <= 0.01 * near * (score.KILL + 14 * score.PER_DAMAGE) + 0.01 * score.ARRIVAL + 0.01
    assert state["credit"][THEIRS] < 0


def test_the_way_to_the_zone_pays_by_a_potential():
    """Its parts sum to the difference of the last place and the first, whatever happened between."""
    rng, state = np.random.default_rng(6), begun(TWO, 11)
    first, total = state["potential"].copy(), np.zeros(4)
    while TWO.current_player(state) != TERMINAL:
        legal = np.zeros(TWO.num_actions, np.bool_)
        TWO.legal_actions(state, legal)
        walk = action_of(AHEAD, 0, HOLD)
        TWO.apply_action(state, int(rng.choice(legal.nonzero()[0])) if rng.random() < 0.3 or not legal[walk] else walk)
        if state["advanced"]:
            total += state["approach"]
            out = np.zeros(4)
            TWO.bonus(state, out)
            assert out == pytest.approx(state["approach"] + state["credit"], abs=1e-6)
    assert np.abs(total).max() > 0.005
    assert total == pytest.approx(0.01 * score.APPROACH * (state["potential"] - first), abs=1e-5)


@pytest.mark.parametrize(
    ("formation", "presence", "death", "way"), [(0, 0.3, 0.3, 0.5), (1, 1, 1, 1), (2, 2, 2.5, 1.5)]
)
def test_formations_weigh_presence_death_and_the_way(formation, presence, death, way):
    """The documents' LOOSE, STANDARD and CLOSE; death within the zone costs what it did."""
    plain, state = (begun(TWO, NUMBER) for _ in range(2))
    state["formation"] = formation
    for each in (plain, state):
        to_the_zone(each, 1)
        each["arrived"][1] = 1
        each["hitter"][2] = each["hitter"][1] = 1
        score.hold(each)
        assert each["inside"][1] and each["credit"][1] > 0
    assert state["credit"][1] == pytest.approx(presence * plain["credit"][1])
    assert state["approach"][1] == pytest.approx(way * plain["approach"][1]) != 0
    for m, factor in ((2, death), (1, 1)):  # outside, and within
        before = [float(each["credit"][m]) for each in (plain, state)]
        for each in (plain, state):
            each["hitter"][m] = 3 - m
            score.credit_death(each, m)
        paid = [float(each["credit"][m]) - b for each, b in zip((plain, state), before)]
        assert paid[1] == pytest.approx(factor * paid[0], abs=1e-6) and paid[0] < 0


def test_a_bonus_is_paid_once():
    state, out = begun(), np.zeros(4)
    state["credit"][:] = 1
    TWO.bonus(state, out)
    assert not out.any()


# The opponents.


@pytest.mark.parametrize("numbers", [range(5, 64, 8), pytest.param(range(64), marks=pytest.mark.slow)])
def test_zone_walkers_arrive_on_every_map(numbers):
    """Each class, alone with the map: all are in the zone long before the time is up."""
    late = []
    for number in numbers:
        state = begun(TWO, number)
        while TWO.current_player(state) != TERMINAL and not state["arrived"].all():
            probs = np.zeros(TWO.num_actions, np.float32)
            heuristics.zone_walker(state, TWO.current_player(state), np.ones(TWO.num_actions, np.bool_), probs)
            TWO.apply_action(state, int(probs.argmax()))
        if not state["arrived"].all():
            late.append((number, maps.BIOMES[int(maps.POOL.biome[number])], state["arrived"].tolist()))
    assert late == []


def test_the_cheater_plays_echelon_alone():
    from envs.leduc_poker import GAME as LEDUC

    with pytest.raises(ValueError, match="Cheater: plays Echelon, not leduc_poker"):
        heuristics.Cheater(LEDUC)
    with pytest.raises(ValueError, match="fire=2: needs a probability"):
        heuristics.Cheater(TWO, 2)
    assert set(heuristics.OPPONENTS) >= {"idle", "zone_walker", "lieutenant_100"} and PAINTER == 5
