"""Shogi slowly: lists, dictionaries and no tables. A move is legal if nothing can take the king after it."""

import numpy as np

FORWARD = {"P": [(-1, 0)], "N": [(-2, -1), (-2, 1)], "S": [(-1, -1), (-1, 0), (-1, 1), (1, -1), (1, 1)]}
GOLD = [(-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, 0)]
CROSS, DIAGONAL = [(-1, 0), (0, -1), (0, 1), (1, 0)], [(-1, -1), (-1, 1), (1, -1), (1, 1)]
STEPS = FORWARD | {"G": GOLD, "+P": GOLD, "+L": GOLD, "+N": GOLD, "+S": GOLD, "K": CROSS + DIAGONAL}
STEPS |= {"+B": CROSS, "+R": DIAGONAL}
SLIDES = {"L": [(-1, 0)], "B": DIAGONAL, "R": CROSS, "+B": DIAGONAL, "+R": CROSS}
POINTS = {"R": 5, "B": 5}


class Position:
    """board {(row, column): (player, name)}, hands [{name: count}] of the two, and who is to move."""

    def __init__(self, sfen):
        board, turn, hands, *_ = sfen.split()
        self.board, self.turn, self.hands = {}, "bw".index(turn), [{}, {}]
        for row, rank in enumerate(board.split("/")):
            column, plus = 0, ""
            for letter in rank:
                if letter == "+":
                    plus = "+"
                elif letter.isdigit():
                    column += int(letter)
                else:
                    self.board[row, column] = (int(letter.islower()), plus + letter.upper())
                    column, plus = column + 1, ""
        number = ""
        for letter in "" if hands == "-" else hands:
            if letter.isdigit():
                number += letter
            else:
                self.hands[int(letter.islower())][letter.upper()] = int(number or 1)
                number = ""

    def copy(self):
        new = object.__new__(Position)
        new.board, new.turn, new.hands = dict(self.board), self.turn, [dict(hand) for hand in self.hands]
        return new

    def key(self):
        hands = tuple(tuple(sorted((k, n) for k, n in hand.items() if n)) for hand in self.hands)
        return tuple(sorted(self.board.items())), hands, self.turn

    def reached(self, square):
        """Squares that the piece there could go to, as it stands."""
        player, name = self.board[square]
        sign = 1 if player == 0 else -1
        for down, right in STEPS.get(name, []):
            yield square[0] + sign * down, square[1] + sign * right
        for down, right in SLIDES.get(name, []):
            row, column = square
            while True:
                row, column = row + sign * down, column + sign * right
                yield row, column
                if (row, column) in self.board or not (0 <= row < 9 and 0 <= column < 9):
                    break

    def in_check(self, player):
        king = next(square for square, piece in self.board.items() if piece == (player, "K"))
        return any(king in self.reached(s) for s, piece in list(self.board.items()) if piece[0] != player)

    def made(self, move):
        """The position after (from, to, promotes), or (name, to) for a drop."""
        new = self.copy()
        if len(move) == 2:
            new.hands[self.turn][move[0]] -= 1
            new.board[move[1]] = (self.turn, move[0])
        else:
            source, to, promotes = move
            if to in new.board:
                name = new.board[to][1].removeprefix("+")
                new.hands[self.turn][name] = new.hands[self.turn].get(name, 0) + 1
            new.board[to] = (self.turn, ("+" if promotes else "") + new.board.pop(source)[1])
        new.turn = 1 - self.turn
        return new

    def moves(self, pawn_mates=True):
        me, far = self.turn, (lambda row: row if self.turn == 0 else 8 - row)
        dead = {"P": 1, "L": 1, "N": 2}
        found = []
        for square, (player, name) in self.board.items():
            if player != me:
                continue
            for to in self.reached(square):
                if not (0 <= to[0] < 9 and 0 <= to[1] < 9) or self.board.get(to, (1 - me,))[0] == me:
                    continue
                if far(to[0]) >= dead.get(name, 0):
                    found.append((square, to, False))
                if name in "PLNSBR" and min(far(square[0]), far(to[0])) < 3:
                    found.append((square, to, True))
        for name, count in self.hands[me].items():
            for to in np.ndindex(9, 9) if count else ():
                pawns = name == "P" and any(self.board.get((row, to[1])) == (me, "P") for row in range(9))
                if to not in self.board and not pawns and far(to[0]) >= dead.get(name, 0):
                    found.append((name, to))
        found = [move for move in found if not self.made(move).in_check(me)]
        if pawn_mates:
            found = [move for move in found if not (move[0] == "P" and self.made(move).is_mate())]
        return found

    def is_mate(self):
        return self.in_check(self.turn) and not self.moves(pawn_mates=False)

    def may_declare(self):
        me = self.turn
        camp = [(s, p[1]) for s, p in self.board.items() if p[0] == me and (s[0] if me == 0 else 8 - s[0]) < 3]
        names = [name for _, name in camp if name != "K"]
        points = sum(POINTS.get(name.removeprefix("+"), 1) for name in names)
        points += sum(POINTS.get(name, 1) * count for name, count in self.hands[me].items())
        return len(camp) == len(names) + 1 and len(names) >= 10 and points >= 28 - me and not self.in_check(me)


def usi(move):
    def name(square):
        return f"{9 - square[1]}{'abcdefghi'[square[0]]}"

    if len(move) == 2:
        return f"{move[0]}*{name(move[1])}"
    return name(move[0]) + name(move[1]) + ("+" if move[2] else "")
