"""Player files: a policy's weights, how to build its network, and the game that it plays.

Nothing in a player file is code, and it loads with `weights_only=True`. A checkpoint of a run is a player file as well:
of the policy that the run exports.
"""

import hashlib
import importlib
import io
import json
from pathlib import Path

import torch
from torch import nn

from envs.game import Interface
from lit_rl.policy import ActorCritic
from lit_rl.run.checkpoint_io import replace_file
from lit_rl.run.errors import ArtefactError


def interface_of(game: Interface) -> dict:
    """What a player must fit: the shape of what it sees and the number of what it can do."""
    return {
        "obs_shape": list(game.obs_shape),
        "obs_dtype": str(game.obs_dtype),
        "num_actions": game.num_actions,
        "num_players": game.num_players,
    }


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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


def build_network(spec: dict, game: Interface) -> nn.Module:
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


def save_player(path: Path, policy: nn.Module, game: Interface, network: dict | None = None) -> str:
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


def load_policy(path: Path, game: Interface, sha256: str | None = None, make=None) -> nn.Module:
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


def _player_of(checkpoint: dict, game: Interface) -> dict:
    """What a player file of the policy that a checkpoint exports would hold; the interface is told by its weights."""
    run = checkpoint["run"]
    prefix = f"{run['exports']}."
    weights = {name.removeprefix(prefix): x for name, x in checkpoint["state_dict"].items() if name.startswith(prefix)}
    network = checkpoint["hyper_parameters"].get("network")
    whose = {"game": run["game"], "version": run["version"], "interface": interface_of(game)}
    return {"network": network, "state_dict": weights} | whose
