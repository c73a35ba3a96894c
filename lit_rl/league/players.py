"""Players: whatever can sit in a seat, and how one is named.

A player is named by a *spec*, the same in `data.opponents`, in a league and in evaluation:

    random                                            every legal action alike
    runs/leduc/version_0/checkpoints/last.ckpt        a checkpoint, or a player file (*.pt): see `player_file`
    envs.leduc_heuristics.always_call                 a heuristic, by its import path: see `envs.heuristics`
    my_pkg.MySearch                                   a class of players, built as MySearch(game)
    {class_path: my_pkg.MySearch, init_args: {depth: 3}}     ... as MySearch(game, depth=3)

Letters: B rows of a table, n rows where the player is to move, A actions, D obs shape, R infostates.
"""

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from envs.exact import ExactEvaluator
from envs.exact.evaluation import CHUNK
from envs.game import Game, Interface
from envs.heuristics import compile_heuristic, load_heuristic
from lit_rl.league.player_file import load_network
from lit_rl.row_index import merge_equal_rows
from lit_rl.run.errors import ConfigError
from lit_rl.run.saved_values import saved_dict, saved_tensor

RANDOM = "envs.heuristics.uniform"
FILE_ENDINGS = (".pt", ".ckpt")

Spec = str | Path | Mapping[str, Any]


class Table(Protocol):
    """What a player is shown: B positions, each with somebody to move. `VectorEnv` and `GameTree` are such."""

    obs: np.ndarray  # [B, *D] the mover's infostate
    legal: np.ndarray  # [B, A] bool
    player: np.ndarray  # [B] int8, the mover
    state: np.ndarray  # [B] records of the game, where its rules are known (`envs.game.Game`)


@runtime_checkable
class Player(Protocol):
    """Anything that can sit in a seat. It may sit in several seats of a row, as a team does."""

    def act(self, table: Table, rows: np.ndarray, probs: np.ndarray) -> None:
        """Write how likely the player takes each action into `probs` [B, A] float32, in the rows [n] int64 alone.

        In these rows the player is to move. Only `table.obs` and `table.legal` are what a mover may know;
        `table.state` tells everything, for players that search and say so.
        """

    def begin(self, rows: np.ndarray) -> None:
        """New games have begun in the rows [n] int64, and the player sits there: forget the old ones."""


@runtime_checkable
class Remembering(Player, Protocol):
    """A player whose memory of the running games is kept by checkpoints, so that a resumed run plays the same games."""

    def state_dict(self) -> dict: ...

    def load_state_dict(self, state: dict) -> None: ...


class NetworkPlayer:
    """A policy that samples from softmax(logits): one forward for all of its rows.

    A policy with a memory (`ActorCritic.state_shape`) has one for each row and player of the table.

    Args:
        merge_rows: equal infostates pass the network once.
        greedy: take the likeliest action instead, the first of equal ones.
    """

    def __init__(
        self, policy: nn.Module, device: torch.device | str = "cpu", merge_rows: bool = False, greedy: bool = False
    ):
        self.policy = policy.to(device).eval()
        self.device, self.greedy = device, greedy
        self.state_shape = tuple(getattr(policy, "state_shape", ()))  # not every module is an ActorCritic
        self.merge_rows = merge_rows and not self.state_shape
        self._memory = torch.zeros(0, 0, *self.state_shape)  # [B, P, *S], grown to the table's size

    @torch.no_grad()
    def act(self, table: Table, rows: np.ndarray, probs: np.ndarray) -> None:
        obs, legal = torch.from_numpy(table.obs[rows]), torch.from_numpy(table.legal[rows])
        if self.state_shape:
            probs[rows] = self._remember(obs, legal, table.player, rows)
            return
        row = None
        if self.merge_rows:
            first, row = merge_equal_rows(obs, legal)
            obs, legal = obs[first], legal[first]
        logits = self.policy(obs.to(self.device), legal.to(self.device)).logits.float()
        chosen = self._probs(logits).cpu()
        probs[rows] = (chosen if row is None else chosen[row]).numpy()

    def _remember(self, obs: Tensor, legal: Tensor, player: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Probabilities [n, A] of a policy with memory, which sees these infostates next."""
        where = self._seats(player, rows)
        output = self.policy(obs.to(self.device), legal.to(self.device), self._memory[where].to(self.device))
        self._memory[where] = output.state.float().cpu()
        return self._probs(output.logits.float()).cpu().numpy()

    def _probs(self, logits: Tensor) -> Tensor:
        if self.greedy:
            return nn.functional.one_hot(logits.argmax(-1), logits.shape[-1]).float()
        return torch.softmax(logits, dim=-1)

    @torch.no_grad()
    def value(self, table: Table, rows: np.ndarray) -> np.ndarray:
        """What the policy expects for the movers in these rows, [n] float32; nothing is remembered of it."""
        seen = [torch.from_numpy(x[rows]).to(self.device) for x in (table.obs, table.legal)]
        if self.state_shape:
            where = self._seats(table.player, rows)
            seen.append(self._memory[where].to(self.device))
        return self.policy(*seen).value.float().cpu().numpy()

    def _seats(self, player: np.ndarray, rows: np.ndarray) -> tuple[Tensor, Tensor]:
        """Where the memory of the movers in these rows is."""
        self._grow(len(player), int(player.max()) + 1)
        return torch.from_numpy(rows), torch.from_numpy(player[rows]).long()

    def _grow(self, num_rows: int, num_players: int) -> None:
        b, p = self._memory.shape[:2]
        if b < num_rows or p < num_players:
            memory = torch.zeros(max(b, num_rows), max(p, num_players), *self.state_shape)
            memory[:b, :p] = self._memory
            self._memory = memory

    def begin(self, rows: np.ndarray) -> None:
        rows = rows[rows < len(self._memory)]  # where nothing was seen yet there is nothing to forget
        self._memory[torch.from_numpy(rows)] = 0.0

    def state_dict(self) -> dict:
        return {"memory": self._memory.clone()} if self.state_shape else {}

    def load_state_dict(self, state: dict) -> None:
        if state:
            saved_dict(state, "a player's memory", ("memory",))
            shape = (None, None, *self.state_shape)
            self._memory = saved_tensor(state["memory"], "a player's memory", torch.float32, shape)


class HeuristicPlayer:
    """A compiled heuristic (`envs.heuristics`) by its import path: one kernel call for all of its rows.

    Raises:
        ConfigError: no such heuristic, or not one for this game.
    """

    def __init__(self, path: str, game: Interface):
        try:
            self._kernel = compile_heuristic(load_heuristic(path, game), game)
        except ValueError as error:
            raise ConfigError(str(error)) from None
        self._rules_known = isinstance(game, Game)  # else the table has no states

    def act(self, table: Table, rows: np.ndarray, probs: np.ndarray) -> None:
        state, player = (table.state, table.player) if self._rules_known else (None, None)
        self._kernel(rows, state, player, table.obs, table.legal, probs)

    def begin(self, rows: np.ndarray) -> None:
        """A heuristic has no memory of a game."""


def load_player(
    spec: Spec,
    game: Interface,
    *,
    sha256: str | None = None,
    make: Callable[[], nn.Module] | None = None,
    device: torch.device | str = "cpu",
    merge_rows: bool = False,
) -> Player:
    """The player that `spec` names (see above), to play `game`.

    The spec is the caller's own word and may name any code; one out of a file goes through `lit_rl.run.allowed` before.

    Args:
        sha256: what a file's must be; None trusts it.
        make: () -> a network, for player files that do not say how theirs is built.
        device: where a network plays.
        merge_rows: whether a network sees equal infostates once.

    Raises:
        ConfigError: nothing of that name, no player, or none for this game. ArtefactError: see `load_network`.
    """
    if names_a_file(spec):
        return NetworkPlayer(load_network(Path(spec), game, sha256, make), device, merge_rows)
    path, arguments = path_and_arguments(spec)
    kind = player_class(path)
    if kind is None:
        if arguments:
            raise ConfigError(f"{path!r}: is a heuristic, which takes no init_args; got {', '.join(arguments)}")
        return HeuristicPlayer(path, game)
    try:
        return kind(game, **arguments)
    except Exception as error:
        said = (str(error).splitlines() or [""])[0]
        raise ConfigError(
            f"{path!r}: cannot be built for {game.name} with init_args={arguments} ({type(error).__name__}: {said})"
        ) from error


def name_of(spec: Spec) -> str:
    """The name of who plays so, such as always_call, MySearch(depth=3), leduc-version_0-last; never with slashes.

    Raises:
        ConfigError: a mapping of something else than class_path and init_args.
    """
    if names_a_file(spec):
        path = Path(spec).absolute()
        run = path.parents[1] if path.parent.name == "checkpoints" else None
        return path.stem if run is None else f"{run.parent.name}-{run.name}-{path.stem}"
    if spec == "random":
        return "random"
    path, arguments = path_and_arguments(spec)
    listed = ",".join(f"{name}={value}" for name, value in arguments.items()).replace("/", "_")
    return path.rpartition(".")[2] + (f"({listed})" if arguments else "")


def names_a_file(spec: Spec) -> bool:
    """Whether the spec is that of a player file or checkpoint; a `Path` always is."""
    return isinstance(spec, Path) or (isinstance(spec, str) and spec.endswith(FILE_ENDINGS))


def path_and_arguments(spec: str | Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Import path and arguments of a spec that names no file.

    Raises:
        ConfigError: a mapping of something else than class_path and init_args.
    """
    if isinstance(spec, str):
        return (RANDOM if spec == "random" else spec), {}
    unknown = sorted(spec.keys() - {"class_path", "init_args"})
    path, arguments = spec.get("class_path"), spec.get("init_args") or {}
    if unknown or not isinstance(path, str) or not isinstance(arguments, Mapping):
        raise ConfigError(f"opponent {dict(spec)}: give {{class_path: my_pkg.MyPlayer, init_args: {{...}}}}")
    return path, dict(arguments)


def player_class(path: str) -> type | None:
    """The class of players at an import path; None where a function stands, which may be a heuristic.

    Raises:
        ConfigError: nothing stands there, or a class that is no `Player`.
    """
    module, _, name = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"{path!r}: no such heuristic or player ({error}); give random, a file that ends with "
            f"{' or '.join(FILE_ENDINGS)}, or an import path such as {RANDOM}"
        ) from error
    if not isinstance(found, type):
        return None
    if not issubclass(found, Player):
        raise ConfigError(f"{path!r}: is no Player; it needs act(table, rows, probs) and begin(rows)")
    return found


def has_table(player: Player, evaluator: ExactEvaluator) -> bool:
    """Whether `player_table` is possible: heuristics see states of the game, which not every evaluator can tell."""
    return isinstance(player, NetworkPlayer) or hasattr(evaluator, "state")


def player_table(player: Player, evaluator: ExactEvaluator, chunk: int = CHUNK) -> np.ndarray:
    """Action probabilities [R, A] float64 of a player at every row of `evaluator`, normalised; see `has_table`.

    The player has no memory: a row is all that it is told.
    """
    states, found = getattr(evaluator, "state", None), []
    for start in range(0, evaluator.num_rows, chunk):
        obs, legal, mover = evaluator.rows(start, min(start + chunk, evaluator.num_rows))
        rows, probs = np.arange(len(legal)), np.zeros(legal.shape, np.float32)
        player.begin(rows)
        state = None if states is None else states[start : start + chunk]
        player.act(SimpleNamespace(obs=obs, legal=legal, player=mover, state=state), rows, probs)
        found.append(probs.astype(np.float64))
    table = np.concatenate(found)
    return table / table.sum(1, keepdims=True)
