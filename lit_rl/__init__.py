"""Deep reinforcement learning in games with hidden information, on PyTorch Lightning.

What stands here is the public face; whatever else there is has its place in a module, of `lit_rl`, `envs`,
`datamodules` or `callbacks`. Nothing is imported before it is asked for.

    import lit_rl

    model = lit_rl.PPO("envs.kuhn_poker")
    data = lit_rl.SelfPlayDataModule("envs.kuhn_poker", num_envs=64)
    trainer = lit_rl.Trainer(max_epochs=100)
    trainer.fit(model, data)                        # a run folder: checkpoints, metrics, picture
    print(lit_rl.evaluate(model))                   # exact NashConv
    lit_rl.save_policy(model, "kuhn.pt")
    policy = lit_rl.load_policy("kuhn.pt")
    print(policy.at(["deal K", "deal Q", "pass"]))  # {'pass': ..., 'bet': ...}
    print(lit_rl.play_match(policy, "random"))      # win rate and return, with intervals
"""

import importlib
from typing import TYPE_CHECKING, Any

from lit_rl.run.own_code import claim_packages

__version__ = "0.1.0"

claim_packages()

if TYPE_CHECKING:
    # The one place beside the command line that looks to the right in the order of imports: it gives names alone, and
    # what they stand for is imported when somebody asks, so that nothing here is imported by way of itself.
    from callbacks.scalar_schedule import ScalarSchedule as ScalarSchedule
    from callbacks.trainer import Trainer as Trainer
    from datamodules.league_play import LeagueDataModule as LeagueDataModule
    from datamodules.self_play import SelfPlayDataModule as SelfPlayDataModule
    from envs.game import load_game as load_game
    from lit_rl import schedules as schedules
    from lit_rl.armac.armac import ARMAC as ARMAC
    from lit_rl.evaluation import Matches as Matches
    from lit_rl.league.game_policy import GamePolicy as GamePolicy
    from lit_rl.league.game_policy import evaluate as evaluate
    from lit_rl.league.game_policy import load_policy as load_policy
    from lit_rl.league.game_policy import play_match as play_match
    from lit_rl.league.game_policy import save_policy as save_policy
    from lit_rl.networks import MLP as MLP
    from lit_rl.policy import ActorCritic as ActorCritic
    from lit_rl.ppo import PPO as PPO
    from lit_rl.rnad import RNaD as RNaD

_HOME = {
    "ARMAC": "lit_rl.armac.armac",
    "MLP": "lit_rl.networks",
    "PPO": "lit_rl.ppo",
    "ActorCritic": "lit_rl.policy",
    "GamePolicy": "lit_rl.league.game_policy",
    "LeagueDataModule": "datamodules.league_play",
    "Matches": "lit_rl.evaluation",
    "RNaD": "lit_rl.rnad",
    "ScalarSchedule": "callbacks.scalar_schedule",
    "SelfPlayDataModule": "datamodules.self_play",
    "Trainer": "callbacks.trainer",
    "evaluate": "lit_rl.league.game_policy",
    "load_game": "envs.game",
    "load_policy": "lit_rl.league.game_policy",
    "play_match": "lit_rl.league.game_policy",
    "save_policy": "lit_rl.league.game_policy",
    "schedules": "lit_rl",
}

__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = importlib.import_module(f"lit_rl.{name}" if _HOME[name] == "lit_rl" else _HOME[name])
    found = globals()[name] = home if _HOME[name] == "lit_rl" else getattr(home, name)
    return found


def __dir__() -> list[str]:
    return __all__
