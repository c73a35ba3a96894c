"""Networks: blocks and heads that make an `ActorCritic`. The game tells its sizes; the YAML says the rest."""

import math
from collections.abc import Callable, Sequence
from typing import Literal

from torch import Tensor, nn

from envs.game import Interface
from lit_rl.policy import ActorCritic, PolicyOutput, mask_logits

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
