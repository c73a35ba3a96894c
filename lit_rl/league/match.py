"""Matches: two players against each other, in every seat equally often, with intervals.

Letters: G games, P players.
"""

import math
from typing import NamedTuple

import numpy as np

from envs.game import Game
from envs.rng import derive_key
from envs.vector_env import VectorEnv
from lit_rl.league.players import Player
from lit_rl.league.ratings import wilson_interval

MATCH_STREAM = 5
ROWS = 8192  # games played side by side, at most


class Match(NamedTuple):
    """How the first player fared, per seat; returns in reward units."""

    wins: np.ndarray  # [P] int64 games in which it got more than the others on average
    draws: np.ndarray  # [P] int64, as much
    games: np.ndarray  # [P] int64
    returns: np.ndarray  # [P] float64, sum
    squares: np.ndarray  # [P] float64, sum of squared returns
    others: np.ndarray  # [P] float64, sum of what the others got on average

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


def play_match(
    game: Game, first: Player, second: Player, num_games: int, seed: int, truncate_after: int | None = None
) -> Match:
    """`first` in one seat, `second` in all others, `num_games` games (rounded up to the same number for each seat).

    Every row of the env plays one game, so that short games do not count more often than long ones. All randomness
    comes from `seed`.
    """
    num_players = game.num_players
    each = -(-num_games // num_players)
    left, part, total = each * num_players, 0, [np.zeros(num_players) for _ in range(6)]
    while left > 0:
        rows = min(left, ROWS // num_players * num_players)
        env = VectorEnv(game, rows, derive_key(seed, MATCH_STREAM, part), truncate_after)
        seat = np.arange(rows) % num_players
        earned, playing = np.zeros((rows, num_players)), np.ones(rows, np.bool_)
        probs = np.zeros(env.legal.shape, np.float32)
        while playing.any():
            mine = env.player == seat
            for player, where in ((first, playing & mine), (second, playing & ~mine)):
                chosen = np.flatnonzero(where)
                if len(chosen):
                    player.act(chosen, env.obs, env.legal, probs)
            probs[~playing] = env.legal[~playing]  # their games are over; what they go on with does not count
            env.step(env.sample(probs))
            earned += env.rewards * playing[:, None]
            playing &= ~env.done
        own = earned[np.arange(rows), seat]
        others = (earned.sum(1) - own) / (num_players - 1)
        facts = (own > others, own == others, np.ones(rows), own, own**2, others)
        for tally, values in zip(total, facts):
            np.add.at(tally, seat, values)
        left, part = left - rows, part + 1
    return Match(*(t.astype(np.int64) for t in total[:3]), *total[3:])
