"""Player files: a policy's weights, how to build its network, and the game that it plays.

Nothing in a player file is code, and it loads with `weights_only=True`. A checkpoint of a run is a player file as well:
of the policy that the run exports.
"""

import functools
import hashlib
import inspect
import io
import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn
from torch.nn.modules import module as torch_modules
from torch.utils._python_dispatch import TorchDispatchMode

from envs.game import Interface
from lit_rl.policy import ActorCritic
from lit_rl.run.allowed import check_code, import_allowed, trust_named_in
from lit_rl.run.checkpoint_files import damage_of, replace_file
from lit_rl.run.errors import ArtefactError
from lit_rl.run.plain_file import check_tensors, cut, first_line, load_plain

MOST_EXTRA_BYTES, MOST_EXTRA_PARTS = 64 << 20, 10_000  # of a network beyond what its file has weights for


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

    `module`: a LightningModule with `export_policy()`, and hyper-parameters as the command line saves them, or as
    `lit_rl.run.resume.save_plain_hyperparameters` does.
    """
    spec = module.hparams.get("network") or getattr(module, "network_spec", None)
    if not isinstance(spec, dict) or "class_path" not in spec:
        return None
    spec = json.loads(json.dumps(spec))  # plain: the CLI's number types cannot be loaded with weights_only
    trust_named_in(spec)  # the running model's own
    try:
        built = build_network(spec, module.game).state_dict()
    except ArtefactError:
        return None
    exported = module.export_policy().state_dict()
    return spec if {k: x.shape for k, x in built.items()} == {k: x.shape for k, x in exported.items()} else None


def build_network(spec: dict, game: Interface) -> nn.Module:
    """The network that `spec` describes: the import path of an `ActorCritic` and its plain arguments after the game.

    Nothing but such a class, on the list of `lit_rl.run.allowed`, is imported and called, and random numbers of its
    initialisation are taken from nobody's stream.

    Raises:
        ArtefactError: it cannot be built.
    """
    what = cut(spec.get("class_path") if isinstance(spec, dict) else spec)
    try:
        if not isinstance(spec, dict):
            raise TypeError("is not {class_path, init_args}")
        check_code(spec, "its file")
        kind = import_allowed(spec.get("class_path"), "its file")
        if not (isinstance(kind, type) and issubclass(kind, ActorCritic)):
            raise TypeError("is no ActorCritic")
        with torch.random.fork_rng(devices=[]):
            return kind(game, **_arguments(kind, spec.get("init_args") or {}))
    except Exception as error:  # whatever a stranger's arguments make a constructor stumble over
        raise ArtefactError(f"network {what}: cannot be built here ({first_line(error)})") from error


def _arguments(kind: type, given: dict) -> dict:
    """The arguments as `kind` takes them; what a class path describes, such as an encoder, is built by (game)."""
    takes = inspect.signature(kind).parameters
    described = {name for name, x in given.items() if isinstance(x, dict) and x.keys() <= {"class_path", "init_args"}}
    described -= {name for name in described if "class_path" not in given[name]}
    described -= {name for name in described if name in takes and takes[name].annotation is dict}  # as `Sharpened` does
    return {name: _factory(x) if name in described else x for name, x in given.items()}


def _factory(spec: dict) -> Callable[[Interface], nn.Module]:
    part = import_allowed(spec["class_path"], "its file")
    if not (isinstance(part, type) and issubclass(part, nn.Module)):
        raise TypeError(f"{spec['class_path']} is no module")
    return functools.partial(part, **_arguments(part, spec.get("init_args") or {}))


def build_fitting(spec: dict, game: Interface, state: dict, where: str) -> nn.Module:
    """`build_network`, once it is known that `state` are its weights; see `fitting`."""
    check_code(spec, where)
    return fitting(lambda: build_network(spec, game), state, where, cut(spec))


def fitting(build: Callable[[], nn.Module], state: dict, where: str, what: str) -> nn.Module:
    """What `build` makes, once it is known that `state` are its weights: nothing is allocated that they do not fill.

    It is first built without any memory, on the meta device. A network that cannot be built so, since it looks at its
    numbers, may take as much memory as its file has weights, and a little more.

    Args:
        what: the network, in words.

    Raises:
        ArtefactError: it is another than that of `state`. Whatever `build` raises.
    """
    most = sum(x.nbytes for x in state.values())
    try:
        with _counted(most, len(state)), torch.random.fork_rng(devices=[]), torch.device("meta"):
            network = build()
    except _TooLarge as error:
        raise ArtefactError(f"{where}: its network {error}; its weights are of another") from None
    except Exception:  # not every network can be built on the meta device; it is built for real below, and raises there
        network = None
    if network is not None:
        _check_shapes(network, state, where, what)
    with _bounded(state, where):
        network = build()
    _check_shapes(network, state, where, what)
    return network


@contextmanager
def _bounded(state: dict, where: str) -> Iterator[None]:
    """Within, what is built out of the file `where` may not take far more memory than `state`, all of its tensors.

    Raises:
        ArtefactError: it asks for more; says for what.
    """
    most = sum(x.nbytes for x in state.values())
    try:
        with _counted(most, len(state)), _Bounded(most):
            yield
    except _TooLarge as error:
        raise ArtefactError(f"{where}: its network {error}; its weights are of another") from None


class _TooLarge(BaseException):
    """Of a network in the making; no Exception, lest a constructor catches it."""


class _Bounded(TorchDispatchMode):
    """Refuses to make a tensor that is larger than a network with `most` bytes of weights can need."""

    def __init__(self, most: int):
        super().__init__()
        self.most = most + MOST_EXTRA_BYTES

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        for x in (*args, *(kwargs or {}).values()):
            numbers = isinstance(x, list | tuple) and all(type(n) is int for n in x)
            if numbers and math.prod(abs(n) for n in x) > self.most:
                raise _TooLarge(f"asks for a tensor of {list(x)[:20]}")
        return func(*args, **(kwargs or {}))


@contextmanager
def _counted(most: int, parts: int) -> Iterator[None]:
    """Within, whatever modules register counts: `_TooLarge` where it is far more than `parts` of `most` bytes."""
    found = [0, 0]

    def count(module, name, part):
        found[0] += 1
        found[1] += part.nbytes if isinstance(part, torch.Tensor) else 0
        if found[0] > 10 * parts + MOST_EXTRA_PARTS or found[1] > 4 * most + MOST_EXTRA_BYTES:
            raise _TooLarge(f"asks for {found[0]} parts of {found[1]} bytes, the file has {parts} of {most}")

    hooks = [
        torch_modules.register_module_parameter_registration_hook(count),
        torch_modules.register_module_buffer_registration_hook(count),
        torch_modules.register_module_module_registration_hook(count),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _check_shapes(network: nn.Module, state: dict, where: str, what: str) -> None:
    theirs, ours = ({name: tuple(x.shape) for name, x in part.items()} for part in (state, network.state_dict()))
    for name in sorted(theirs.keys() | ours.keys()):
        if theirs.get(name) != ours.get(name):
            raise ArtefactError(
                f"{where}: its weights are of another network than {what}: {name[:200]} has shape "
                f"{theirs.get(name, 'none')} in the file, {ours.get(name, 'none')} in the network"
            )


def save_player(
    path: Path, policy: nn.Module, game: Interface, network: dict | None = None, game_path: str | None = None
) -> str:
    """Write a player file, atomically; its sha256.

    `network`: see `network_of`; without, only who has a network of the same make can load it. `game_path`: the game's
    import path; without, only who knows the game can load it.
    """
    content = {
        "player": 1,
        "game": game.name,
        "game_path": game_path,
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


def load_network(path: Path, game: Interface, sha256: str | None = None, make=None) -> nn.Module:
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
    content = load_plain(path, "player file")
    if damage := damage_of(path):
        raise ArtefactError(f"player file {path}: {damage}; take another")
    try:
        if "player" not in content:
            content = _player_of(content, game)
        whose = content["game"], content["version"], content["interface"]
        state, network = content["state_dict"], content["network"]
    except Exception as error:
        raise ArtefactError(f"player file {path}: is none ({first_line(error)})") from error
    here = (game.name, game.version, interface_of(game))
    if whose != here:
        name, version, interface = (cut(x) for x in whose)
        there, ours = f"{name} (rules {version}", f"{game.name} (rules {game.version}"
        if whose[:2] == here[:2]:
            there, ours = f"{there}, interface {interface}", f"{ours}, interface {here[2]}"
        raise ArtefactError(f"player file {path}: is of {there}), not of {ours})")
    check_tensors(state, path.stat().st_size, f"player file {path}")
    if network is None and make is None:
        raise ArtefactError(
            f"player file {path}: does not say how its network is built; in Python give load_policy network=..., or "
            "train with network=MyNet or functools.partial(MyNet, ...), which are written down"
        )
    if network is not None:
        try:
            policy = build_fitting(network, game, state, f"player file {path}")
        except ArtefactError as error:
            at = f"player file {path}: "
            raise ArtefactError(str(error) if str(error).startswith(at) else f"{at}{error}") from error
    else:
        policy = make()
    try:
        policy.load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError) as error:
        whose = "the learner's, and it does not say how its own is built" if network is None else cut(network)
        raise ArtefactError(f"player file {path}: its weights are of another network than {whose}") from error
    return policy.requires_grad_(False).eval()


def game_path_in(path: Path) -> str | None:
    """The import path of its game that a player file or checkpoint names, as it stands there; None if it names none.

    Raises:
        ArtefactError: missing, or no such file.
    """
    if not path.is_file():
        raise ArtefactError(f"player file {path}: no such file")
    content = load_plain(path, "player file")
    whose = content if "player" in content else content.get("hyper_parameters")
    return whose.get("game_path" if whose is content else "game") if isinstance(whose, dict) else None


def _player_of(checkpoint: dict, game: Interface) -> dict:
    """What a player file of the policy that a checkpoint exports would hold; the interface is told by its weights."""
    run = checkpoint["run"]
    prefix = f"{run['exports']}."
    weights = {name.removeprefix(prefix): x for name, x in checkpoint["state_dict"].items() if name.startswith(prefix)}
    network = checkpoint["hyper_parameters"].get("network") or checkpoint.get("network")
    whose = {"game": run["game"], "version": run["version"], "interface": interface_of(game)}
    return {"network": network, "state_dict": weights} | whose
