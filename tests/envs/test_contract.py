"""Every game keeps the contract; broken games are caught."""

import dataclasses
import sys

import numpy as np
import pytest
from numba import njit

from envs.contract import ContractError, check_game, main
from envs.game import Part, load_game
from envs.structure import DealtThenPublic


def test_contract(any_game):
    kept = check_game(any_game, num_games=300)
    for promise, name in (
        ("hidden", "hidden_from"), ("redact", "redact"), ("bonus", "bonus"), ("out", "out"), ("teams", "teams"),
        ("parts", "obs_parts"), ("structure", "structure"),
    ):  # fmt: skip
        assert any(line.startswith(promise + ":") for line in kept) == bool(getattr(any_game, name))


@pytest.mark.parametrize(
    "name",
    [
        "liars_dice_1x4", "liars_dice_1x5", "liars_dice_1x6", "liars_dice_2x3", "liars_dice_2x5", "goofspiel_4",
        "goofspiel_5", "goofspiel_6", "phantom_tic_tac_toe", "phantom_tic_tac_toe_abrupt", "dark_hex_3x3",
        "dark_hex_3x3_abrupt", "leduc_poker_5x2", "leduc_poker_13x4",
    ],
)  # fmt: skip
def test_contract_of_families(name):
    assert load_game(f"envs.{name}").name == name
    check_game(load_game(f"envs.{name}"), num_games=50)


def test_a_wrong_structure_is_caught(leduc):
    @njit
    def too_few(state):
        return state.chips[0]  # whoever has folded, and whatever lies on the table

    wrong = dataclasses.replace(leduc, structure=DealtThenPublic(too_few))
    with pytest.raises(ContractError, match="structure"):
        check_game(wrong)


def test_contract_from_the_shell(capsys):
    assert main(["envs.kuhn_poker"]) == 0
    assert "kuhn_poker 1.0 keeps its promises" in capsys.readouterr().out
    assert main(["envs.no_such_game"]) == 1
    assert "no such module" in capsys.readouterr().err
    assert main([]) == 2


def _shows_the_first_card_at_the_end(state, player, obs):
    obs[player] = 1
    if state.num_moves > 0:
        obs[2 + state.card[0]] = 1


def test_hidden_means_never_seen():
    """What is shown later was not hidden, and the message says so."""
    game = load_game("envs.kuhn_poker")
    shown = dataclasses.replace(game, observe=njit(_shows_the_first_card_at_the_end), perfect_recall=False)
    with pytest.raises(ContractError, match=r"hidden_from means never sees.*what is shown later is not hidden"):
        check_game(shown, num_games=50)


def test_a_game_that_is_no_python_is_one_line(tmp_path, monkeypatch, capsys):
    (tmp_path / "slip.py").write_text("import numpy\n\ndef init(state:\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", ["", *sys.path])
    assert main(["slip"]) == 1
    err = capsys.readouterr().err
    assert err == f"error: game='slip': {tmp_path / 'slip.py'}, line 3: '(' was never closed\n"


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
        ("teams", {"teams": (0, 1, 0)}),
        ("teams", {"teams": (0, 2)}),
        ("parts", {"obs_parts": {"card": Part(2, (3,)), "moves": Part(4, (3, 2))}}),
        ("parts", {"obs_parts": {"moves": Part(5, (4, 2))}}),
        ("parts", {"obs_parts": {"none": Part(5, (0, 2))}}),
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


def _redact_nothing(state, player):
    pass


def _redact_leaves_the_last_choice(state, player):
    for p in range(4):
        if p != player:
            state.card[p] = -1
        state.choice[p] = 0


def _redact_own_card(state, player):
    for p in range(4):
        state.card[p] = -1
        state.choice[p] = 0
    state.stayed = -1


def _dealing_pays(state, out):
    out[0] = 0.1


def _endless_bonus(state, out):
    if state.stayed != -1:
        out[0] = np.inf


def _out_as_soon_as_dealt(state, player):
    return state.dealt == 4


@pytest.mark.parametrize(
    ("promise", "name", "function"),
    [
        ("redact", "redact", _redact_nothing),
        ("redact", "redact", _redact_leaves_the_last_choice),
        ("redact", "redact", _redact_own_card),
        ("bonus", "bonus", _dealing_pays),
        ("bonus", "bonus", _endless_bonus),
        ("out", "out", _out_as_soon_as_dealt),
    ],
)
def test_contract_catches_in_larger_games(pairs, promise, name, function):
    with pytest.raises(ContractError, match=f"breaks '{promise}'"):
        check_game(dataclasses.replace(pairs, **{name: njit(function)}))


def test_a_redacted_state_keeps_the_legal_actions(leduc):
    """Where they are read off what was erased, the redaction is at fault: here, what the others have put in."""

    def redact(state, player):
        leduc.redact(state, player)
        state["chips"][1 - player] = 0

    with pytest.raises(ContractError, match="other legal actions in what is left"):
        check_game(dataclasses.replace(leduc, redact=redact))


def test_nothing_of_the_game_before_is_left(kuhn, pairs):
    """Neither in a redacted state, nor in what is earned besides."""
    pairs_init = pairs.init

    @njit
    def redact(state, player):
        state.card[1 - player] = -1  # the moves of another game stay

    with pytest.raises(ContractError, match=r"breaks 'redact'.* same obs"):
        check_game(dataclasses.replace(kuhn, redact=redact))

    @njit
    def init(state):
        over = state.over
        pairs_init(state)
        state.stayed = 0 if over else -1  # so the deal pays, but never in the first game

    with pytest.raises(ContractError, match="breaks 'init'"):
        check_game(dataclasses.replace(pairs, init=init))


def test_bonus_writes_beside_its_buffer(pairs):
    def bonus(state, out):
        np.lib.stride_tricks.as_strided(out, (len(out) + 1,), out.strides)[len(out)] = 1.0

    with pytest.raises(ContractError, match="breaks 'bounds'"):
        check_game(dataclasses.replace(pairs, bonus=bonus))


def test_names_of_a_position_are_checked(any_game):
    def one_name(state, action):
        return ("move",)

    def by_number(state, action):
        return (f"move {action}", str(action))

    assert any(line.startswith("names") for line in check_game(dataclasses.replace(any_game, names_of=by_number), 20))
    with pytest.raises(ContractError, match=r"breaks 'names'.*is called \('move',\)"):
        check_game(dataclasses.replace(any_game, names_of=one_name), 20)


def test_a_bonus_that_does_not_sum_to_zero_is_caught():
    @njit
    def bonus(state, out):
        out[0] = 1.0

    with pytest.raises(ContractError, match=r"breaks 'bonus'.*bonus_zero_sum is claimed"):
        check_game(dataclasses.replace(load_game("envs.tic_tac_toe"), bonus=bonus, bonus_zero_sum=True), 5)
