"""Boards whose stones the other cannot see: `phantom_board(...)` builds phantom tic-tac-toe and dark hex.

Rules and action ids are OpenSpiel's `phantom_ttt` and `dark_hex` with obstype=reveal-nothing. Two players put a stone
on a cell in turn and see their own stones only. An attempt on a cell that the other has taken fails and shows that
stone; in the classic game the player tries again, in the abrupt one the turn is lost. Who first has a winning set of
stones wins 1; a full board without one is a draw. OpenSpiel's infostate of dark hex also tells how many attempts both
have made together; here, as in arXiv 2502.08938, nobody knows.

obs uint8: 0-1 the player; for each cell whether it is unknown, own, or known to be the other's; own attempts in order
(one bit per cell each).
"""

import numpy as np
from numba import njit

from envs.game import TERMINAL, Game, Part
from envs.structure import PhantomBoard


def phantom_board(name: str, num_columns: int, wins: np.ndarray, abrupt: bool) -> Game:
    """The game of a board; `wins` [2, 2 ** cells] bool tells which sets of stones win for each player.

    Raises:
        ValueError: wins of another shape, or more than 9 cells; or one stone wins, or a stone more undoes a win.
    """
    wins = np.asarray(wins, np.bool_)
    n = wins.shape[1].bit_length() - 1
    if wins.shape != (2, 1 << n) or not 1 <= n <= 9:
        raise ValueError(f"wins of {name}: needs shape [2, 2 ** cells] with at most 9 cells, got {wins.shape}")
    sets = np.arange(1 << n)
    if wins[:, 1 << np.arange(n)].any() or any((wins & ~wins[:, sets | 1 << c]).any() for c in range(n)):
        raise ValueError(f"wins of {name}: one stone must not win, and a stone more must not undo a win")
    view_at, attempts_at, none, full = 2, 2 + 3 * n, -1, (1 << n) - 1
    state_dtype = np.dtype(
        [
            ("stones", np.int16, 2),  # the cells of each player's, one bit each
            ("seen", np.int16, 2),  # the cells that each player knows to be the other's
            ("attempts", np.int8, (2, n)),
            ("num_attempts", np.int8, 2),
            ("player", np.int8),
            ("winner", np.int8),
        ]
    )

    @njit
    def init(state):
        for p in range(2):
            state.stones[p] = 0
            state.seen[p] = 0
            state.num_attempts[p] = 0
            for i in range(n):
                state.attempts[p, i] = none
        state.player = 0
        state.winner = none

    @njit
    def current_player(state):
        if state.winner >= 0 or state.stones[0] | state.stones[1] == full:
            return TERMINAL
        return state.player

    @njit
    def legal_actions(state, legal):
        known = state.stones[state.player] | state.seen[state.player]
        for a in range(n):
            legal[a] = (known >> a) & 1 == 0

    @njit
    def chance_probs(state, probs):
        pass

    @njit
    def apply_action(state, action):
        me = state.player
        state.attempts[me, state.num_attempts[me]] = action
        state.num_attempts[me] += 1
        bit = np.int16(1 << action)
        if state.stones[1 - me] & bit:
            state.seen[me] |= bit
            if abrupt:
                state.player = 1 - me
            return
        state.stones[me] |= bit
        if wins[me, state.stones[me]]:
            state.winner = me
        state.player = 1 - me

    @njit
    def rewards(state, out):
        if state.winner >= 0:
            out[state.winner] = 1.0
            out[1 - state.winner] = -1.0

    @njit
    def observe(state, player, obs):
        obs[player] = 1
        for c in range(n):
            kind = ((state.stones[player] >> c) & 1) + 2 * ((state.seen[player] >> c) & 1)
            obs[view_at + n * kind + c] = 1
        for i in range(state.num_attempts[player]):
            obs[attempts_at + n * i + state.attempts[player, i]] = 1

    @njit
    def redact(state, player):
        other = 1 - player
        state.stones[other] = state.seen[player]
        state.seen[other] = 0
        state.num_attempts[other] = 0
        for i in range(n):
            state.attempts[other, i] = none

    def render(state) -> str:
        cells = [".xo"[(int(state["stones"][0]) >> c & 1) + 2 * (int(state["stones"][1]) >> c & 1)] for c in range(n)]
        rows = ["".join(cells[i : i + num_columns]) for i in range(0, n, num_columns)]
        tried = [" ".join(str(a) for a in state["attempts"][p][: state["num_attempts"][p]]) or "-" for p in range(2)]
        return "\n".join([*rows, f"attempts {tried[0]} / {tried[1]}"])

    return Game(
        name=name,
        version="1.0",
        num_players=2,
        num_actions=n,
        num_chance_outcomes=0,
        max_steps=2 * n,
        obs_shape=(attempts_at + n * n,),
        obs_dtype=np.dtype(np.uint8),
        state_dtype=state_dtype,
        max_return=1.0,
        init=init,
        current_player=current_player,
        legal_actions=legal_actions,
        chance_probs=chance_probs,
        apply_action=apply_action,
        rewards=rewards,
        observe=observe,
        render=render,
        redact=redact,
        action_names=tuple(f"cell {c}" for c in range(n)),
        obs_parts={"player": Part(0, (2,)), "view": Part(view_at, (3, n)), "attempts": Part(attempts_at, (n, n))},
        structure=PhantomBoard(tuple(tuple(w.tolist()) for w in wins), abrupt),
    )


def line_wins() -> np.ndarray:
    """[2, 512]: which sets of cells of a 3 x 3 board hold a line of three."""
    lines = [0o7, 0o70, 0o700, 0o111, 0o222, 0o444, 0o421, 0o124]
    won = np.array([any(cells & line == line for line in lines) for cells in range(512)])
    return np.stack([won, won])


def hex_wins(num_rows: int, num_columns: int) -> np.ndarray:
    """[2, 2 ** cells]: which sets connect the first row with the last (player 0), the first column (player 1).

    A cell touches its neighbours in its row and column, and those at (+1, -1) and (-1, +1).
    """
    n = num_rows * num_columns
    steps = [(1, 0), (-1, 0), (0, 1), (0, -1), (1, -1), (-1, 1)]
    near = [0] * n
    for r in range(num_rows):
        for c in range(num_columns):
            for dr, dc in steps:
                if 0 <= r + dr < num_rows and 0 <= c + dc < num_columns:
                    near[r * num_columns + c] |= 1 << ((r + dr) * num_columns + c + dc)
    top, left = (1 << num_columns) - 1, sum(1 << (r * num_columns) for r in range(num_rows))
    sides = [(top, top << (n - num_columns)), (left, left << (num_columns - 1))]
    wins = np.zeros((2, 1 << n), np.bool_)
    for p, (begin, end) in enumerate(sides):
        for cells in range(1 << n):
            reached, more = 0, cells & begin
            while more:
                reached |= more
                grown = 0
                for c in range(n):
                    if more >> c & 1:
                        grown |= near[c]
                more = grown & cells & ~reached
            wins[p, cells] = bool(reached & end)
    return wins
