"""Players: whatever can sit in a seat, and the files they are kept in.

A player file holds a policy's weights, how to build its network, and the game that it plays; nothing in it is code, and
it loads with `weights_only=True`. A checkpoint of a run is one as well: of the policy that the run exports.
Letters: N, B rows, A actions, D obs shape, R infostates.
"""

import importlib
import io
import json
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from envs.exact import GameTree
from envs.game import Game
from envs.heuristics import compile_heuristic, load_heuristic, reads_state
from lit_rl.league.league import interface_of, sha256_of
from lit_rl.policy import MASKED, ActorCritic, PolicyOutput, mask_logits
from lit_rl.row_index import merge_equal_rows
from lit_rl.run.checkpoint_io import replace_file
from lit_rl.run.errors import ArtefactError, ConfigError

RANDOM = "envs.heuristics.uniform"


class Player(Protocol):
    """Anything that can sit in a seat."""

    def act(self, rows: np.ndarray, obs: np.ndarray, legal: np.ndarray, probs: np.ndarray) -> None:
        """Write how likely it takes each action into `probs` [B, A] float32 in the rows [N] int64 where it is to move.

        obs [B, *D] and legal [B, A] are those of the players to move.
        """


class NetworkPlayer:
    """A policy that samples from softmax(logits): one forward for all of its rows."""

    def __init__(self, policy: nn.Module, device: torch.device | str = "cpu", merge_rows: bool = False):
        self.policy, self.device, self.merge_rows = policy.to(device).eval(), device, merge_rows

    @torch.no_grad()
    def act(self, rows: np.ndarray, obs: np.ndarray, legal: np.ndarray, probs: np.ndarray) -> None:
        seen, allowed = torch.from_numpy(obs[rows]), torch.from_numpy(legal[rows])
        row = None
        if self.merge_rows:
            first, row = merge_equal_rows(seen, allowed)
            seen, allowed = seen[first], allowed[first]
        logits = self.policy(seen.to(self.device), allowed.to(self.device)).logits.float()
        said = torch.softmax(logits, dim=-1).cpu()
        probs[rows] = (said if row is None else said[row]).numpy()


class HeuristicPlayer:
    """A compiled heuristic (`envs.heuristics`) by its import path: one kernel call for all of its rows.

    Raises:
        ConfigError: no such heuristic, or not one for this game.
    """

    def __init__(self, path: str, game: Game):
        try:
            heuristic = load_heuristic(path, game)
            if reads_state(heuristic):
                raise ValueError(f"{path!r}: reads the state, which players are not given; write (obs, legal, probs)")
            self._kernel = compile_heuristic(heuristic, game)
        except ValueError as error:
            raise ConfigError(str(error)) from None

    def act(self, rows: np.ndarray, obs: np.ndarray, legal: np.ndarray, probs: np.ndarray) -> None:
        self._kernel(rows, None, None, obs, legal, probs)


def player_table(player: Player, tree: GameTree) -> np.ndarray:
    """Action probabilities [R, A] float64 of a player at every infostate of `tree`, normalised."""
    probs = np.zeros(tree.legal.shape, np.float32)
    player.act(np.arange(len(probs)), tree.obs, tree.legal, probs)
    table = probs.astype(np.float64)
    return table / table.sum(1, keepdims=True)


class TablePolicy(ActorCritic):
    """A policy that is a table over the infostates of a small game, such as an exact best response.

    Args:
        game: tells the sizes of obs and actions.
        num_rows: R, infostates in the table.
    """

    def __init__(self, game: Game, num_rows: int):
        super().__init__()
        width = int(np.prod(game.obs_shape))
        factors = torch.randint(-(2**62), 2**62, (width,), generator=torch.Generator().manual_seed(0))
        self.register_buffer("factors", factors)  # of the hash
        self.register_buffer("hashes", torch.zeros(num_rows, dtype=torch.int64))  # ascending
        self.register_buffer("obs", torch.zeros(num_rows, width))
        self.register_buffer("probs", torch.zeros(num_rows, game.num_actions))

    @classmethod
    def of(cls, tree: GameTree, probs: np.ndarray) -> "TablePolicy":
        """The table `probs` [R, A] over the rows of `tree`.

        Raises:
            ValueError: two infostates hash alike.
        """
        policy = cls(tree.game, len(probs))
        obs = torch.from_numpy(tree.obs).flatten(1).float()
        hashes, order = policy._hash(obs).sort()
        if len(hashes.unique()) != len(hashes):
            raise ValueError(f"{tree.game.name}: two infostates of {len(hashes)} hash alike, or do so by player alone")
        policy.hashes, policy.obs = hashes, obs[order]
        policy.probs = torch.from_numpy(np.asarray(probs, np.float32))[order]
        return policy

    def _hash(self, obs: Tensor) -> Tensor:
        bits = obs.contiguous().view(torch.int32).long()  # all of a float's bits count
        return (bits * self.factors).sum(1)

    def forward(self, obs: Tensor, legal: Tensor) -> PolicyOutput:
        """logits [N, A] = log of the table's probabilities, value [N] = 0.

        Raises:
            ValueError: an infostate that is not in the table.
        """
        seen = obs.flatten(1).float()
        row = torch.searchsorted(self.hashes, self._hash(seen)).clamp_max(len(self.hashes) - 1)
        unknown = (self.obs[row] != seen).any(1)
        if bool(unknown.any()):
            raise ValueError(f"the table has no infostate obs={obs[unknown][0].tolist()}")
        probs = self.probs[row]
        logits = torch.where(probs > 0, probs.log(), MASKED)
        return PolicyOutput(mask_logits(logits, legal), torch.zeros(len(seen), device=logits.device))


class Sharpened(ActorCritic):
    """A network that plays softmax(logits / temperature): below 1 more often what it holds likeliest.

    Args:
        game: tells the sizes of obs and actions.
        network: class path and arguments of the network, see `build_network`.
        temperature: in (0, 1] for an exploiter, since some best response is deterministic.
    """

    def __init__(self, game: Game, network: dict, temperature: float):
        super().__init__()
        self.network, self.temperature = build_network(network, game), temperature

    def forward(self, obs: Tensor, legal: Tensor) -> PolicyOutput:
        output = self.network(obs, legal)
        return PolicyOutput(mask_logits(output.logits / self.temperature, legal), output.value)


def network_of(module) -> dict | None:
    """How an algorithm's exported policy is built, {class_path, init_args}; None where only Python code knows.

    `module`: a LightningModule with `export_policy()`, and hyper-parameters as the command line saves them.
    """
    spec = module.hparams.get("network")
    if not isinstance(spec, dict) or "class_path" not in spec:
        return None
    spec = json.loads(json.dumps(spec))  # plain: the CLI's number types cannot be loaded with weights_only
    try:
        built = build_network(spec, module.game).state_dict()
    except ArtefactError:
        return None
    exported = module.export_policy().state_dict()
    return spec if {k: x.shape for k, x in built.items()} == {k: x.shape for k, x in exported.items()} else None


def build_network(spec: dict, game: Game) -> nn.Module:
    """The network that `spec` describes: the import path of an `ActorCritic` and its plain arguments after the game.

    Nothing but such a class is called, and random numbers of its initialisation are taken from nobody's stream.

    Raises:
        ArtefactError: it cannot be built.
    """
    try:
        module, _, name = spec["class_path"].rpartition(".")
        kind = getattr(importlib.import_module(module), name)
        if not (isinstance(kind, type) and issubclass(kind, ActorCritic)):
            raise TypeError("is no ActorCritic")
        with torch.random.fork_rng(devices=[]):
            return kind(game, **(spec.get("init_args") or {}))
    except (ImportError, LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        what = spec.get("class_path") if isinstance(spec, dict) else spec
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ArtefactError(f"network {what}: cannot be built here ({reason})") from error


def save_player(path: Path, policy: nn.Module, game: Game, network: dict | None = None) -> str:
    """Write a player file, atomically; its sha256.

    `network`: see `network_of`; without, only who has a network of the same make can load it.
    """
    content = {
        "player": 1,
        "game": game.name,
        "version": game.version,
        "interface": interface_of(game),
        "network": network,
        "state_dict": {name: x.detach().cpu().clone() for name, x in policy.state_dict().items()},
    }
    buffer = io.BytesIO()
    torch.save(content, buffer)
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, buffer.getvalue())
    return sha256_of(path)


def load_policy(path: Path, game: Game, sha256: str | None = None, make=None) -> nn.Module:
    """The policy in a player file or exported by a checkpoint, in eval mode.

    Args:
        sha256: what the file's must be; None trusts it.
        make: () -> a network of the learner's make, for files that do not say theirs.

    Raises:
        ArtefactError: missing, altered, no player file, of another game, version or interface, or of another network.
    """
    if not path.is_file():
        raise ArtefactError(f"player file {path}: no such file")
    if sha256 is not None and sha256_of(path) != sha256:
        raise ArtefactError(f"player file {path}: its SHA-256 is not the recorded one")
    try:
        content = torch.load(path, weights_only=True, map_location="cpu")
        if "player" not in content:
            content = _player_of(content, game)
        whose = content["game"], content["version"], content["interface"]
        state, network = content["state_dict"], content["network"]
    except Exception as error:
        what = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise ArtefactError(f"player file {path}: is none ({what})") from error
    if whose != (game.name, game.version, interface_of(game)):
        raise ArtefactError(
            f"player file {path}: is of {whose[0]} (rules {whose[1]}, interface {whose[2]}), "
            f"not of {game.name} (rules {game.version}, interface {interface_of(game)})"
        )
    if network is None and make is None:
        raise ArtefactError(f"player file {path}: does not say how its network is built")
    policy = build_network(network, game) if network is not None else make()
    try:
        policy.load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError) as error:
        whose = "the learner's, and it does not say how its own is built" if network is None else network
        raise ArtefactError(f"player file {path}: its weights are of another network than {whose}") from error
    return policy.requires_grad_(False).eval()


def _player_of(checkpoint: dict, game: Game) -> dict:
    """What a player file of the policy that a checkpoint exports would hold; the interface is told by its weights."""
    run = checkpoint["run"]
    prefix = f"{run['exports']}."
    weights = {name.removeprefix(prefix): x for name, x in checkpoint["state_dict"].items() if name.startswith(prefix)}
    network = checkpoint["hyper_parameters"].get("network")
    whose = {"game": run["game"], "version": run["version"], "interface": interface_of(game)}
    return {"network": network, "state_dict": weights} | whose
