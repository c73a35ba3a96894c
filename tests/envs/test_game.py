"""Games by name, parts of their obs, and OpenSpiel as the oracle of their rules where it is installed."""

import itertools
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from naive import chance_of, legal_of, obs_of, rewards_of

from envs.game import CHANCE, TERMINAL, Game, Interface, load_game, load_interface, parts
from envs.goofspiel import goofspiel
from envs.leduc_poker import leduc
from envs.liars_dice import liars_dice
from envs.matrix_game import matrix_game
from envs.phantom_board import hex_wins, phantom_board

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
    with pytest.raises(ValueError, match="its rules are a simulator's"):
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


def play(game, actions):
    state = game.new_state()[0]
    for action in actions:
        game.apply_action(state, action)
    return state


def test_liars_dice_by_hand():
    """Two dice of three faces: 3 1 against 2 2; the 3 is wild, so there are three twos and no four."""
    game = load_game("envs.liars_dice_2x3")
    state = play(game, (2, 0, 1, 1, 1, 7))  # rolls; one two, three twos
    assert game.render(state) == "dice 13 22 | bids 1 x 2 | 3 x 2"
    assert np.flatnonzero(legal_of(game, state)).tolist() == [8, 9, 10, 11, 12]
    assert rewards_of(game, play(game, (2, 0, 1, 1, 1, 7, 12))).tolist() == [-1, 1]  # the bid is true
    assert rewards_of(game, play(game, (2, 0, 1, 1, 1, 10, 12))).tolist() == [1, -1]  # four twos are a lie
    with pytest.raises(ValueError, match="num_dice=0"):
        liars_dice(0, 6)


def test_goofspiel_by_hand():
    """Point cards 4, 1, 2 (and 3): bids 2 against 1, 1 against 4, 3 against 3, and the last round plays itself."""
    game = load_game("envs.goofspiel_4")
    state = play(game, (3, 1, 0, 0, 0, 3, 1, 2, 2))
    assert game.render(state) == "cards 4 1 2 3 | bids 2 1 3 4 / 1 4 3 2 | points 7 1"
    assert game.current_player(state) == TERMINAL and rewards_of(game, state).tolist() == [1, -1]
    hidden = [obs_of(game, play(game, (3, bid)), 1).tolist() for bid in range(4)]
    assert hidden[0] == hidden[1] == hidden[2] == hidden[3]
    with pytest.raises(ValueError, match="num_cards=1"):
        goofspiel(1)


@pytest.mark.parametrize("abrupt", [False, True])
def test_phantom_tic_tac_toe_by_hand(abrupt):
    """Both want the middle; who fails knows, and tries again in the classic game only."""
    game = load_game("envs.phantom_tic_tac_toe" + "_abrupt" * abrupt)
    state = play(game, (4, 4))
    assert game.current_player(state) == (0 if abrupt else 1)
    obs = parts(game, obs_of(game, state, 1))
    assert obs["view"][2].tolist() == [0, 0, 0, 0, 1, 0, 0, 0, 0] and obs["attempts"].sum() == 1
    assert obs_of(game, state, 0).tolist() == obs_of(game, play(game, (4,)), 0).tolist()  # sees nothing of it
    rest = (0, 1, 8) if abrupt else (1, 0, 2, 8)
    state = play(game, (4, 4, *rest))
    assert game.current_player(state) == TERMINAL and rewards_of(game, state).tolist() == [1, -1]


def test_dark_hex_by_hand():
    """Rows are joined by player 0, columns by player 1; the cells of one diagonal do not touch."""
    wins = hex_wins(3, 3)
    assert wins[0, 0b100_100_100] and not wins[1, 0b100_100_100]
    assert wins[1, 0b111] and not wins[0, 0b111]
    assert wins[0, 0b001_010_100] and not wins[0, 0b100_010_001]
    full = [sum(1 << c for c in cells) for cells in itertools.combinations(range(9), 5)]
    assert sum(wins[0, cells] for cells in full) == 84  # on a full board exactly one has won
    assert all(wins[0, cells] != wins[1, 511 ^ cells] for cells in full)
    with pytest.raises(ValueError, match="wins of g"):
        phantom_board("g", 3, wins[:, :100], abrupt=False)
    with pytest.raises(ValueError, match="one stone must not win"):
        phantom_board("g", 3, hex_wins(1, 3), abrupt=False)


def test_leduc_has_more_cards():
    game = load_game("envs.leduc_poker_13x4")
    state = play(game, (0, 51, 2, 1, 3, 1, 2, 1))
    assert game.render(state).startswith("hands 2s Ac | public 2c | moves rc / crc | chips 7 7")
    assert rewards_of(game, state).tolist() == [7, -7]
    with pytest.raises(ValueError, match="num_suits=5"):
        leduc(3, 5)


@pytest.mark.parametrize("size", ["1x4", "1x6", "2x3", "2x5"])
def test_liars_dice_in_lockstep_with_open_spiel(size):
    pyspiel = pytest.importorskip("pyspiel")
    game, rng = load_game(f"envs.liars_dice_{size}"), random.Random(0)
    reference = pyspiel.load_game("liars_dice", {"numdice": int(size[0]), "dice_sides": int(size[2])})
    assert game.num_actions == reference.num_distinct_actions()
    for _ in range(200):
        state, other = game.new_state()[0], reference.new_initial_state()
        while not other.is_terminal():
            assert game.current_player(state) == other.current_player()
            if other.is_chance_node():
                assert chance_of(game, state) == pytest.approx([p for _, p in other.chance_outcomes()])
            else:
                assert np.flatnonzero(legal_of(game, state)).tolist() == other.legal_actions()
                for p in range(2):
                    assert obs_of(game, state, p).tolist() == other.information_state_tensor(p)
            action = rng.choice(other.legal_actions())
            game.apply_action(state, action)
            other.apply_action(action)
        assert game.current_player(state) == TERMINAL and rewards_of(game, state).tolist() == other.returns()


@pytest.mark.parametrize("num_cards", [4, 5, 6])
def test_goofspiel_in_lockstep_with_open_spiel(num_cards):
    pyspiel = pytest.importorskip("pyspiel")
    game, rng = load_game(f"envs.goofspiel_{num_cards}"), random.Random(0)
    reference = pyspiel.load_game("goofspiel", {"num_cards": num_cards, "imp_info": True, "points_order": "random"})
    for _ in range(200):
        state, other = game.new_state()[0], reference.new_initial_state()
        while not other.is_terminal():
            if other.is_chance_node():
                outcomes = dict(other.chance_outcomes())
                assert chance_of(game, state) == pytest.approx([outcomes.get(a, 0) for a in range(num_cards)])
                action = rng.choice(list(outcomes))
                game.apply_action(state, action)
                other.apply_action(action)
                continue
            bids = []
            for p in range(2):
                assert game.current_player(state) == p
                assert obs_of(game, state, p)[2:].tolist() == other.information_state_tensor(p)
                assert np.flatnonzero(legal_of(game, state)).tolist() == other.legal_actions(p)
                bids.append(rng.choice(other.legal_actions(p)))
                game.apply_action(state, bids[-1])
            other.apply_actions(bids)
        assert game.current_player(state) == TERMINAL and rewards_of(game, state).tolist() == other.returns()


@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("phantom_tic_tac_toe", "phantom_ttt(gameversion=classical)"),
        ("phantom_tic_tac_toe_abrupt", "phantom_ttt(gameversion=abrupt)"),
        ("dark_hex_3x3", "dark_hex(board_size=3,gameversion=cdh)"),
        ("dark_hex_3x3_abrupt", "dark_hex(board_size=3,gameversion=adh)"),
    ],
)
def test_phantom_boards_in_lockstep_with_open_spiel(name, theirs):
    """The obs is another one and tells as much, but for how often both have tried, which OpenSpiel's dark hex tells."""
    pyspiel = pytest.importorskip("pyspiel")
    game, reference, rng = load_game(f"envs.{name}"), pyspiel.load_game(theirs), random.Random(0)
    same: dict = {}
    for _ in range(300):
        state, other = game.new_state()[0], reference.new_initial_state()
        while not other.is_terminal():
            player = other.current_player()
            assert game.current_player(state) == player
            assert np.flatnonzero(legal_of(game, state)).tolist() == other.legal_actions()
            lines = other.information_state_string().splitlines()
            said = (player, *(line for i, line in enumerate(lines) if i != 3 or "hex" not in name))
            ours = obs_of(game, state, player).tobytes()
            assert same.setdefault(ours, said) == said and same.setdefault(said, ours) == ours
            action = rng.choice(other.legal_actions())
            game.apply_action(state, action)
            other.apply_action(action)
        assert game.current_player(state) == TERMINAL and rewards_of(game, state).tolist() == other.returns()
