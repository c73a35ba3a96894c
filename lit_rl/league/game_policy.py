"""A policy together with the game that it plays, for Python: saved, loaded, measured, asked, and played against.

    policy = lit_rl.load_policy("runs/version_0/checkpoints/last.ckpt")
    policy.at(["deal K", "deal Q", "pass"])            {'pass': 0.01, 'bet': 0.99}
    lit_rl.evaluate(policy).nash_conv
    lit_rl.play_match(policy, "random").win_rate

Letters: R infostates, A actions.
"""

import copy
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import lightning as L
import numpy as np
from torch import nn

from envs.exact import Evaluation, ExactEvaluator, GameTooLargeError, GameTree, exact_evaluator
from envs.game import Game, Interface, load_interface
from envs.openspiel import OpenSpielEnv, OpenSpielGame
from lit_rl.evaluation import exact_evaluation
from lit_rl.league.history import History
from lit_rl.league.match import Match, games_of, match_players
from lit_rl.league.player_file import game_path_in, load_network, network_of, save_player
from lit_rl.league.players import NetworkPlayer, Player, Spec, load_player, names_a_file
from lit_rl.policy import NetworkFactory
from lit_rl.run.allowed import check_name, trust
from lit_rl.run.errors import ArtefactError, ConfigError


class GamePolicy:
    """A network in eval mode, and the game that it plays: what `load_policy` returns.

    Attributes:
        network: (obs, legal) -> PolicyOutput.
        game: sizes, names and, where they are known, rules.
    """

    def __init__(self, network: nn.Module, game: Interface):
        self.network, self.game = network, game

    def __repr__(self) -> str:
        return f"GamePolicy({type(self.network).__name__}, {self.game.name})"

    def at(self, history: Sequence[str | int] = ()) -> dict[str, float]:
        """How likely the player to move takes each legal action, by name, after `history`.

        Args:
            history: what players and chance did from the beginning, by names or numbers. What the player to move has
                not seen of it changes nothing, but the rules need to know: some card was dealt to the other.

        Raises:
            ConfigError: something in the history cannot happen there, or no player is to move after it.
        """
        past, player = History(self.game), NetworkPlayer(self.network)
        here, probs = np.arange(1), np.zeros((1, self.game.num_actions), np.float32)
        player.begin(here)
        past.play_all(history)
        past.need_decision()
        if player.state_shape:  # a policy with a memory has seen its earlier decisions
            earlier = History(self.game)
            for action in history:
                if earlier.mover >= 0:
                    player.act(earlier, here, probs)
                earlier.play(action)
        player.act(past, here, probs)
        return {name: float(probs[0, action]) for action, name in past.choices().items()}


def policy_of(module: L.LightningModule) -> GamePolicy:
    """A copy, on the CPU, of what an algorithm exports now."""
    return GamePolicy(copy.deepcopy(module.export_policy()).cpu().requires_grad_(False).eval(), module.game)


def save_policy(module: L.LightningModule, path: str | Path) -> None:
    """Write the policy that an algorithm exports as a player file: weights, network and game, no code.

    Leagues, matches and `load_policy` take it. Its network is written down where the algorithm was given a class, or a
    `functools.partial` of one with plain arguments; of a lambda only the weights are, and `load_policy` needs it again.

    Raises:
        ConfigError: the path does not end with .pt, by which player files are known.
    """
    path = Path(path)
    if path.suffix != ".pt":
        raise ConfigError(f"save_policy: {path} is no name of a player file; let it end with .pt")
    game_path = module.hparams.get("game")
    save_player(path, module.export_policy(), module.game, network_of(module), game_path)


def load_policy(
    path: str | Path,
    game: str | Interface | None = None,
    *,
    network: NetworkFactory | None = None,
    allow: Sequence[str] = (),
) -> GamePolicy:
    """The policy in a player file, or the one that the run of a checkpoint exports.

    Args:
        path: runs/version_0/checkpoints/last.ckpt, or what `save_policy` wrote.
        game: the import path of its game; None takes the one that the file names.
        network: builds the network, for files that do not say how.
        allow: packages of yours that the file may name code of.

    Raises:
        ArtefactError: no such file, damaged, not of this game or network, or it names code that is not allowed.
        ValueError: no such game.
    """
    path = Path(path)
    trust(allow)
    if game is None:
        named = game_path_in(path)
        if named is None:
            raise ArtefactError(f"player file {path}: does not say where its game is; give load_policy game=...")
        game = check_name(named, f"player file {path}")
    elif isinstance(game, str):
        trust([game])
    game = load_interface(game) if isinstance(game, str) else game
    make = None if network is None else lambda: network(game)
    return GamePolicy(load_network(path, game, make=make), game)


@lru_cache(maxsize=4)
def _evaluator(game: Game) -> ExactEvaluator:
    try:
        return GameTree(game)
    except GameTooLargeError:
        return exact_evaluator(game)


def evaluate(policy: GamePolicy | L.LightningModule | str | Path) -> Evaluation:
    """NashConv, exploitability and expected returns, exactly, in reward units per game.

    Args:
        policy: a policy, an algorithm (what it exports now), or the file of a policy.

    Raises:
        GameTooLargeError: this would take more than a minute besides the policy's own answers; `play_match` measures
            such games, and so does `envs.exact.exact_evaluator` with more seconds.
        ConfigError: a game without rules here.
    """
    policy = _game_policy(policy)
    if not isinstance(policy.game, Game):
        raise ConfigError(f"{policy.game.name}: its rules are not written here, so it has no tree; use play_match")
    return exact_evaluation(policy.network, _evaluator(policy.game))


def play_match(
    first: GamePolicy | L.LightningModule | str | Path,
    second: GamePolicy | L.LightningModule | Player | Spec,
    games: int = 1000,
    seed: int = 0,
) -> Match:
    """How `first` fares against `second`, in every seat (of teams: every team) equally often.

    Args:
        first: a policy, an algorithm (what it exports now), or the file of a policy.
        second: the same, or whatever `data.opponents` takes: random, an import path, {class_path, init_args}.
        games: rounded up to the same number for each seat.
        seed: of all that is dealt and sampled.

    Raises:
        ConfigError: no such opponent, one of another game, or a game without rules here.
    """
    first = _game_policy(first)
    game = first.game
    if games < 1:
        raise ConfigError(f"games={games}: needs at least 1")
    make_env = games_of(game) if isinstance(game, Game) else None
    if isinstance(game, OpenSpielGame):
        make_env = lambda num_envs, seed: OpenSpielEnv(game, num_envs, seed)  # noqa: E731
    if make_env is None:
        raise ConfigError(f"{game.name}: its rules are not written here; use lit_rl.league.match.match_players")
    if isinstance(second, L.LightningModule):
        second = policy_of(second)
    if isinstance(second, GamePolicy):
        if second.game != game:
            raise ConfigError(f"a match of two games: {game.name} and {second.game.name}")
        other: Player = NetworkPlayer(second.network)
    else:
        other = second if isinstance(second, Player) else load_player(second, game)
    return match_players(make_env, NetworkPlayer(first.network), other, games, seed)


def _game_policy(policy: GamePolicy | L.LightningModule | str | Path) -> GamePolicy:
    if isinstance(policy, GamePolicy):
        return policy
    if isinstance(policy, L.LightningModule):
        return policy_of(policy)
    if isinstance(policy, str | Path) and names_a_file(policy):
        return load_policy(policy)
    raise ConfigError(f"{policy!r}: is no policy; give one, an algorithm, or a file that ends with .ckpt or .pt")
