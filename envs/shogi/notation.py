"""How shogi is written: SFEN positions, USI moves, moves and boards as players in Japan write them."""

import re

import numpy as np

import envs.shogi.rules as rules
from envs.shogi.moves import PROMOTES, SOURCE, attacked
from envs.shogi.pieces import COLUMN, FIRST_ROW, HAND, HELD, KING, PAWN, PROMOTED, ROW, SQUARES, UNPROMOTED

LETTERS = "PLNSGBRK"
RANKS = "abcdefghi"
SQUARE_NAMES = tuple(f"{9 - s % 9}{RANKS[s // 9]}" for s in range(SQUARES))
START_SFEN = "lnsgkgsnl/1r5b1/ppppppppp/9/9/9/PPPPPPPPP/1B5R1/LNSGKGSNL b - 1"
HAND_ORDER = (7, 6, 5, 4, 3, 2, 1)  # rook to pawn, as SFEN writes a hand
KANJI = ("", *"歩香桂銀金角飛玉と", "成香", "成桂", "成銀", "馬", "龍")
ON_BOARD = (" ・", *(f" {k}" for k in "歩香桂銀金角飛玉と杏圭全馬龍"))
DIGITS, NUMBERS = "１２３４５６７８９", ("", *"一二三四五六七八九", "十", *(f"十{n}" for n in "一二三四五六七八"))
SIGNS = "▲△"


class PositionError(ValueError):
    """A position that cannot be."""


class MoveError(ValueError):
    """No move, or one that is not legal where it was to be made."""


def read_sfen(text: str) -> np.ndarray:
    """A state [1] of `envs.shogi.rules.STATE` where the SFEN `text` says; what came before is not known.

    Raises:
        PositionError: it is no SFEN, or no position of shogi.
    """

    def need(held: bool, what: str) -> None:
        if not held:
            raise PositionError(f"sfen {text!r}: {what}")

    fields = text.split()
    need(len(fields) in (3, 4), f"has {len(fields)} fields; needs board, player to move, hands and move number")
    board, turn, hands, number = (*fields, "1")[:4]
    state = np.zeros(1, rules.STATE)
    record = state[0]
    rows = board.split("/")
    need(len(rows) == 9, f"has {len(rows)} ranks, a board has 9")
    for row, rank in enumerate(rows):
        squares = _rank(rank)
        need(squares is not None, f"rank {RANKS[row]} is {rank!r}; needs pieces {LETTERS} and numbers from 1 to 9")
        need(len(squares) == 9, f"rank {RANKS[row]} has {len(squares)} squares, a board has 9")
        record["board"][9 * row : 9 * row + 9] = squares
    need(turn in ("b", "w"), f"the player to move is {turn!r}, needs b or w")
    need(hands == "-" or re.fullmatch(r"((?:[1-9]\d?)?[PLNSGBRplnsgbr])+", hands), f"the hands are {hands!r}")
    need(number.isdecimal() and 1 <= int(number) <= rules.MAX_PLIES, f"move number {number!r}: 1 to {rules.MAX_PLIES}")
    for count, letter in re.findall(r"(\d*)([A-Za-z])", "" if hands == "-" else hands):
        player, held = int(letter.islower()), LETTERS.index(letter.upper())
        need(int(count or 1) <= HELD[held], f"{count}{letter} in hand, there are {HELD[held]}")
        record["hand"][player, held] += int(count or 1)
    record["turn"], record["ply"] = int(turn == "w"), int(number) - 1
    _check(record, need)
    rules.begin(record)
    return state


def _rank(text: str) -> list[int] | None:
    """The nine squares that a rank of an SFEN tells; None where it is none."""
    squares: list[int] = []
    for promoted, piece, empty in re.findall(r"(\+?)([A-Za-z])|(.)", text):
        if empty:
            if empty not in "123456789":
                return None
            squares += [0] * int(empty)
            continue
        if piece.upper() not in LETTERS:
            return None
        kind = LETTERS.index(piece.upper()) + 1
        if promoted and PROMOTED[kind] == 0:
            return None
        kind = int(PROMOTED[kind]) if promoted else kind
        squares.append(kind if piece.isupper() else -kind)
    return squares


def _check(record: np.record, need) -> None:
    """That it is a position of shogi, and where the kings are."""
    board, names = record["board"], ("Black", "White")
    total = record["hand"].sum(0, dtype=int)
    for player, sign in enumerate((1, -1)):
        kings = np.flatnonzero(board == sign * KING)
        need(len(kings) == 1, f"{names[player]} has {len(kings)} kings, needs one")
        record["king"][player] = kings[0]
        for square in np.flatnonzero(board * sign > 0):
            kind = int(board[square] * sign)
            if kind == KING:
                continue
            where = f"{names[player]}'s {_letters(kind)} on {SQUARE_NAMES[square]}"
            need(ROW[player, square] >= FIRST_ROW[kind], f"{where} can never move")
            total[UNPROMOTED[kind] - 1] += 1
        files = COLUMN[board == sign * PAWN]
        for file in range(9):
            count = int((files == file).sum())
            need(count < 2, f"{names[player]} has {count} pawns on file {9 - file} (nifu)")
    for held in range(HAND):
        need(total[held] <= HELD[held], f"has {total[held]} {LETTERS[held]}, there are {HELD[held]}")
    other = 1 - int(record["turn"])
    need(
        not attacked(record, int(record["king"][other]), 1 - other),
        f"{names[other]}'s king could be taken, and it is {names[1 - other]}'s move",
    )


def write_sfen(state: np.record) -> str:
    """The SFEN of a state."""
    ranks = []
    for row in state["board"].reshape(9, 9).tolist():
        rank = "".join(_letters(piece) if piece else " " for piece in row)
        ranks.append(re.sub(" +", lambda spaces: str(len(spaces[0])), rank))
    hands = ""
    for player in range(2):
        for kind in HAND_ORDER:
            count = int(state["hand"][player, kind - 1])
            if count:
                hands += (str(count) if count > 1 else "") + _letters(kind if player == 0 else -kind)
    return f"{'/'.join(ranks)} {'bw'[state['turn']]} {hands or '-'} {int(state['ply']) + 1}"


def _letters(piece: int) -> str:
    kind = abs(piece)
    letter = ("+" if kind > KING else "") + LETTERS[UNPROMOTED[kind] - 1]
    return letter if piece > 0 else letter.lower()


def usi_of(move: int) -> str:
    """A move as USI writes it: 7g7f, 8h2b+, P*5e."""
    to, source = SQUARE_NAMES[move % SOURCE], move // SOURCE % SOURCE
    if source >= SQUARES:
        return f"{LETTERS[source - SQUARES]}*{to}"
    return SQUARE_NAMES[source] + to + ("+" if move >= PROMOTES else "")


def move_of(state: np.record, usi: str) -> int:
    """The legal move that USI calls so.

    Raises:
        MoveError: it is none in this position.
    """
    if state["end"] != rules.RUNNING:
        raise MoveError(f"move {usi!r}: the game is over ({rules.ENDS[state['end']]})")
    for move in state["moves"][: state["num_moves"]].tolist():
        if usi_of(move) == usi:
            return move
    if not re.fullmatch(r"[1-9][a-i][1-9][a-i]\+?|[PLNSGBR]\*[1-9][a-i]", usi):
        raise MoveError(f"move {usi!r}: is no USI move; such are 7g7f, 8h2b+ and P*5e")
    raise MoveError(f"move {usi!r}: is not legal in {write_sfen(state)}")


def japanese_of(state: np.record, move: int) -> str:
    """A move as it is written in Japan, and the square that it comes from: ▲７六歩(77), △２二角成(88), ▲５五角打."""
    to, source = move % SOURCE, move // SOURCE % SOURCE
    where = SIGNS[state["turn"]] + DIGITS[8 - to % 9] + NUMBERS[to // 9 + 1]
    if source >= SQUARES:
        return f"{where}{KANJI[source - SQUARES + 1]}打"
    promotes = "成" if move >= PROMOTES else ""
    return f"{where}{KANJI[abs(int(state['board'][source]))]}{promotes}({9 - source % 9}{source // 9 + 1})"


def render(state: np.record) -> str:
    """The board as a diagram: White's pieces, with a v, on top; their hands beside it; and whose move it is."""
    lines = [f"△ {_hand(state, 1)}", "  " + " ".join(DIGITS[::-1]), "+" + "-" * 27 + "+"]
    for row, pieces in enumerate(state["board"].reshape(9, 9).tolist()):
        cells = ("v" + ON_BOARD[-piece][1:] if piece < 0 else ON_BOARD[piece] for piece in pieces)
        lines.append("|" + "".join(cells) + "|" + NUMBERS[row + 1])
    lines += ["+" + "-" * 27 + "+", f"▲ {_hand(state, 0)}"]
    if state["end"] == rules.RUNNING:
        check = ", in check" if state["in_check"] else ""
        lines.append(f"move {int(state['ply']) + 1}, {SIGNS[state['turn']]} to move{check}")
    else:
        who = "a draw" if state["winner"] == rules.NOBODY else f"{SIGNS[state['winner']]} wins"
        lines.append(f"{int(state['ply'])} moves, {who}: {rules.ENDS[state['end']]}")
    return "\n".join([*lines, f"sfen {write_sfen(state)}"])


def _hand(state: np.record, player: int) -> str:
    held = [(KANJI[kind], int(state["hand"][player, kind - 1])) for kind in HAND_ORDER]
    return "　".join(name + (NUMBERS[count] if count > 1 else "") for name, count in held if count) or "なし"
