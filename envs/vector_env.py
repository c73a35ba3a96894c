"""VectorEnv: one generic driver compiled around any `Game`; owns every buffer and all randomness.

One `step` takes one action per row, lets chance play, pays the rewards, restarts the games that ended and writes what
the next player to move may see. Rows never touch each other, so the bytes are the same for any number of threads.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from envs.bits import pack
from envs.driver import ENDLESS, Buffers, compile_driver, compile_views, kernel
from envs.env import Env, IllegalActionError, NoDecisionError, NoLegalActionError, RulesError, SavedGamesError
from envs.game import Game
from envs.rng import make_streams, uniform
from envs.sampling import draw

CHANCE_STREAM, ACTION_STREAM = 1, 2
CHECK = "its rules are wrong, python -m envs.contract shows how they come to it"
SAVED = ("num_decisions", "game_streams", "action_streams")  # besides the moves
DERIVED = ("state", "player", "legal", "obs", "history", "num_decisions", "moves", "chance_streams", "game_streams")
SHARED = ("fresh", "probs", "earned")  # by all rows of a thread
PER_ROW = tuple(name for name in Buffers._fields if name not in SHARED)
CHANGES = ("rewards", "bonus", "done", "truncated")  # what came of a step
END = b"."  # of saved moves, which may be none: empty bytes would not load with weights_only
BLOCK = 64  # actions that are looked at together, at most 255
FIRST_MOVES = 32  # decisions that there is room for at first


class VectorEnv(Env):
    """B copies of a game, stepped together; the arrays that every env has are told in `envs.env.Env`.

    Public arrays are views of buffers that `step` overwrites; copy what you keep. Letters: B = `num_envs`,
    A = actions, P = players, D = `obs_shape`.

    Args:
        game: the rules.
        num_envs: B.
        seed: of all randomness in here; the same seed gives the same bytes for any number of threads.
        truncate_after: cut a game off after so many decisions (null: play every game to its end).
        num_threads: worker threads of `step`; more than one pays from some ten thousand rows.
        observe_all: keep `history`, for critics that see the whole game.

    Attributes:
        state: [B] of `game.state_dtype`, each at a decision of some player (never chance, never terminal).
        rewards, bonus: chance's part included.
        truncated: cut off after `truncate_after` decisions.
        chance_streams: [B] uint64, the state of the other random stream of each row.
        game_streams: [B] uint64, `chance_streams` as it was when the running game began: together with the players'
            actions it tells the whole game (see `lit_rl.run.replay`).
        moves: [B, L] the players' actions in the running game, of which the first `num_decisions` count.
    """

    record = True  # games can be replayed

    def __init__(
        self,
        game: Game,
        num_envs: int,
        seed: int,
        truncate_after: int | None = None,
        num_threads: int = 1,
        observe_all: bool = False,
    ):
        if num_envs < 1:
            raise ValueError(f"num_envs={num_envs}: needs at least one environment")
        if num_threads < 1:
            raise ValueError(f"num_threads={num_threads}: needs at least one thread")
        if truncate_after is not None and truncate_after < 1:
            raise ValueError(f"truncate_after={truncate_after}: needs at least one decision; use null for no limit")
        self.game, self.num_envs, self.num_threads = game, num_envs, num_threads
        self.truncate_after, self._observes_all = truncate_after, observe_all
        b = num_envs
        self._use(self._new_buffers(make_streams(b, seed, CHANCE_STREAM), FIRST_MOVES, num_threads))
        self.action_streams = make_streams(b, seed, ACTION_STREAM)
        self._all = np.ones(b, np.bool_)
        bounds = np.linspace(0, b, min(num_threads, b) + 1).astype(np.int64).tolist()
        self._chunks = list(zip(bounds, bounds[1:], strict=False))
        self._pool = ThreadPoolExecutor(len(self._chunks) - 1, "vector_env") if len(self._chunks) > 1 else None
        self._reset, self._step = compile_driver(game, truncate_after, observe_all)
        self._observe_all, self._out = compile_views(game)
        self._seen: np.ndarray | None = None  # of `observe_all`, which few ask for
        self.reset()

    def reset(self) -> None:
        """Begin a new game in every row; the random streams go on.

        Raises:
            NoDecisionError: chance comes to no end, or its probabilities do not sum to 1, so the rules are wrong.
        """
        self._check_rules(self._run(self._reset, *self._buffers))

    def step(self, action: np.ndarray) -> None:
        """Play `action` [B] of any integer dtype in every row.

        Raises:
            TypeError: not an array of integers.
            ValueError: wrong shape.
            IllegalActionError: some action is illegal; names the row, the action and the legal set. Nothing changed.
            NoDecisionError: chance comes to no end, or its probabilities do not sum to 1, so the rules are wrong.
        """
        checked = self._checked(action)
        self._room -= 1
        if self._room < 0:
            self._make_room()
        self._check_rules(self._run(self._step, checked, *self._buffers))

    def step_rows(self, rows: np.ndarray, action: np.ndarray) -> None:
        """Play `action` [n] in the rows [n] int64, each named once; in the others nothing happens.

        There rewards, bonus, done and truncated are 0, as after a step in which nothing came of it.

        Raises:
            As `step`.
        """
        every = self.legal.argmax(1)  # legal wherever nobody looks
        every[rows] = action
        checked = self._checked(every)[rows]
        longest = int(self.num_decisions[rows].max(initial=0)) + 1
        if longest > self.moves.shape[1]:
            self._make_room()
        self._room = 0  # the rows are not in step any more: `step` is to look again
        part = self._buffers._replace(**{name: getattr(self, name)[rows] for name in PER_ROW})
        bad = self._step(0, 0, len(rows), checked, *part)
        for name in CHANGES:
            getattr(self, name)[...] = 0
        for name in PER_ROW:
            getattr(self, name)[rows] = getattr(part, name)
        self._check_rules([bad if bad < 0 else int(rows[bad])])

    def observe_all(self) -> np.ndarray:
        """[B, P, *D] every player's infostate where the games stand now; the next call or step overwrites it."""
        if self.history.size:
            return self.history
        if self._seen is None:
            self._seen = np.empty((self.num_envs, self.game.num_players, *self.game.obs_shape), self.game.obs_dtype)
        self._run(self._observe_all, self.state, self._seen)
        return self._seen

    def out(self) -> np.ndarray:
        """[B, P] bool: who will not decide again in the running game; all False where the game does not say."""
        gone = np.zeros((self.num_envs, self.game.num_players), np.bool_)
        if self.game.out is not None:
            self._run(self._out, self.state, gone)
        return gone

    def state_dict(self) -> dict[str, bytes | str]:
        """All that the games to come depend on; `load_state_dict` makes an env of the same shape go on bit by bit.

        A running game is where its chance stream began and what the players have done since.
        """
        made = np.arange(self.moves.shape[1]) < self.num_decisions[:, None]
        arrays = {name: getattr(self, name).tobytes() for name in SAVED}
        return {"game": self._game_name} | arrays | {"moves": self.moves[made].tobytes() + END}

    def load_state_dict(self, state: dict[str, bytes | str]) -> None:
        """Go on where `state` was taken.

        The running games are played again by the rules, every action held against the legal ones. So whatever `state`
        says, this env stands where its rules have brought it: no record, player, mask or obs is taken from there.

        Raises:
            ValueError: it is of an env of another game, version or number of rows. Nothing changed.
            SavedGamesError: it does not follow from the rules; likewise.
        """
        if not isinstance(state, dict) or not isinstance(state.get("game"), str):
            raise SavedGamesError("saved env state: does not say which game it is of")
        if unknown := state.keys() - {"game", *SAVED, "moves"}:
            raise SavedGamesError(f"saved env state: {sorted(map(str, unknown))[0][:50]} is nothing that an env saves")
        saved = {}
        for name in (*SAVED, "moves"):
            data = state.get(name)
            if not isinstance(data, bytes):
                raise SavedGamesError(f"saved env state: {name} is {type(data).__name__}, needs bytes")
            array = getattr(self, name)
            if name == "moves":
                data = data.removesuffix(END)
            size, needed = len(data), array.nbytes
            if name == "moves":
                needed = int(saved["num_decisions"].sum(dtype=np.int64)) * array.itemsize
            if size != needed:
                raise ValueError(
                    f"saved env state does not fit: {name} has {size} bytes, "
                    f"{self.game.name} with num_envs={self.num_envs} needs {needed}"
                )
            if state["game"] != self._game_name:
                raise ValueError(f"saved env state is of {state['game'][:99]}, not of {self._game_name}")
            saved[name] = np.frombuffer(data, array.dtype)
            if name == "num_decisions":
                self._check_lengths(saved[name])
        made = np.arange(saved["num_decisions"].max() + 1) < saved["num_decisions"][:, None]
        moves = np.zeros(made.shape, self.moves.dtype)
        moves[made] = saved["moves"]
        games = Games(self, saved["game_streams"], saved["num_decisions"], moves)
        for i in range(games.longest):
            ended = games.buffers.done[: games.play(i)]
            if ended.any():
                raise SavedGamesError(f"saved env state: the game in env row {games.rows[ended.argmax()]} is over")
        kept = np.zeros((self.num_envs, max(self.moves.shape[1], games.buffers.moves.shape[1])), self.moves.dtype)
        self._use(self._buffers._replace(moves=kept))
        for name in DERIVED:
            array, found = getattr(self, name), getattr(games.buffers, name)
            if name == "moves":
                array = array[:, : found.shape[1]]
            array[games.rows] = found
        self.action_streams[:] = saved["action_streams"]

    def _check_lengths(self, num_decisions: np.ndarray) -> None:
        """Of saved games: each may be as long as the rules, and `truncate_after`, let a running game be."""
        low, high, most = int(num_decisions.min()), int(num_decisions.max()), self.game.max_steps
        if low < 0 or high >= most:
            raise SavedGamesError(
                f"saved env state: num_decisions has {low if low < 0 else high}, "
                f"a running game of {self.game.name} has 0 to {most - 1}"
            )
        if self.truncate_after is not None and high >= self.truncate_after:
            raise ValueError(f"truncate_after={self.truncate_after}: a saved game has {high} decisions already")

    def sample(self, probs: np.ndarray) -> np.ndarray:
        """Draw one legal action per row from `probs` [B, A] (float32, need not be normalised), by inverse CDF.

        Raises:
            NoLegalActionError: a row has no legal action, so its game's rules are wrong.
            FloatingPointError: a row is not finite or has no mass on a legal action.
        """
        action, _ = draw(self, probs, pack(self.legal), is_probs=self._all)
        return action

    def sample_uniform(self) -> np.ndarray:
        """Draw one legal action per row, all equally likely: [B] int64."""
        action = np.empty(self.num_envs, np.int64)
        self._run(_sample_uniform, self.legal, self.action_streams, action)
        return action

    @property
    def _game_name(self) -> str:
        return f"{self.game.name} {self.game.version}"

    def _new_buffers(self, streams: np.ndarray, num_moves: int, num_threads: int) -> Buffers:
        """Buffers of as many rows as there are streams [N] uint64, with room for so many moves."""
        b, p, d, game = len(streams), self.game.num_players, self.game.obs_shape, self.game
        return Buffers(
            state=np.zeros(b, game.state_dtype),
            player=np.zeros(b, np.int8),
            legal=np.zeros((b, game.num_actions), np.bool_),
            obs=np.zeros((b, *d), game.obs_dtype),
            rewards=np.zeros((b, p), np.float32),
            bonus=np.zeros((b, p), np.float32),
            done=np.zeros(b, np.bool_),
            truncated=np.zeros(b, np.bool_),
            final_obs=np.zeros((b, 0 if self.truncate_after is None else p, *d), game.obs_dtype),
            final_player=np.zeros(b, np.int8),
            final_out=np.zeros((b, p), np.bool_),
            history=np.zeros((b, p if self._observes_all else 0, *d), game.obs_dtype),
            num_decisions=np.zeros(b, np.int32),
            moves=np.zeros((b, num_moves), np.min_scalar_type(game.num_actions - 1)),
            chance_streams=streams.copy(),
            game_streams=np.zeros(b, np.uint64),
            fresh=game.new_state(),
            probs=np.zeros((num_threads, game.num_chance_outcomes)),
            earned=np.zeros((num_threads, p)),
        )

    def _use(self, buffers: Buffers) -> None:
        self._buffers = buffers
        for name, array in buffers._asdict().items():
            setattr(self, name, array)
        self._room = 0  # so many steps can be made before anybody looks whether there is room for their moves

    def _make_room(self) -> None:
        """Room for the moves of the next step, and of those after it that `_room` says."""
        longest, width = int(self.num_decisions.max()), self.moves.shape[1]
        if longest == width:
            moves = np.zeros((self.num_envs, 2 * width), self.moves.dtype)
            moves[:, :width] = self.moves
            self._use(self._buffers._replace(moves=moves))
        self._room = self.moves.shape[1] - longest - 1

    def _run(self, kernel: Callable, *arrays: np.ndarray) -> list:
        """Call kernel(thread, lo, hi, *arrays) on every chunk of rows, the first one in this thread; what each says."""
        others = [self._pool.submit(kernel, i, *self._chunks[i], *arrays) for i in range(1, len(self._chunks))]
        first = kernel(0, *self._chunks[0], *arrays)
        return [first, *(other.result() for other in others)]

    def _check_rules(self, rows: list[int]) -> None:
        row = max(rows)
        if row >= 0:
            if self.player[row] == ENDLESS:
                what = f"no player comes to move within max_steps={self.game.max_steps} actions of chance"
            else:
                what = "chance_probs are negative, NaN, or do not sum to 1"
            raise NoDecisionError(f"{self.game.name}, env row {row}: {what}; {CHECK}")

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


class Games:
    """Games that are played again by the rules of an env, all of them side by side, with every action checked.

    Args:
        env: whose game, and whose kernels.
        streams: [G] uint64, where each game's chance began.
        lengths: [G], how many decisions are played of each.
        moves: [G, L] the players' actions.

    Attributes:
        rows: [G], which game stands in each row of the buffers: the longest come first.
        buffers: where the games stand; only the first ones go on with each decision.
        longest: the most decisions of a game.
    """

    def __init__(self, env: VectorEnv, streams: np.ndarray, lengths: np.ndarray, moves: np.ndarray):
        self.env, self.rows = env, np.argsort(-lengths, kind="stable")
        self.lengths, self.moves = lengths[self.rows], moves[self.rows]
        self.longest = int(lengths.max(initial=0))
        self.buffers = env._new_buffers(streams[self.rows], moves.shape[1] + 1, 1)
        _stands(env._reset(0, 0, len(streams), *self.buffers))

    def going_on(self, i: int) -> int:
        """How many of the games make decision `i`: the first ones of the buffers."""
        return int((self.lengths > i).sum())

    def play(self, i: int) -> int:
        """Play decision `i` of the games that make it; how many they are.

        Raises:
            SavedGamesError: an action is not legal.
        """
        n = self.going_on(i)
        action = self.moves[:n, i].astype(np.int64)
        bad = _first_illegal(action, self.buffers.legal[:n])
        if bad >= 0:
            raise SavedGamesError(
                f"saved games: action {action[bad]}, decision {i} of game {self.rows[bad]}, is illegal"
            )
        _stands(self.env._step(0, 0, n, action, *self.buffers))
        return n


def _stands(row: int) -> None:
    """What a kernel returns: the first row whose game comes to no decision, or -1."""
    if row >= 0:
        raise SavedGamesError("saved games: chance comes to no end")


def rehearse(game: Game, num_games: int = 16, num_steps: int = 64, **options) -> None:
    """Play some random decisions of some games, to find rules that are wrong before anything is learned by them.

    Args:
        options: of the `VectorEnv` that will be played in, whose compiled driver this one then shares.

    Raises:
        RulesError: no end of chance, probabilities that do not sum to 1, or a player without a legal action.
    """
    env = VectorEnv(game, num_games, seed=0, **options)
    for _ in range(num_steps):
        stuck = ~env.legal.any(1)
        if stuck.any():
            row = int(stuck.argmax())
            raise NoLegalActionError(f"{game.name}: player {env.player[row]} has no legal action; {CHECK}")
        env.step(env.sample_uniform())
        if not np.isfinite(env.rewards).all():
            raise RulesError(f"{game.name}: rewards are not finite; {CHECK}")


@kernel
def _first_illegal(action, legal):
    num_actions = legal.shape[1]
    for b in range(len(action)):
        a = action[b]
        if a < 0 or a >= num_actions or not legal[b, a]:
            return b
    return -1


@kernel
def _sample_uniform(thread, lo, hi, legal, streams, action):
    num_actions = legal.shape[1]
    for b in range(lo, hi):
        count = np.uint32(0)  # sums of few bits and without a branch are vectorized
        for a in range(num_actions):
            count = np.uint32(count + np.uint32(legal[b, a]))
        skip = int(uniform(streams, b) * count)
        first = 0
        while first + BLOCK <= num_actions:
            part = np.uint8(0)
            for a in range(BLOCK):
                part = np.uint8(part + np.uint8(legal[b, first + a]))
            if part > skip:
                break
            skip -= np.int64(part)
            first += BLOCK
        while first < num_actions - 1 and (skip > 0 or not legal[b, first]):
            skip -= legal[b, first]
            first += 1
        action[b] = first
