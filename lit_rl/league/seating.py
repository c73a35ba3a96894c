"""Seating: who sits where in each row of an env, drawn per game, and what came of it.

Letters: B envs, P players, K names, A actions.
"""

from collections.abc import Sequence

import numpy as np
import torch

from envs.rng import make_streams, uniform
from envs.vector_env import VectorEnv, kernel
from lit_rl.league.players import Player

SEAT_STREAM = 6
LEARNER = -1
SAVED = ("table", "turn", "earned", "streams")
WINS, DRAWS, LOSSES, LEARNER_RETURN, MEMBER_RETURN = range(5)  # columns of a tally


class Seating:
    """Opponents for `lit_rl.rollout.collect`: in each game the learner has one seat, or all of them.

    As a game begins in a row: with probability `self_play_share` the learner takes all seats; else it takes the seat
    after the one it had there the last time, and a member is drawn for each of the others. Who sits where is a function
    of the seed, and of the weights at those times; it survives `save` and `load`.

    Args:
        env: the env whose rows are seated; its games are taken to be at their beginning.
        seed: of the drawing, which has a stream per row.

    Attributes:
        names: [K], whoever has been met; a name keeps its number.
        players: their players, by number; None for those who left and sit nowhere any more.
        table: [B, P] int16, number of the member in each seat; -1 the learner.
    """

    def __init__(self, env: VectorEnv, seed: int):
        b, p = env.num_envs, env.game.num_players
        self.env = env
        self.names: list[str] = []
        self.players: list[Player | None] = []
        self.table = np.full((b, p), LEARNER, np.int16)
        self.turn = (np.arange(b) % p).astype(np.int8)  # the learner's seat in the next game against others
        self.earned = np.zeros((b, p), np.float32)  # in the running game
        self.streams = make_streams(b, seed, SEAT_STREAM)
        self.tally = np.zeros((0, p, 5))  # by member and the learner's seat: see the columns above
        self._share, self._drawn, self._bounds = 1.0, np.zeros(0, np.int16), np.zeros(0)
        self._rows = np.arange(b)
        self._begin(np.ones(b, np.bool_))

    def meet(self, name: str, player: Player) -> int:
        """The number of the member `name`, who plays as `player` from now on."""
        if name not in self.names:
            self.names.append(name)
            self.players.append(player)
            self.tally = np.concatenate([self.tally, np.zeros((1, *self.tally.shape[1:]))])
        number = self.names.index(name)
        self.players[number] = player
        return number

    def draw_from(self, names: Sequence[str], shares: Sequence[float], self_play_share: float) -> None:
        """Whom the games that begin from now on are against; nobody known by name: self-play."""
        self._drawn = np.array([self.names.index(name) for name in names], np.int16)
        self._bounds = np.cumsum(np.asarray(shares, np.float64))
        self._share = float(self_play_share) if len(names) else 1.0
        needed = {*self._drawn.tolist(), *np.unique(self.table).tolist()}
        self.players = [player if i in needed else None for i, player in enumerate(self.players)]

    def begin_anew(self) -> None:
        """Seat all rows again: before the first decision of a run, once it is known who is there."""
        self.turn[:] = np.arange(len(self.turn)) % self.table.shape[1]
        self._begin(np.ones(len(self.turn), np.bool_))

    def _begin(self, began: np.ndarray) -> None:
        _seat(began, self._share, self._drawn, self._bounds, self.table, self.turn, self.streams)

    def take_tally(self) -> np.ndarray:
        """[K, P, 5] float64: wins, draws, losses, learner's and member's returns since it was last taken."""
        tally, self.tally = self.tally, np.zeros_like(self.tally)
        return tally

    def learner_moves(self, env: VectorEnv) -> np.ndarray:
        return self.table[self._rows, env.player] == LEARNER

    def act(self, env: VectorEnv, probs: np.ndarray) -> None:
        who = self.table[self._rows, env.player]
        order = np.argsort(who, kind="stable")
        first = np.searchsorted(who[order], np.arange(len(self.names) + 1))
        for number in np.flatnonzero(np.diff(first)):
            rows = order[first[number] : first[number + 1]]
            self.players[number].act(rows, env.obs, env.legal, probs)

    def stepped(self, env: VectorEnv) -> None:
        self.earned += env.rewards
        if env.done.any():
            _settle(env.done, self.table, self.earned, self.tally)
            self._begin(env.done)

    def save(self) -> dict:
        """All that the games to come depend on, but for `players` and whom they are drawn from."""
        arrays = {name: getattr(self, name).tobytes() for name in SAVED}
        return arrays | {"names": list(self.names), "tally": torch.from_numpy(self.tally.copy())}

    def load(self, saved: dict) -> None:
        """Go on where `saved` was taken; `seated` says who has to be met again first.

        Raises:
            ValueError: it was saved with another number of rows or seats.
        """
        for name in SAVED:
            array = getattr(self, name)
            if len(saved[name]) != array.nbytes:
                raise ValueError(f"saved seating does not fit: {name} has {len(saved[name])} bytes, not {array.nbytes}")
            array[...] = np.frombuffer(saved[name], array.dtype).reshape(array.shape)
        self.names, self.players = list(saved["names"]), [None] * len(saved["names"])
        self.tally = saved["tally"].numpy().copy()

    def seated(self) -> list[str]:
        """Names of those who sit somewhere now."""
        return [self.names[i] for i in np.unique(self.table).tolist() if i != LEARNER]


@kernel
def _seat(began, share, drawn, bounds, table, turn, streams):
    num_players = table.shape[1]
    for b in range(len(began)):
        if not began[b]:
            continue
        alone = uniform(streams, b) < share
        for p in range(num_players):
            table[b, p] = LEARNER
        if alone:
            continue
        for p in range(num_players):
            if p == turn[b]:
                continue
            threshold, k = uniform(streams, b) * bounds[-1], 0
            while k + 1 < len(bounds) and bounds[k] <= threshold:
                k += 1
            table[b, p] = drawn[k]
        turn[b] = (turn[b] + 1) % num_players


@kernel
def _settle(done, table, earned, tally):
    """Add the games that ended to the tally: a game counts once for each member in it."""
    num_players = table.shape[1]
    for b in range(len(done)):
        if not done[b]:
            continue
        seat, alone = 0, True
        for p in range(num_players):
            if table[b, p] == LEARNER:
                seat = p
            else:
                alone = False
        for p in range(num_players):
            if not alone and p != seat:
                k, mine, theirs = table[b, p], earned[b, seat], earned[b, p]
                tally[k, seat, WINS] += mine > theirs
                tally[k, seat, DRAWS] += mine == theirs
                tally[k, seat, LOSSES] += mine < theirs
                tally[k, seat, LEARNER_RETURN] += mine
                tally[k, seat, MEMBER_RETURN] += theirs
        for p in range(num_players):
            earned[b, p] = 0.0
