"""VectorEnv: one generic driver compiled around any `Game`; owns every buffer and all randomness.

One `step` takes one action per row, lets chance play, pays the rewards, restarts the games that ended and writes what
the next player to move may see. Rows never touch each other, so the bytes are the same for any number of threads.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import NamedTuple

import numpy as np
from numba import njit

from envs.game import TERMINAL, Game
from envs.rng import make_streams, uniform

CHANCE_STREAM, ACTION_STREAM = 1, 2
SAVED = (
    "state", "player", "legal", "obs", "history", "num_decisions", "chance_streams", "game_streams", "action_streams",
)  # fmt: skip

# Kernels that only read and write arrays they are given: without the GIL, so that plain threads run them side by side,
# and without numba's reference counting, which would cost half of their speed (measured on Leduc). Not prange: its
# OpenMP threads and torch's are the same pool, and torch's small operations were seen to slow down a hundredfold.
kernel = njit(nogil=True, error_model="numpy", _nrt=False)


class IllegalActionError(ValueError):
    """An action outside the legal set; no row of the environment has changed."""


class NoLegalActionError(ValueError):
    """A player is to move and the rules leave it no action."""


class Buffers(NamedTuple):
    """What the kernels read and write; every field is an attribute of `VectorEnv` too."""

    state: np.ndarray
    player: np.ndarray
    legal: np.ndarray
    obs: np.ndarray
    rewards: np.ndarray
    done: np.ndarray
    truncated: np.ndarray
    final_obs: np.ndarray
    history: np.ndarray
    num_decisions: np.ndarray
    chance_streams: np.ndarray
    game_streams: np.ndarray
    probs: np.ndarray  # scratch per thread: [threads, C]
    earned: np.ndarray  # scratch per thread: [threads, P]


class VectorEnv:
    """B copies of a game, stepped together.

    Public arrays are views of buffers that `step` overwrites; copy what you keep. Letters: B = `num_envs`,
    A = actions, P = players, D = `obs_shape`.

    Args:
        game: the rules.
        num_envs: B.
        seed: of all randomness in here; the same seed gives the same bytes for any number of threads.
        truncate_after: cut a game off after so many decisions (null: play every game to its end).
        num_threads: worker threads of `step`; more than one pays from some ten thousand rows.
        record: keep `game_streams`, which costs a few percent of `step`.
        observe_all: keep `history`, for critics that see the whole game.

    Attributes:
        state: [B] of `game.state_dtype`, each at a decision of some player (never chance, never terminal).
        player: [B] int8, the player to move.
        legal: [B, A] bool, True = legal for the player to move.
        obs: [B, *D], the infostate of the player to move.
        rewards: [B, P] float32, earned since the previous decision, chance's part included.
        done: [B] bool, the game of that row ended with this step, and a new one has begun.
        truncated: [B] bool, it ended because it was cut off after `truncate_after` decisions.
        final_obs: [B, P, *D], every player's infostate where a game was truncated; stale elsewhere.
        history: [B, P, *D], every player's infostate where the game stands; [B, 0, *D] without `observe_all`.
        num_decisions: [B] int32, decisions made so far in the running game.
        action_streams, chance_streams: [B] uint64, the state of the two random streams of each row.
        game_streams: [B] uint64, `chance_streams` as it was when the running game began: together with the players'
            actions it tells the whole game (see `lit_rl.run.replay`). 0 where not known, as without `record`.
    """

    def __init__(
        self,
        game: Game,
        num_envs: int,
        seed: int,
        truncate_after: int | None = None,
        num_threads: int = 1,
        record: bool = False,
        observe_all: bool = False,
    ):
        if num_envs < 1:
            raise ValueError(f"num_envs={num_envs}: needs at least one environment")
        if num_threads < 1:
            raise ValueError(f"num_threads={num_threads}: needs at least one thread")
        if truncate_after is not None and truncate_after < 1:
            raise ValueError(f"truncate_after={truncate_after}: needs at least one decision; use null for no limit")
        self.game, self.num_envs, self.num_threads, self.record = game, num_envs, num_threads, record
        b, p, d = num_envs, game.num_players, game.obs_shape
        self._buffers = Buffers(
            state=np.zeros(b, game.state_dtype),
            player=np.zeros(b, np.int8),
            legal=np.zeros((b, game.num_actions), np.bool_),
            obs=np.zeros((b, *d), game.obs_dtype),
            rewards=np.zeros((b, p), np.float32),
            done=np.zeros(b, np.bool_),
            truncated=np.zeros(b, np.bool_),
            final_obs=np.zeros((b, p, *d), game.obs_dtype),
            history=np.zeros((b, p if observe_all else 0, *d), game.obs_dtype),
            num_decisions=np.zeros(b, np.int32),
            chance_streams=make_streams(b, seed, CHANCE_STREAM),
            game_streams=np.zeros(b, np.uint64),
            probs=np.zeros((num_threads, game.num_chance_outcomes)),
            earned=np.zeros((num_threads, p)),
        )
        for name, array in self._buffers._asdict().items():
            setattr(self, name, array)
        self.action_streams = make_streams(b, seed, ACTION_STREAM)
        bounds = np.linspace(0, b, min(num_threads, b) + 1).astype(np.int64).tolist()
        self._chunks = list(zip(bounds, bounds[1:], strict=False))
        self._pool = ThreadPoolExecutor(len(self._chunks) - 1, "vector_env") if len(self._chunks) > 1 else None
        self._reset, self._step = compile_driver(game, truncate_after, record, observe_all)
        self.reset()

    def reset(self) -> None:
        """Begin a new game in every row; the random streams go on."""
        self._run(self._reset, *self._buffers)

    def step(self, action: np.ndarray) -> None:
        """Play `action` [B] of any integer dtype in every row.

        Raises:
            TypeError: not an array of integers.
            ValueError: wrong shape.
            IllegalActionError: some action is illegal; names the row, the action and the legal set. Nothing changed.
        """
        self._run(self._step, self._checked(action), *self._buffers)

    def observe_all(self):
        out = np.zeros((self.num_envs, self.game.num_players, *self.game.obs_shape), self.game.obs_dtype)
        for b in range(self.num_envs):
            for p in range(self.game.num_players):
                self.game.observe(self.state[b], p, out[b, p])
        return out

    def out(self):
        return np.zeros((self.num_envs, self.game.num_players), np.bool_)

    def save(self) -> dict[str, bytes]:
        """All that the games to come depend on; `load` makes an env of the same shape go on bit by bit."""
        return {name: getattr(self, name).tobytes() for name in SAVED if getattr(self, name).size}

    def load(self, saved: dict[str, bytes]) -> None:
        """Go on where `saved` was taken.

        Raises:
            ValueError: it was saved by an env of another game, version or number of rows. Nothing changed.
        """
        for name in SAVED:
            size, needed = len(saved.get(name, b"")), getattr(self, name).nbytes
            if size != needed:
                raise ValueError(
                    f"saved env state does not fit: {name} has {size} bytes, "
                    f"{self.game.name} with num_envs={self.num_envs} needs {needed}"
                )
        for name in (name for name in SAVED if name in saved):
            array = getattr(self, name)
            array[...] = np.frombuffer(saved[name], array.dtype).reshape(array.shape)

    def sample(self, probs: np.ndarray) -> np.ndarray:
        """Draw one legal action per row from `probs` [B, A] (float32, need not be normalised), by inverse CDF.

        Raises:
            NoLegalActionError: a row has no legal action, so its game's rules are wrong.
            FloatingPointError: a row is not finite or has no mass on a legal action.
        """
        action = np.empty(self.num_envs, np.int64)
        bad = _sample(probs, self.legal, self.action_streams, action)
        if bad >= 0 and not self.legal[bad].any():
            raise NoLegalActionError(
                f"{self.game.name}, env row {bad}: player {self.player[bad]} has no legal action in {self.state[bad]}"
            )
        if bad >= 0:
            raise FloatingPointError(
                f"{self.game.name}, env row {bad}: cannot sample from probs={probs[bad].tolist()}, "
                f"legal actions {np.flatnonzero(self.legal[bad]).tolist()}"
            )
        return action

    def sample_uniform(self) -> np.ndarray:
        """Draw one legal action per row, all equally likely: [B] int64."""
        action = np.empty(self.num_envs, np.int64)
        self._run(_sample_uniform, self.legal, self.action_streams, action)
        return action

    def _run(self, kernel: Callable, *arrays: np.ndarray) -> None:
        """Call kernel(thread, lo, hi, *arrays) on every chunk of rows, the first one in this thread."""
        others = [self._pool.submit(kernel, i, *self._chunks[i], *arrays) for i in range(1, len(self._chunks))]
        kernel(0, *self._chunks[0], *arrays)
        for other in others:
            other.result()

    def _checked(self, action: np.ndarray) -> np.ndarray:
        action = np.asarray(action)
        if action.dtype.kind not in "iu":
            raise TypeError(f"actions must be integers, got dtype {action.dtype}")
        if action.shape != (self.num_envs,):
            raise ValueError(f"actions must have shape ({self.num_envs},), one per row, got {action.shape}")
        checked = np.ascontiguousarray(action, dtype=np.int64)
        row = _first_illegal(checked, self.legal)
        if row >= 0:
            raise IllegalActionError(
                f"{self.game.name}, env row {row}: action {action[row]} is illegal for player {self.player[row]}, "
                f"legal actions {np.flatnonzero(self.legal[row]).tolist()}"
            )
        return checked


@kernel
def _first_illegal(action, legal):
    num_actions = legal.shape[1]
    for b in range(len(action)):
        a = action[b]
        if a < 0 or a >= num_actions or not legal[b, a]:
            return b
    return -1


@kernel
def _sample(probs, legal, streams, action):
    num_actions = probs.shape[1]
    for b in range(len(action)):
        total = 0.0
        for a in range(num_actions):
            total += probs[b, a] * legal[b, a]
        if not (total > 0.0 and total < np.inf):
            return b
        threshold = uniform(streams, b) * total
        cumulated, chosen = 0.0, 0
        for a in range(num_actions):  # the number of actions whose cumulated mass lies below: no branch to mispredict
            cumulated += probs[b, a] * legal[b, a]
            chosen += cumulated <= threshold
        while chosen == num_actions or not (legal[b, chosen] and probs[b, chosen] > 0.0):
            chosen -= 1  # only where rounding left the threshold above the sum
        action[b] = chosen
    return -1


@kernel
def _sample_uniform(thread, lo, hi, legal, streams, action):
    num_actions = legal.shape[1]
    for b in range(lo, hi):
        count = 0
        for a in range(num_actions):
            count += legal[b, a]
        skip = int(uniform(streams, b) * count)
        chosen = 0
        for a in range(num_actions):
            if legal[b, a] and skip == 0:
                chosen = a
            skip -= legal[b, a]
        action[b] = chosen


@cache
def compile_driver(game: Game, truncate_after: int | None, record: bool = False, observe_all: bool = False):
    """The two kernels of one game: (reset(thread, lo, hi, *buffers), step(thread, lo, hi, action, *buffers)).

    They are closures over the game's functions, so numba compiles them once per process, on first call.
    """
    init, current_player, legal_actions = game.init, game.current_player, game.legal_actions
    apply_action, observe = game.apply_action, game.observe
    game_chance_probs, game_rewards = game.chance_probs, game.rewards
    num_players, num_outcomes = game.num_players, game.num_chance_outcomes
    truncates = truncate_after is not None

    @njit
    def pay(state, earned, rewards):
        for p in range(num_players):
            earned[p] = 0.0
        game_rewards(state, earned)
        for p in range(num_players):
            rewards[p] += earned[p]

    @njit
    def settle(state, streams, b, probs, earned, rewards):
        """Let chance play and restart a finished game until a player is to move.

        Returns that player, whether a game ended, and the stream as it was when the new one began.
        """
        ended, began = False, streams[b]
        while True:
            player = current_player(state)
            if player >= 0:
                return player, ended, began
            if player == TERMINAL:
                ended, began = True, streams[b]
                init(state)
                continue
            for c in range(num_outcomes):
                probs[c] = 0.0
            game_chance_probs(state, probs)
            threshold = uniform(streams, b)
            cumulated, outcome = 0.0, 0
            for c in range(num_outcomes):
                cumulated += probs[c]
                outcome += cumulated <= threshold
            while outcome == num_outcomes or probs[outcome] <= 0.0:
                outcome -= 1  # only where rounding left the threshold above the sum
            apply_action(state, outcome)
            pay(state, earned, rewards)

    @njit
    def show(state, mover, legal, obs, history):
        for a in range(len(legal)):
            legal[a] = False
        legal_actions(state, legal)
        obs[:] = 0
        observe(state, mover, obs)
        if observe_all:
            for p in range(num_players):
                history[p] = 0
                observe(state, p, history[p])

    @kernel
    def reset(
        thread, lo, hi, state, player, legal, obs, rewards, done, truncated, final_obs, history, num_decisions, streams,
        game_streams, probs, earned,
    ):  # fmt: skip
        for b in range(lo, hi):
            for p in range(num_players):
                rewards[b, p] = 0.0
            done[b] = truncated[b] = False
            num_decisions[b] = 0
            init(state[b])
            player[b], _, began = settle(state[b], streams, b, probs[thread], earned[thread], rewards[b])
            if record:
                game_streams[b] = began
            show(state[b], player[b], legal[b], obs[b], history[b])

    @kernel
    def step(
        thread, lo, hi, action, state, player, legal, obs, rewards, done, truncated, final_obs, history, num_decisions,
        streams, game_streams, probs, earned,
    ):  # fmt: skip
        for b in range(lo, hi):
            for p in range(num_players):
                rewards[b, p] = 0.0
            apply_action(state[b], action[b])
            pay(state[b], earned[thread], rewards[b])
            mover, ended, began = settle(state[b], streams, b, probs[thread], earned[thread], rewards[b])
            num_decisions[b] += 1
            if truncates:
                truncated[b] = not ended and num_decisions[b] >= truncate_after
                if truncated[b]:
                    for p in range(num_players):
                        final_obs[b, p] = 0
                        observe(state[b], p, final_obs[b, p])
                    init(state[b])
                    mover, _, began = settle(state[b], streams, b, probs[thread], earned[thread], rewards[b])
                    ended = True
            if ended:
                num_decisions[b] = 0
                if record:
                    game_streams[b] = began
            done[b] = ended
            player[b] = mover
            show(state[b], mover, legal[b], obs[b], history[b])

    return reset, step
