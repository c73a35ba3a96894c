"""State keys: which infostates share one row of the meta-regret table, as one int64 that means the same for ever.

Three tiers of `TieredKeys`, each the one before with more:

    coarse    round, player
    medium    + pot, + stack of the player, each in buckets of its share of the largest this game can have
    fine      + cluster of the obs: on which side of some fixed random planes it lies (Charikar 2002)

Bits from the top: tier 8, round 8, player 8, pot 8, stack 8, cluster 24. What an obs tells of rounds, pots and stacks
says a function of the game's module, such as `envs.kuhn_poker.betting`. `InfostateKeys` gives every infostate its own
key and works for any game.

The clusters are of the obs, not of a network's hidden layer, which would put another meaning under each plane with
every step of the optimizer. Planes and obs are whole numbers: the same key on any machine, in any batch, with any
number of threads. Letters: N rows, D obs.
"""

import importlib
import math
from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from jsonargparse.typing import NonNegativeInt, PositiveInt
from torch import Tensor, nn

from envs.betting import Betting
from envs.game import Game
from envs.jit import njit
from envs.rng import make_streams, mix
from lit_rl.run.errors import ConfigError, check_ranges

TIERS = ("coarse", "medium", "fine")
SHIFTS = {"tier": 56, "round": 48, "player": 40, "pot": 32, "stack": 24, "cluster": 0}


class StateKeys(nn.Module):
    """Keys of infostates: the type that keyings subclass. Built as `state_keys(game)`."""

    def forward(self, obs: Tensor, player: Tensor) -> Tensor:
        """obs [N, *D] and who observes, player [N], whole numbers -> keys [N] int64."""
        raise TypeError(f"{type(self).__name__} does not define forward(obs, player) -> keys")

    def describe(self, key: int) -> str:
        """A key in words, for plots."""
        return f"{key & (1 << 64) - 1:016x}"


StateKeysFactory = Callable[[Game], StateKeys]


class TieredKeys(StateKeys):
    """Round and player; pot and stack; cluster of the obs: as much of it as the tier says.

    Args:
        game: a game of bets.
        tier: coarse, medium or fine.
        num_buckets: of pot and of stack, equally wide.
        num_planes: so many planes make at most 2^num_planes clusters (fine).
        seed: of the planes; those of a checkpoint win.
        facts: needed; import path of what tells the betting: a function obs [N, *D] -> `envs.betting.Betting`.
    """

    def __init__(
        self,
        game: Game,
        tier: Literal["coarse", "medium", "fine"] = "medium",
        num_buckets: PositiveInt = 10,
        num_planes: PositiveInt = 8,
        seed: NonNegativeInt = 0,
        facts: str | None = None,
    ):
        check_ranges(TieredKeys.__init__, locals())
        if tier not in TIERS:
            raise ConfigError(f"tier={tier!r}: unknown; use one of {', '.join(TIERS)}")
        for name, value, most in (("num_buckets", num_buckets, 256), ("num_planes", num_planes, 24)):
            if value > most:
                raise ConfigError(f"{name}={value}: at most {most} have room in a key")
        super().__init__()
        self.betting, self.tier, self.num_buckets = _load_facts(facts, game), tier, int(num_buckets)
        self.whole = np.issubdtype(game.obs_dtype, np.integer) or game.obs_dtype == np.bool_
        if tier == "fine":
            shape = int(num_planes), math.prod(game.obs_shape)
            weights = (make_streams(math.prod(shape), int(seed)) >> np.uint64(53)).astype(np.int16) * 2 - 2047
            self.register_buffer("planes", torch.from_numpy(weights.reshape(shape)))  # odd, in [-2047, 2047]

    def forward(self, obs: Tensor, player: Tensor) -> Tensor:
        device, (obs, player) = obs.device, _rows(obs, player)
        betting = self._betting_of(obs)
        fields = {"tier": TIERS.index(self.tier), "round": betting.round, "player": player}
        if self.tier != "coarse":
            fields |= {"pot": self._bucket(betting.pot), "stack": self._bucket(betting.stack)}
        if self.tier == "fine":
            fields["cluster"] = self._cluster(obs)
        keys = np.zeros(len(obs), np.int64)
        for name, values in fields.items():
            keys |= np.asarray(values, np.int64) << SHIFTS[name]
        return torch.from_numpy(keys).to(device)

    def describe(self, key: int) -> str:
        values = {name: key >> shift & (0xFFFFFF if name == "cluster" else 0xFF) for name, shift in SHIFTS.items()}
        text = f"round {values['round']}, player {values['player']}"
        if values["tier"] > 0:
            text += f", pot {values['pot']}, stack {values['stack']}"
        return text + (f", cluster {values['cluster']}" if values["tier"] > 1 else "")

    def _betting_of(self, obs: np.ndarray) -> Betting:
        """What the facts say of obs [N, *D], each number where a key has room for it."""
        betting = self.betting(obs)
        for name, most in (("round", 255), ("pot", 1), ("stack", 1)):
            values = getattr(betting, name)
            wrong = ~((values >= 0) & (values <= most))
            if wrong.any():
                raise ValueError(f"facts: {name}={values[wrong][0]} of obs={obs[wrong][0].tolist()}, 0 to {most} fit")
        return betting

    def _bucket(self, share: np.ndarray) -> np.ndarray:
        return np.minimum((share * self.num_buckets).astype(np.int64), self.num_buckets - 1)

    def _cluster(self, obs: np.ndarray) -> np.ndarray:
        """A bit for each plane. All sums are of whole numbers below 2^53, so float64 makes none of them wrong."""
        flat = obs.reshape(len(obs), math.prod(obs.shape[1:])).astype(np.float64)
        if not self.whole:
            flat = np.clip(np.rint(flat * 1024), -(2**20), 2**20)
        planes = self.planes.cpu().numpy().astype(np.float64)
        above = flat @ planes.T >= 0
        return (above.astype(np.float64) @ 2.0 ** np.arange(len(planes))).astype(np.int64)


class InfostateKeys(StateKeys):
    """A 64-bit hash of player and obs: two infostates share a key with probability 2^-64.

    Args:
        game: not needed.
    """

    def __init__(self, game: Game):
        super().__init__()

    def forward(self, obs: Tensor, player: Tensor) -> Tensor:
        device, (obs, player) = obs.device, _rows(obs, player)
        data = np.ascontiguousarray(obs.reshape(len(obs), math.prod(obs.shape[1:]))).view(np.uint8)
        words = np.zeros((len(data), -(-data.shape[1] // 8)), np.uint64)
        words.view(np.uint8)[:, : data.shape[1]] = data
        return torch.from_numpy(_hash(words, player.astype(np.uint64)).view(np.int64)).to(device)


def _load_facts(path: str | None, game: Game) -> Callable[[np.ndarray], Betting]:
    """The function at the import path `path`, tried on an empty obs of `game`."""
    if path is None:
        raise ConfigError(
            f"facts: these keys are made of rounds, pots and stacks; name what tells them of an obs of {game.name}, an "
            "import path such as envs.kuhn_poker.betting, or use InfostateKeys"
        )
    module, _, name = path.rpartition(".")
    try:
        facts = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError):
        raise ConfigError(f"facts={path!r}: no such function; give one such as envs.kuhn_poker.betting") from None
    try:
        said = facts(np.zeros((1, *game.obs_shape), game.obs_dtype))
    except Exception as error:
        raise ConfigError(f"facts={path!r}: cannot read an obs of {game.name} ({type(error).__name__})") from error
    if not isinstance(said, Betting):
        raise ConfigError(f"facts={path!r}: must return envs.betting.Betting, returned {type(said).__name__}")
    return facts


def _rows(obs: Tensor, player: Tensor) -> tuple[np.ndarray, np.ndarray]:
    if player.shape != obs.shape[:1] or obs.ndim < 2 or player.is_floating_point():
        raise ValueError(
            f"obs {tuple(obs.shape)} must be [N, *D], player {tuple(player.shape)} {player.dtype} must be [N], whole "
            "numbers"
        )
    player = player.cpu().numpy().astype(np.int64)
    if len(player) and not 0 <= player.min() <= player.max() < 256:
        wrong = player[(player < 0) | (player > 255)][0]
        raise ValueError(f"player={wrong}: infostates are of players, counted from 0")
    return obs.detach().cpu().numpy(), player


@njit
def _hash(words, player):
    keys = np.empty(len(words), np.uint64)
    for n in range(len(words)):
        key = mix(player[n] + np.uint64(1))
        for w in range(words.shape[1]):
            key = mix(key ^ words[n, w]) + np.uint64(1)
        keys[n] = key
    return keys
