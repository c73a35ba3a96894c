"""The driver against a naive replay, any number of threads, and hostile actions."""

import dataclasses

import numpy as np
import pytest
from naive import legal_of, obs_of, rewards_of

from envs.env import IllegalActionError, NoDecisionError, NoLegalActionError
from envs.game import CHANCE, TERMINAL, load_game
from envs.vector_env import VectorEnv, rehearse

BUFFERS = (
    "state", "player", "legal", "obs", "rewards", "bonus", "done", "truncated", "num_decisions", "chance_streams",
)  # fmt: skip


def snapshot(env):
    return {name: getattr(env, name).tobytes() for name in BUFFERS}


def test_every_row_follows_the_rules(any_game):
    """Replay each step with the scalar functions; only chance's draws are read off the driver's new state."""
    env = VectorEnv(any_game, 32, seed=1)
    for _ in range(60):
        before = env.state.copy()
        action = env.sample_uniform()
        env.step(action)
        for b in range(env.num_envs):
            state = before[b : b + 1].copy()
            any_game.apply_action(state[0], action[b])
            earned = rewards_of(any_game, state[0])
            over = any_game.current_player(state[0]) == TERMINAL
            if any_game.current_player(state[0]) != CHANCE:
                assert env.done[b] == over
                assert env.rewards[b].tolist() == earned.tolist()
                if not over:
                    assert env.state[b : b + 1].tobytes() == state.tobytes()
            player = any_game.current_player(env.state[b])
            assert player == env.player[b] >= 0
            assert (env.legal[b] == legal_of(any_game, env.state[b])).all()
            assert (env.obs[b] == obs_of(any_game, env.state[b], player)).all()


def test_same_bytes_for_any_number_of_threads(leduc):
    envs = [VectorEnv(leduc, 333, seed=5, num_threads=n) for n in (1, 2, 3)]
    for _ in range(50):
        for env in envs:
            env.step(env.sample_uniform())
        assert snapshot(envs[0]) == snapshot(envs[1]) == snapshot(envs[2])


def test_rows_do_not_depend_on_their_number(kuhn):
    few, many = VectorEnv(kuhn, 3, seed=9), VectorEnv(kuhn, 300, seed=9)
    for _ in range(40):
        few.step(few.sample_uniform())
        many.step(many.sample_uniform())
        assert (few.obs == many.obs[:3]).all()


def test_chance_is_fair(leduc):
    """Deals of 60,000 fresh games: each ordered pair of cards within five standard errors of 1/30."""
    env = VectorEnv(leduc, 60_000, seed=3)
    pairs = env.state["card"][:, 0] * 6 + env.state["card"][:, 1]
    counts = np.bincount(pairs, minlength=36)
    assert (counts[[0, 7, 14, 21, 28, 35]] == 0).all()
    dealt = counts[counts > 0]
    p = 1 / 30
    assert len(dealt) == 30
    assert np.abs(dealt / len(pairs) - p).max() < 5 * np.sqrt(p * (1 - p) / len(pairs))


def test_sample_draws_from_the_given_distribution(kuhn):
    env = VectorEnv(kuhn, 50_000, seed=4)
    action = env.sample(np.tile(np.array([0.3, 0.9], np.float32), (env.num_envs, 1)))  # not normalised: 1/4, 3/4
    assert abs(action.mean() - 0.75) < 5 * np.sqrt(0.75 * 0.25 / env.num_envs)


def test_sample_never_draws_an_illegal_action(leduc):
    env = VectorEnv(leduc, 5000, seed=4)
    for _ in range(20):
        action = env.sample(np.ones((5000, 3), np.float32))  # mass on illegal actions is ignored
        assert env.legal[np.arange(5000), action].all()
        env.step(action)


@pytest.mark.parametrize("probs", [[np.nan, 1.0], [0.0, 0.0], [np.inf, 1.0], [-1.0, 0.5]])
def test_sample_refuses_what_is_no_distribution(kuhn, probs):
    env = VectorEnv(kuhn, 4, seed=0)
    table = np.full((4, 2), 0.5, np.float32)
    table[2] = probs
    with pytest.raises(FloatingPointError, match="kuhn_poker, env row 2"):
        env.sample(table)


@pytest.mark.parametrize("bad", [-1, 2, 3, 2**31, -(2**63), 2**63 - 1])
def test_illegal_actions_change_nothing(kuhn, bad):
    env = VectorEnv(kuhn, 6, seed=0)
    before = snapshot(env)
    action = np.zeros(6, np.int64)
    action[4] = bad
    with pytest.raises(IllegalActionError, match=rf"env row 4: action {bad} is illegal.*legal actions \[0, 1\]"):
        env.step(action)
    assert snapshot(env) == before


def test_masked_actions_are_refused(leduc):
    env = VectorEnv(leduc, 3, seed=0)
    with pytest.raises(IllegalActionError, match=r"action 0 is illegal for player 0, legal actions \[1, 2\]"):
        env.step(np.zeros(3, np.int64))  # nobody has raised, so there is nothing to fold to


@pytest.mark.parametrize(
    ("action", "error"),
    [
        (np.zeros(4), TypeError),
        (np.zeros(4, bool), TypeError),
        (["0"] * 4, TypeError),
        (np.zeros(3, int), ValueError),
        (np.zeros((4, 1), int), ValueError),
        (np.int64(0), ValueError),
    ],
)
def test_wrong_dtype_or_shape(kuhn, action, error):
    env = VectorEnv(kuhn, 4, seed=0)
    before = snapshot(env)
    with pytest.raises(error):
        env.step(action)
    assert snapshot(env) == before


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.uint64, ">i4"])
def test_any_integers_will_do(kuhn, dtype):
    reference, env = VectorEnv(kuhn, 8, seed=0), VectorEnv(kuhn, 8, seed=0)
    reference.step(np.ones(8, np.int64))
    env.step(np.ones(16, dtype)[::2])  # not even contiguous
    assert snapshot(env) == snapshot(reference)


def test_truncation(leduc):
    env = VectorEnv(leduc, 200, seed=2, truncate_after=2)
    for _ in range(30):
        before = env.num_decisions.copy()
        env.step(env.sample_uniform())
        cut = env.truncated
        assert (before[cut] == 1).all()
        assert env.done[cut].all()
        assert (env.num_decisions[env.done] == 0).all()
        for b in np.flatnonzero(cut)[:5]:
            for p in range(2):
                assert env.final_obs[b, p, p] == 1  # the first two bits tell whose view it is
                assert env.final_obs[b, p, 2:8].sum() == 1
        assert (env.rewards[cut] == 0).all()
    assert env.num_decisions.max() < 2


def test_nothing_is_kept_for_cuts_that_never_come(leduc):
    assert VectorEnv(leduc, 5, seed=0).final_obs.shape == (5, 0, 30)
    assert VectorEnv(leduc, 5, seed=0, truncate_after=3).final_obs.shape == (5, 2, 30)


@pytest.mark.parametrize("num_threads", [1, 3])
@pytest.mark.parametrize("truncate_after", [None, 3])
def test_bonus_and_who_is_out(pairs, num_threads, truncate_after):
    """Naive twins of both, and of every player's obs; a game that is cut says who was out there."""
    env = VectorEnv(pairs, 64, seed=3, truncate_after=truncate_after, num_threads=num_threads)
    outs = cuts = 0
    for _ in range(60):
        before, action = env.state.copy(), env.sample_uniform()
        env.step(action)
        stayed = np.zeros((64, 4), np.float32)
        stayed[np.arange(64), before["player"]] = np.where(action == 1, np.float32(0.1), 0)
        assert (env.bonus == stayed).all()
        assert (env.out() == (env.state["inside"] == 0)).all()
        outs += env.out().sum()
        for b in range(64):
            assert all((env.observe_all()[b, p] == obs_of(pairs, env.state[b], p)).all() for p in range(4))
            if env.truncated[b]:
                cuts += 1
                pairs.apply_action(before[b], action[b])
                assert (env.final_out[b] == (before[b]["inside"] == 0)).all()
                assert all((env.final_obs[b, p] == obs_of(pairs, before[b], p)).all() for p in range(4))
    assert outs > 0 or truncate_after
    assert (cuts > 0) == (truncate_after is not None)


def test_outcomes_do_not_know_of_the_bonus(pairs):
    """The same game without a bonus: the same bytes but for those of the bonus itself."""
    plain, paying = VectorEnv(dataclasses.replace(pairs, bonus=None), 50, seed=1), VectorEnv(pairs, 50, seed=1)
    for _ in range(40):
        for env in (plain, paying):
            env.step(env.sample_uniform())
        assert plain.rewards.tobytes() == paying.rewards.tobytes()
        assert plain.state_dict() == paying.state_dict()
        assert not plain.bonus.any()


def test_games_that_say_nothing_of_who_is_out(leduc):
    env = VectorEnv(leduc, 20, seed=1, observe_all=True)
    env.step(env.sample_uniform())
    assert env.out().shape == (20, 2) and not env.out().any()
    assert env.observe_all() is env.history


def test_bad_sizes_are_refused_by_name(kuhn):
    for kwargs, name in (
        ({"num_envs": 0}, "num_envs"),
        ({"num_threads": 0}, "num_threads"),
        ({"truncate_after": 0}, "truncate_after"),
    ):
        with pytest.raises(ValueError, match=f"{name}=0"):
            VectorEnv(kuhn, **({"num_envs": 2, "seed": 0} | kwargs))


def test_random_play_gives_the_exact_mean_return(leduc, leduc_tree):
    """A Monte Carlo mean over 200,000 games against the exact value: driver and solver play the same game."""
    env = VectorEnv(load_game("envs.leduc_poker"), 20_000, seed=11)
    total, games = 0.0, 0
    for _ in range(40):
        env.step(env.sample_uniform())
        total += env.rewards[:, 0].sum(dtype=np.float64)
        games += env.done.sum()
    exact = leduc_tree.evaluate(leduc_tree.uniform_policy()).returns[0]
    assert games > 150_000
    assert abs(total / games - exact) < 5 * 4.5 / np.sqrt(games)  # a game's return has a deviation of about 4.5 chips


def test_save_load_go_on_is_go_on(leduc):
    env, other = VectorEnv(leduc, 50, seed=1), VectorEnv(leduc, 50, seed=2)
    for _ in range(7):
        env.step(env.sample_uniform())
    other.load_state_dict(env.state_dict())
    for _ in range(20):
        env.step(env.sample_uniform())
        other.step(other.sample_uniform())
        assert snapshot(env) == snapshot(other)


def test_a_state_that_does_not_fit_is_refused(leduc, kuhn):
    env = VectorEnv(leduc, 5, seed=1)
    before = snapshot(env)
    for stranger in (VectorEnv(leduc, 6, seed=1), VectorEnv(kuhn, 5, seed=1)):
        with pytest.raises(ValueError, match=r"num_envs=5 needs|not of leduc_poker"):
            env.load_state_dict(stranger.state_dict())
    assert snapshot(env) == before


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_row_without_a_legal_action_is_an_error(kuhn, dtype):
    """Never uniform over illegal actions, whatever the probabilities claim."""
    env = VectorEnv(kuhn, 8, seed=0)
    env.legal[5] = False
    with pytest.raises(NoLegalActionError, match="kuhn_poker, env row 5: player 0 has no legal action"):
        env.sample(np.full((8, 2), 0.5, dtype).astype(np.float32))
    with pytest.raises(IllegalActionError, match="env row 5"):
        env.step(env.sample_uniform())


def fuzzed_action(env: VectorEnv, rng: np.random.Generator):
    """An action array with at least one thing wrong, or (one in eight) a legal one in some integer dtype."""
    kind = rng.integers(8)
    good = env.sample_uniform()
    if kind == 0:
        return good.astype(rng.choice([np.int8, np.uint8, np.int16, np.int32, np.uint64]))
    if kind == 1:
        return good.astype(rng.choice([np.float32, np.float64, np.bool_, np.complex64]))
    if kind == 2:
        return (good[:-1], np.append(good, 0), good[:, None], good[:0])[rng.integers(4)]
    bad = good.astype(np.int64)
    row = rng.integers(env.num_envs)
    illegal = np.flatnonzero(~env.legal[row])
    outside = [-1, env.game.num_actions, 2**62, -(2**63), 2**31, -2]
    bad[row] = rng.choice(illegal) if kind < 5 and len(illegal) else outside[rng.integers(len(outside))]
    return bad


def fuzz_actions(game, count: int) -> dict[str, int]:
    """Step with `count` fuzzed arrays: what is refused leaves every byte of the env as it was."""
    env, rng, tally = VectorEnv(game, 5, seed=1), np.random.default_rng(1), {}
    for _ in range(count):
        action = fuzzed_action(env, rng)
        before = env.state_dict()
        legal = action.dtype.kind in "iu" and action.shape == (5,)
        legal = legal and all(0 <= a < game.num_actions and env.legal[b, a] for b, a in enumerate(action))
        try:
            env.step(action)
            outcome = "played"
        except (IllegalActionError, TypeError, ValueError) as error:
            outcome = type(error).__name__
            assert env.state_dict() == before
        assert (outcome == "played") == legal, action
        tally[outcome] = tally.get(outcome, 0) + 1
    return tally


def test_fuzzed_actions(any_game):
    tally = fuzz_actions(any_game, 3000)
    assert min(tally.values()) > 100 and len(tally) == 4


@pytest.mark.slow
def test_a_million_fuzzed_actions(any_game, capsys):
    tally = fuzz_actions(any_game, 1_000_000)
    with capsys.disabled():
        print(f"\n{any_game.name}: {tally}, state untouched by all that were refused")


@pytest.mark.parametrize("num_threads", [1, 2])
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("endless", "no player comes to move within max_steps=9"),
        ("unbalanced", "do not sum to 1"),
        ("negative", "negative"),
    ],
)
def test_chance_that_is_none_is_found(name, words, num_threads):
    """Where it is met, and before anything is learned."""
    game = load_game(f"games.{name}")
    env = VectorEnv(game, 5, seed=0, num_threads=num_threads)
    with pytest.raises(NoDecisionError, match=words):
        for _ in range(3):
            env.step(env.sample_uniform())
    with pytest.raises(NoDecisionError, match=words):
        rehearse(game)


def test_honest_games_pass_the_rehearsal(any_game):
    rehearse(any_game)
    rehearse(any_game, truncate_after=2, observe_all=True)
