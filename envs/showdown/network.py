"""An encoder for `lit_rl.networks.Encoded`, (obs [N, D]) -> [N, width]: embeddings of who is there, and their sums.

It knows torch and the observation. Each Pokémon is a vector out of its species, ability, item, tera type, moves and
numbers; the two that stand in front on either side also get what is on their slot. Sides are summed up, own and foe
apart, and the four in front stand beside, so that places in the team do not matter where the actions do not name them.
What each own move is expected to do (`damage`) stands beside that, since it takes long to learn a type chart.
"""

import torch
from torch import Tensor, nn

from envs.game import Interface, parts
from envs.showdown import INTERFACE, LAYOUT, PASS, SIDE, SLOT
from envs.showdown.damage import Damage

MON = {name: i for i, name in enumerate(LAYOUT["mon"])}
NUMBERS = [MON[name] for name in ("hp", "level", "atk", "def", "spa", "spd", "spe")]
SCALES = [1000.0, 100.0, 200.0, 200.0, 200.0, 200.0, 200.0]
MOVES = slice(MON["move_1"], MON["move_4"] + 1)
FIRST_PLACE, PLACES, STATUSES, WEATHERS, TERRAINS = 3, 5, 8, 10, 5  # of `watcher.js`
BOOSTS, LAST_MOVE, TURNS, TYPES, STALLED = slice(0, 7), 7, 8, slice(9, 11), slice(11, len(SLOT))


class Embeddings(nn.Module):
    """Encodes the obs of `envs.showdown`.

    Args:
        game: `envs.showdown`, or one with the same obs.
        width: of the result, and of a Pokémon.
        embedding: of a species; a move, an item, an ability have half of it.
    """

    def __init__(self, game: Interface, width: int = 128, embedding: int = 32):
        super().__init__()
        if game.obs_shape != INTERFACE.obs_shape:
            raise ValueError(f"Embeddings: reads the obs of showdown, {INTERFACE.obs_shape}, not {game.name}'s")
        half, quarter = max(embedding // 2, 1), max(embedding // 4, 1)
        self.game, self.width = INTERFACE, width
        self.species = nn.Embedding(LAYOUT["species"] + 1, embedding)
        self.move = nn.Embedding(LAYOUT["moves"] + 1, half)
        self.item = nn.Embedding(LAYOUT["items"] + 2, half)  # one more: none
        self.ability = nn.Embedding(LAYOUT["abilities"] + 1, half)
        self.element = nn.Embedding(LAYOUT["types"] + 1, quarter)
        self.place = nn.Embedding(PLACES, quarter)
        self.status = nn.Embedding(STATUSES, quarter)
        size = embedding + 4 * half + 2 * half + 3 * quarter + len(NUMBERS) + 1
        self.mon = nn.Sequential(nn.Linear(size, width), nn.GELU(), nn.Linear(width, width), nn.GELU())
        self.slot = nn.Linear(7 + half + 1 + 2 * quarter + (len(SLOT) - 11), width)
        self.around = nn.Linear(len(LAYOUT["field"]) + 2 * len(SIDE) + WEATHERS + TERRAINS, width)
        choices = 4 + 2 + 7 + 6 * 7 + PASS + 2
        self.damage = Damage()
        self.fusion = nn.Sequential(
            nn.Linear(13 * width + choices + 2 * 4 * 3, 2 * width), nn.GELU(), nn.Linear(2 * width, width), nn.GELU()
        )
        self.register_buffer("scales", torch.tensor(SCALES), persistent=False)

    def forward(self, obs: Tensor) -> Tensor:
        named = parts(self.game, obs.long())
        mons = torch.stack([named["own"], named["foe"]], 1)  # [N, 2, 6, mon]
        encoded = self.encode(mons)
        there = (mons[..., MON["species"]] > 0).unsqueeze(-1)
        slots = self.encode_slots(named["slots"])  # [N, 4, width]
        place = mons[..., MON["place"]]
        here = torch.stack([place == FIRST_PLACE, place == FIRST_PLACE + 1], 2)  # [N, 2, slot, 6]
        front = (here.to(encoded.dtype) @ encoded).flatten(1, 2) + slots  # [N, 4, width]
        damage = self.damage((mons.unsqueeze(2) * here.unsqueeze(-1)).amax(3).flatten(1, 2), named["slots"])
        sums = (encoded * there).sum(2).flatten(1) / 4  # [N, 2 width]
        own = encoded[:, 0] * there[:, 0]  # by their places, which actions name
        field, sides = named["field"].to(encoded.dtype), named["sides"].flatten(1).to(encoded.dtype)
        weather, terrain = one_hot(named["field"][:, 1], WEATHERS), one_hot(named["field"][:, 3], TERRAINS)
        around = self.around(torch.cat([field / 10, sides / 5, weather, terrain], 1).to(encoded.dtype))
        choice = chosen(named["choice"]).to(encoded.dtype)
        all_ = [front.flatten(1), sums, own.flatten(1), around, damage.flatten(1), choice]
        return self.fusion(torch.cat(all_, 1))

    def encode(self, mons: Tensor) -> Tensor:
        """[N, 2, 6, mon] -> [N, 2, 6, width]."""
        numbers = mons[..., NUMBERS].to(self.scales.dtype) / self.scales
        return self.mon(
            torch.cat(
                [
                    self.species(mons[..., MON["species"]]),
                    self.move(mons[..., MOVES]).flatten(-2),
                    self.item(mons[..., MON["item"]]),
                    self.ability(mons[..., MON["ability"]]),
                    self.element(mons[..., MON["tera_type"]]),
                    self.place(mons[..., MON["place"]]),
                    self.status(mons[..., MON["status"]]),
                    numbers,
                    mons[..., MON["terastallized"] : MON["terastallized"] + 1].to(numbers.dtype),
                ],
                -1,
            )
        )

    def encode_slots(self, slots: Tensor) -> Tensor:
        """[N, 4, slot] -> [N, 4, width]."""
        boosts = slots[..., BOOSTS].to(self.scales.dtype) / 3
        turns = slots[..., TURNS : TURNS + 1].to(boosts.dtype) / 5
        flags = slots[..., STALLED].to(boosts.dtype)
        last, types = self.move(slots[..., LAST_MOVE]), self.element(slots[..., TYPES]).flatten(-2)
        return self.slot(torch.cat([boosts, last, turns, types, flags], -1))


def one_hot(x: Tensor, size: int) -> Tensor:
    return nn.functional.one_hot(x, size)


def chosen(choice: Tensor) -> Tensor:
    """[N, choice] -> what is asked and what was chosen of it, one-hot."""
    hot = [one_hot(choice[:, 0], 4), one_hot(choice[:, 1], 2), one_hot(choice[:, 2], 7)]
    hot += [one_hot(choice[:, 3:9], 7).flatten(1), one_hot(choice[:, 9], PASS + 2)]
    return torch.cat(hot, 1)
