"""Seating: who sits where in each row of an env, drawn per game, and what came of it.

The table has a seat for each *team* of the game; where everybody plays alone, a team is a player. Whoever takes a seat
moves for all players of the team. Letters: B envs, P players, S seats (teams), K members, A actions.
"""

from collections.abc import Mapping

import numpy as np
import torch

from envs.env import ALL_ROWS, Env
from envs.rng import make_streams, uniform
from envs.vector_env import kernel
from lit_rl.league.players import Player
from lit_rl.run.saved_values import need, saved_dict, saved_float, saved_list, saved_tensor, saved_text

SEAT_STREAM = 6
LEARNER = -1
SAVED = ("table", "turn", "earned", "streams")
WINS, DRAWS, LOSSES, LEARNER_RETURN, MEMBER_RETURN, LEARNER_SQUARE, MEMBER_SQUARE = range(7)  # columns of a tally
COLUMNS = 7


class Seating:
    """Who sits at the table in each game of an env: the learner in one seat, or in all of them.

    As a game begins in a row: with probability `self_play_share` the learner takes all seats; else it takes the seat
    after the one it had there the last time, and a member is drawn for each of the others. Who sits where is a function
    of the seed, and of the shares at those times; it survives `state_dict` and `load_state_dict`.

    Args:
        env: the env whose rows are seated; its games are taken to be at their beginning.
        seed: of the drawing, which has a stream per row.

    Attributes:
        names: [K], whoever has been met; a name keeps its number.
        players: their players, by number; None for those who sit nowhere and cannot be drawn any more, and after
            `load_state_dict` until they have been met again.
        shares: name -> share of the games against members that begin from now on; empty: self-play alone.
        self_play_share: share of the games in which the learner takes all seats, as long as there are members.
        table: [B, S] int16, number of the member in each seat; -1 the learner.
    """

    def __init__(self, env: Env, seed: int):
        self.env = env
        self.team = np.array(env.game.team)  # [P], whose numbers are those of the seats
        num_rows, num_seats = env.num_envs, env.game.num_teams
        self.names: list[str] = []
        self.players: list[Player | None] = []
        self.shares: dict[str, float] = {}
        self.self_play_share = 1.0
        self.table = np.full((num_rows, num_seats), LEARNER, np.int16)
        self.turn = (np.arange(num_rows) % num_seats).astype(np.int8)  # the learner's seat in the next game with others
        self.earned = np.zeros((num_rows, env.game.num_players), np.float32)  # in the running game
        self.streams = make_streams(num_rows, seed, SEAT_STREAM)
        self.tally = np.zeros((0, num_seats, COLUMNS))  # by member and the learner's seat: see the columns above
        self._drawn, self._bounds = np.zeros(0, np.int16), np.zeros(0)  # of `shares`: numbers, and cumulated shares
        self._rows = np.arange(num_rows)
        self._begin(np.ones(num_rows, np.bool_))

    def meet(self, name: str, player: Player) -> None:
        """The member `name` plays as `player` from now on."""
        if name not in self.names:
            self.names.append(name)
            self.players.append(None)
            self.tally = np.concatenate([self.tally, np.zeros((1, *self.tally.shape[1:]))])
        number = self.names.index(name)
        self.players[number] = player
        player.begin(np.flatnonzero((self.table == number).any(1)))

    def player(self, name: str) -> Player | None:
        """How the member `name` plays; None if it was never met, or has left."""
        return self.players[self.names.index(name)] if name in self.names else None

    def draw_from(self, shares: Mapping[str, float], self_play_share: float) -> None:
        """Whom the games that begin from now on are against: members met, by name. Others who sit nowhere leave."""
        self.shares, self.self_play_share = dict(shares), float(self_play_share)
        self._drawn = np.array([self.names.index(name) for name in self.shares], np.int16)
        self._bounds = np.cumsum(np.array(list(self.shares.values()), np.float64))
        needed = self.needed()
        self.players = [player if name in needed else None for name, player in zip(self.names, self.players)]

    def needed(self) -> list[str]:
        """Names of those who may be drawn, and of those who sit somewhere now."""
        seated = [self.names[number] for number in np.unique(self.table).tolist() if number != LEARNER]
        return list(dict.fromkeys([*self.shares, *seated]))

    def seat_all_rows(self) -> None:
        """Seat all rows again: before the first decision of a run, once it is known who is there."""
        self.turn[:] = np.arange(len(self.turn)) % self.table.shape[1]
        self._begin(np.ones(len(self.turn), np.bool_))

    def _begin(self, began: np.ndarray) -> None:
        """Games begin in the rows `began` [B] bool."""
        share = self.self_play_share if len(self._drawn) else 1.0
        _seat(began, share, self._drawn, self._bounds, self.table, self.turn, self.streams)
        rows = np.flatnonzero(began)
        seats = self.table[rows]
        for number in np.unique(seats).tolist():
            if number != LEARNER:
                self.players[number].begin(rows[(seats == number).any(1)])

    def take_tally(self) -> np.ndarray:
        """[K, S, 7] float64: wins, draws, losses, learner's and member's returns and their squares, since it was last
        taken.

        A return is a team's: the mean over its players. A game counts once for each of the other seats.
        """
        tally, self.tally = self.tally, np.zeros_like(self.tally)
        return tally

    def learner_moves(self, env: Env) -> np.ndarray:
        """[B] bool: the player to move in that row is the learner's."""
        return self._movers(env) == LEARNER

    def _movers(self, env: Env) -> np.ndarray:
        """[B] int16: number of the member whose player is to move."""
        return self.table[self._rows, self.team[env.player]]

    def act(self, env: Env, probs: np.ndarray, part: slice = ALL_ROWS) -> None:
        """Write into `probs` [B, A] what the members to move in `part` do, each asked once for all of its rows."""
        who = self._movers(env)[part]
        order = np.argsort(who, kind="stable")
        first = np.searchsorted(who[order], np.arange(len(self.names) + 1))
        for number in np.flatnonzero(np.diff(first)):
            rows = self._rows[part][order[first[number] : first[number + 1]]]
            self.players[number].act(env, rows, probs)

    def extras(self, env: Env) -> dict[str, torch.Tensor]:
        """Nothing is kept of each decision."""
        return {}

    def stepped(self, env: Env) -> None:
        """The env has made a step: take in what was earned, and seat the rows where a new game has begun."""
        self.earned += env.rewards
        if env.done.any():
            _settle(env.done, self.table, self.team, self.earned, self.tally)
            self._begin(env.done)

    def state_dict(self) -> dict:
        """All that the games to come depend on, but for `players`."""
        arrays = {name: getattr(self, name).tobytes() for name in SAVED}
        facts = {"names": list(self.names), "shares": dict(self.shares), "self_play_share": self.self_play_share}
        return arrays | facts | {"tally": torch.from_numpy(self.tally.copy())}

    def load_state_dict(self, state: dict) -> None:
        """Go on where `state` was taken; whoever is `needed` has to be met before the next step.

        Raises:
            ValueError: it was saved with another number of rows or seats. ArtefactError: it is damaged.
        """
        saved_dict(state, "seating", (*SAVED, "names", "shares", "self_play_share", "tally"))
        found = {}
        for name in SAVED:
            array, data = getattr(self, name), state[name]
            need(isinstance(data, bytes), f"seating.{name} is {type(data).__name__}, needs bytes")
            if len(data) != array.nbytes:
                raise ValueError(f"saved seating does not fit: {name} has {len(data)} bytes, not {array.nbytes}")
            found[name] = np.frombuffer(data, array.dtype).reshape(array.shape)
        names = [saved_text(name, "seating.names") for name in saved_list(state["names"], "seating.names")]
        k, num_seats, most = len(names), self.table.shape[1], 2 * self.env.game.max_return
        need(len(set(names)) == k, "seating.names has somebody twice")
        need(k <= np.iinfo(np.int16).max, f"seating.names has {k} entries")
        table, turn, earned = (found[name] for name in ("table", "turn", "earned"))
        need(bool(((table >= LEARNER) & (table < k)).all()), f"seating.table has numbers of nobody; {k} were met")
        seats = (table == LEARNER).sum(1)
        need(bool(((seats == 1) | (seats == num_seats)).all()), "seating.table has rows without a seat for the learner")
        need(bool(((turn >= 0) & (turn < num_seats)).all()), f"seating.turn has seats beyond {num_seats}")
        need(bool((np.abs(earned) <= most).all()), f"seating.earned has more than {most}")
        shares = {
            name: saved_float(share, "seating.shares", 0.0)
            for name, share in saved_dict(state["shares"], "seating.shares").items()
        }
        need(shares.keys() <= set(names), "seating.shares has somebody who was never met")
        need(not shares or sum(shares.values()) > 0, "seating.shares are all 0")
        alone = saved_float(state["self_play_share"], "seating.self_play_share", 0.0, 1.0)
        tally = saved_tensor(state["tally"], "seating.tally", torch.float64, (k, num_seats, COLUMNS)).numpy()
        positive = tally[..., [WINS, DRAWS, LOSSES, LEARNER_SQUARE, MEMBER_SQUARE]]
        need(bool((positive >= 0).all()), "seating.tally has negative counts")
        for name in SAVED:
            getattr(self, name)[...] = found[name]
        self.names, self.players, self.tally = names, [None] * k, tally
        self.draw_from(shares, alone)


@kernel
def _seat(began, share, drawn, bounds, table, turn, streams):
    """Where `began`, give all seats to the learner, or seat `turn` and draw a member for each of the others."""
    num_seats = table.shape[1]
    for b in range(len(began)):
        if not began[b]:
            continue
        alone = uniform(streams, b) < share
        for s in range(num_seats):
            table[b, s] = LEARNER
        if alone:
            continue
        for s in range(num_seats):
            if s == turn[b]:
                continue
            threshold, k = uniform(streams, b) * bounds[-1], 0
            while k + 1 < len(bounds) and bounds[k] <= threshold:
                k += 1
            table[b, s] = drawn[k]
        turn[b] = (turn[b] + 1) % num_seats


@kernel
def _settle(done, table, team, earned, tally):
    """Add the games that ended to the tally: a game counts once for each seat that is not the learner's."""
    num_seats = table.shape[1]
    for b in range(len(done)):
        if not done[b]:
            continue
        seat, alone = 0, True
        for s in range(num_seats):
            if table[b, s] == LEARNER:
                seat = s
            else:
                alone = False
        mine = _team_return(earned, team, b, seat)
        for s in range(num_seats):
            if not alone and s != seat:
                k, theirs = table[b, s], _team_return(earned, team, b, s)
                tally[k, seat, WINS] += mine > theirs
                tally[k, seat, DRAWS] += mine == theirs
                tally[k, seat, LOSSES] += mine < theirs
                tally[k, seat, LEARNER_RETURN] += mine
                tally[k, seat, MEMBER_RETURN] += theirs
                tally[k, seat, LEARNER_SQUARE] += mine**2
                tally[k, seat, MEMBER_SQUARE] += theirs**2
        for p in range(earned.shape[1]):
            earned[b, p] = 0.0


@kernel
def _team_return(earned, team, b, seat):
    """Mean of what the team's players earned in row b."""
    total, size = 0.0, 0
    for p in range(len(team)):
        if team[p] == seat:
            total += earned[b, p]
            size += 1
    return total / size
