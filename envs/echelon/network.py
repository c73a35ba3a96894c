"""Encoders for Echelon, (obs [N, D]) -> [N, width], for `lit_rl.networks.Recurrent`; they know torch and the obs.

The documents' network in small: what the mech knows of itself and the ground through one layer, its squad and the
enemies as sets (Zaheer et al. 2017, "Deep Sets"), and a layer over what the three say. So it does not matter in which
slot an enemy stands, and one who is not there says nothing.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from envs.game import Interface, parts

Pool = Literal["mean", "max", "attention"]


class MechSet(nn.Module):
    """Mechs as a set: two layers over each, and their mean, maximum, or a mean weighed by what asks.

    With attention (one head, Vaswani et al. 2017) the query is the encoded mech itself.

    Args:
        features: of a mech.
        width: of what is said of one, and of all.
        pool: how the ones become one.
        asker: width of what asks, for attention.
    """

    def __init__(self, features: int, width: int, pool: Pool, asker: int):
        super().__init__()
        self.pool = pool
        self.each = nn.Sequential(nn.Linear(features, width), nn.GELU(), nn.Linear(width, width), nn.GELU())
        self.nobody = nn.Parameter(torch.zeros(width))
        if pool == "attention":
            self.query, self.key = nn.Linear(asker, width), nn.Linear(width, width)

    def forward(self, mechs: Tensor, asker: Tensor) -> Tensor:
        """mechs [N, K, features], the first feature says whether one is there; asker [N, asker] -> [N, width]."""
        there = mechs[..., 0] > 0
        said = self.each(mechs)
        if self.pool == "max":
            found = said.masked_fill(~there.unsqueeze(-1), -torch.inf).amax(1)
        else:
            weight = there.to(said.dtype)
            if self.pool == "attention":
                fit = (self.key(said) @ self.query(asker).unsqueeze(-1)).squeeze(-1) / said.shape[-1] ** 0.5
                weight = torch.softmax(fit.masked_fill(~there, -1e9), 1) * weight
            found = (said * weight.unsqueeze(-1)).sum(1) / weight.sum(1, keepdim=True).clamp(min=1e-6)
        return torch.where(there.any(1, keepdim=True), found, self.nobody.to(found.dtype))


class Streams(nn.Module):
    """Self and ground, squad, enemies: a stream each.

    Args:
        game: Echelon, of any size.
        width: of the first stream and of the result.
        each: width of the two sets.
        pool: mean, max or attention over a set.

    Raises:
        ValueError: another game, or a pool that does not exist.
    """

    def __init__(self, game: Interface, width: int = 128, each: int = 48, pool: Pool = "mean"):
        super().__init__()
        if not {"self", "enemy", "ground"} <= {*game.obs_parts}:
            raise ValueError(f"Streams: reads the obs of Echelon, not of {game.name}")
        if pool not in ("mean", "max", "attention"):
            raise ValueError(f"pool={pool!r}: must be one of mean, max, attention")
        self.width, self._parts = width, game
        sizes = {name: part.shape for name, part in game.obs_parts.items()}
        own = sizes["self"][0] + sizes["ground"][0] * sizes["ground"][1]
        self.own = nn.Sequential(nn.Linear(own, width), nn.GELU())
        self.sets = nn.ModuleDict(
            {name: MechSet(sizes[name][1], each, pool, width) for name in ("squad", "enemy") if name in sizes}
        )
        self.fusion = nn.Sequential(nn.Linear(width + each * len(self.sets), width), nn.GELU())

    def forward(self, obs: Tensor) -> Tensor:
        named = parts(self._parts, obs.to(self.own[0].weight.dtype))
        own = self.own(torch.cat([named["self"], named["ground"].flatten(1)], 1))
        said = [mechs(named[name], own) for name, mechs in self.sets.items()]
        return self.fusion(torch.cat([own, *said], 1))
