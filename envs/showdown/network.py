"""`Embeddings`, an encoder for `lit_rl.networks.Encoded` and `Recurrent`; `Hinted`, a body for `Headed`.

It knows torch and the observation. Each Pokémon is a vector out of its species, ability, item, tera type, moves and
numbers; the two that stand in front on either side also get what is on their slot. Sides are summed up, own and foe
apart, and the four in front stand beside, so that places in the team do not matter where the actions do not name them.
What each own move is expected to do (`Damage`) stands beside that, since it takes long to learn a type chart.
"""

import torch
from torch import Tensor, nn

from envs.game import Interface, parts
from envs.showdown import INTERFACE, LAYOUT, MOVE, PASS, SIDE, SLOT, SWITCH
from envs.showdown.dex import load_dex
from envs.showdown.players import BURN, MON, PHYSICAL, SPREAD, STAB, STATS

NUMBERS = [MON[name] for name in ("hp", "level", "atk", "def", "spa", "spd", "spe")]
SCALES = [1000.0, 100.0, 200.0, 200.0, 200.0, 200.0, 200.0]
MOVES = slice(MON["move_1"], MON["move_4"] + 1)
FIRST_PLACE, PLACES, STATUSES, WEATHERS, TERRAINS = 3, 5, 8, 10, 5  # of `watcher.js`
BOOSTED = {"atk": 0, "def": 1, "spa": 2, "spd": 3}  # columns of a slot
ATK, DEF, SPA, SPD = (STATS.index(name) for name in BOOSTED)
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
        return self.look(parts(self.game, obs.long()))[0]

    def look(self, named: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """[N, width], and the expected damage [N, 2, 4, 3] of the own moves (`Damage`)."""
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
        return self.fusion(torch.cat(all_, 1)), damage

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


class Hinted(nn.Module):
    """A body for `lit_rl.networks.Headed`, obs [N, D] -> (logits [N, A], value [N]): heads on `Embeddings`, and on each
    action what it is expected to do, as far as the situation lets one trust in that. With h = Embeddings(obs):

        logits(a) = head(h)(a) + 10 (t_foe(h) damage to foes(a) + t_ally(h) damage to the ally(a))

    Args:
        game: `envs.showdown`, or one with the same obs.
        width, embedding: see `Embeddings`.
    """

    def __init__(self, game: Interface, width: int = 128, embedding: int = 32):
        super().__init__()
        self.encoder = Embeddings(game, width, embedding)
        self.policy, self.value = (
            nn.Sequential(nn.Linear(width, width // 2), nn.GELU(), nn.Linear(width // 2, size))
            for size in (game.num_actions, 1)
        )
        self.trust = nn.Linear(width, 2)
        for last in (self.policy[-1], self.trust):
            nn.init.orthogonal_(last.weight, 0.01)
            nn.init.zeros_(last.bias)

    def forward(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        named = parts(self.encoder.game, obs.long())
        h, damage = self.encoder.look(named)
        hints = (10 * self.trust(h).unsqueeze(1) * self.hints(named, damage)).sum(-1)  # [N, A]
        return self.policy(h) + hints, self.value(h).squeeze(-1)

    def hints(self, named: dict[str, Tensor], damage: Tensor) -> Tensor:
        """[N, A, 2]: what each action is expected to take off the foes, and off the ally; 0 for all that is no move."""
        kind, slot = named["choice"][:, 0], named["choice"][:, 1].clamp(0, 1)
        rows = torch.arange(len(slot), device=slot.device)
        foe_1, foe_2, ally = damage[rows, slot].unbind(-1)  # [N, 4] each
        place, none = named["own"][..., MON["place"]], torch.zeros_like(ally)
        user = (named["own"] * (place == FIRST_PLACE + slot.unsqueeze(1)).unsqueeze(-1)).amax(1)
        *_, both, ally_too, _ = self.encoder.damage.moves[user[:, MOVES]].unbind(-1)
        unaimed = torch.where(both > 0, foe_1 + foe_2, (foe_1 + foe_2) / 2)
        on_foes = torch.stack([none, none, unaimed, foe_1, foe_2], -1)  # as in LAYOUT["targets"]
        on_ally = torch.stack([ally, ally, ally * (ally_too > 0), none, none], -1)
        found = torch.stack([on_foes, on_ally], -1).unsqueeze(2).expand(-1, -1, 2, -1, -1)  # with and without tera
        found = found.flatten(1, 3) * (kind == MOVE).view(-1, 1, 1)
        return nn.functional.pad(found, (0, 0, 0, PASS + 1 - SWITCH))


class Damage(nn.Module):
    """What the moves of those in front are expected to take off, as `players.MaxDamage` reckons it.

    (front [N, 4, mon], slots [N, 4, slot]) -> [N, 2, 4, 3]: of both own Pokémon in front (own, own, foe, foe), by
    their four moves: the share of its full HP that a hit takes off the first foe, the second foe, the ally.

    Accuracy and spread count, what the target has left limits it; left out is what `MaxDamage` leaves out. The tables
    of the simulator are no part of the weights.

    Raises:
        ShowdownMissingError: Node or the package is not there.
    """

    def __init__(self):
        super().__init__()
        dex = load_dex()
        for name, table in (("species", dex.species), ("moves", dex.moves), ("chart", dex.chart)):
            self.register_buffer(name, torch.from_numpy(table), persistent=False)

    def types(self, mon: Tensor) -> Tensor:
        """[..., 2] int64: as what a Pokémon [..., mon] fights; 0 for none."""
        first, second = self.species[mon[..., MON["species"]]][..., :2].long().unbind(-1)
        second = torch.where(second == first, 0, second)
        tera = mon[..., MON["tera_type"]]
        changed = (mon[..., MON["terastallized"]] > 0) & (tera > 0)
        return torch.stack([torch.where(changed, tera, first), torch.where(changed, 0, second)], -1)

    def forward(self, front: Tensor, slots: Tensor) -> Tensor:
        user, target = front[:, :2], targets(front)
        boosts = boost(slots[..., :4].to(self.chart.dtype))  # [N, 4, 4]
        on = targets(boosts)
        kind, power, category, accuracy, both, *_ = self.moves[user[..., MON["move_1"] : MON["move_4"] + 1]].unbind(-1)
        kind, physical = kind.long(), category == PHYSICAL  # [N, 2, 4] each
        burnt = torch.where(user[..., BURN] == 1, 0.5, 1.0)
        strength = [user[..., MON["atk"]] * boosts[:, :2, BOOSTED["atk"]] * burnt,
                    user[..., MON["spa"]] * boosts[:, :2, BOOSTED["spa"]]]  # fmt: skip
        attack = torch.where(physical, *(x.unsqueeze(-1) for x in strength))  # [N, 2, 4]
        stab = torch.where((self.types(user).unsqueeze(2) == kind.unsqueeze(-1)).any(-1), STAB, 1.0)
        base = self.species[target[..., MON["species"]]][..., 2:]  # [N, 2, 3, stat]
        level = target[..., MON["level"]].clamp_min(1).unsqueeze(-1)
        stats = (2 * base + 31 + 85 // 4) * level / 100 + 5
        hp = stats[..., 0] + level.squeeze(-1) + 5
        guard = torch.where(
            physical.unsqueeze(-1),
            (stats[..., DEF] * on[..., BOOSTED["def"]]).unsqueeze(2),
            (stats[..., SPD] * on[..., BOOSTED["spd"]]).unsqueeze(2),
        )  # [N, 2, 4, 3]
        effect = self.chart[kind[..., None, None], self.types(target).unsqueeze(2)].prod(-1)
        blow = (power * stab * attack).unsqueeze(-1) / guard.clamp_min(1.0)
        damage = ((2 * level.squeeze(-1) / 5 + 2).unsqueeze(2) * blow / 50 + 2) * effect / hp.unsqueeze(2)
        taken = torch.minimum(damage, target[..., MON["hp"]].unsqueeze(2) / 1000)
        share = torch.where(both > 0, SPREAD, 1.0) * accuracy / 100 * (power > 0)
        return taken * share.unsqueeze(-1)


def targets(front: Tensor) -> Tensor:
    """[N, 4, ...] -> [N, 2, 3, ...]: of each own one in front both foes and the ally."""
    foes = front[:, 2:].unsqueeze(1).expand(-1, 2, *front[:, 2:].shape[1:])
    return torch.cat([foes, front[:, :2].flip(1).unsqueeze(2)], 2)


def boost(stage: Tensor) -> Tensor:
    return (2 + stage.clamp_min(0)) / (2 - stage.clamp_max(0))


def one_hot(x: Tensor, size: int) -> Tensor:
    return nn.functional.one_hot(x, size)


def chosen(choice: Tensor) -> Tensor:
    """[N, choice] -> what is asked and what was chosen of it, one-hot."""
    hot = [one_hot(choice[:, 0], 4), one_hot(choice[:, 1], 2), one_hot(choice[:, 2], 7)]
    hot += [one_hot(choice[:, 3:9], 7).flatten(1), one_hot(choice[:, 9], PASS + 2)]
    return torch.cat(hot, 1)
