"""Networks for shogi, (obs [N, *D]) -> (logits [N, A], value [N]), for `lit_rl.networks.Headed`; they know torch alone.

A residual tower over the board (He et al. 2016), whose policy head is a 1x1 convolution: each square tells how good it
is to come there by each way, or from there. With 13,527 actions a matrix would take 2.2 million weights; this head
takes 139 for each channel.

GroupNorm, not BatchNorm, which the documents have. BatchNorm's output depends on the other rows and on whether the
network trains: the rollout would play by running means, the update would learn by a minibatch's own, and so the ratio
of PPO would not be 1 before the first step, though the weights are the same.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from envs.game import Interface
from envs.shogi import compact, documents
from envs.shogi.moves import PROMOTES, SOURCE
from envs.shogi.pieces import DISTANCE, HAND, HELD, JUMPS, LINE, SQUARES

PIECES = 29  # what a square of the compact obs may hold
WAYS = 2 * (8 * 8 + 2) + HAND  # directions x distances and a knight's jumps, both with promotion or not, and drops
OTHERS = (*HELD, *HELD, 3, 1, 1, 255, 1)  # the largest value of each number of the compact obs behind the board


class Pieces(nn.Module):
    """The compact obs -> [N, channels, 9, 9]: a vector for what stands on each square, one of all the rest added."""

    def __init__(self, channels: int):
        super().__init__()
        self.squares, self.rest = nn.Embedding(PIECES, channels), nn.Linear(len(OTHERS), channels)
        self.register_buffer("scale", 1 / torch.tensor(OTHERS), persistent=False)

    def forward(self, obs: Tensor) -> Tensor:
        board = self.squares(obs[:, :SQUARES].int())  # [N, 81, channels], which as planes is channels-last already
        rest = self.rest(obs[:, SQUARES:].to(self.scale.dtype) * self.scale)
        return (board + rest.unsqueeze(1)).transpose(1, 2).unflatten(2, (9, 9))


class Planes(nn.Module):
    """The documents' planes -> [N, channels, 9, 9] by a 3x3 convolution of what they stand for."""

    def __init__(self, channels: int):
        super().__init__()
        self.convolution = nn.Conv2d(documents.PLANES, channels, 3, padding=1)
        self.register_buffer("scale", torch.from_numpy(documents.SCALE).view(-1, 1, 1), persistent=False)

    def forward(self, obs: Tensor) -> Tensor:
        planes = obs.to(self.scale.dtype) * self.scale
        return self.convolution(planes.to(memory_format=torch.channels_last))


class Block(nn.Module):
    """relu(x + two of 3x3 convolution and GroupNorm), gated by squeeze and excitation (Hu et al. 2018) if asked.

    Args:
        channels: of input and output.
        groups: of the norm; they divide the channels.
        squeeze: width of the gate's hidden layer as a share of the channels; None: no gate.
    """

    def __init__(self, channels: int, groups: int, squeeze: float | None):
        super().__init__()
        self.convolutions = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1, bias=False) for _ in range(2))
        self.norms = nn.ModuleList(nn.GroupNorm(groups, channels) for _ in range(2))
        self.gate = None
        if squeeze is not None:
            width = max(1, round(squeeze * channels))
            self.gate = nn.Sequential(nn.Linear(channels, width), nn.ReLU(), nn.Linear(width, channels), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.norms[0](self.convolutions[0](x)))
        y = self.norms[1](self.convolutions[1](y))
        if self.gate is not None:
            y = y * self.gate(y.mean((2, 3)))[:, :, None, None]
        return functional.relu(x + y)


class Tower(nn.Module):
    """Blocks over the board, a 1x1 convolution for the policy, and a small one with two linear layers for the value.

    Args:
        game: `envs.shogi` or `envs.shogi.documents`, or one with the same obs and actions.
        blocks: one after the other; 9 in the documents.
        channels: of all blocks; 256 in the documents.
        groups: of the norms.
        squeeze: of the blocks' gates, 0.25 in the documents; null: no gates.
    """

    def __init__(
        self, game: Interface, blocks: int = 2, channels: int = 32, groups: int = 4, squeeze: float | None = None
    ):
        super().__init__()
        if blocks < 1 or channels < 1:
            raise ValueError(f"blocks={blocks}, channels={channels}: needs at least one of each")
        if groups < 1 or channels % groups:
            raise ValueError(f"groups={groups}: must divide channels={channels}")
        if squeeze is not None and not 0 < squeeze <= 1:
            raise ValueError(f"squeeze={squeeze}: needs more than 0 and at most 1; null for no gates")
        kinds = {each.GAME.obs_shape + (each.GAME.num_actions,): each for each in (compact, documents)}
        kind = kinds.get((*game.obs_shape, game.num_actions))
        if kind is None:
            known = " or ".join(each.GAME.name for each in kinds.values())
            raise ValueError(f"Tower: reads the obs of {known}, not {game.name}'s {game.obs_shape}")
        is_compact = kind is compact
        self.stem = Pieces(channels) if is_compact else Planes(channels)
        self.blocks = nn.Sequential(*[Block(channels, groups, squeeze) for _ in range(blocks)])
        self.policy = nn.Conv2d(channels, compact.WAYS if is_compact else WAYS, 1)
        nn.init.orthogonal_(self.policy.weight.flatten(1), 0.01)
        nn.init.zeros_(self.policy.bias)
        self.register_buffer("place", None if is_compact else places(), persistent=False)
        self.value = nn.Sequential(nn.Conv2d(channels, 4, 1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * SQUARES, 64))
        self.value.extend([nn.ReLU(), nn.Linear(64, 1)])
        self.to(memory_format=torch.channels_last)

    def forward(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        x = self.blocks(self.stem(obs))
        logits = self.policy(x).flatten(1)  # [N, ways * 81]
        if self.place is not None:
            logits = logits[:, self.place]
        return logits, self.value(x).squeeze(1)


def places() -> Tensor:
    """[13527] int64: where in the flat planes [WAYS * 81] each of the documents' actions stands.

    A move on the board stands at the square that it comes from, a drop at that where it goes. No piece goes from most
    squares to most others; those actions are never legal, and stand at 0.
    """
    place = torch.zeros(documents.NUM_ACTIONS, dtype=torch.int64)
    for source in range(SQUARES):
        for to in range(SQUARES):
            way = -1
            if LINE[source, to] >= 0:
                way = 8 * int(LINE[source, to]) + int(DISTANCE[source, to]) - 1
            elif to in JUMPS[0, source]:
                way = 64 + JUMPS[0, source].tolist().index(to)
            for promotes in range(2 if way >= 0 else 0):
                action = documents.action_of(0, to + SOURCE * source + PROMOTES * promotes)
                place[action] = SQUARES * (66 * promotes + way) + source
        for held in range(HAND):
            place[documents.action_of(0, source + SOURCE * (SQUARES + held))] = SQUARES * (132 + held) + source
    return place
