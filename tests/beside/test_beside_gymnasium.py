"""One seat in Gymnasium's and Stable-Baselines3's worlds, held against these libraries themselves."""

import importlib
import sys
import warnings

import numpy as np
import pytest

from envs.env import IllegalActionError
from envs.exact import GameTree
from envs.vector_env import VectorEnv
from lit_rl.league.players import load_player, player_table
from lit_rl.run.errors import ConfigError

gymnasium = pytest.importorskip("gymnasium")

from lit_rl.league.beside.gymnasium import SeatEnv, SeatEnvs  # noqa: E402


def legal_actions(infos, rng):
    mask = infos["action_mask"]
    return (rng.random(mask.shape) * mask).argmax(1)


def returns_of(envs, num_steps):
    """Returns of the games that end within so many steps of an agent who draws among legal actions."""
    rng, returns, running = np.random.default_rng(0), [], np.zeros(envs.num_envs)
    _, infos = envs.reset(seed=0)
    for _ in range(num_steps):
        _, rewards, done, _, infos = envs.step(legal_actions(infos, rng))
        running += rewards
        returns.extend(running[done])
        running[done] = 0
    return returns


def test_check_env(every_game):
    from gymnasium.utils.env_checker import check_env

    if every_game.num_teams < 2:
        pytest.skip("nobody to play against")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*(infinity|render modes|type casting|precision lowered).*")
        check_env(SeatEnv(every_game, illegal="lose"))


def test_vector_conventions(any_game):
    envs = SeatEnvs(any_game, num_envs=7)
    assert isinstance(envs, gymnasium.vector.VectorEnv)
    obs, infos = envs.reset(seed=3)
    rng, ended = np.random.default_rng(0), 0
    for _ in range(60):
        assert obs in envs.observation_space and envs.single_observation_space.shape == obs.shape[1:]
        actions = legal_actions(infos, rng)
        assert actions in envs.action_space
        last = obs.copy()
        obs, rewards, terminated, truncated, infos = envs.step(actions)
        assert (rewards.shape, terminated.shape, truncated.shape) == ((7,), (7,), (7,))
        assert (terminated.dtype, truncated.dtype) == (np.bool_, np.bool_) and not truncated.any()
        assert (infos["action_mask"].sum(1) > 0).all()
        assert ("final_obs" in infos) == terminated.any()
        for b in np.flatnonzero(terminated):
            np.testing.assert_array_equal(infos["final_obs"][b], last[b])
            ended += 1
    assert ended > 0


def test_the_seed_and_the_actions_are_everything(leduc):
    def play():
        envs, rng, seen = SeatEnvs(leduc, 16), np.random.default_rng(1), []
        for seed in (5, None):
            obs, infos = envs.reset(seed=seed)
            for _ in range(20):
                obs, rewards, done, _, infos = envs.step(legal_actions(infos, rng))
                seen.append(obs.tobytes() + rewards.tobytes() + done.tobytes())
        return seen

    assert play() == play()


@pytest.mark.parametrize("name", ["kuhn", "leduc", "pairs"])
def test_uniform_against_uniform_earns_what_the_tree_says(name, request):
    """Both seats alternate, so in a zero-sum game of equal policies an agent's mean return is 0."""
    game = request.getfixturevalue(name)
    tree = GameTree(game)
    expected = tree.evaluate(tree.uniform_policy()).returns
    per_team = np.array([expected[np.array(game.team) == s].mean() for s in range(game.num_teams)])
    returns = returns_of(SeatEnvs(game, 512), 80)
    error = np.std(returns) / np.sqrt(len(returns))
    assert abs(np.mean(returns) - per_team.mean()) < 4 * error
    assert np.std(returns) > 0


def test_the_agent_sits_in_both_seats_alike(kuhn):
    envs, rng = SeatEnvs(kuhn, 64), np.random.default_rng(0)
    _, infos = envs.reset(seed=0)
    first = [infos["player"]]
    for _ in range(40):
        _, _, done, _, infos = envs.step(legal_actions(infos, rng))
        first.append(infos["player"][done])
    assert 0.4 < np.mean(np.concatenate(first)) < 0.6


def test_against_a_heuristic_it_earns_what_the_tree_says(leduc, leduc_tree):
    uniform = leduc_tree.uniform_policy()
    raising = player_table(load_player("envs.leduc_heuristics.always_raise", leduc), leduc_tree)
    mine = [leduc_tree.player == seat for seat in (0, 1)]
    expected = [
        leduc_tree.evaluate(np.where(here[:, None], uniform, raising)).returns[seat] for seat, here in enumerate(mine)
    ]
    returns = returns_of(SeatEnvs(leduc, 512, opponents=["envs.leduc_heuristics.always_raise"]), 80)
    assert abs(np.mean(expected)) > 0.1  # far from the 0 of two who play alike
    assert abs(np.mean(returns) - np.mean(expected)) < 4 * np.std(returns) / np.sqrt(len(returns))


def test_games_cut_off_are_truncated_and_show_where(leduc):
    envs, rng = SeatEnvs(leduc, 32, truncate_after=3), np.random.default_rng(0)
    obs, infos = envs.reset(seed=0)
    cut = 0
    for _ in range(30):
        before = obs.copy()
        obs, _, _, truncated, infos = envs.step(legal_actions(infos, rng))
        for b in np.flatnonzero(truncated):
            cut += 1
            assert (infos["final_obs"][b] != before[b]).any()
    assert cut > 0


def test_an_illegal_action_raises_or_loses(leduc):
    envs = SeatEnvs(leduc, 4)
    _, infos = envs.reset(seed=0)
    row, action = np.argwhere(infos["action_mask"] == 0)[0]
    actions = infos["action_mask"].argmax(1)
    actions[row] = action
    with pytest.raises(IllegalActionError, match=f"row {row}: action {action} is illegal"):
        envs.step(actions)
    envs = SeatEnvs(leduc, 4, illegal="lose")
    envs.reset(seed=0)
    _, rewards, terminated, _, infos = envs.step(actions)
    assert terminated[row] and rewards[row] == -leduc.max_return
    for wrong in (-1, 99):
        actions[row] = wrong
        envs.reset(seed=0)
        assert envs.step(actions)[1][row] == -leduc.max_return


def test_bad_input():
    with pytest.raises(ConfigError, match=r"opponents=\[\]: give a list"):
        SeatEnvs("envs.kuhn_poker", opponents=[])
    with pytest.raises(ConfigError, match="opponents='random': give a list"):
        SeatEnvs("envs.kuhn_poker", opponents="random")
    with pytest.raises(ConfigError, match="illegal='forgive': unknown; use one of raise, lose"):
        SeatEnvs("envs.kuhn_poker", illegal="forgive")
    with pytest.raises(ConfigError, match="step: call reset first"):
        SeatEnvs("envs.kuhn_poker").step(np.zeros(1, np.int64))
    with pytest.raises(ValueError, match="no such module"):
        SeatEnvs("envs.cluedo")
    with pytest.raises(ConfigError, match="reset_mask is not taken"):
        SeatEnvs("envs.kuhn_poker").reset(options={"reset_mask": np.ones(1, bool)})


@pytest.mark.parametrize("library", ["gymnasium", "stable_baselines3"])
def test_a_missing_library_is_named_with_its_remedy(monkeypatch, library):
    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.delitem(sys.modules, f"lit_rl.league.beside.{library}", raising=False)
    with pytest.raises(ModuleNotFoundError, match=rf"{library} is not installed: pip install .*lit-rl\["):
        importlib.import_module(f"lit_rl.league.beside.{library}")


def test_rows_stepped_alone_play_the_same_games(any_game):
    """Stepping rows one part after the other is stepping them all."""
    together, apart = (VectorEnv(any_game, 6, seed=4) for _ in range(2))
    parts = [np.array([4, 1]), np.array([0, 2, 3, 5])]
    for _ in range(50):
        action = together.sample_uniform()
        together.step(action)
        earned, done = np.zeros_like(apart.rewards), np.zeros(6, np.bool_)
        for rows in parts:
            apart.step_rows(rows, action[rows])
            others = np.setdiff1d(np.arange(6), rows)
            assert not apart.rewards[others].any() and not apart.done[others].any()
            earned, done = earned + apart.rewards, done | apart.done
        apart.action_streams[:] = together.action_streams
        for name in ("player", "legal", "obs", "num_decisions", "state"):
            assert getattr(together, name).tobytes() == getattr(apart, name).tobytes(), name
        assert (together.rewards == earned).all() and (together.done == done).all()
        assert together.state_dict() == apart.state_dict()


def test_maskable_ppo_learns_to_beat_one_who_always_raises():
    pytest.importorskip("sb3_contrib")
    import torch
    from sb3_contrib import MaskablePPO
    from stable_baselines3.common.callbacks import BaseCallback

    from lit_rl.league.beside.stable_baselines3 import SeatVecEnv

    class Returns(BaseCallback):
        def __init__(self):
            super().__init__()
            self.means = []

        def _on_step(self):
            return True

        def _on_rollout_end(self):
            buffer = self.model.rollout_buffer
            self.means.append(float(buffer.rewards.sum() / max(buffer.episode_starts.sum(), 1)))

    torch.set_num_threads(1)
    env = SeatVecEnv("envs.leduc_poker", num_envs=64, opponents=["envs.leduc_heuristics.always_raise"])
    returns = Returns()
    model = MaskablePPO("MlpPolicy", env, n_steps=32, batch_size=512, n_epochs=4, learning_rate=3e-3, seed=0)
    model.learn(40_960, callback=returns)
    assert np.mean(returns.means[-3:]) > np.mean(returns.means[:3]) + 0.5
