"""The ten opponents of Beasty Bar against their slow twins, which see the card that they draw next."""

import numpy as np
import pytest
from games import beasty_opponents as twins
from games.beasty_games import documents_action, side_by_side

from envs.beasty_bar import GAME, documents, rules
from envs.beasty_bar.heuristics import OPPONENTS, SIGMA
from envs.heuristics import compile_heuristic
from envs.vector_env import VectorEnv

SCORING = [name for name in OPPONENTS if name not in ("random", "noisy")]


def answers(game, name, state):
    """probs [A] of an opponent where `state` stands."""
    legal, probs = np.zeros((1, game.num_actions), np.bool_), np.zeros((1, game.num_actions), np.float32)
    player = np.array([game.current_player(state)], np.int8)
    game.legal_actions(state, legal[0])
    kernel = compile_heuristic(OPPONENTS[name], game)
    kernel(np.arange(1), np.array([state]), player, np.zeros((1, *game.obs_shape), game.obs_dtype), legal, probs)
    return probs[0]


def positions(games, seed=3):
    """(state, {name: {play: score}}) at each decision of random games."""
    rng = np.random.default_rng(seed)
    for _ in range(games):
        for state, table, play in side_by_side(rng):
            if play is not None:
                yield state, twins.scores(table)


@pytest.mark.parametrize("games", [12, pytest.param(200, marks=pytest.mark.slow)])
def test_each_chooses_what_its_twin_does(games):
    """In the documents' game, and in the compact one the same plays. As the twins peek, peeking changes nothing."""
    for state, scores in positions(games):
        for name in SCORING:
            best = max(scores[name].values())
            wanted = {documents_action(*play) for play, score in scores[name].items() if score > best - 1e-6}
            probs = answers(documents.GAME, name, state)
            assert set(np.flatnonzero(probs).tolist()) == wanted, (name, rules.render(state))
            assert probs[sorted(wanted)] == pytest.approx(1 / len(wanted))
            compact = answers(GAME, name, state)
            assert {documents.play_of(state, a) for a in wanted} == set(np.flatnonzero(compact).tolist())


def test_no_two_play_alike():
    env, answers = VectorEnv(GAME, 4096, seed=2), []
    for _ in range(60):
        env.step(env.sample_uniform())
    for heuristic in OPPONENTS.values():
        answers.append(np.zeros(env.legal.shape, np.float32))
        compile_heuristic(heuristic, GAME)(
            np.arange(env.num_envs), env.state, env.player, env.obs, env.legal, answers[-1]
        )
    for i in range(len(answers)):
        for k in range(i):
            assert (answers[i] != answers[k]).any(axis=1).mean() > 0.005


def test_noise_is_what_drawing_it_gives():
    """Against 40,000 draws in positions where the noise matters."""
    rng, drawn, found = np.random.default_rng(1), 40_000, 0
    for state, scores in positions(10, seed=7):
        plays = list(scores["noisy"])
        probs = answers(documents.GAME, "noisy", state)[[documents_action(*play) for play in plays]]
        assert probs.sum() == pytest.approx(1)
        if probs.max() < 0.95:
            found += 1
            noisy = list(scores["noisy"].values()) + SIGMA * rng.standard_normal((drawn, len(plays)))
            shares = np.bincount(noisy.argmax(1), minlength=len(plays)) / drawn
            assert np.abs(probs - shares).max() < 5 * 0.5 / np.sqrt(drawn)
    assert found > 10


@pytest.mark.parametrize("game", [GAME, documents.GAME], ids=lambda game: game.name)
def test_random_takes_every_action(game):
    env = VectorEnv(game, 64, seed=2)
    probs = np.zeros(env.legal.shape, np.float32)
    compile_heuristic(OPPONENTS["random"], game)(np.arange(64), env.state, env.player, env.obs, env.legal, probs)
    assert np.allclose(probs, env.legal / env.legal.sum(1, keepdims=True))


@pytest.mark.parametrize("name", OPPONENTS)
def test_each_beats_the_random_player_and_replays(name):
    """Greedy players win, and the same seed gives the same games."""

    def margin(seed):
        env, total, games = VectorEnv(GAME, 256, seed=seed), 0.0, 0
        kernel = compile_heuristic(OPPONENTS[name], GAME)
        seat = np.arange(256) % 2
        for _ in range(60):
            probs = env.legal.astype(np.float32)
            rows = np.flatnonzero(env.player == seat)
            kernel(rows, env.state, env.player, env.obs, env.legal, probs)
            env.step(env.sample(probs))
            total += env.rewards[np.arange(256), seat].sum()
            games += int(env.done.sum())
        return total / games, env.state.tobytes()

    (mean, state), (_, again), (_, other) = margin(5), margin(5), margin(6)
    assert state == again != other
    assert abs(mean) < 0.15 if name == "random" else mean > 0.3
