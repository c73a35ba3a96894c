"""Games of OpenSpiel behind our `Env`: trained, judged and resumed like any other."""

import re
import sys
from functools import partial

import lightning as L
import numpy as np
import pytest
import torch

from datamodules.self_play import SelfPlayDataModule
from envs.env import Env, IllegalActionError, SavedGamesError
from envs.game import load_interface
from envs.openspiel import OpenSpielEnv, interface, rules
from lit_rl.evaluation import Matches
from lit_rl.networks import MLP
from lit_rl.ppo import PPO
from lit_rl.returns import Credit
from lit_rl.run.errors import ConfigError

pyspiel = pytest.importorskip("pyspiel")

SOME = ("kuhn_poker", "liars_dice(numdice=1)", "tic_tac_toe", "pig", "phantom_ttt_ir", "leduc_poker(players=3)")


def played(env, steps):
    """Bytes of all that is public, of so many steps of uniform play."""
    seen = []
    for _ in range(steps):
        env.step(env.sample(env.legal.astype(np.float32)))
        names = ("player", "legal", "obs", "rewards", "done", "truncated", "num_decisions")
        seen.append(b"".join(getattr(env, name).tobytes() for name in names))
    return seen


@pytest.mark.parametrize("truncate_after", [None, 3])
@pytest.mark.parametrize("path", SOME)
def test_it_is_an_env(path, truncate_after):
    game = interface(path)
    env = OpenSpielEnv(game, 4, 0, truncate_after, observe_all=True)
    b, p, a, d = 4, game.num_players, game.num_actions, game.obs_shape
    shapes = {
        "player": ((b,), np.int8), "legal": ((b, a), np.bool_), "obs": ((b, *d), np.float32),
        "rewards": ((b, p), np.float32), "bonus": ((b, p), np.float32), "done": ((b,), np.bool_),
        "truncated": ((b,), np.bool_), "final_obs": ((b, p if truncate_after else 0, *d), np.float32),
        "final_player": ((b,), np.int8), "final_out": ((b, p), np.bool_), "history": ((b, p, *d), np.float32),
        "num_decisions": ((b,), np.int32), "action_streams": ((b,), np.uint64), "game_streams": ((b,), np.uint64),
    }  # fmt: skip
    assert Env.__annotations__.keys() == {*shapes, "game", "num_envs", "parts"}
    for _ in range(30):
        for name, (shape, dtype) in shapes.items():
            assert (getattr(env, name).shape, getattr(env, name).dtype) == (shape, dtype), name
        assert env.legal.any(1).all() and (env.num_decisions < (truncate_after or 10**9)).all()
        rows = np.arange(b)
        assert np.array_equal(env.history[rows, env.player], env.obs)
        assert not (env.truncated & ~env.done).any()
        if game.zero_sum:
            ended = env.done & ~env.truncated
            assert np.allclose(env.rewards[ended].sum(1), 0)
        env.step(env.sample(env.legal.astype(np.float32)))


def test_it_plays_our_kuhn_poker(kuhn, kuhn_tree):
    game = load_interface("openspiel:kuhn_poker")
    for name in ("num_players", "num_actions", "obs_shape", "max_return", "zero_sum", "perfect_recall"):
        assert getattr(game, name) == getattr(kuhn, name), name
    env, returns = OpenSpielEnv(game, 64, 0), []
    known = {row.tobytes() for row in kuhn_tree.obs.astype(np.float32)}
    for _ in range(150):
        assert {row.tobytes() for row in env.obs} <= known
        env.step(env.sample(env.legal.astype(np.float32)))
        returns.extend(env.rewards[env.done, 0])
    expected = kuhn_tree.evaluate(kuhn_tree.uniform_policy()).returns[0]
    assert abs(np.mean(returns) - expected) < 4 * np.std(returns) / np.sqrt(len(returns))


@pytest.mark.parametrize("path", SOME)
def test_resumed_it_goes_on_bit_by_bit(path, tmp_path):
    env = OpenSpielEnv(interface(path), 5, 0)
    played(env, 13)
    torch.save(env.state_dict(), tmp_path / "env.pt")
    again = OpenSpielEnv(interface(path), 5, 99)
    again.load_state_dict(torch.load(tmp_path / "env.pt", weights_only=True))
    assert played(env, 30) == played(again, 30)


def test_damaged_games_are_refused_and_nothing_changes():
    env = OpenSpielEnv(interface("kuhn_poker"), 3, 0)
    played(env, 5)
    good, before = env.state_dict(), [str(state) for state in env._states]
    moves = np.frombuffer(good["histories"][:-1], np.int32).copy()
    moves[0] = 7
    for change, kind, message in (
        ({"game": "openspiel:leduc_poker 1"}, ValueError, "is of openspiel:leduc_poker 1, not of openspiel:kuhn"),
        ({"game": None}, SavedGamesError, "does not say which game"),
        ({"histories": moves.tobytes() + b"."}, SavedGamesError, "env row 0 has the illegal action 7"),
        ({"histories": b"."}, SavedGamesError, "not as long as lengths says"),
        ({"lengths": 3}, SavedGamesError, "lengths is int, needs bytes"),
        ({"chance_streams": b"12"}, ValueError, "chance_streams has 2 bytes, num_envs=3"),
    ):
        with pytest.raises(kind, match=message):
            env.load_state_dict(good | change)
    lengths = np.frombuffer(good["lengths"], np.int32).copy()
    lengths[:] = [1, 0, 0]
    with pytest.raises(SavedGamesError, match="env row 0 does not stand at a decision"):
        env.load_state_dict(good | {"lengths": lengths.tobytes(), "histories": np.int32(0).tobytes() + b"."})
    assert [str(state) for state in env._states] == before


def test_illegal_actions_change_nothing():
    env = OpenSpielEnv(interface("tic_tac_toe"), 2, 0)
    env.step(np.array([4, 3]))
    before = env.obs.copy()
    with pytest.raises(IllegalActionError, match="env row 1: action 3 is illegal for player 1"):
        env.step(np.array([0, 3]))
    with pytest.raises(ValueError, match=r"shape \(2,\)"):
        env.step(np.array([0]))
    with pytest.raises(TypeError, match="must be integers"):
        env.step(np.array([0.0, 1.0]))
    assert np.array_equal(env.obs, before)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("kuhn_pocker", "no such game; did you mean kuhn_poker?"),
        ("liars_dice(dice=3)", "game='openspiel:liars_dice(dice=3)': "),
        ("", "no such game"),
        ("goofspiel", "move at the same time; use 'openspiel:turn_based_simultaneous_game(game=goofspiel())'"),
        ("negotiation", "it draws chance by itself and hides how"),
        ("2048", "it has 1 player; games of two or more can be held"),
        ("mfg_crowd_modelling", "dynamics are MEAN_FIELD"),
    ],
)
def test_what_cannot_be_held_is_refused_in_one_line(path, message):
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        load_interface(f"openspiel:{path}")
    assert "\n" not in str(caught.value)


def test_the_remedy_for_simultaneous_moves_works():
    game = load_interface("openspiel:turn_based_simultaneous_game(game=goofspiel(num_cards=4))")
    assert played(OpenSpielEnv(game, 2, 0), 20)


def test_a_missing_library_is_named_with_its_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyspiel", None)
    rules.cache_clear()
    with pytest.raises(
        ValueError, match=r"game='openspiel:kuhn_poker': pyspiel is not installed: pip install .*lit-rl"
    ):
        load_interface("openspiel:kuhn_poker")


def test_trained_judged_and_resumed(short_trainer, tmp_path):
    name = "openspiel:liars_dice(numdice=1)"

    def fit(epochs=4, ckpt_path=None):
        L.seed_everything(0, verbose=False)
        data = SelfPlayDataModule(name, num_envs=8, num_steps=8, evaluation=[Matches(["random"], games=20)])
        trainer = short_trainer(max_epochs=epochs)
        model = PPO(name)
        trainer.fit(model, data, ckpt_path=ckpt_path)
        return trainer, {key: x.clone() for key, x in model.state_dict().items()}

    trainer, whole = fit()
    assert abs(float(trainer.callback_metrics["eval/return/random"])) <= 1
    half, _ = fit(2)
    half.save_checkpoint(tmp_path / "half.ckpt")
    _, resumed = fit(ckpt_path=tmp_path / "half.ckpt")
    for key, x in whole.items():
        assert torch.equal(x, resumed[key]), key


def test_exact_evaluation_and_replays_are_refused(short_trainer):
    from lit_rl.evaluation import Exact

    data = SelfPlayDataModule("openspiel:kuhn_poker", num_envs=4, num_steps=4, evaluation=[Exact()])
    with pytest.raises(ConfigError, match="openspiel:kuhn_poker has no rules here to be enumerated; use Matches"):
        short_trainer().fit(PPO("openspiel:kuhn_poker"), data)


@pytest.mark.slow
def test_nine_of_ten_of_its_sequential_games_for_two_are_trained(short_trainer):
    kind = pyspiel.GameType.Dynamics.SEQUENTIAL
    paths = [
        game.short_name
        for game in pyspiel.registered_games()
        if game.default_loadable and game.dynamics == kind and pyspiel.load_game(game.short_name).num_players() == 2
    ]
    refused = {}
    for path in paths:
        try:
            game = load_interface(f"openspiel:{path}")
        except ValueError as error:
            refused[path] = str(error)
            continue
        cut = 60 if rules(path).max_game_length() > 60 else None
        jobs = [Matches(["random"], games=2)]
        data = SelfPlayDataModule(f"openspiel:{path}", 2, 16, truncate_after=cut, evaluation=jobs)
        network = partial(MLP, hidden=(16,))
        model = PPO(f"openspiel:{path}", network=network, credit=Credit(cut_games="bootstrap"))
        trainer = short_trainer(max_epochs=10, check_val_every_n_epoch=10)
        trainer.fit(model, data)
        assert abs(float(trainer.callback_metrics["eval/return/random"])) <= game.max_return, path
    assert len(paths) > 60 and len(refused) <= 0.1 * len(paths), refused
