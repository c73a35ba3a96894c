"""Encoders for Beasty Bar, (obs [N, D]) -> [N, width], for `lit_rl.networks.Encoded`; they know torch and the obs.

A presence vector of bar, hell or hand through a linear layer is a set encoder already, so that a plain MLP on the
compact obs is the default. These are for a GPU.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from envs.beasty_bar import compact, documents
from envs.game import Interface, parts


def _meant_for(game: Interface, other: Interface, who: str) -> None:
    if game.obs_shape != other.obs_shape:
        raise ValueError(f"{who}: reads the obs of {other.name}, {other.obs_shape}, not {game.name}'s {game.obs_shape}")


class Block(nn.Module):
    """One pre-norm transformer layer over the cards of a zone; places that hold none are not looked at.

    Args:
        width: of a card.
        heads: of the attention; they divide the width.
    """

    def __init__(self, width: int, heads: int):
        super().__init__()
        if heads < 1 or width % heads:
            raise ValueError(f"heads={heads}: must divide the width {width}")
        self.heads = heads
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.feed_forward = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, cards: Tensor, looked_at: Tensor) -> Tensor:
        """cards [N, K, width], looked_at [N, K] bool with a True in each row -> [N, K, width]."""
        n, k, width = cards.shape
        q, key, value = self.qkv(self.norms[0](cards)).view(n, k, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, key, value, attn_mask=looked_at[:, None, None, :])
        cards = cards + self.out(mixed.transpose(1, 2).reshape(n, k, width))
        return cards + self.feed_forward(self.norms[1](cards))


class Zone(nn.Module):
    """Blocks over the cards of one zone, and their mean; a zone without a card has a learned vector of its own.

    Args:
        width: of a card.
        heads: of the attention.
        layers: blocks, one after the other.
        places: of the zone if their order matters (sinusoids are added); null: it is a set.
    """

    def __init__(self, width: int, heads: int, layers: int, places: int | None = None):
        super().__init__()
        self.blocks = nn.ModuleList([Block(width, heads) for _ in range(layers)])
        self.empty = nn.Parameter(torch.zeros(width))
        self.register_buffer("positions", None if places is None else sinusoids(places, width), persistent=False)

    def forward(self, cards: Tensor, present: Tensor) -> Tensor:
        """cards [N, K, width], present [N, K] bool -> [N, width]; the shapes are the same for any number of cards."""
        nobody = ~present.any(1, keepdim=True)
        looked_at = present | nobody  # attention over nothing would be NaN
        if self.positions is not None:
            cards = cards + self.positions
        for block in self.blocks:
            cards = block(cards, looked_at)
        weight = present.to(cards.dtype).unsqueeze(-1)
        mean = (cards * weight).sum(1) / weight.sum(1).clamp(min=1.0)
        return torch.where(nobody, self.empty.to(mean.dtype), mean)


def sinusoids(places: int, width: int) -> Tensor:
    """[places, width] sines and cosines of falling frequency (Vaswani et al. 2017, 3.5)."""
    angle = torch.arange(places).unsqueeze(1) * 10_000.0 ** (-torch.arange(0, width, 2) / width)
    return torch.stack((angle.sin(), angle.cos()), -1).flatten(1)[:, :width]


class QueueAttention(nn.Module):
    """Attention over the queue of the compact obs; everything else is bits, through one linear layer.

    Args:
        game: `envs.beasty_bar`, or one with the same obs.
        width: of a card and of the result.
        heads: of the attention.
        layers: blocks of attention.
    """

    def __init__(self, game: Interface, width: int = 64, heads: int = 4, layers: int = 1):
        super().__init__()
        _meant_for(game, compact.GAME, "QueueAttention")
        self.game, self.width = compact.GAME, width
        places, *card = self.game.obs_parts["queue"].shape
        self.cards = nn.Linear(card[0] * card[1], width)
        self.queue = Zone(width, heads, layers, places)
        self.rest = nn.Linear(self.game.obs_shape[0] - places * card[0] * card[1], width)
        self.fusion = nn.Sequential(nn.Linear(2 * width, width), nn.GELU(), nn.Linear(width, width), nn.GELU())

    def forward(self, obs: Tensor) -> Tensor:
        named = parts(self.game, obs.to(self.rest.weight.dtype))
        queue = named.pop("queue").flatten(2)
        encoded = self.queue(self.cards(queue), queue.any(-1))
        rest = self.rest(torch.cat([part.flatten(1) for part in named.values()], 1))
        return self.fusion(functional.gelu(torch.cat([encoded, rest], 1)))


class Residual(nn.Module):
    """x + two layers of Linear, LayerNorm, GELU."""

    def __init__(self, width: int):
        super().__init__()
        layers = [[nn.Linear(width, width), nn.LayerNorm(width), nn.GELU()] for _ in range(2)]
        self.layers = nn.Sequential(*layers[0], *layers[1])

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class ZoneTransformers(nn.Module):
    """The documents' network up to its heads: a transformer per zone, and residual layers over what they say.

    Only the queue has positions. Dropout is left out: rollout and update must see one and the same policy.

    Args:
        game: `envs.beasty_bar.documents`, or one with the same obs.
        width: 128 by default there, 256 in the network that was trained.
        heads: 4, and 8.
        layers: 1, and 4.
        embedding: width of a species; 32, and 64.
    """

    def __init__(self, game: Interface, width: int = 128, heads: int = 4, layers: int = 1, embedding: int = 32):
        super().__init__()
        _meant_for(game, documents.GAME, "ZoneTransformers")
        self.game, self.width = documents.GAME, width
        zones = ("queue", "bar", "hell", "hand", "other_hand")
        self.species, self.facts = nn.Embedding(13, embedding), nn.Linear(5, embedding)  # 12: no animal, or hidden
        self.card = nn.Sequential(nn.Linear(2 * embedding, width), nn.GELU(), nn.LayerNorm(width))
        order = {"queue": self.game.obs_parts["queue"].shape[0]}
        self.zones = nn.ModuleDict({name: Zone(width, heads, layers, order.get(name)) for name in zones})
        self.scalars = nn.Sequential(nn.Linear(self.game.obs_parts["scalars"].shape[0], width), nn.GELU())
        self.fusion = nn.Sequential(nn.Linear(6 * width, width), nn.GELU(), *[Residual(width) for _ in range(3)])

    def forward(self, obs: Tensor) -> Tensor:
        named = parts(self.game, obs.to(self.facts.weight.dtype))
        said = [self.scalars(named.pop("scalars"))]
        for name, cards in named.items():
            said.append(self.zones[name](self.encode(cards), cards[..., 0] > 0))
        return self.fusion(torch.cat(said, 1))

    def encode(self, cards: Tensor) -> Tensor:
        """[N, K, 17] cards, or [N, K, 3] hidden ones -> [N, K, width]."""
        if cards.shape[-1] == 3:  # there is one; place; 0
            none = torch.zeros_like(cards[..., :1])
            facts = torch.cat([cards[..., :1], none, none, none, cards[..., 1:2]], -1)
            species = torch.full(cards.shape[:-1], 12, device=cards.device)
        else:
            facts = torch.cat([cards[..., :2], cards[..., 14:]], -1)
            species = torch.where(cards[..., 0] > 0, cards[..., 2:14].argmax(-1), 12)
        return self.card(torch.cat([self.species(species), self.facts(facts)], -1))
