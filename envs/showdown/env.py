"""B battles of Pokémon Showdown side by side; the arrays are told in `envs.env.Env`.

The simulator is asked once all choices of a battle are made (`battle`). So the rows of an env are at different turns.
The rows are in two halves: while the simulator is at work on one of them, somebody can decide for the other.

What the other side hides can make a choice impossible that its maker must take for possible (a trapping ability not yet
shown). The simulator then says so and asks again, which is a decision more, and tells the side as much as it tells a
human. Anything else that it refuses would be a fault of `watcher.js`, and ends the run.

Letters: B battles, A actions, D numbers of an observation.
"""

import hashlib
import warnings
import weakref
from collections.abc import Callable

import numpy as np

from envs.bits import pack
from envs.env import Env, IllegalActionError, NoDecisionError, SavedGamesError
from envs.rng import draw64, make_streams
from envs.sampling import draw
from envs.showdown import INTERFACE, VGC
from envs.showdown.battle import Battle
from envs.showdown.host import Host, shared_hosts

CHANCE_STREAM, ACTION_STREAM = 1, 2  # as of `envs.vector_env`
END = b"."  # of saved moves, which may be none: empty bytes would not load with weights_only
SAVED = {"chance_streams": (np.uint64, ()), "action_streams": (np.uint64, ()), "seeds": (np.uint64, (3,)),
         "teams": (np.int32, (2,)), "lengths": (np.int32, ())}  # fmt: skip


Flight = tuple[Host, int, list[Battle]]  # who was asked, the answer's ticket, about whom


class ShowdownEnv(Env):
    """B battles in Node processes.

    Args:
        num_envs: B.
        seed: of all randomness; the same seed gives the same bytes, whatever `num_hosts`.
        format: in Showdown's words, custom rules included; doubles only.
        teams: packed (`envs.showdown.teams`), two drawn per battle from the row's stream; null: the format makes them.
        num_hosts: processes of Node, which work at once; from two on each half of the rows has its own.
        truncate_after: break a battle off after so many decisions of both sides; null plays all to the end.
        observe_all: keep `history`, for critics that see both sides.

    Attributes:
        asked_again: so often something hidden made a choice impossible.
        battles_ended: of all rows, the broken-off ones not counted.
        battles_lost: of these, so many ended the simulator itself; they count as draws, and a warning names each.

    Raises:
        ValueError: a number is out of range; see also `envs.showdown.host.Host`.
    """

    record = False  # no replays: the battles cannot be told by rules of ours
    game = INTERFACE

    def __init__(
        self,
        num_envs: int,
        seed: int,
        format: str = VGC,
        teams: tuple[str, ...] | None = None,
        num_hosts: int = 1,
        truncate_after: int | None = None,
        observe_all: bool = False,
    ):
        for name, value in (("num_envs", num_envs), ("num_hosts", num_hosts), ("truncate_after", truncate_after)):
            if value is not None and value < 1:
                raise ValueError(f"{name}={value}: needs at least 1")
        if teams is not None and not teams:
            raise ValueError("teams: there is none; needs at least one")
        b, d = num_envs, INTERFACE.obs_shape
        self.num_envs, self.truncate_after, self.format = b, truncate_after, format
        self._teams, self._observes_all = None if teams is None else tuple(teams), observe_all
        self.parts = (slice(0, (b + 1) // 2), slice((b + 1) // 2, b))[: min(b, 2)]
        self.hosts = shared_hosts(format, self._teams, min(num_hosts, b))
        self.player, self.legal = np.zeros(b, np.int8), np.zeros((b, INTERFACE.num_actions), np.bool_)
        self.obs = np.zeros((b, *d), np.int16)
        self.rewards, self.bonus = np.zeros((b, 2), np.float32), np.zeros((b, 2), np.float32)
        self.done, self.truncated = np.zeros(b, np.bool_), np.zeros(b, np.bool_)
        self.final_obs = np.zeros((b, 0 if truncate_after is None else 2, *d), np.int16)
        self.final_out = np.zeros((b, 2), np.bool_)
        self.history = np.zeros((b, 2 if observe_all else 0, *d), np.int16)
        self.num_decisions, self.game_streams = np.zeros(b, np.int32), np.zeros(b, np.uint64)
        self.chance_streams = make_streams(b, seed, CHANCE_STREAM)
        self.action_streams = make_streams(b, seed, ACTION_STREAM)
        self.asked_again = self.battles_ended = self.battles_lost = 0
        self._all = np.ones(b, np.bool_)
        self._resting: set[int] = set()  # rows
        digest = hashlib.sha256("\n".join(self._teams or ()).encode()).hexdigest()[:16]
        self._name = f"{INTERFACE.name} {INTERFACE.version} {format} {digest if self._teams else 'generated'}"
        self._keys: list[list[int]] = [[] for _ in self.hosts]  # of the running battles, for whoever cleans up
        self._flights: dict[int, list[Flight]] = {}  # first row of a part -> what the simulator is asked there
        weakref.finalize(self, _drop, self.hosts, self._keys, self._flights)
        self._battles = self._new_battles(list(range(b)))
        self._keep_keys()
        self._open(self._battles)
        for i in range(b):
            self._show(i)

    def step(self, action: np.ndarray) -> None:
        """Play `action` [B] of any integer dtype in every row.

        Raises:
            TypeError, ValueError: wrong dtype or shape. IllegalActionError: an illegal action. Nothing has changed.
            HostError: the simulator refused a choice, or cannot be kept alive.
        """
        action = self._checked(action, slice(0, self.num_envs))
        for part in self.parts:
            self._send(action[part], part)
        self._clear()
        for part in self.parts:
            self._receive(part)

    def send(self, action: np.ndarray, part: slice) -> None:
        self._send(self._checked(action, part), part)

    def receive(self, part: slice) -> None:
        self._clear()
        self._receive(part)

    def _checked(self, action: np.ndarray, part: slice) -> np.ndarray:
        action, n = np.asarray(action), part.stop - part.start
        if action.dtype.kind not in "iu":
            raise TypeError(f"actions must be integers, got dtype {action.dtype}")
        if action.shape != (n,):
            raise ValueError(f"actions must have shape ({n},), one per row, got {action.shape}")
        for i, a in enumerate(action.tolist(), part.start):
            if a not in self._battles[i].legal and i not in self._resting:
                raise IllegalActionError(
                    f"{self.game.name}, env row {i}: action {a} is illegal for player {self.player[i]}, "
                    f"legal actions {self._battles[i].legal}"
                )
        return action

    def _awake(self, part: slice) -> list[int]:
        return [i for i in range(part.start, part.stop) if i not in self._resting]

    def rest(self, rows: np.ndarray) -> None:
        for i in set(rows.tolist()) - self._resting:
            self._resting.add(i)
            self._battles[i].host.drop([self._battles[i].key])

    def _clear(self) -> None:
        self.rewards[:], self.done[:], self.truncated[:] = 0.0, False, False

    def _send(self, action: np.ndarray, part: slice) -> None:
        rows = self._awake(part)
        for i in rows:
            self._battles[i].take(int(action[i - part.start]))
        self._flights[part.start] = self._set_out([self._battles[i] for i in rows])

    def _receive(self, part: slice) -> None:
        rows = self._awake(part)
        over = self._arrive([self._battles[i] for i in rows], self._flights.pop(part.start))
        ended = [rows[place] for place, winner in over if self._ends(rows[place], winner)]
        if self.truncate_after is not None:
            for i in rows:
                if not self.done[i] and len(self._battles[i].moves) >= self.truncate_after:
                    self.final_obs[i] = [self._battles[i].observe(p) for p in (0, 1)]
                    self._battles[i].host.drop([self._battles[i].key])
                    self.done[i] = self.truncated[i] = True
                    ended.append(i)
        if ended:
            ended.sort()
            for i, battle in zip(ended, self._new_battles(ended)):
                self._battles[i] = battle
            self._open([self._battles[i] for i in ended])
            self._keep_keys()
        for i in rows:
            self._show(i)

    def sample(self, probs: np.ndarray) -> np.ndarray:
        action, _ = draw(self, probs, pack(self.legal), is_probs=self._all)
        return action

    def observe_all(self) -> np.ndarray:
        """[B, 2, D] int16"""
        return self.history if self._observes_all else np.stack([self._seen_by_all(i) for i in range(self.num_envs)])

    def out(self) -> np.ndarray:
        """[B, 2] all False."""
        return np.zeros((self.num_envs, 2), np.bool_)

    def state_dict(self) -> dict[str, bytes | str]:
        """A running battle is its seeds, its teams and what the players have decided in it."""
        found = {
            "chance_streams": self.chance_streams,
            "action_streams": self.action_streams,
            "seeds": np.array([battle.seeds for battle in self._battles], np.uint64),
            "teams": np.array([battle.teams for battle in self._battles], np.int32),
            "lengths": np.array([len(battle.moves) for battle in self._battles], np.int32),
        }
        moves = bytes(a for battle in self._battles for a in battle.moves)
        return {"game": self._name} | {name: array.tobytes() for name, array in found.items()} | {"moves": moves + END}

    def load_state_dict(self, state: dict[str, bytes | str]) -> None:
        """Go on where `state` was taken; running battles are fought again, every action held against the legal ones.

        Raises:
            ValueError: it is of another version, format, pool of teams or number of rows. Nothing has changed.
            SavedGamesError: it does not follow from the rules; likewise.
        """
        if self._resting:
            raise ValueError("rows of this env are at rest: load into a new one")
        if not isinstance(state, dict) or not isinstance(state.get("game"), str):
            raise SavedGamesError("saved env state: does not say which game it is of")
        if state["game"] != self._name:
            raise ValueError(f"saved env state is of {state['game'][:200]}, not of {self._name}")
        found = {}
        for name, (dtype, shape) in (SAVED | {"moves": (np.uint8, None)}).items():
            if not isinstance(state.get(name), bytes):
                raise SavedGamesError(f"saved env state: {name} is {type(state.get(name)).__name__}, needs bytes")
            if shape is None:
                found[name] = np.frombuffer(state[name].removesuffix(END), dtype)
                continue
            needed = self.num_envs * int(np.prod(shape, initial=1)) * np.dtype(dtype).itemsize
            if len(state[name]) != needed:
                raise ValueError(
                    f"saved env state does not fit: {name} has {len(state[name])} bytes, num_envs={self.num_envs} "
                    f"needs {needed}"
                )
            found[name] = np.frombuffer(state[name], dtype).reshape(self.num_envs, *shape)
        lengths, pool = found["lengths"].astype(np.int64), len(self._teams or ())
        if (lengths < 0).any() or lengths.sum() != len(found["moves"]):
            raise SavedGamesError("saved env state: moves are not as many as lengths says")
        if ((found["teams"] < (0 if pool else -1)) | (found["teams"] >= max(pool, 0))).any():
            raise SavedGamesError(f"saved env state: teams are not of the {pool} in the pool")
        if self.truncate_after is not None and lengths.max() >= self.truncate_after:
            raise ValueError(
                f"truncate_after={self.truncate_after}: a saved battle has {lengths.max()} decisions already"
            )
        battles = [self._battle(i, *(tuple(found[name][i].tolist()) for name in ("seeds", "teams")))
                   for i in range(self.num_envs)]  # fmt: skip
        try:
            self._open(battles)
            moves = np.split(found["moves"], np.cumsum(lengths)[:-1])
            self._fight_again(battles, [each.tolist() for each in moves])
        except SavedGamesError:
            for battle in battles:
                battle.host.drop([battle.key])
            raise
        for battle in self._battles:
            battle.host.drop([battle.key])
        self._battles = battles
        self._keep_keys()
        self.chance_streams[:], self.action_streams[:] = found["chance_streams"], found["action_streams"]
        for i in range(self.num_envs):
            self._show(i)

    def _fight_again(self, battles: list[Battle], moves: list[list[int]]) -> None:
        for step in range(max(map(len, moves), default=0)):
            rows = [i for i in range(len(battles)) if step < len(moves[i])]
            for i in rows:
                if moves[i][step] not in battles[i].legal:
                    raise SavedGamesError(
                        f"saved env state: the game in env row {i} has the illegal action {moves[i][step]}"
                    )
                battles[i].take(moves[i][step])
            if over := self._go_on([battles[i] for i in rows]):
                raise SavedGamesError(f"saved env state: the game in env row {rows[over[0][0]]} is over")

    def _new_battles(self, rows: list[int]) -> list[Battle]:
        """Battles with new seeds and teams, out of the rows' streams; not yet opened."""
        return [self._battle(i, tuple(int(draw64(self.chance_streams, i)) for _ in range(3)), self._pick(i))
                for i in rows]  # fmt: skip

    def _pick(self, i: int) -> tuple[int, int]:
        if self._teams is None:
            return (-1, -1)
        return tuple(int(draw64(self.chance_streams, i)) % len(self._teams) for _ in range(2))

    def _battle(self, i: int, seeds: tuple[int, int, int], teams: tuple[int, int]) -> Battle:
        part = len(self.parts) - 1 if i >= self.parts[-1].start else 0
        hosts = self.hosts[part :: len(self.parts)] or self.hosts  # of its half, where there are enough
        host = hosts[i % len(hosts)]
        return Battle(host, host.new_key(), seeds, teams)

    def _keep_keys(self) -> None:
        awake = [battle for i, battle in enumerate(self._battles) if i not in self._resting]
        for host, keys in zip(self.hosts, self._keys):
            keys[:] = [battle.key for battle in awake if battle.host is host]

    def _open(self, battles: list[Battle]) -> None:
        """Open new battles up to their first decision."""

        def told(battle: Battle) -> list:
            which = None if self._teams is None else battle.teams
            return [battle.key, [f"{seed:016x}" for seed in battle.seeds], which, []]

        for battle, answer in self._answers(self._ask("open", battles, told)):
            battle.take_in(answer)
        if over := self._go_on(battles):
            raise NoDecisionError(f"showdown: battle {over[0][0]} ended before anybody decided")

    def _go_on(self, battles: list[Battle]) -> list[tuple[int, int]]:
        return self._arrive(battles, self._set_out(battles))

    def _set_out(self, battles: list[Battle]) -> list[Flight]:
        """Ask the simulator about those where nobody is to decide."""
        due = [battle for battle in battles if not battle.look()]
        return self._ask("choose", due, lambda battle: [battle.key, *battle.choices()])

    def _arrive(self, battles: list[Battle], flights: list[Flight]) -> list[tuple[int, int]]:
        """Wait until each battle is at a decision or over: (place in the list, winner) of those over.

        Winner is 1 for player 0, -1 for player 1, 0 for nobody.
        """
        over, places = [], {id(battle): i for i, battle in enumerate(battles)}
        while flights:
            on = []
            for battle, answer in self._answers(flights):
                self.asked_again += sum(answer[3])
                if len(answer) > 4:
                    self._lose(battle, answer[4])
                if answer[0] is not None:
                    over.append((places[id(battle)], answer[0]))
                    continue
                battle.take_in(answer)
                on.append(battle)
            flights = self._set_out(on)
        return over

    def _ask(self, op: str, battles: list[Battle], told: Callable[[Battle], list]) -> list[Flight]:
        """One question to all hosts at once, battle by battle."""
        parts = [(host, [battle for battle in battles if battle.host is host]) for host in self.hosts]
        return [(host, host.send({"op": op, "battles": list(map(told, mine))}), mine) for host, mine in parts if mine]

    def _answers(self, flights: list[Flight]) -> list[tuple[Battle, list]]:
        return [pair for host, ticket, mine in flights for pair in zip(mine, host.receive(ticket))]

    def _lose(self, battle: Battle, why: str) -> None:
        self.battles_lost += 1
        seeds = ", ".join(f"{seed:016x}" for seed in battle.seeds)
        teams = "" if self._teams is None else f", teams {battle.teams[0]} and {battle.teams[1]}"
        warnings.warn(f"showdown: the battle of seeds {seeds}{teams} is lost, and a draw: {why}", stacklevel=2)

    def _ends(self, i: int, winner: int) -> bool:
        self.rewards[i] = winner, -winner
        self.done[i] = True
        self.battles_ended += 1
        return True

    def _show(self, i: int) -> None:
        battle = self._battles[i]
        self.player[i], self.legal[i], self.num_decisions[i] = battle.player, False, len(battle.moves)
        self.legal[i, battle.legal] = True
        self.obs[i] = battle.observe(battle.player)
        if self._observes_all:
            self.history[i] = self._seen_by_all(i)

    def _seen_by_all(self, i: int) -> np.ndarray:
        return np.stack([self._battles[i].observe(p) for p in (0, 1)])


def _drop(hosts: list[Host], keys: list[list[int]], flights: dict[int, list[Flight]]) -> None:
    for host, of in zip(hosts, keys):
        host.drop(of)
    for each in flights.values():
        for host, ticket, _ in each:
            host.forget([ticket])
