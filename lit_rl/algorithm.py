"""The one page between algorithm, data and watchers: what is asked of an algorithm, and what it may ask for.

An algorithm is a LightningModule in one file. The datamodule plays its `policy` and hands it rollouts; callbacks,
leagues, checkpoints and evaluation use what stands here and nothing else. `tests/reinforce.py` is the guide: sixty
lines that are trained, resumed, validated, exported, seated in a league and replayed.
"""

from collections.abc import Iterator
from typing import Any, Protocol

import lightning as L
import torch
from torch import Tensor, nn

from envs.game import Interface
from lit_rl.rollout import Collecting, Rollout
from lit_rl.run.errors import ConfigError


class Meter:
    """The metrics of an iteration's minibatches, logged once per iteration: `self.log` costs 0.35 ms a metric.

    An algorithm holds one as `self.meter`, and checkpoints keep it.

    Attributes:
        terms: the loss terms of the last minibatch; `callbacks.FiniteGuard` names the one that is not finite.
        minibatches: the metrics of this iteration so far, one dictionary of scalar tensors each.
    """

    def __init__(self) -> None:
        self.terms: dict[str, Tensor] = {}
        self.minibatches: list[dict[str, Tensor]] = []

    def add(self, terms: dict[str, Tensor], **more: Tensor) -> None:
        """The loss terms of one minibatch, and whatever else is measured of it."""
        self.terms = terms
        self.minibatches.append({name: value.detach() for name, value in (terms | more).items()})

    def log(self, module: L.LightningModule, **more: float | Tensor) -> None:
        """An algorithm's `on_train_epoch_end`: log train/<name>, each metric's mean over those minibatches that have
        it, and `decisions`; then begin anew."""
        if self.minibatches and is_log_iteration(module.trainer):
            means = minibatch_means(self.minibatches) | {"decisions": module.decisions.float()} | more
            module.log_dict(means, sync_dist=module.trainer.world_size > 1)
        self.minibatches.clear()


def is_log_iteration(trainer: L.Trainer) -> bool:
    """True every `trainer.log_every_n_steps` iterations and at the last of max_epochs; asked at an iteration's end."""
    iteration = trainer.current_epoch
    return iteration % max(trainer.log_every_n_steps, 1) == 0 or iteration + 1 == trainer.max_epochs


def minibatch_means(metrics: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """train/<name>: each metric's mean over those minibatches of an iteration that have it."""
    names = dict.fromkeys(name for each in metrics for name in each)
    return {f"train/{name}": torch.stack([m[name] for m in metrics if name in m]).mean() for name in names}


class Algorithm(Protocol):
    """A LightningModule that learns from rollouts. Required, besides Lightning's training_step and
    configure_optimizers:"""

    game: Interface
    policy: Any  # (obs, legal, state=None) -> PolicyOutput, with parameters(); it plays
    decisions: Tensor  # scalar int64 buffer: decisions sampled so far over all ranks; the datamodule adds to it

    @property
    def batches_per_iteration(self) -> int:
        """So many batches `make_batches` yields."""

    def make_batches(self, rollout: Rollout, generator: torch.Generator) -> Iterator:
        """What `training_step` gets, in order; the same again for the same rollout and generator, also after a resume
        in mid-iteration, when the weights are newer: what depends on weights is worked out once and kept."""

    def export_policy(self) -> nn.Module:
        """What a user would ship, right at any time: a submodule of the algorithm."""

    # Taken over as they are: `on_save_checkpoint, on_load_checkpoint = save_state, load_state` (`lit_rl.run.resume`).
    def on_save_checkpoint(self, checkpoint: dict) -> None: ...

    def on_load_checkpoint(self, checkpoint: dict) -> None: ...

    # Optional:
    # collecting: Collecting             how it wants its rollouts
    # meter: Meter                       loss terms of minibatches, logged once per iteration, kept by checkpoints
    # kept: dict[str, Tensor]            worked out once per rollout; checkpoints keep it, each new rollout clears it
    # notes(env, rows [n])               {name: [n, ...]} of the learner's decisions in these rows, for rollout.extras
    # prepare(iteration, seed)           called on every rank before each rollout; the seed is the run's, on all ranks
    # fixed_during_fit: tuple[str, ...]  numbers that no schedule may move
    # validation_step = test_step = evaluation_step; predict_step = table_step       (`lit_rl.evaluation`)
    # save_plain_hyperparameters(self)   in its constructor: exported policies say how their network is built


REQUIRED = {
    "game": "the game or its interface, as load_interface(game) returns it",
    "policy": "(obs, legal, state=None) -> PolicyOutput; what plays",
    "decisions": "register_buffer('decisions', torch.zeros((), dtype=torch.int64))",
    "batches_per_iteration": "how many batches make_batches yields",
    "make_batches": "(rollout, generator) -> Iterator of what training_step gets",
    "export_policy": "() -> the submodule that a user would ship",
    "on_save_checkpoint": "on_save_checkpoint = lit_rl.run.resume.save_state, or a method that calls it",
    "on_load_checkpoint": "on_load_checkpoint = lit_rl.run.resume.load_state, or a method that calls it",
}


def check_algorithm(module: L.LightningModule) -> None:
    """Hold a module against this page, before anything is compiled or collected.

    Raises:
        ConfigError: names the first thing that is missing or not as it should be, and what it should be.
    """
    name = type(module).__name__

    def refuse(member: str, why: str) -> None:
        raise ConfigError(f"model={name}: {member} {why}; {REQUIRED[member]} (lit_rl/algorithm.py)")

    for member in REQUIRED:
        if member.startswith("on_"):
            if getattr(type(module), member) is getattr(L.LightningModule, member):
                refuse(member, "is missing")
        elif not hasattr(module, member):
            refuse(member, "is missing")
    if not isinstance(module.game, Interface):
        refuse("game", f"is a {type(module.game).__name__}")
    decisions = dict(module.named_buffers()).get("decisions")
    if decisions is None or decisions.dtype != torch.int64 or decisions.shape != ():
        refuse("decisions", "is no scalar int64 buffer")
    if not isinstance(module.batches_per_iteration, int) or module.batches_per_iteration < 1:
        refuse("batches_per_iteration", f"is {module.batches_per_iteration!r}, not a positive int")
    for member in ("policy", "make_batches", "export_policy"):
        if not callable(getattr(module, member)):
            refuse(member, "cannot be called")
    if next(iter(module.policy.parameters()), None) is None:
        refuse("policy", "has no parameters")
    exported = module.export_policy()
    if not any(part is exported for part in module.modules()):
        refuse("export_policy", f"returns a {type(exported).__name__} that is no submodule, so no checkpoint holds it")
    for member, kind in (("collecting", Collecting), ("meter", Meter)):
        if not isinstance(getattr(module, member, kind()), kind):
            raise ConfigError(f"model={name}: {member} is a {type(getattr(module, member)).__name__}, not {kind}")


def check_start(trainer: L.Trainer) -> list[str]:
    """What would end a run later is told before anything is compiled: by callbacks, and by building the optimizers.

    A callback that has something to tell has a method `check_start(trainer, pl_module)`.

    Returns:
        The metrics that learning rates go by.

    Raises:
        ConfigError: what they say.
    """
    module = trainer.lightning_module
    for callback in trainer.callbacks:
        if hasattr(callback, "check_start"):
            callback.check_start(trainer, module)
    try:
        built = module.configure_optimizers()  # once more when the training starts
    except ConfigError:
        raise
    except (ValueError, TypeError, RuntimeError) as error:
        raise ConfigError(f"model={type(module).__name__}: configure_optimizers: {error}") from error
    found = []
    for part in built if isinstance(built, list | tuple) else [built]:
        scheduler = part.get("lr_scheduler") if isinstance(part, dict) else None
        if isinstance(scheduler, dict) and scheduler.get("monitor"):
            found.append(scheduler["monitor"])
    return found


def check_whole_iterations(module: L.LightningModule) -> None:
    """For algorithms that do something after an iteration's last minibatch; called in `on_train_start`.

    Raises:
        ConfigError: trainer.limit_train_batches leaves it out.
    """
    batches, needed = module.trainer.num_training_batches, module.batches_per_iteration
    if batches < needed:
        raise ConfigError(
            f"trainer.limit_train_batches: an iteration of {type(module).__name__} has {needed} minibatches, not "
            f"{batches}, and ends with its last; lower the number of minibatches in model instead"
        )


def before_rollout(module: L.LightningModule, iteration: int, seed: int) -> None:
    """What is kept of the rollout before is forgotten, and the algorithm may get ready for the next one."""
    after_iteration(module)
    if hasattr(module, "prepare"):
        module.prepare(iteration, seed)


def after_iteration(module: L.LightningModule) -> None:
    """Nothing more is learned from the rollout: what the algorithm kept of it need not be saved."""
    getattr(module, "kept", {}).clear()


def collecting_of(module: L.LightningModule) -> Collecting:
    """How the algorithm wants its rollouts, as of now: schedules may have changed it."""
    return getattr(module, "collecting", None) or Collecting()


def rollout_of(trainer: L.Trainer) -> Rollout | None:
    """The rollout of the running iteration, for callbacks; None before the first."""
    return getattr(trainer.train_dataloader, "rollout", None)


def nobody_looks_at_the_rollout(trainer: L.Trainer) -> None:
    """The iteration is over, for callbacks that save there: of the rollout only what goes on is saved."""
    if hasattr(trainer.train_dataloader, "finish"):  # a loader of ours
        trainer.train_dataloader.finish()


def games_are_recorded(trainer: L.Trainer) -> bool:
    """A callback that replays games says `records_games = True`; the env has to know from the first game on."""
    return any(getattr(callback, "records_games", False) for callback in trainer.callbacks)
