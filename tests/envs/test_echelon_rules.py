"""Echelon's world: the contract, mirrored games, numbers that stay finite, and scenes for each rule of moving."""

import dataclasses
import hashlib

import numpy as np
import pytest
from games.echelon_scenes import AHEAD, BACK, NUMBER, Y, begun, on_flat_ground, tick

from envs.contract import check_game
from envs.echelon import game as factory
from envs.echelon import maps, rules
from envs.echelon.lesson import GAME as LESSON
from envs.echelon.mechs import (
    DECISION,
    HEAT_CAP,
    HEAVY,
    HOLD,
    LEFT,
    MAX_TICKS,
    NUM_ACTIONS,
    SCOUT,
    SPEED,
    STEP,
    SUBSTEPS,
    VENT,
    WATCH,
    YAW,
    action_of,
    mirrored,
)
from envs.echelon.two import GAME as TWO
from envs.game import CHANCE, TERMINAL, load_game
from envs.vector_env import VectorEnv


def test_contract():
    kept = check_game(TWO, num_games=1)
    assert {line.split(":")[0] for line in kept} >= {"redact", "bonus", "teams", "parts", "zero-sum"}


@pytest.mark.slow
def test_contract_of_six():
    check_game(load_game("envs.echelon"), num_games=2)


def test_a_game_begins_with_a_map_and_goes_through_all_players():
    state = TWO.new_state()[0]
    assert TWO.current_player(state) == CHANCE
    TWO.apply_action(state, 5)
    for expected in (0, 1, 2, 3, 0, 1):
        assert TWO.current_player(state) == expected
        TWO.apply_action(state, 0)
    assert state["tick"] == 1


def test_time_is_up_after_a_minute():
    state, steps = begun(), 1
    while TWO.current_player(state) != TERMINAL:
        TWO.apply_action(state, 0)
        steps += 1
    assert state["tick"] == MAX_TICKS and steps == TWO.max_steps and MAX_TICKS * DECISION == 60
    assert state["winner"] == -1  # nobody did anything


def test_wrecks_are_asked_now_and_then_and_can_do_nothing():
    state, asked = begun(), []
    state["alive"][1] = 0
    for _ in range(2 * WATCH):
        while True:
            if TWO.current_player(state) == 1:
                legal = np.zeros(NUM_ACTIONS, np.bool_)
                TWO.legal_actions(state, legal)
                assert legal.nonzero()[0].tolist() == [0]
                asked.append(int(state["tick"]))
            TWO.apply_action(state, 0)
            if state["advanced"]:
                break
    assert asked == [0, WATCH]


@pytest.mark.parametrize("name", ["two", pytest.param("six", marks=pytest.mark.slow)])
def test_mirrored_play_gives_the_mirrored_game(name):
    """To the last bit: team 1 of the one game is team 0 of the other, seen in a mirror."""
    game = TWO if name == "two" else load_game("envs.echelon")
    rng, pack = np.random.default_rng(4), game.num_players // 2
    for number in range(4):
        one, two = begun(game, number), begun(game, number)
        while game.current_player(one) != TERMINAL:
            acts = [0] * game.num_players
            for m in range(game.num_players):  # mostly ahead, so that they meet
                acts[m] = (
                    int(rng.integers(NUM_ACTIONS)) if rng.random() < 0.5 else action_of(AHEAD, 0, int(rng.integers(4)))
                )
            for m in range(game.num_players):
                o = (m + pack) % (2 * pack)
                _play(game, one, m, acts[m])
                _play(game, two, m, mirrored(acts[o]))
            for field in (
                "y",
                "z",
                "fy",
                "vy",
                "hp",
                "legs",
                "heat",
                "stability",
                "quality",
                "seen",
                "sighted",
                "credit",
            ):
                assert np.array_equal(one[field], np.roll(two[field], pack)), (number, one["tick"], field)
            for field in ("x", "fx", "vx"):
                assert np.array_equal(one[field], -np.roll(two[field], pack)), (number, one["tick"], field)
            obs = [np.zeros(game.obs_shape, np.float32) for _ in range(2)]
            game.observe(one, 0, obs[0])
            game.observe(two, pack, obs[1])
            same = obs[0] == obs[1]
            assert same[:16].all() and (abs(obs[0]) == abs(obs[1]))[:54].all()  # left is right
        assert one["winner"] == (-1 if two["winner"] < 0 else 1 - two["winner"])
        assert one["losses"].tolist() == two["losses"].tolist()[::-1]


def _play(game, state, player, action):
    """The action of that player where it is to move; of one who can do nothing, nothing."""
    if game.current_player(state) == player:
        game.apply_action(state, action if rules.is_up(state, player) else 0)


def test_later_players_do_not_see_what_earlier_ones_chose():
    """Of one tick: obs, mask and what is left of the record are the same whatever was chosen before."""
    rng = np.random.default_rng(2)
    env = VectorEnv(TWO, 8, seed=1)
    for _ in range(200):
        env.step(env.sample_uniform())
    for state in env.state:
        while not state["advanced"]:
            TWO.apply_action(state, 0)
        other = np.array([state])[0]
        for _ in range(TWO.num_players - 1):
            for each in (state, other):
                legal = np.zeros(NUM_ACTIONS, np.bool_)
                TWO.legal_actions(each, legal)
                TWO.apply_action(each, int(rng.choice(legal.nonzero()[0])))
            player = TWO.current_player(state)
            if state["advanced"] or player < 0:
                break
            left, seen = [], []
            for each in (state, other):
                seen.append(np.zeros(TWO.obs_shape, np.float32))
                TWO.observe(each, player, seen[-1])
                left.append(np.array([each]))
                TWO.redact(left[-1][0], player)
            assert np.array_equal(*seen) and left[0].tobytes() == left[1].tobytes()


def test_redact_leaves_nothing_of_whom_nobody_sees():
    """Whatever hidden enemies are like, and what clocks say, obs and what is left of the record stay as they are."""
    rng, env, hidden = np.random.default_rng(3), VectorEnv(TWO, 32, seed=5), 0
    for _ in range(600):
        env.step(env.sample_uniform())
    for state, player in zip(env.state, env.player):
        other, pack = np.array([state]), TWO.num_players // 2
        first = pack if player < pack else 0
        for j in range(pack):
            if not state["seen"][player] >> j & 1:
                hidden += 1
                for name in ("x", "y", "hp", "heat", "stability", "fx", "cooldown"):
                    other[0][name][first + j] = rng.random()
            other[0]["cooldown"][first + j] = rng.random()
            other[0]["potential"][first + j] = rng.random()
        left = [np.array([each]) for each in (state, other[0])]
        obs = np.zeros((4, *TWO.obs_shape), np.float32)
        for i in range(2):
            TWO.observe((state, other[0])[i], player, obs[i])
            TWO.redact(left[i][0], player)
            TWO.observe(left[i][0], player, obs[2 + i])
        assert (obs == obs[0]).all() and left[0].tobytes() == left[1].tobytes()
    assert hidden > 10


@pytest.mark.parametrize(
    ("name", "games"),
    [("envs.echelon.two", 200)]
    + [pytest.param(f"envs.echelon{size}", 10_000, marks=pytest.mark.slow) for size in (".two", ".three", "")],
)
def test_random_games_stay_finite(name, games):
    env, ended = VectorEnv(load_game(name), min(games, 500), seed=3), 0
    while ended < games:
        env.step(env.sample_uniform())
        ended += int(env.done.sum())
        assert np.isfinite(env.obs).all() and np.isfinite(env.rewards).all() and np.isfinite(env.bonus).all()
        assert np.abs(env.obs).max() < 20
        assert (np.abs(env.state["x"]) < maps.HALF).all() and (env.state["z"] <= 14).all()


@pytest.mark.parametrize(
    ("roster", "message"),
    [
        ((SCOUT,) * 9, "big: a pack of 9 mechs, there are slots for 1 to 8"),
        ((), "big: a pack of 0 mechs, there are slots for 1 to 8"),
        ((SCOUT, 7), "big: no class 7 in the pack"),
    ],
)
def test_packs_that_cannot_be(roster, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        factory.echelon("big", roster)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"maps": 0}, "odd: maps=0: the pool has 1 to 64"),
        ({"maps": 65}, "odd: maps=65: the pool has 1 to 64"),
        ({"formation": "tight"}, "odd: formation='tight': must be one of loose, standard, close"),
    ],
)
def test_lessons_that_cannot_be(options, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        factory.echelon("odd", (SCOUT, HEAVY), **options)


def test_a_lesson_has_the_maps_with_the_shortest_ways():
    def way(number):
        state = begun(TWO, number)
        return max(0.5 * maps.PATH[number, maps.column(x), maps.column(y)] for x, y in zip(state["x"], state["y"]))

    probs = np.zeros(64)
    LESSON.chance_probs(LESSON.new_state()[0], probs)
    dealt = np.flatnonzero(probs)
    assert len(dealt) == 16 and (probs[dealt] == 1 / 16).all()
    others = np.setdiff1d(np.arange(64), dealt)
    assert np.mean([way(k) for k in dealt]) + 5 < np.mean([way(k) for k in others])
    assert probs.sum() == pytest.approx(1) and LESSON.new_state()[0]["formation"] == 2


def test_a_member_of_another_lesson_is_another_games():
    assert LESSON != TWO and LESSON.name == "echelon_lesson" and LESSON.obs_parts == TWO.obs_parts


def test_a_map_without_a_path():
    pool = maps.Pool(*(x[:4].copy() for x in maps.POOL))
    maps.check_pool(pool)
    pool.ground[2, 18:21] = pool.ground[2, -21:-18] = 5
    with pytest.raises(
        ValueError, match=r"^map 2 \(forest\): no path from the spawn at y=.* to the zone .* carve a road$"
    ):
        maps.check_pool(pool)
    pool.ground[2, 18:21] = 0
    with pytest.raises(ValueError, match=r"^map 2 \(forest\): ground is no mirror image"):
        maps.check_pool(pool)
    tall = maps.Pool(*(x[:1].copy() for x in maps.POOL))
    tall.sight[0, 0] = tall.sight[0, -1] = 9
    with pytest.raises(ValueError, match=r"^map 0 \(open\): sight=9, the tallest column may have 7 m$"):
        maps.check_pool(tall)


def test_maps_are_what_they_were():
    """Another pool is another version of the world."""
    assert len(maps.GROUND) == 64 and {*maps.POOL.biome.tolist()} == {0, 1, 2, 3}
    digest = hashlib.sha256(b"".join(x.tobytes() for x in (maps.GROUND, maps.SIGHT, maps.PATH))).hexdigest()
    assert digest[:16] == "2fd7db2968dcdcba"


# Scenes: who walks where, how fast, and what stops it.


@pytest.mark.parametrize("m", [0, 1])
def test_walks_as_fast_as_its_class(m):
    state = on_flat_ground(number=NUMBER, **{f"m{m}": (-6.0, Y, 1.0, 0.0)})
    for _ in range(12):
        tick(TWO, state, **{f"m{m}": action_of(AHEAD, 0, HOLD)})
        state["x"][m] = -6.0 if state["x"][m] > 4 else state["x"][m]
    assert state["vx"][m] == pytest.approx(SPEED[state["kind"][m]], rel=0.01) and abs(state["vy"][m]) < 1e-3


def test_without_legs_it_limps():
    state = on_flat_ground(number=NUMBER, m0=(-6.0, Y, 1.0, 0.0))
    state["legs"][0] = 0
    for _ in range(8):
        tick(TWO, state, m0=action_of(AHEAD, 0, HOLD))
    assert state["vx"][0] == pytest.approx(0.4 * SPEED[SCOUT], rel=0.01)


def test_turns_as_fast_as_its_class():
    state = on_flat_ground(number=NUMBER, m1=(0.0, Y, 1.0, 0.0))
    tick(TWO, state, m1=action_of(0, LEFT, HOLD))
    assert np.arctan2(state["fy"][1], state["fx"][1]) == pytest.approx(YAW[HEAVY] * STEP * SUBSTEPS, abs=1e-5)


def test_mechs_are_in_each_others_way_and_can_part():
    state = on_flat_ground(number=NUMBER, m1=(-2.5, Y, 1.0, 0.0), m3=(2.5, Y, -1.0, 0.0))
    for _ in range(12):
        tick(TWO, state, m1=action_of(AHEAD, 0, HOLD), m3=action_of(AHEAD, 0, HOLD))
    gap = float(state["x"][3] - state["x"][1])
    assert 0.85 * 3.5 < gap < 4.0
    for _ in range(4):
        tick(TWO, state, m1=action_of(BACK, 0, HOLD), m3=action_of(BACK, 0, HOLD))
    assert state["x"][3] - state["x"][1] > gap + 1


def test_walls_stop_the_heavy_and_jets_lift_the_scout():
    number = next(k for k in range(64) if maps.POOL.biome[k] == 3)  # canyon
    wall = next(x for x in range(8, 26) if maps.GROUND[number, x].max() >= 4)
    y = next(
        y
        for y in range(4, 56)
        if maps.GROUND[number, wall, y - 3 : y + 4].min() >= 4
        and maps.GROUND[number, wall - 4 : wall, y - 3 : y + 4].max() == 0
    )
    at = (wall - 30 - 2.5, y - 30 + 0.5, 1.0, 0.0)
    for m, passes in ((0, True), (1, False)):
        state = on_flat_ground(number=number, **{f"m{m}": at})
        highest = 0.0
        for _ in range(16):
            tick(TWO, state, **{f"m{m}": action_of(AHEAD, 0, HOLD)})
            highest = max(highest, float(state["z"][m]))
        assert (state["x"][m] > wall - 30 and highest >= 3) == passes


def test_venting_cools_three_times_as_fast_and_heat_shuts_down():
    state = on_flat_ground(number=NUMBER)
    state["heat"][1] = state["heat"][3] = 60
    tick(TWO, state, m1=action_of(0, 0, VENT))
    assert 60 - state["heat"][1] == pytest.approx(7.5, abs=1e-3) and 60 - state["heat"][3] == pytest.approx(
        2.5, abs=1e-3
    )
    state["heat"][1] = HEAT_CAP[HEAVY] + 5
    ticks = 0
    while True:
        tick(TWO, state, m1=action_of(AHEAD, 0, VENT))
        ticks += 1
        if not state["shutdown"][1]:
            break
        assert abs(state["vx"][1]) < 0.5 and not rules.is_up(state, 1)
    assert ticks * DECISION == pytest.approx((5 + 0.3 * HEAT_CAP[HEAVY]) / 10, abs=2 * DECISION)


def test_falls_and_stands_up_after_three_seconds():
    state = on_flat_ground(number=NUMBER)
    state["shaken"][1] = 150
    ticks = 0
    while True:
        ticks += 1
        tick(TWO, state, m1=action_of(AHEAD, 0, HOLD))
        if state["fallen"][1] <= 0:
            break
        assert not rules.is_up(state, 1)
    assert ticks * DECISION == pytest.approx(3.0, abs=0.3)
    assert state["stability"][1] == pytest.approx(50, abs=3)


def test_another_version_is_another_game():
    assert dataclasses.replace(TWO, version="2.0") != TWO and TWO.version == "1.0"
