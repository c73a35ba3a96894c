"""Mixing two policies: what the actor would do and what regret matching would do, by a share `mix_lambda` per row.

    pi_mix = mix_lambda pi_actor + (1 - mix_lambda) pi_regret

mix_lambda = 1 is the actor and mix_lambda = 0 regret matching, to the last bit. Letters: N rows, A actions, K bins.
"""

from collections.abc import Callable, Sequence

from torch import Tensor

from lit_rl.run.errors import ConfigError


class Mixer:
    """Makes one policy of two: the type that mixers subclass, by defining `mix`. Without state."""

    def __call__(self, actor: Tensor, regret: Tensor, mix_lambda: Tensor) -> Tensor:
        """The mixed policy [N, A].

        Args:
            actor: [N, A], probabilities, 0 where illegal.
            regret: [N, A], those of regret matching, on the same legal actions.
            mix_lambda: [N], the actor's share, in [0, 1].

        Raises:
            ValueError: the shapes do not fit, or a mix_lambda outside [0, 1].
        """
        if actor.shape != regret.shape or actor.ndim != 2 or mix_lambda.shape != actor.shape[:1]:
            raise ValueError(
                f"actor {tuple(actor.shape)} and regret {tuple(regret.shape)} must both be [N, A], "
                f"mix_lambda {tuple(mix_lambda.shape)} must be [N]"
            )
        outside = ~((mix_lambda >= 0) & (mix_lambda <= 1))
        if bool(outside.any()):
            raise ValueError(f"mix_lambda={mix_lambda[outside][0].item()}: a share of the actor must lie in [0, 1]")
        return self.mix(actor, regret, mix_lambda)

    def mix(self, actor: Tensor, regret: Tensor, mix_lambda: Tensor) -> Tensor:
        """What `__call__` promises, of arguments that it has checked."""
        raise TypeError(f"{type(self).__name__} does not define mix(actor, regret, mix_lambda) -> [N, A]")


class LinearMixer(Mixer):
    """mix_lambda pi_actor + (1 - mix_lambda) pi_regret: as if each decision were left to one of the two by a coin."""

    def mix(self, actor: Tensor, regret: Tensor, mix_lambda: Tensor) -> Tensor:
        share = mix_lambda.unsqueeze(-1)
        return share * actor + (1 - share) * regret


MixerFactory = Callable[[], Mixer]


def check_bins(bins: Sequence[float]) -> tuple[float, ...]:
    """The bins, values of mix_lambda to choose from, as plain numbers [K].

    Raises:
        ConfigError: fewer than two, one outside [0, 1], a duplicate, or not in increasing order.
    """
    values = tuple(float(b) for b in bins)
    if len(values) < 2:
        raise ConfigError(f"bins={list(values)}: needs at least two to choose from; FixedLambda plays a single one")
    for value in values:
        if not 0 <= value <= 1:
            raise ConfigError(f"bins={list(values)}: {value} is no share of the actor; it must lie in [0, 1]")
    for before, after in zip(values, values[1:]):
        if values.count(after) > 1:
            raise ConfigError(f"bins={list(values)}: {after} stands there twice")
        if after < before:
            raise ConfigError(f"bins={list(values)}: must increase; use {sorted(values)}")
    return values


def check_same_bins(**bins: Sequence[float]) -> None:
    """Hold the bins of several owners, given by name, against each other.

    Raises:
        ConfigError: two of them differ; names both.
    """
    (first, expected), *others = ((name, tuple(float(b) for b in values)) for name, values in bins.items())
    for name, values in others:
        if values != expected:
            raise ConfigError(f"bins differ: {first} has {list(expected)}, {name} has {list(values)}; use one set")
