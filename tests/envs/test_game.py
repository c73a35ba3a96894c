"""Games by name, parts of their obs, and OpenSpiel as the oracle of their rules where it is installed."""

import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from naive import chance_of, legal_of, obs_of, rewards_of

from envs.game import CHANCE, TERMINAL, Game, Interface, load_game, load_interface, parts
from envs.matrix_game import matrix_game

SIZES = dict(
    name="simulated", version="1", num_players=2, num_actions=3, obs_shape=(4,), obs_dtype=np.dtype(np.float32),
    max_return=1.0,
)  # fmt: skip


def test_load_game_refuses_by_name():
    with pytest.raises(ValueError, match=r"envs\.chess.*no such module"):
        load_game("envs.chess")
    with pytest.raises(ValueError, match="defines no GAME"):
        load_game("envs.rng")


def test_an_interface_is_enough_to_be_known(kuhn, monkeypatch):
    """A game whose rules run elsewhere has sizes and names, and no functions."""
    simulated = Interface(**SIZES)
    monkeypatch.setitem(__import__("sys").modules, "simulated", SimpleNamespace(INTERFACE=simulated))
    assert load_interface("simulated") is simulated
    assert load_interface("envs.kuhn_poker") is kuhn
    with pytest.raises(ValueError, match="defines no GAME"):
        load_game("simulated")
    with pytest.raises(ValueError, match=r"neither GAME .* nor INTERFACE"):
        load_interface("envs.rng")
    with pytest.raises(ValueError, match="no such module"):
        load_interface("envs.chess")


def test_teams(kuhn, pairs):
    assert (kuhn.team, kuhn.num_teams) == ((0, 1), 2)
    assert (pairs.team, pairs.num_teams) == ((0, 1, 0, 1), 2)
    assert Interface(**SIZES | {"num_players": 5}).num_teams == 5


def test_sizes_are_told_by_name():
    with pytest.raises(TypeError):
        Interface("simulated", "1")
    with pytest.raises(TypeError, match="init"):
        Game(**SIZES, num_chance_outcomes=0, max_steps=1, state_dtype=np.dtype([("x", np.int8)]))


@pytest.mark.parametrize("of", [np.asarray, torch.from_numpy])
def test_parts_are_views(kuhn, kuhn_tree, pairs, pairs_tree, of):
    """All of a game's obs has a name in these two; writing to a part writes to obs."""
    for game, tree in ((kuhn, kuhn_tree), (pairs, pairs_tree)):
        obs = of(np.stack([tree.obs, tree.obs]))
        named = parts(game, obs)
        assert {name: tuple(view.shape[2:]) for name, view in named.items()} == {
            name: part.shape for name, part in game.obs_parts.items()
        }
        flat = [np.asarray(view).reshape(2, len(tree.obs), -1) for view in named.values()]
        assert (np.concatenate(flat, axis=2) == np.asarray(obs)).all()
        for view in named.values():
            view[...] = 7
        assert (np.asarray(obs) == 7).all()
    one = parts(kuhn, of(kuhn_tree.obs[0].copy()))
    assert tuple(one["moves"].shape) == (3, 2) and int(one["card"].sum()) == 1
    assert parts(load_game("envs.tic_tac_toe"), of(np.zeros(19))) == {}


def test_matrix_game_refuses_bad_tables():
    with pytest.raises(ValueError, match="square"):
        matrix_game("g", [[1, 2]], ["a"])
    with pytest.raises(ValueError, match="names"):
        matrix_game("g", [[1, 2], [3, 4]], ["a"])


def test_leduc_by_hand(leduc):
    state = leduc.new_state()[0]
    for action in (0, 5, 2, 1, 1, 1, 2, 1):  # deal Js, Kh; raise, call; public Jh; check, raise, call
        leduc.apply_action(state, action)
    assert leduc.current_player(state) == TERMINAL
    assert leduc.render(state).startswith("hands Js Kh | public Jh | moves rc / crc | chips 7 7")
    assert rewards_of(leduc, state).tolist() == [7, -7]  # the pair of jacks beats the king


def test_pairs_by_hand(pairs):
    state = pairs.new_state()[0]
    for action in (0, 1, 1, 1, 1, 1, 0):  # weak, strong, strong, strong; stay, stay, leave
        pairs.apply_action(state, action)
    assert pairs.current_player(state) == 3 and [pairs.out(state, p) for p in range(4)] == [False] * 4
    pairs.apply_action(state, 0)  # the last choice of the round: 2 and 3 are out
    assert [pairs.out(state, p) for p in range(4)] == [False, False, True, True]
    assert pairs.current_player(state) == 0 and not rewards_of(pairs, state).any()
    pairs.apply_action(state, 1)
    pairs.apply_action(state, 1)
    assert pairs.current_player(state) == TERMINAL
    assert pairs.render(state) == "cards w s s s | in + + - - | round 1"
    assert rewards_of(pairs, state).tolist() == [-2, 2, -2, 2]  # 3 chips of player 0, 1 of player 2, shared


def test_nobody_sees_a_choice_before_all_have_chosen(pairs):
    seen = []
    for choices in ([0, 0, 0], [1, 0, 1], [1, 1, 1]):
        state = pairs.new_state()[0]
        for action in [0, 1, 0, 1] + choices:
            pairs.apply_action(state, action)
        seen.append([obs_of(pairs, state, p).tolist() for p in range(4)])
    assert seen[0] == seen[1] == seen[2]


@pytest.mark.parametrize("name", ["kuhn_poker", "leduc_poker", "tic_tac_toe"])
def test_lockstep_with_open_spiel(name):
    pyspiel = pytest.importorskip("pyspiel")
    game, reference, rng = load_game(f"envs.{name}"), pyspiel.load_game(name), random.Random(0)
    for _ in range(500):
        state, other = game.new_state()[0], reference.new_initial_state()
        while True:
            player = game.current_player(state)
            assert player == other.current_player()
            if player == TERMINAL:
                break
            if name != "tic_tac_toe":
                for p in range(2):
                    assert obs_of(game, state, p).tolist() == other.information_state_tensor(p)
            if player == CHANCE:
                outcomes = dict(other.chance_outcomes())
                probs = chance_of(game, state)
                assert probs == pytest.approx([outcomes.get(a, 0) for a in range(len(probs))])
                action = rng.choice(list(outcomes))
            else:
                assert np.flatnonzero(legal_of(game, state)).tolist() == other.legal_actions()
                action = rng.choice(other.legal_actions())
            game.apply_action(state, action)
            other.apply_action(action)
        assert rewards_of(game, state).tolist() == other.returns()
