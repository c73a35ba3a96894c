"""Matchmaking: who plays next, as plain functions from a `Pool` to the members' shares of the games.

A matchmaker is named by its import path (ours by their bare names) and gets its options by keyword, so yours needs
nothing registered: `matchmaker: my_pkg.my_function`. Letters: K members.
"""

import importlib
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from lit_rl.run.errors import ConfigError

ROLES = ("main", "past", "exploiter", "heuristic", "random", "external")
COLD_START = (200.0, 400.0, 800.0)  # rating points around the learner that a newcomer's opponents may lie in


@dataclass(frozen=True)
class Pool:
    """K possible opponents as the learner knows them."""

    names: tuple[str, ...]
    roles: tuple[str, ...]
    score: np.ndarray  # [K] float64, the learner's against each of them: 1 a win, 1/2 a draw
    games: np.ndarray  # [K] float64 that the score comes from
    returns: np.ndarray  # [K] float64, the learner's in those games, summed, in units of the game's largest
    squares: np.ndarray  # [K] float64, likewise summed, of each game's return
    rating: np.ndarray  # [K] float64, the members'
    learner_rating: float = 1500.0
    learner_games: float = 0.0
    rung: float = 0.0  # where the learner stands on a ladder, which a schedule may say

    def win_rate(self, prior_games: float = 16.0) -> np.ndarray:
        """[K] the learner's win rates, smoothed by so many games of 1/2: (score + n/2) / (games + n)."""
        return (self.score + 0.5 * prior_games) / np.maximum(self.games + prior_games, 1e-12)

    def sure_return(self, prior_games: float = 16.0, z: float = 1.96) -> np.ndarray:
        """[K] the learner's mean returns, in units of the game's largest, as far as they are sure to differ from 0: the
        end of the 95 % interval that lies nearer to 0, and 0 where the interval holds it. So many games are added of
        which half were won and half lost by the largest return."""
        games = np.maximum(self.games + prior_games, 1e-12)
        mean = self.returns / games
        half = z * np.sqrt(np.maximum((self.squares + prior_games) / games - mean**2, 0.0) / games)
        return np.sign(mean) * np.maximum(np.abs(mean) - half, 0.0)

    def standing(self, prior_games: float = 16.0) -> np.ndarray:
        """[K] how the learner stands with each: 1/2 even, more where it gains, less where it loses.

        Where every game is won by +1 or lost by -1 it is the win rate. Elsewhere hands won say little (near an
        equilibrium of Leduc a best response wins half of them and still earns), and mean returns decide:

            1/2 + 0.45 r / max |r|,     r = `sure_return`, the maximum over the pool

        in units of the pool's largest, since those of the game's largest are all near 0 where few games are big ones.
        """
        if np.allclose(self.returns, 2 * self.score - self.games, rtol=0, atol=1e-6 * (1 + self.games.max())):
            return self.win_rate(prior_games)
        sure = self.sure_return(prior_games)
        return 0.5 + 0.45 * sure / max(np.abs(sure).max(), 1e-12)


Matchmaker = Callable[[Pool], np.ndarray]  # -> [K] float64 shares, which sum to 1


def _shares(weight: np.ndarray) -> np.ndarray:
    """Normalised; all alike where there is nothing to choose by."""
    total = weight.sum()
    return weight / total if total > 1e-10 else np.full(len(weight), 1.0 / len(weight))


def uniform(pool: Pool) -> np.ndarray:
    """Everybody alike."""
    return _shares(np.ones(len(pool.names)))


def role_weights(pool: Pool, weights: Mapping[str, float]) -> np.ndarray:
    """Each role gets its weight, shared evenly by its members; an absent role's share goes to those present.

    Raises:
        ConfigError: an unknown role, a negative weight, or no weight at all.
    """
    for role, weight in weights.items():
        if role not in ROLES:
            raise ConfigError(f"weights: unknown role {role!r}; use some of {', '.join(ROLES)}")
        if not (weight >= 0 and math.isfinite(weight)):
            raise ConfigError(f"weights[{role}]={weight}: must be finite and not negative")
    if not sum(weights.values()) > 0:
        raise ConfigError("weights: all are 0; give some role a positive weight")
    each = [weights.get(role, 0.0) / pool.roles.count(role) for role in pool.roles]
    return _shares(np.array(each))


def inverse_standing(pool: Pool, floor: float = 0.05, min_share: float = 0.0, prior_games: float = 16.0) -> np.ndarray:
    """Whom the learner beats less it meets more: max(1 - standing, floor), normalised (`Pool.standing`).

    `floor` acts before the normalisation, as in the documents' table (win rates of 93 % and 72 % among weights that sum
    to 1.75 make 4 % and 16 %): it bounds how much less often than a member never beaten one may be met, not a share.
    `min_share` is a floor on the share itself: every member gets it, and the rest is divided as above.

    Raises:
        ConfigError: floor or min_share outside [0, 1], or min_share x members > 1.
    """
    _unit_interval(floor=floor, min_share=min_share)
    _not_negative(prior_games=prior_games)
    k = len(pool.names)
    if min_share * k > 1 + 1e-9:
        raise ConfigError(f"min_share={min_share} x {k} members > 1; use at most {1 / k:.3g}, or retire members")
    weight = np.maximum(1.0 - pool.standing(prior_games), floor)
    return min_share + max(0.0, 1 - min_share * k) * _shares(weight)


def pfsp(pool: Pool, weighting: str = "hard", power: float = 2.0, prior_games: float = 16.0) -> np.ndarray:
    """Prioritised fictitious self-play (Vinyals et al. 2019, AlphaStar, supplement): f(w), normalised.

    hard: (1 - w)^power, the ones that beat us; variance: (w (1 - w))^power, the ones of our own strength (power 1 in
    the paper). w is the win rate there; here it is `Pool.standing`, which is the win rate where a win is +1 and a loss
    is -1.

    Raises:
        ConfigError: unknown weighting, or a power not positive.
    """
    if weighting not in ("hard", "variance"):
        raise ConfigError(f"weighting={weighting!r}: unknown; use hard or variance")
    if not (power > 0 and math.isfinite(power)):
        raise ConfigError(f"power={power}: must be positive and finite")
    _not_negative(prior_games=prior_games)
    w = pool.standing(prior_games)
    return _shares((1.0 - w if weighting == "hard" else w * (1.0 - w)) ** power)


def skill_matched(pool: Pool, sigma: float = 200.0, min_games: float = 20.0) -> np.ndarray:
    """Opponents of like rating: exp(-difference^2 / (2 sigma^2)), normalised. Ratings are of games won.

    A learner with fewer than `min_games` games meets only members within 200 rating points; if there is none, within
    400, then 800, then anybody.

    Raises:
        ConfigError: sigma not positive, or min_games negative.
    """
    if not (sigma > 0 and math.isfinite(sigma)):
        raise ConfigError(f"sigma={sigma}: must be positive and finite")
    _not_negative(min_games=min_games)
    difference = pool.rating - pool.learner_rating
    weight = np.exp(-(difference**2) / (2.0 * sigma**2))
    if pool.learner_games < min_games:
        for width in COLD_START:
            near = np.abs(difference) <= width
            if near.any():
                return _shares(np.where(near, weight, 0.0))
    return _shares(weight)


def rungs(pool: Pool, ladder: Sequence[str], others: float = 0.0) -> np.ndarray:
    """A curriculum: members of a ladder, easiest first, of whom `pool.rung` says who is met.

    Rung 1.3 is 0.7 of ladder[1] and 0.3 of ladder[2] (counted from 0); beyond the last rung it is the last one alone.
    `others` is the share of all members that are not on the ladder, alike, as long as there are any.

    Raises:
        ConfigError: an empty ladder, somebody on it who is no member, or listed twice, or others outside [0, 1].
    """
    _unit_interval(others=others)
    if not ladder or len(set(ladder)) < len(ladder):
        raise ConfigError(f"ladder={list(ladder)}: needs somebody, and nobody twice")
    if strangers := [name for name in ladder if name not in pool.names]:
        raise ConfigError(f"ladder: {strangers[0]!r} is no member; there are {', '.join(pool.names)}")
    rung = min(max(pool.rung, 0.0), len(ladder) - 1.0)
    on_ladder = np.array([name in ladder for name in pool.names])
    if on_ladder.all():
        others = 0.0
    shares = np.where(on_ladder, 0.0, others / max((~on_ladder).sum(), 1))
    for number, name in enumerate(ladder):
        shares[pool.names.index(name)] += (1.0 - others) * max(0.0, 1.0 - abs(rung - number))
    return shares


def _unit_interval(**values: float) -> None:
    for name, value in values.items():
        if not 0.0 <= value <= 1.0:
            raise ConfigError(f"{name}={value}: must lie in [0, 1]")


def _not_negative(**values: float) -> None:
    for name, value in values.items():
        if not (value >= 0 and math.isfinite(value)):
            raise ConfigError(f"{name}={value}: must be finite and not negative")


def load_matchmaker(path: str, options: Mapping | None = None, names: Sequence[str] = ()) -> Matchmaker:
    """The function at `path` (a bare name is one of this module's) with `options` filled in, tried on a small pool:
    of the members `names`, or of one.

    Raises:
        ConfigError: no such function, an option that it does not have, or a value it refuses; names it.
    """
    module, _, name = path.rpartition(".")
    try:
        function = getattr(importlib.import_module(module or __name__), name)
    except (ImportError, AttributeError):
        ours = ", ".join(f.__name__ for f in (uniform, role_weights, inverse_standing, pfsp, skill_matched, rungs))
        raise ConfigError(f"matchmaker={path!r}: no such function; use {ours}, or an import path") from None
    options = dict(options or {})
    parameters = list(inspect.signature(function).parameters)[1:]
    for option in options:
        if option not in parameters:
            raise ConfigError(f"matchmaker_options: {path} has no {option!r}; it has {', '.join(parameters) or 'none'}")
    matchmaker = partial(function, **options)
    try:
        names = tuple(names) or ("probe",)
        k = len(names)
        draw_shares(matchmaker, Pool(names, ("past",) * k, *np.zeros((4, k)), np.full(k, 1500.0)))
    except TypeError as error:
        raise ConfigError(f"matchmaker={path!r}: {error}; give it in matchmaker_options") from None
    return matchmaker


def draw_shares(matchmaker: Matchmaker, pool: Pool) -> np.ndarray:
    """What the matchmaker says of the pool, checked: [K] float64.

    Raises:
        ConfigError: not K finite numbers that are not negative and sum to 1.
    """
    shares = np.asarray(matchmaker(pool), dtype=np.float64)
    if shares.shape != (len(pool.names),):
        raise ConfigError(f"matchmaker returned shape {shares.shape}, not one share for each of {len(pool.names)}")
    if not (np.isfinite(shares).all() and (shares >= 0).all() and abs(shares.sum() - 1) < 1e-6):
        raise ConfigError(f"matchmaker returned {shares.tolist()}: shares must not be negative and must sum to 1")
    return shares
