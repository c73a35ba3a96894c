"""What the moves of those in front are expected to take off, as `players.MaxDamage` reckons it: in torch, for networks.

Letters: N rows, S species, M moves, T types, each with a row 0 for "not known".
"""

import torch
from torch import Tensor, nn

from envs.showdown.dex import load_dex
from envs.showdown.players import BURN, MON, PHYSICAL, SPREAD, STAB, STATS

BOOSTED = {"atk": 0, "def": 1, "spa": 2, "spd": 3}  # columns of a slot
ATK, DEF, SPA, SPD = (STATS.index(name) for name in BOOSTED)


class Damage(nn.Module):
    """(front [N, 4, mon], slots [N, 4, slot]) -> [N, 2, 4, 3]: of both own Pokémon in front (own, own, foe, foe), by
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
