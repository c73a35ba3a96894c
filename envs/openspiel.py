"""Any sequential game of OpenSpiel as an env, by its name: `openspiel:liars_dice(numdice=1)`. Slow and complete.

The rules are OpenSpiel's own C++ (or Python) states, stepped one after the other; nothing is compiled here, and what
needs our rules (replays, exact evaluation, heuristics that read states) is not to be had. Learning, leagues and matches
are.

    litrl fit --config configs/kuhn_ppo.yaml --data.game openspiel:kuhn_poker

What a player sees is the game's information state tensor; where it has none the observation tensor, which may forget;
where it has neither 64 numbers of ±1, a hash of what it says in words, by which infostates are known but not alike.

Letters: B envs, A actions, P players, D obs shape.
"""

import difflib
import hashlib
import importlib.metadata
import math
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from envs.bits import pack
from envs.env import Env, IllegalActionError, NoDecisionError, SavedGamesError
from envs.extras import need_extra
from envs.game import Interface
from envs.rng import make_streams, uniform
from envs.sampling import draw

SCHEME = "openspiel:"
CHANCE_STREAM, ACTION_STREAM = 1, 2  # as of `envs.vector_env`
MAX_RESTARTS = 1000  # games in a row that end without a decision
HASH_BITS = 64
END = b"."  # of saved histories, which may be none: empty bytes would not load with weights_only
OBSERVERS = ("information_state_tensor", "observation_tensor", "information_state_string", "observation_string")


@dataclass(frozen=True, kw_only=True)
class OpenSpielGame(Interface):
    """Sizes of a game of OpenSpiel, whose rules `rules(game.path)` returns.

    Attributes:
        path: what OpenSpiel loads it by.
        observer: the method of a state that tells what a player sees.
    """

    path: str
    observer: str


@cache
def rules(path: str) -> Any:
    """OpenSpiel's game, loaded once.

    Raises:
        ModuleNotFoundError: OpenSpiel is not installed. ValueError: it has no such game, or refuses its arguments.
    """
    pyspiel = need_extra("pyspiel", "openspiel")
    name, known = path.split("(")[0], pyspiel.registered_names()
    if name not in known:  # OpenSpiel itself would print all that it knows
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise ValueError(f"game={SCHEME + path!r}: OpenSpiel has no such game{hint}")
    try:
        return pyspiel.load_game(path)
    except pyspiel.SpielError as error:
        said = (str(error).splitlines() or [""])[0][:200]
        raise ValueError(f"game={SCHEME + path!r}: {said}") from None


def interface(path: str) -> OpenSpielGame:
    """Sizes of the game that OpenSpiel calls `path`, arguments included.

    Raises:
        ModuleNotFoundError, ValueError: as of `rules`; ValueError also for a game that cannot be held as an env.
    """
    found = rules(path)
    kind, named = found.get_type(), f"game={SCHEME + path!r}"
    if kind.dynamics.name == "SIMULTANEOUS":
        raise ValueError(
            f"{named}: its players move at the same time; "
            f"use '{SCHEME}turn_based_simultaneous_game(game={path if '(' in path else path + '()'})'"
        )
    if kind.dynamics.name != "SEQUENTIAL":
        raise ValueError(f"{named}: its dynamics are {kind.dynamics.name}; only sequential games can be held")
    if kind.chance_mode.name == "SAMPLED_STOCHASTIC":
        raise ValueError(
            f"{named}: it draws chance by itself and hides how, so that no run of it could be resumed; "
            "only games that tell their chance outcomes can be held"
        )
    if found.num_players() < 2:
        raise ValueError(f"{named}: it has {found.num_players()} player; games of two or more can be held")
    largest = max(abs(found.min_utility()), abs(found.max_utility()))
    if not 0 < largest < math.inf:
        raise ValueError(f"{named}: its utilities run from {found.min_utility()} to {found.max_utility()}, no scale")
    observer = next((name for name in OBSERVERS if getattr(kind, f"provides_{name}")), None)
    if observer is None:
        raise ValueError(f"{named}: it does not tell what a player sees, neither as numbers nor as text")
    tells_all = observer == "information_state_tensor" and not kind.short_name.endswith("_ir")  # imperfect recall
    width = HASH_BITS if observer.endswith("string") else math.prod(getattr(found, f"{observer}_shape")())
    return OpenSpielGame(
        name=SCHEME + str(found).removesuffix("()"),
        version=importlib.metadata.version("open_spiel"),
        num_players=found.num_players(),
        num_actions=found.num_distinct_actions(),
        obs_shape=(width,),
        obs_dtype=np.dtype(np.float32),
        max_return=float(largest),
        zero_sum=kind.utility.name == "ZERO_SUM",
        perfect_recall=tells_all,
        perfect_information=kind.information.name == "PERFECT_INFORMATION",
        path=path,
        observer=observer,
    )


def observe(game: OpenSpielGame, state: Any, player: int) -> np.ndarray:
    """[*D] float32: what `player` sees of a state of OpenSpiel."""
    told = getattr(state, game.observer)(player)
    if game.observer.endswith("string"):
        code = hashlib.blake2b(f"{player} {told}".encode(), digest_size=HASH_BITS // 8).digest()
        return 2 * np.unpackbits(np.frombuffer(code, np.uint8)).astype(np.float32) - 1
    return np.array(told, np.float32)


class OpenSpielEnv(Env):
    """B games of OpenSpiel side by side, in a loop; the arrays are told in `envs.env.Env`.

    Args:
        game: of `interface`.
        num_envs: B.
        seed: of all randomness in here.
        truncate_after: cut a game off after so many decisions; null plays all to the end.
        observe_all: keep `history`, for critics that see the whole game.
    """

    record = False  # no replays: the games cannot be told by our rules

    def __init__(
        self,
        game: OpenSpielGame,
        num_envs: int,
        seed: int,
        truncate_after: int | None = None,
        observe_all: bool = False,
    ):
        if num_envs < 1:
            raise ValueError(f"num_envs={num_envs}: needs at least one environment")
        b, p, d = num_envs, game.num_players, game.obs_shape
        self.game, self.num_envs, self.truncate_after = game, b, truncate_after
        self._rules, self._observes_all = rules(game.path), observe_all
        self.player, self.legal = np.zeros(b, np.int8), np.zeros((b, game.num_actions), np.bool_)
        self.obs = np.zeros((b, *d), np.float32)
        self.rewards, self.bonus = np.zeros((b, p), np.float32), np.zeros((b, p), np.float32)
        self.done, self.truncated = np.zeros(b, np.bool_), np.zeros(b, np.bool_)
        self.final_obs = np.zeros((b, 0 if truncate_after is None else p, *d), np.float32)
        self.final_out, self.final_player = np.zeros((b, p), np.bool_), np.zeros(b, np.int8)
        self.history = np.zeros((b, p if observe_all else 0, *d), np.float32)
        self.num_decisions, self.game_streams = np.zeros(b, np.int32), np.zeros(b, np.uint64)
        self.chance_streams = make_streams(b, seed, CHANCE_STREAM)
        self.action_streams = make_streams(b, seed, ACTION_STREAM)
        self._all = np.ones(b, np.bool_)
        self._states = [self._rules.new_initial_state() for _ in range(b)]
        self._stood = np.zeros((b, p))  # returns of the running game so far
        for i in range(b):
            self._settle(i)
            self._show(i)
        self.done[:] = False

    def step(self, action: np.ndarray) -> None:
        """Play `action` [B] of any integer dtype in every row.

        Raises:
            TypeError, ValueError: wrong dtype or shape. IllegalActionError: an illegal action. Nothing has changed.
        """
        action = np.asarray(action)
        if action.dtype.kind not in "iu":
            raise TypeError(f"actions must be integers, got dtype {action.dtype}")
        if action.shape != (self.num_envs,):
            raise ValueError(f"actions must have shape ({self.num_envs},), one per row, got {action.shape}")
        for i, a in enumerate(action.tolist()):
            if not (0 <= a < self.game.num_actions and self.legal[i, a]):
                raise IllegalActionError(
                    f"{self.game.name}, env row {i}: action {a} is illegal for player {self.player[i]}, "
                    f"legal actions {np.flatnonzero(self.legal[i]).tolist()[:50]}"
                )
        self.rewards[:], self.done[:], self.truncated[:] = 0.0, False, False
        for i, a in enumerate(action.tolist()):
            self._states[i].apply_action(a)
            self.num_decisions[i] += 1
            self._settle(i)
            cut = self.truncate_after is not None and self.num_decisions[i] >= self.truncate_after
            if cut and not self.done[i]:
                self.final_obs[i] = self._seen_by_all(i)
                self.truncated[i] = True
                self._restart(i)
                self._settle(i)
            self._show(i)

    def sample(self, probs: np.ndarray) -> np.ndarray:
        action, _ = draw(self, probs, pack(self.legal), is_probs=self._all)
        return action

    def observe_all(self) -> np.ndarray:
        """[B, P, *D]"""
        return self.history if self._observes_all else np.stack([self._seen_by_all(i) for i in range(self.num_envs)])

    def out(self) -> np.ndarray:
        """[B, P] all False: OpenSpiel does not say."""
        return np.zeros((self.num_envs, self.game.num_players), np.bool_)

    def state_dict(self) -> dict[str, bytes | str]:
        """A running game is all that players and chance did in it."""
        told = [state.history() for state in self._states]
        return {
            "game": self._game_name,
            "chance_streams": self.chance_streams.tobytes(),
            "action_streams": self.action_streams.tobytes(),
            "lengths": np.array([len(each) for each in told], np.int32).tobytes(),
            "histories": np.array([a for each in told for a in each], np.int32).tobytes() + END,
        }

    def load_state_dict(self, state: dict[str, bytes | str]) -> None:
        """Go on where `state` was taken; the running games are played again, every action held against the legal ones.

        Raises:
            ValueError: it is of another game, version or number of rows. Nothing has changed.
            SavedGamesError: it does not follow from the rules; likewise.
        """
        names = ("chance_streams", "action_streams", "lengths", "histories")
        if not isinstance(state, dict) or not isinstance(state.get("game"), str):
            raise SavedGamesError("saved env state: does not say which game it is of")
        if state["game"] != self._game_name:
            raise ValueError(f"saved env state is of {state['game'][:99]}, not of {self._game_name}")
        for name in names:
            if not isinstance(state.get(name), bytes):
                raise SavedGamesError(f"saved env state: {name} is {type(state.get(name)).__name__}, needs bytes")
        found = {"histories": state["histories"].removesuffix(END)}
        for name, dtype in (("chance_streams", np.uint64), ("action_streams", np.uint64), ("lengths", np.int32)):
            if len(state[name]) != self.num_envs * np.dtype(dtype).itemsize:
                raise ValueError(
                    f"saved env state does not fit: {name} has {len(state[name])} bytes, num_envs={self.num_envs}"
                )
            found[name] = np.frombuffer(state[name], dtype)
        lengths = found["lengths"].astype(np.int64)
        if (lengths < 0).any() or lengths.sum() * 4 != len(found["histories"]):
            raise SavedGamesError("saved env state: histories are not as long as lengths says")
        moves = np.split(np.frombuffer(found["histories"], np.int32), np.cumsum(lengths)[:-1])
        played = [self._played(i, each.tolist()) for i, each in enumerate(moves)]
        self.chance_streams[:], self.action_streams[:] = found["chance_streams"], found["action_streams"]
        for i, (here, decisions) in enumerate(played):
            self._states[i], self.num_decisions[i], self._stood[i] = here, decisions, here.returns()
            self._show(i)

    def _played(self, i: int, moves: list[int]) -> tuple[Any, int]:
        """The state that the moves lead to, and how many of them were players'."""
        state, decisions, where = self._rules.new_initial_state(), 0, f"saved env state: the game in env row {i}"
        for move in moves:
            if state.is_terminal():
                raise SavedGamesError(f"{where} is over")
            possible = [a for a, p in state.chance_outcomes() if p > 0] if state.is_chance_node() else None
            if move not in (state.legal_actions() if possible is None else possible):
                raise SavedGamesError(f"{where} has the illegal action {move}")
            decisions += possible is None
            state.apply_action(move)
        if state.is_terminal() or state.is_chance_node():
            raise SavedGamesError(f"{where} does not stand at a decision")
        if self.truncate_after is not None and decisions >= self.truncate_after:
            raise ValueError(f"truncate_after={self.truncate_after}: a saved game has {decisions} decisions already")
        return state, decisions

    @property
    def _game_name(self) -> str:
        return f"{self.game.name} {self.game.version}"

    def _restart(self, i: int) -> None:
        self._states[i], self._stood[i], self.num_decisions[i] = self._rules.new_initial_state(), 0.0, 0
        self.done[i] = True

    def _settle(self, i: int) -> None:
        """Take in what was earned, let chance play and restart a finished game until a player is to move."""
        restarts = 0
        while True:
            state = self._states[i]
            if state.is_chance_node():
                outcomes, probs = zip(*state.chance_outcomes())
                bounds = np.cumsum(probs)
                drawn = int(np.searchsorted(bounds, uniform(self.chance_streams, i) * bounds[-1], side="right"))
                state.apply_action(outcomes[min(drawn, len(outcomes) - 1)])
                continue
            stands = np.array(state.returns())
            self.rewards[i] += stands - self._stood[i]
            self._stood[i] = stands
            if not state.is_terminal():
                return
            self._restart(i)
            restarts += 1
            if restarts > MAX_RESTARTS:
                raise NoDecisionError(f"{self.game.name}, env row {i}: {restarts} games ended without a decision")

    def _show(self, i: int) -> None:
        state = self._states[i]
        self.player[i], self.legal[i] = state.current_player(), False
        self.legal[i, state.legal_actions()] = True
        self.obs[i] = observe(self.game, state, int(self.player[i]))
        if self._observes_all:
            self.history[i] = self._seen_by_all(i)

    def _seen_by_all(self, i: int) -> np.ndarray:
        return np.stack([observe(self.game, self._states[i], p) for p in range(self.game.num_players)])
