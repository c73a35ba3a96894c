"""How shogi is written: SFEN there and back, positions that cannot be, moves by their names."""

import re

import numpy as np
import pytest

from envs.shogi import GAME, rules
from envs.shogi.notation import (
    START_SFEN,
    MoveError,
    PositionError,
    japanese_of,
    move_of,
    read_sfen,
    render,
    usi_of,
    write_sfen,
)


def test_the_start():
    assert write_sfen(GAME.new_state()[0]) == START_SFEN
    assert read_sfen(START_SFEN).tobytes() == GAME.new_state().tobytes()


def test_sfen_of_random_positions_there_and_back():
    rng, state = np.random.default_rng(4), GAME.new_state()[0]
    for _ in range(500):
        text = write_sfen(state)
        again = read_sfen(text)[0]
        assert write_sfen(again) == text
        for name in ("board", "hand", "king", "turn", "ply", "num_moves", "in_check"):
            assert (again[name] == state[name]).all(), name
        if state["end"]:
            rules.init(state)
        rules.play(state, int(rng.choice(state["moves"][: state["num_moves"]])))


IMPOSSIBLE = [
    ("4k4/9/9/9/9/9/9/9/3KK4 b - 1", "Black has 2 kings, needs one"),
    ("4k4/9/9/9/9/9/9/9/9 b - 1", "Black has 0 kings, needs one"),
    ("4k4/9/9/P8/9/P8/9/9/4K4 b - 1", "Black has 2 pawns on file 9 (nifu)"),
    ("4k4/9/8p/9/8p/9/9/9/4K4 b - 1", "White has 2 pawns on file 1 (nifu)"),
    ("4k4/9/9/9/9/9/9/9/4K4 b 3R 1", "3R in hand, there are 2"),
    ("4k4/9/9/4R4/9/9/9/9/4K4 w R2r 1", "has 4 R, there are 2"),
    ("4k4/9/9/9/9/9/PPPPPPPPP/9/4K4 b 10P 1", "has 19 P, there are 18"),
    ("P3k4/9/9/9/9/9/9/9/4K4 b - 1", "Black's P on 9a can never move"),
    ("4k4/9/9/9/9/9/9/n8/4K4 b - 1", "White's N on 9h can never move"),
    ("4k4/9/9/9/4R4/9/9/9/4K4 b - 1", "White's king could be taken, and it is Black's move"),
    ("4k4/9/9/9/9/9/9/9/4K4 b -", ""),
    ("4k4/9/9/9/9/9/9/4K4 b - 1", "has 8 ranks, a board has 9"),
    ("4k4/9/9/9/9/9/9/9/4K5 b - 1", "rank i has 10 squares, a board has 9"),
    ("4x4/9/9/9/9/9/9/9/4K4 b - 1", "rank a is '4x4'; needs pieces"),
    ("4k4/9/9/9/9/9/9/9/4+K4 b - 1", "rank i is '4+K4'; needs pieces"),
    ("4k4/9/9/9/9/9/9/9/4+GK3 b - 1", "rank i is '4+GK3'; needs pieces"),
    ("4k4/9/9/9/9/9/9/9/4K3+ b - 1", "rank i is '4K3+'; needs pieces"),
    ("4k4/9/9/9/9/9/9/9/4K4 x - 1", "the player to move is 'x', needs b or w"),
    ("4k4/9/9/9/9/9/9/9/4K4 b 0P 1", "the hands are '0P'"),
    ("4k4/9/9/9/9/9/9/9/4K4 b K 1", "the hands are 'K'"),
    ("4k4/9/9/9/9/9/9/9/4K4 b - 0", "move number '0': 1 to 1024"),
    ("4k4/9/9/9/9/9/9/9/4K4 b - many", "move number 'many': 1 to 1024"),
    ("startpos", "has 1 fields; needs board, player to move, hands and move number"),
]


@pytest.mark.parametrize("sfen, words", IMPOSSIBLE)
def test_what_cannot_be(sfen, words):
    if not words:
        assert write_sfen(read_sfen(sfen)[0]) == f"{sfen} 1"  # the number may be left out
        return
    with pytest.raises(PositionError) as error:
        read_sfen(sfen)
    assert (
        words in str(error.value) and str(error.value).startswith(f"sfen {sfen!r}: ") and "\n" not in str(error.value)
    )


def test_names_of_moves():
    state = read_sfen("lnsgkgsnl/1r5b1/pppppp1pp/6p2/9/2P6/PP1PPPPPP/1B5R1/LNSGKGSNL b - 3")[0]
    assert japanese_of(state, move_of(state, "8h2b+")) == "▲２二角成(88)"
    rules.play(state, move_of(state, "8h2b+"))
    assert japanese_of(state, move_of(state, "3a2b")) == "△２二銀(31)"
    rules.play(state, move_of(state, "3a2b"))
    assert japanese_of(state, move_of(state, "B*5e")) == "▲５五角打"
    names = {usi_of(move) for move in state["moves"][: state["num_moves"]].tolist()}
    assert len(names) == state["num_moves"] and "B*5e" in names


@pytest.mark.parametrize(
    "usi, words",
    [
        ("7g7e", "is not legal in lnsgkgsnl"),
        ("P*5e", "is not legal in lnsgkgsnl"),
        ("7g7f+", "is not legal in"),
        ("resign", "is no USI move; such are 7g7f, 8h2b+ and P*5e"),
        ("0g0f", "is no USI move"),
    ],
)
def test_no_move(usi, words):
    with pytest.raises(MoveError, match=re.escape(f"move '{usi}': {words}")):
        move_of(GAME.new_state()[0], usi)


def test_no_move_after_the_end():
    over = read_sfen("k8/1G7/1G7/9/9/9/9/9/8K w - 1")[0]
    with pytest.raises(MoveError, match=r"move '9a8a': the game is over \(no legal move\)"):
        move_of(over, "9a8a")
    assert "▲ wins: no legal move" in render(over)


def test_the_diagram():
    lines = render(read_sfen("4k4/9/3+p5/9/9/9/9/9/4K4 b R2Pbg3p 12")[0]).splitlines()
    assert lines[0] == "△ 角　金　歩三" and lines[-3] == "▲ 飛　歩二" and lines[-2] == "move 12, ▲ to move"
    assert lines[5] == "| ・ ・ ・vと ・ ・ ・ ・ ・|三"
