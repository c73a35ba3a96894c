"""Our exported policies in OpenSpiel's world: as its policy, for its exact evaluation, and as its bot.

    policy = OpenSpielPolicy(lit_rl.load_policy("runs/version_0/checkpoints/last.ckpt"))
    exploitability.nash_conv(policy.game, policy)
    pyspiel.evaluate_bots(policy.game.new_initial_state(), [PolicyBot(policy, 0), some_bot], 0)

Letters: R infostates, A actions.
"""

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jsonargparse.typing import PositiveInt
from torch import nn

from envs.exact import GameTooLargeError, GameTree
from envs.extras import need_extra
from envs.game import Game, Interface
from envs.openspiel import OpenSpielGame, observe, rules
from lit_rl.evaluation import Evaluation, policy_table
from lit_rl.league.game_policy import GamePolicy
from lit_rl.league.history import History
from lit_rl.league.match import MakeEnv
from lit_rl.run.errors import ConfigError, check_ranges

need_extra("pyspiel", "openspiel")
import pyspiel  # noqa: E402
from open_spiel.python import policy as openspiel_policy  # noqa: E402
from open_spiel.python.algorithms import expected_game_score, exploitability  # noqa: E402

LARGEST_TABLE = 100_000  # histories of a game whose policy is worked out at once


class _Position:
    """One of OpenSpiel's states, as the network is shown it: obs [1, *D] and legal [1, A]."""

    def __init__(self, game: OpenSpielGame, state: Any):
        self.mover = state.current_player()
        self.obs = observe(game, state, self.mover)[None]
        self.legal = np.zeros((1, game.num_actions), np.bool_)
        self.legal[0, state.legal_actions()] = True


class OpenSpielPolicy(openspiel_policy.Policy):
    """A policy of ours for whoever asks for one of OpenSpiel's.

    Our Kuhn poker, Leduc poker and tic-tac-toe have OpenSpiel's ids, so a history of its is one of ours; a policy that
    was trained on `openspiel:<name>` sees OpenSpiel's own states. A network with a memory is shown the mover's earlier
    decisions first.

    Args:
        policy: of `lit_rl.load_policy` or `lit_rl.league.game_policy.policy_of`.
        game: OpenSpiel's game, or its name; None: that of our game's name.

    Raises:
        ConfigError: another game than the policy's.
    """

    def __init__(self, policy: GamePolicy, game: Any = None):
        ours, known = policy.game, isinstance(policy.game, OpenSpielGame)
        if not known and not isinstance(ours, Game):
            raise ConfigError(f"{ours.name}: its rules are not written here, so no history of it can be told")
        try:
            theirs = rules(ours.path if known else ours.name) if game is None else game
            theirs = rules(theirs) if isinstance(theirs, str) else theirs
        except ValueError as error:
            raise ConfigError(f"{ours.name}: is not one of OpenSpiel's games ({error})") from None
        name = str(theirs).removesuffix("()")
        mine = (ours.name.removeprefix("openspiel:"), ours.num_players, ours.num_actions)
        if mine != (name, theirs.num_players(), theirs.num_distinct_actions()):
            raise ConfigError(
                f"the policy plays {mine[0]} ({mine[1]} players, {mine[2]} actions), OpenSpiel's game is {name} "
                f"({theirs.num_players()} players, {theirs.num_distinct_actions()} actions)"
            )
        if theirs.get_type().dynamics != pyspiel.GameType.Dynamics.SEQUENTIAL:
            raise ConfigError(f"{name}: OpenSpiel lets its players move at the same time, ours move one by one")
        super().__init__(theirs, list(range(theirs.num_players())))
        self.policy, self.memory = policy, tuple(getattr(policy.network, "state_shape", ()))
        self._table: dict[bytes, np.ndarray] = {}
        if isinstance(ours, Game) and not self.memory:
            self._fill_table(ours)

    def _fill_table(self, game: Game) -> None:
        """Ask once for all infostates of a small game: exact evaluation asks for each many times."""
        try:
            tree = GameTree(game, LARGEST_TABLE)
        except GameTooLargeError:
            return
        probs = policy_table(self.policy.network, tree)
        self._table = {_key(obs, legal): row for obs, legal, row in zip(tree.obs, tree.legal, probs)}

    def action_probabilities(self, state: Any, player_id: int | None = None) -> dict[int, float]:
        """{action: probability} of all legal actions of the player to move in `state`.

        Raises:
            ConfigError: another player than the one to move is asked for, nobody is to move, or the rules disagree.
        """
        mover = state.current_player()
        if mover < 0 or player_id not in (None, mover):
            raise ConfigError(f"player {player_id} does not decide in this state of {self.game}, but {mover}")
        table = self._position(state)
        legal = state.legal_actions()
        if np.flatnonzero(table.legal[0]).tolist() != legal:
            raise ConfigError(
                f"{self.game}: after {state.history()} OpenSpiel's player {mover} may do {legal}, ours "
                f"{np.flatnonzero(table.legal[0]).tolist()}; the rules are not the same"
            )
        probs = self._table.get(_key(table.obs[0], table.legal[0]))
        if probs is None:
            probs = self._ask(state, table)
            if not self.memory:
                self._table[_key(table.obs[0], table.legal[0])] = probs
        return {action: float(probs[action]) for action in legal}

    def _position(self, state: Any) -> Any:
        if isinstance(self.policy.game, OpenSpielGame):
            return _Position(self.policy.game, state)
        past = History(self.policy.game)
        past.play_all(state.history())
        return past

    @torch.no_grad()
    def _ask(self, state: Any, table: Any) -> np.ndarray:
        """[A] float64 of the network itself."""
        memory = None
        if self.memory:
            memory, here = torch.zeros(1, *self.memory), self.game.new_initial_state()
            for action in state.history():
                if here.current_player() == state.current_player():
                    memory = self._forward(self._position(here), memory).state
                here.apply_action(action)
        return torch.softmax(self._forward(table, memory).logits[0].double(), 0).numpy()

    def _forward(self, table: Any, memory: torch.Tensor | None) -> Any:
        seen = torch.from_numpy(table.obs), torch.from_numpy(table.legal)
        return self.policy.network(*seen) if memory is None else self.policy.network(*seen, memory)


class PolicyBot(pyspiel.Bot):
    """A bot that plays a policy of OpenSpiel's kind in one seat, and draws by a seed.

    (OpenSpiel's own declares a state without actions where action 0 is the only legal one.)
    """

    def __init__(self, policy: openspiel_policy.Policy, player: int, seed: int = 0):
        super().__init__()
        if not 0 <= player < policy.game.num_players():
            raise ConfigError(f"player={player}: {policy.game} has players 0 to {policy.game.num_players() - 1}")
        self.policy, self.player, self._rng = policy, player, np.random.default_rng(seed)

    def player_id(self) -> int:
        return self.player

    def provides_policy(self) -> bool:
        return True

    def get_policy(self, state: Any) -> list[tuple[int, float]]:
        return list(self.policy.action_probabilities(state, self.player).items())

    def step_with_policy(self, state: Any) -> tuple[list[tuple[int, float]], int]:
        """What it might do here, and what it does."""
        choices = self.get_policy(state)
        probs = np.array([p for _, p in choices])
        return choices, choices[int(self._rng.choice(len(choices), p=probs / probs.sum()))][0]

    def step(self, state: Any) -> int:
        return self.step_with_policy(state)[1]

    def restart(self) -> None:
        """It remembers nothing: a state tells its whole history."""

    def restart_at(self, state: Any) -> None:
        """Likewise."""


class ExactByOpenSpiel(Evaluation):
    """NashConv of a game of OpenSpiel's, worked out by OpenSpiel: `eval/nash_conv`, `eval/exploitability` and each
    player's expected return, as `lit_rl.evaluation.Exact` logs them; for `--data.game openspiel:<name>`.

    Slow: a state at a time, in Python.

    Args:
        max_nodes: refuse games with more histories than this.
    """

    headline, label, short = "eval/nash_conv", "NashConv (reward units per game)", "NashConv"
    logarithmic = True

    def __init__(self, max_nodes: PositiveInt = 20_000):
        check_ranges(ExactByOpenSpiel.__init__, locals())
        self.max_nodes, self.game = int(max_nodes), None

    def open(self, game: Interface, seed: int, make_env: MakeEnv) -> None:
        if not isinstance(game, OpenSpielGame):
            raise ConfigError(f"data.evaluation: {game.name} is no game of OpenSpiel's; use lit_rl.evaluation.Exact")
        if game.observer != "information_state_tensor" or not game.perfect_recall:
            raise ConfigError(
                f"data.evaluation: what is seen of {game.name} may be the same in several of OpenSpiel's infostates; "
                "measure by lit_rl.evaluation.Matches"
            )
        self.game, waiting, count = game, [rules(game.path).new_initial_state()], 0
        while waiting:
            state = waiting.pop()
            count += 1
            if count > self.max_nodes:
                raise ConfigError(
                    f"data.evaluation: {game.name} has more than {self.max_nodes} histories; raise max_nodes of "
                    "ExactByOpenSpiel, or measure by lit_rl.evaluation.Matches"
                )
            waiting.extend(state.child(action) for action in state.legal_actions())

    def metrics(self, game: Interface) -> set[str]:
        return {self.headline, "eval/exploitability"} | {f"eval/return_player_{p}" for p in range(game.num_players)}

    def __call__(self, policy: nn.Module) -> dict[str, float]:
        network = copy.deepcopy(policy).cpu()
        with torch.autocast("cpu", enabled=False):
            asked = OpenSpielPolicy(GamePolicy(network.eval(), self.game))
            found = exploitability.nash_conv(asked.game, asked, return_only_nash_conv=False)
            root, players = asked.game.new_initial_state(), self.game.num_players
            returns = expected_game_score.policy_value(root, [asked] * players)
        metrics = {"eval/nash_conv": float(found.nash_conv), "eval/exploitability": float(found.nash_conv) / players}
        return metrics | {f"eval/return_player_{p}": float(x) for p, x in enumerate(returns)}

    def summary(self, metrics: Mapping[str, float]) -> dict:
        return {"nash_conv": metrics["eval/nash_conv"], "exploitability": metrics["eval/exploitability"]}


def _key(obs: np.ndarray, legal: np.ndarray) -> bytes:
    return obs.tobytes() + legal.tobytes()
