"""Matches: two players against each other, in every seat equally often, with intervals.

Letters: P players, S seats (teams).
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from envs.env import Env
from envs.game import Game
from envs.rng import derive_key
from envs.vector_env import VectorEnv
from lit_rl.league.league import Result
from lit_rl.league.players import Player
from lit_rl.league.ratings import wilson_interval

MATCH_STREAM = 5
ROWS = 8192  # games played side by side, at most


class Match(NamedTuple):
    """How the first player fared, per seat (team of the game); returns are means over a team, in reward units."""

    wins: np.ndarray  # [S] int64 games in which its team got more than the others on average
    draws: np.ndarray  # [S] int64, as much
    games: np.ndarray  # [S] int64
    returns: np.ndarray  # [S] float64, sum
    squares: np.ndarray  # [S] float64, sum of squared returns
    others: np.ndarray  # [S] float64, sum of what the other teams got on average
    other_squares: np.ndarray  # [S] float64, sum of its squares

    @property
    def win_rate(self) -> float:
        """Draws count half."""
        return float((self.wins + 0.5 * self.draws).sum() / self.games.sum())

    def win_interval(self, z: float = 1.96) -> tuple[float, float]:
        """Wilson's bounds of the win rate."""
        return wilson_interval(float((self.wins + 0.5 * self.draws).sum()), float(self.games.sum()), z)

    @property
    def mean_return(self) -> float:
        """Per game, all seats equally often."""
        return float((self.returns / self.games).mean())

    def return_interval(self, z: float = 1.96) -> tuple[float, float]:
        """Normal bounds of `mean_return`, the seats' variances taken apart."""
        variance = np.maximum(self.squares / self.games - (self.returns / self.games) ** 2, 0.0)
        half = z * math.sqrt(float((variance / self.games).sum())) / len(self.games)
        return self.mean_return - half, self.mean_return + half

    def __str__(self) -> str:
        (low, high), (less, more) = self.win_interval(), self.return_interval()
        return (
            f"win rate {self.win_rate:.3f} [{low:.3f}, {high:.3f}]   return {self.mean_return:+.3f} "
            f"[{less:+.3f}, {more:+.3f}]"
        )

    def results(self, member: str, opponent: str) -> list[Result]:
        """A league's results of the match: `member` was the first player, `opponent` had all other seats."""
        losses = self.games - self.wins - self.draws
        rows = zip(
            self.wins, self.draws, losses, self.returns, self.others, self.squares, self.other_squares
        )  # fmt: skip
        return [
            Result(member, opponent, seat, int(won), int(drawn), int(lost), *map(float, sums))
            for seat, (won, drawn, lost, *sums) in enumerate(rows)
        ]


MakeEnv = Callable[[int, int], Env]  # (num_envs, seed) -> a new env


def games_of(game: Game, truncate_after: int | None = None) -> MakeEnv:
    """How envs of a game are made."""
    return lambda num_envs, seed: VectorEnv(game, num_envs, seed, truncate_after)


def match_players(make_env: MakeEnv, first: Player, second: Player, num_games: int, seed: int) -> Match:
    """`first` in one seat, `second` in all others, `num_games` games (rounded up to the same number for each seat).

    A seat is a team of the game, all of its players; among more than two teams `second` takes all teams but one, and
    the first player's team is compared with their average. Every row of the env plays one game, so that short games do
    not count more often than long ones. All randomness comes from `seed`.
    """
    game = make_env(1, seed).game
    team, num_seats = np.array(game.team), game.num_teams
    in_team = np.equal.outer(team, np.arange(num_seats))  # [P, S]
    each = -(-num_games // num_seats)
    left, part, total = each * num_seats, 0, [np.zeros(num_seats) for _ in range(7)]
    while left > 0:
        rows = min(left, ROWS // num_seats * num_seats)
        env = make_env(rows, derive_key(seed, MATCH_STREAM, part))
        seat = np.arange(rows) % num_seats
        earned, playing = np.zeros((rows, game.num_players)), np.ones(rows, np.bool_)
        probs = np.zeros(env.legal.shape, np.float32)
        for player in (first, second):
            player.begin(np.arange(rows))
        while playing.any():
            mine = team[env.player] == seat
            for player, where in ((first, playing & mine), (second, playing & ~mine)):
                chosen = np.flatnonzero(where)
                if len(chosen):
                    player.act(env, chosen, probs)
            probs[~playing] = env.legal[~playing]  # their games are over; what they go on with does not count
            env.step(env.sample(probs))
            earned += env.rewards * playing[:, None]
            env.rest(np.flatnonzero(playing & env.done))
            playing &= ~env.done
        returns = earned @ in_team / in_team.sum(0)  # [rows, S]
        own = returns[np.arange(rows), seat]
        others = (returns.sum(1) - own) / (num_seats - 1)
        facts = (own > others, own == others, np.ones(rows), own, own**2, others, others**2)
        for tally, values in zip(total, facts):
            np.add.at(tally, seat, values)
        left, part = left - rows, part + 1
    return Match(*(t.astype(np.int64) for t in total[:3]), *total[3:])
