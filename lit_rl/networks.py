"""Networks: blocks and heads that make an `ActorCritic`. The game tells its sizes; the YAML says the rest."""

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from jsonargparse.typing import PositiveInt
from torch import Tensor, nn

from envs.game import Interface
from lit_rl.policy import ActorCritic, Chunks, PolicyOutput, mask_logits

GATES = {"gru": 3, "lstm": 4}
ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh, "gelu": nn.GELU}


def orthogonal(layer: nn.Linear, gain: float) -> nn.Linear:
    """Orthogonal weights of the given gain, zero bias (Huang et al. 2022, detail 2)."""
    nn.init.orthogonal_(layer.weight, gain)
    nn.init.zeros_(layer.bias)
    return layer


def mlp(num_inputs: int, hidden: Sequence[int], activation: str) -> nn.Sequential:
    """Linear layers of the widths `hidden`, each followed by the activation; gain sqrt(2)."""
    widths = [num_inputs, *hidden]
    blocks = [
        layer
        for before, after in zip(widths, hidden)
        for layer in (orthogonal(nn.Linear(before, after), math.sqrt(2)), ACTIVATIONS[activation]())
    ]
    return nn.Sequential(*blocks)


class MLP(ActorCritic):
    """Multi-layer perceptron over the flattened obs, with a policy head (gain 0.01) and a value head (gain 1).

    Args:
        game: tells the sizes of obs and actions.
        hidden: widths of the hidden layers.
        activation: between the layers.
        shared: one trunk for policy and value; false: two separate trunks.
    """

    def __init__(
        self,
        game: Interface,
        hidden: Sequence[int] = (128, 128),
        activation: Literal["relu", "tanh", "gelu"] = "relu",
        shared: bool = False,
    ):
        super().__init__()
        if not hidden or min(hidden) < 1:
            raise ValueError(f"hidden={list(hidden)}: needs at least one layer of at least one unit")
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation={activation}: must be one of {', '.join(ACTIVATIONS)}")
        num_inputs = math.prod(game.obs_shape)
        self.policy_trunk = mlp(num_inputs, hidden, activation)
        self.value_trunk = self.policy_trunk if shared else mlp(num_inputs, hidden, activation)
        self.policy_head = orthogonal(nn.Linear(hidden[-1], game.num_actions), 0.01)
        self.value_head = orthogonal(nn.Linear(hidden[-1], 1), 1.0)

    def forward(self, obs: Tensor, legal: Tensor) -> PolicyOutput:
        x = obs.flatten(1).to(self.policy_head.weight.dtype)
        h = self.policy_trunk(x)
        v = h if self.value_trunk is self.policy_trunk else self.value_trunk(x)
        return PolicyOutput(mask_logits(self.policy_head(h), legal), self.value_head(v).float().squeeze(-1))


EncoderFactory = Callable[[Interface], nn.Module]  # (obs [N, *D]) -> [N, width], with the attribute width
BodyFactory = Callable[[Interface], nn.Module]  # (obs [N, *D]) -> (logits [N, A], value [N])


class Encoded(ActorCritic):
    """A game's own encoder with a policy head and a value head, each of one hidden layer of half its width.

    Args:
        game: tells the number of actions.
        encoder: built as `encoder(game)`: (obs [N, *D]) -> [N, width], with the attribute `width`; such as
            `envs.beasty_bar.network.QueueAttention`.
    """

    def __init__(self, game: Interface, encoder: EncoderFactory):
        super().__init__()
        self.encoder = encoder(game)
        half = max(self.encoder.width // 2, 1)
        heads = [
            nn.Sequential(mlp(self.encoder.width, [half], "gelu"), orthogonal(nn.Linear(half, size), gain))
            for size, gain in ((game.num_actions, 0.01), (1, 1.0))
        ]
        self.policy_head, self.value_head = heads

    def forward(self, obs: Tensor, legal: Tensor) -> PolicyOutput:
        h = self.encoder(obs)
        return PolicyOutput(mask_logits(self.policy_head(h), legal), self.value_head(h).float().squeeze(-1))


class Headed(ActorCritic):
    """A game's own network with heads of its own, for games whose actions have a shape.

    Args:
        game: handed on.
        body: built as `body(game)`: (obs [N, *D]) -> (logits [N, A], value [N]); such as `envs.shogi.network.Tower`.
    """

    def __init__(self, game: Interface, body: BodyFactory):
        super().__init__()
        self.body = body(game)

    def forward(self, obs: Tensor, legal: Tensor) -> PolicyOutput:
        logits, value = self.body(obs)
        return PolicyOutput(mask_logits(logits, legal), value.float())


class Dense(nn.Module):
    """The plain encoder: layers over the flattened obs [N, *D] -> [N, width].

    Args:
        game: tells the size of obs.
        hidden: widths of the layers, the last of which is `width`.
        activation: after each layer.
    """

    def __init__(
        self, game: Interface, hidden: Sequence[int] = (128,), activation: Literal["relu", "tanh", "gelu"] = "gelu"
    ):
        super().__init__()
        if not hidden or min(hidden) < 1:
            raise ValueError(f"encoder: hidden={list(hidden)}: needs at least one layer of at least one unit")
        if activation not in ACTIVATIONS:
            raise ValueError(f"encoder: activation={activation}: must be one of {', '.join(ACTIVATIONS)}")
        self.width = hidden[-1]
        self.layers = mlp(math.prod(game.obs_shape), hidden, activation)

    def forward(self, obs: Tensor) -> Tensor:
        return self.layers(obs.flatten(1).to(self.layers[0].weight.dtype))


class Recurrent(ActorCritic):
    """An encoder, a memory (GRU of Cho et al. 2014, or LSTM), and heads that see both what is there and what was.

        x = encoder(obs),    h' = cell(x, h),    logits = policy_head([x, h']),    value = value_head([x, h'])

    Only the cell runs in time; encoder and heads see all rows of a minibatch at once. The cell runs in fp32, so that a
    memory is the same whatever the precision around it. What a player did is part of its memory only if obs tells it.

    Args:
        game: tells the sizes of obs and actions.
        encoder: built as `encoder(game)`: (obs [N, *D]) -> [N, width], with the attribute `width`.
        cell: gru, whose memory is [H], or lstm, whose memory is [2, H].
        memory: H.
    """

    def __init__(
        self,
        game: Interface,
        encoder: EncoderFactory = Dense,
        cell: Literal["gru", "lstm"] = "gru",
        memory: PositiveInt = 128,
    ):
        super().__init__()
        if cell not in GATES:
            raise ValueError(f"cell={cell!r}: must be one of {', '.join(GATES)}")
        if memory < 1:
            raise ValueError(f"memory={memory}: must be positive")
        self.encoder, self.kind = encoder(game), cell
        width, gates = self.encoder.width, GATES[cell]
        self.state_shape = (int(memory),) if cell == "gru" else (2, int(memory))
        self.weight_x = nn.Parameter(torch.empty(gates * memory, width))
        self.weight_h = nn.Parameter(torch.empty(gates * memory, memory))
        self.bias_x, self.bias_h = (nn.Parameter(torch.zeros(gates * memory)) for _ in range(2))
        for gate in (*self.weight_x.chunk(gates), *self.weight_h.chunk(gates)):
            nn.init.orthogonal_(gate)
        self.policy_head = orthogonal(nn.Linear(width + memory, game.num_actions), 0.01)
        self.value_head = orthogonal(nn.Linear(width + memory, 1), 1.0)

    def forward(self, obs: Tensor, legal: Tensor, state: Tensor | None = None) -> PolicyOutput:
        """As `ActorCritic.forward`; without a state it begins a game."""
        x = self.encoder(obs)
        if state is None:
            state = x.new_zeros(len(x), *self.state_shape, dtype=torch.float32)
        h, state = self._remember(x.unsqueeze(0), state)
        return self._heads(x, h.squeeze(0), legal)._replace(state=state)

    def unroll(self, obs: Tensor, legal: Tensor, chunks: Chunks) -> PolicyOutput:
        x = self.encoder(obs)
        size = chunks.length * len(chunks.state)
        spread = x.new_zeros(size, x.shape[1]).index_copy(0, chunks.place, x)
        h, _ = self._remember(spread.view(chunks.length, len(chunks.state), x.shape[1]), chunks.state)
        return self._heads(x, h.flatten(0, 1)[chunks.place], legal)

    def _remember(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """x [L, C, width], state [C, *S] -> what is remembered after each step [L, C, H], and the last state."""
        weights = [self.weight_x, self.weight_h, self.bias_x, self.bias_h]
        with torch.autocast(x.device.type, enabled=False):
            x = x.float()
            if self.kind == "gru":
                h, last = torch.gru(x, state.unsqueeze(0), weights, True, 1, 0.0, False, False, False)
                return h, last.squeeze(0)
            if torch.compiler.is_compiling():  # its backward through oneDNN's LSTM fails (torch 2.13)
                return self._lstm(x, state)
            begin = [part.contiguous().unsqueeze(0) for part in state.unbind(1)]
            h, last, cell = torch.lstm(x, begin, weights, True, 1, 0.0, False, False, False)
            return h, torch.stack([last.squeeze(0), cell.squeeze(0)], 1)

    def _lstm(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """As torch.lstm, step by step."""
        h, c = state.unbind(1)
        found = []
        for now in nn.functional.linear(x, self.weight_x, self.bias_x):
            gates = now + nn.functional.linear(h, self.weight_h, self.bias_h)
            enter, forget, new, leave = gates.chunk(4, 1)
            c = forget.sigmoid() * c + enter.sigmoid() * new.tanh()
            h = leave.sigmoid() * c.tanh()
            found.append(h)
        return torch.stack(found), torch.stack([h, c], 1)

    def _heads(self, x: Tensor, h: Tensor, legal: Tensor) -> PolicyOutput:
        both = torch.cat([x, h.to(x.dtype)], 1)
        return PolicyOutput(mask_logits(self.policy_head(both), legal), self.value_head(both).float().squeeze(-1))


class HistoryMLP(nn.Module):
    """A critic of whole histories: every player's infostate side by side -> the value of each action, [N, A].

    Built as `critic(game)`. Values are in player 0's view and in reward units; inside they are divided by 0.4 times the
    game's largest return, so that learning rates mean the same in every game (0.4: about the payoffs' spread in poker).

    Args:
        game: tells the sizes of obs and actions, and the unit.
        hidden: widths of the hidden layers.
        activation: between the layers.
    """

    def __init__(
        self,
        game: Interface,
        hidden: Sequence[int] = (64, 64),
        activation: Literal["relu", "tanh", "gelu"] = "gelu",
    ):
        super().__init__()
        if not hidden or min(hidden) < 1:
            raise ValueError(f"critic: hidden={list(hidden)}: needs at least one layer of at least one unit")
        if activation not in ACTIVATIONS:
            raise ValueError(f"critic: activation={activation}: must be one of {', '.join(ACTIVATIONS)}")
        self.scale = 0.4 * game.max_return
        self.trunk = mlp(game.num_players * math.prod(game.obs_shape), hidden, activation)
        self.head = orthogonal(nn.Linear(hidden[-1], game.num_actions), 1.0)

    def forward(self, history: Tensor) -> Tensor:
        """history [N, P, *D] -> [N, A]."""
        x = history.flatten(1).to(self.head.weight.dtype)
        return self.scale * self.head(self.trunk(x)).float()


CriticFactory = Callable[[Interface], nn.Module]  # (history [N, P, *D]) -> [N, A]
