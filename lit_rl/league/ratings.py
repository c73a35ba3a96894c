"""Ratings: Elo, Glicko-2, and the intervals that decide what a rating only displays. Pure functions.

Glicko-2 is Glickman (2013), "Example of the Glicko-2 system". A rating period is settled in two phases: every new
rating is computed from the ratings at its start, then all of them are put in place, so that the order of its games
does not matter. A score is 1 for a win, 1/2 for a draw, 0 for a loss.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

SCALE = 173.7178  # rating points per unit of Glicko-2's own scale (step 2)
PERIOD_GAMES = 15.0  # Glickman: periods of 10 to 15 games per player work best
EPSILON = 1e-6  # of the volatility's equation (step 5)


class Rating(NamedTuple):
    """Where a member stands, how sure that is, and how much it wanders; a newcomer's by default."""

    rating: float = 1500.0
    deviation: float = 350.0  # RD, in rating points
    volatility: float = 0.06

    @property
    def conservative(self) -> float:
        """rating - 2 deviations: what members are ranked by."""
        return self.rating - 2 * self.deviation


class Score(NamedTuple):
    """Games of two members against each other."""

    member: str
    opponent: str
    score: float  # of `member`, summed over the games
    games: float


def expected_score(rating: float, opponent: float) -> float:
    """Elo's expectation of a game: 1 / (1 + 10^((opponent - rating) / 400))."""
    return 1.0 / (1.0 + 10.0 ** ((opponent - rating) / 400.0))


def elo(ratings: Mapping[str, float], scores: Iterable[Score], k: float = 32.0) -> dict[str, float]:
    """Elo ratings after a period: R + k (score - games x expected score), all from the ratings before it.

    Raises:
        ValueError: a score outside [0, games], or a member without a rating.
    """
    change = dict.fromkeys(ratings, 0.0)
    for s in _checked(scores, ratings):
        surplus = s.score - s.games * expected_score(ratings[s.member], ratings[s.opponent])
        change[s.member] += k * surplus
        change[s.opponent] -= k * surplus
    return {name: rating + change[name] for name, rating in ratings.items()}


def glicko2(own: Rating, games: Iterable[tuple[Rating, float, float]], tau: float = 0.5) -> Rating:
    """A member's rating after a period of `games`: (opponent before the period, score, how many games).

    Args:
        tau: how fast the volatility may change; Glickman advises 0.3 to 1.2.

    Without games the deviation grows by the volatility (step 6).
    """
    mu, phi, sigma = (own.rating - 1500.0) / SCALE, own.deviation / SCALE, own.volatility
    precision, surplus = 0.0, 0.0  # 1 / v, and sum of g (s - E)
    for opponent, score, count in games:
        g = 1.0 / math.sqrt(1.0 + 3.0 * (opponent.deviation / SCALE) ** 2 / math.pi**2)
        e = 0.5 + 0.5 * math.tanh(0.5 * g * (mu - (opponent.rating - 1500.0) / SCALE))
        precision += count * g * g * e * (1.0 - e)
        surplus += g * (score - count * e)
    if precision == 0.0:
        return own._replace(deviation=SCALE * math.hypot(phi, sigma))
    sigma = _new_volatility(surplus / precision, phi, 1.0 / precision, sigma, tau)
    phi = 1.0 / math.sqrt(1.0 / (phi * phi + sigma * sigma) + precision)
    return Rating(1500.0 + SCALE * (mu + phi * phi * surplus), SCALE * phi, sigma)


def _new_volatility(delta: float, phi: float, v: float, sigma: float, tau: float) -> float:
    """Step 5 of Glickman's paper: the root of f by the Illinois method."""

    def f(x: float) -> float:
        e = math.exp(x)
        return e * (delta**2 - phi**2 - v - e) / (2.0 * (phi**2 + v + e) ** 2) - (x - a) / tau**2

    a = math.log(sigma**2)
    low = a
    if delta**2 > phi**2 + v:
        high = math.log(delta**2 - phi**2 - v)
    else:
        k = 1
        while f(a - k * tau) < 0.0:
            k += 1
        high = a - k * tau
    f_low, f_high = f(low), f(high)
    while abs(high - low) > EPSILON:
        middle = low + (low - high) * f_low / (f_high - f_low)
        f_middle = f(middle)
        if f_middle * f_high <= 0.0:
            low, f_low = high, f_high
        else:
            f_low /= 2.0
        high, f_high = middle, f_middle
    return math.exp(low / 2.0)


def rate_period(
    ratings: Mapping[str, Rating], scores: Iterable[Score], tau: float = 0.5, max_games: float = PERIOD_GAMES
) -> dict[str, Rating]:
    """Glicko-2 ratings after a period, those of its players only; `ratings` stays as it is.

    A member's games count as `max_games` at most, the others of the period in proportion: with thousands in one period,
    as training plays them, the method's one Newton step overshoots, and ratings run away. Whoever did not play keeps
    rating and deviation (Glickman lets it grow): here a period is one batch of results, and
    batches come as fast as iterations do.

    Raises:
        ValueError: a score outside [0, games], or a member without a rating.
    """
    scores = _checked(scores, ratings)
    total = _games(scores)
    games: dict[str, list[tuple[Rating, float, float]]] = {}
    for s in scores:
        weight = min(1.0, max_games / max(total[s.member], total[s.opponent]))
        games.setdefault(s.member, []).append((ratings[s.opponent], weight * s.score, weight * s.games))
        games.setdefault(s.opponent, []).append((ratings[s.member], weight * (s.games - s.score), weight * s.games))
    return {name: glicko2(ratings[name], played, tau) for name, played in games.items()}


def rate_matches(ratings: Mapping[str, Rating], scores: Iterable[Score], tau: float = 0.5) -> dict[str, Rating]:
    """Glicko-2 ratings after a period of matches, those of its players only; every game counts in full.

    Of a period of hundreds of games `rate_period` would count fifteen, since one Newton step overshoots. Here it is
    settled in as many rounds as leave each member `PERIOD_GAMES` in a round, with the same share of every result in
    each. A round is settled in two phases like a period, so the order of the games matters no more than there. The
    volatility acts once in the whole period: a round has the share of its square.

    Raises:
        ValueError: a score outside [0, games], or a member without a rating.
    """
    scores = _checked(scores, ratings)
    total = _games(scores)
    rounds = max(1, math.ceil(max(total.values(), default=0.0) / PERIOD_GAMES))
    root = math.sqrt(rounds)
    part = [s._replace(score=s.score / rounds, games=s.games / rounds) for s in scores]
    after = {name: r._replace(volatility=r.volatility / root) for name, r in ratings.items()}
    for _ in range(rounds):
        after |= rate_period(after, part, tau / root, math.inf)
    return {name: after[name]._replace(volatility=after[name].volatility * root) for name in total}


def _games(scores: Sequence[Score]) -> dict[str, float]:
    """How many games each member plays; who plays none is not in it."""
    total: dict[str, float] = {}
    for s in scores:
        for name in (s.member, s.opponent):
            total[name] = total.get(name, 0.0) + s.games
    return total


def _checked(scores: Iterable[Score], ratings: Mapping) -> list[Score]:
    scores = [s for s in scores if s.games > 0 or s.score != 0]
    for s in scores:
        if not 0.0 <= s.score <= s.games:
            raise ValueError(f"score={s.score} of {s.member} in games={s.games}: must lie in [0, games]")
        for name in (s.member, s.opponent):
            if name not in ratings:
                raise ValueError(f"{name!r} has results and no rating; give it Rating()")
    return scores


def promoted(candidate: str, commanders: Iterable[str], ratings: Mapping[str, Rating], keep_top: int) -> bool:
    """Whether the candidate's conservative rating is among the `keep_top` best of the commanders and itself."""
    better = sum(ratings[c].conservative > ratings[candidate].conservative for c in commanders if c != candidate)
    return better < keep_top


def to_retire(
    members: Iterable[str],
    ratings: Mapping[str, Rating],
    games: Mapping[str, float],
    keep_top: int,
    min_games: float = 20,
    permanent: Iterable[str] = (),
) -> list[str]:
    """Who goes so that `keep_top` of `members` stay: the lowest conservative ratings first.

    Protected, so that more may stay: `permanent` anchors, and members with fewer than `min_games` games.
    """
    members, permanent = list(members), set(permanent)
    eligible = [m for m in members if m not in permanent and games.get(m, 0) >= min_games]
    eligible.sort(key=lambda m: (ratings[m].conservative, m))
    return eligible[: max(0, len(members) - keep_top)]


def mean_interval(total: float, squares: float, games: float, z: float = 1.96) -> tuple[float, float]:
    """Normal bounds of the mean of `games` returns with that sum and that sum of squares, 95 % by default.

    Raises:
        ValueError: no game.
    """
    if not games > 0:
        raise ValueError(f"games={games}: the mean of no return has no interval")
    mean = total / games
    half = z * math.sqrt(max(squares / games - mean * mean, 0.0) / games)
    return mean - half, mean + half


def wilson_interval(score: float, games: float, z: float = 1.96) -> tuple[float, float]:
    """Bounds of a win rate seen as `score` in `games` (Wilson 1927), 95 % by default; (0, 1) before any game.

    Draws count half, which makes the interval wider than it need be, never narrower.

    Raises:
        ValueError: a score outside [0, games].
    """
    if not 0.0 <= score <= games:
        raise ValueError(f"score={score} in games={games}: must lie in [0, games]")
    if games == 0:
        return 0.0, 1.0
    p, zz = score / games, z * z / games
    middle = (p + zz / 2.0) / (1.0 + zz)
    half = z / (1.0 + zz) * math.sqrt(p * (1.0 - p) / games + zz / (4.0 * games))
    return max(0.0, middle - half), min(1.0, middle + half)
