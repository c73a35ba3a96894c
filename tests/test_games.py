"""Every game keeps the contract; broken games are caught; OpenSpiel agrees where it is installed."""

import dataclasses
import random

import numpy as np
import pytest
from naive import chance_of, legal_of, obs_of, rewards_of
from numba import njit

from envs.contract import ContractError, check_game, main
from envs.game import CHANCE, TERMINAL, Betting, load_game
from envs.matrix_game import matrix_game


def test_contract(any_game):
    kept = check_game(any_game, num_games=300)
    for optional in ("hidden", "betting"):
        declared = any_game.hidden_from if optional == "hidden" else any_game.betting
        assert any(line.startswith(optional) for line in kept) == (declared is not None)


def test_contract_from_the_shell(capsys):
    assert main(["envs.kuhn_poker"]) == 0
    assert "kuhn_poker 1.0 keeps its promises" in capsys.readouterr().out
    assert main(["envs.no_such_game"]) == 1
    assert "no such module" in capsys.readouterr().err
    assert main([]) == 2


def _observe_opponents_card(state, player, obs):
    obs[player] = 1
    if state.dealt == 2:
        obs[2 + state.card[1 - player]] = 1
    for i in range(state.num_moves):
        obs[5 + 2 * i + state.moves[i]] = 1


def _never_pays_out_fairly(state, out):
    if state.num_moves == 3:
        out[0] = 1.0


def _no_legal_action(state, legal):
    legal[:] = False


def _loaded_deck(state, probs):
    probs[:] = 0.5


def _forgets_the_bets(state, player, obs):
    obs[player] = 1
    if state.dealt > player:
        obs[2 + state.card[player]] = 1


def _init_forgets_the_moves(state):
    state.dealt = 0


def _legal_depends_on_the_hidden_card(state, legal):
    legal[0] = True
    legal[1] = state.card[1 - state.num_moves % 2] == 2


@pytest.mark.parametrize(
    ("promise", "change"),
    [
        ("hidden", {"observe": _observe_opponents_card}),
        ("zero-sum", {"rewards": _never_pays_out_fairly}),
        ("legal", {"legal_actions": _no_legal_action}),
        ("chance", {"chance_probs": _loaded_deck}),
        ("recall", {"observe": _forgets_the_bets}),
        ("init", {"init": _init_forgets_the_moves}),
        ("infostate", {"legal_actions": _legal_depends_on_the_hidden_card}),
        ("returns", {"max_return": 1.0}),
        ("ends", {"max_steps": 3}),
        ("declared", {"version": ""}),
        ("render", {"render": lambda state: None}),
        ("betting", {"betting": lambda obs: Betting(obs[:, 0].astype(int), 2.0 * obs[:, 1], 0.5 * obs[:, 1])}),
        ("betting", {"betting": lambda obs: Betting(obs[:, 0].astype(int), obs[:, 1:2] * 1.0, obs[:, 1] * 1.0)}),
    ],
)
def test_contract_catches(kuhn, promise, change):
    change = {k: njit(v) if k in ("observe", "rewards", "legal_actions", "chance_probs", "init") else v
              for k, v in change.items()}  # fmt: skip
    with pytest.raises(ContractError, match=f"breaks '{promise}'"):
        check_game(dataclasses.replace(kuhn, **change))


@pytest.mark.parametrize(("function", "value"), [("observe", 1), ("observe", 7), ("legal_actions", True)])
def test_contract_catches_writes_beside_the_buffer(kuhn, function, value):
    def writes_beside(*args):
        buffer = args[-1]
        getattr(kuhn, function)(*args)
        np.lib.stride_tricks.as_strided(buffer, (len(buffer) + 1,), buffer.strides)[len(buffer)] = value

    with pytest.raises(ContractError, match="breaks 'bounds'"):
        check_game(dataclasses.replace(kuhn, **{function: writes_beside}))


def test_load_game_refuses_by_name():
    with pytest.raises(ValueError, match=r"envs\.chess.*no such module"):
        load_game("envs.chess")
    with pytest.raises(ValueError, match="defines no GAME"):
        load_game("envs.rng")


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
