"""Which code a stranger's file may name: one list, looked at before anything is imported.

Checkpoints, player files, leagues and replays name classes and functions by import paths. They may name what is ours
(`OURS`), and what lies in a package that the user's own configuration names, or `--allow`. A config and a command line
are the user's own words and may name anything: `trust` puts what they name on the list, which is the process's.

A name on the list is not yet what it says: it must be a class or function that is defined there, `lit_rl.cli.os` is
not. Whether it is of the right kind (a network, a player, a heuristic) says who asks for it.
"""

import importlib
import importlib.util
import re
import sys
from collections.abc import Iterable, Iterator

from lit_rl.run.errors import ArtefactError
from lit_rl.run.plain_file import cut

OURS = ("envs", "lit_rl", "torch.optim")
LIBRARIES = {*sys.stdlib_module_names, "__main__", "torch", "lightning", "pytorch_lightning", "numpy", "numba"}
MOST_PARTS, LONGEST_TEXT, DEEPEST = 10_000, 10_000, 50  # of what a file says of how something is built
_DOTTED = re.compile(r"(?<![\w./])[^\W\d]\w*(?:\.[^\W\d]\w*)+")

_trusted: set[str] = set()


def trust(names: Iterable[str]) -> None:
    """Let files name whatever lies in the packages of these import paths, which the user has named."""
    roots = {name.split(".")[0].split(":")[0] for name in names}
    _trusted.update(roots - LIBRARIES - {*OURS, ""})


def trust_named_in(config) -> None:
    """The same of all class paths in a part of the user's configuration, however deep."""
    trust(path for key, path in _texts(config) if key == "class_path" and isinstance(path, str))


def trusted() -> list[str]:
    """The packages beside ours that files may name."""
    return sorted(_trusted)


def is_allowed(path: str) -> bool:
    if path.startswith("openspiel:"):  # a game of OpenSpiel's, whose arguments may name files to be read
        return "openspiel" in _trusted
    if not all(part.isidentifier() for part in path.split(".")):
        return False
    return f"{path}.".startswith(tuple(f"{package}." for package in (*OURS, *_trusted)))


def check_name(path, where: str) -> str:
    """`path`, an import path out of the file `where`.

    Raises:
        ArtefactError: it is none of the list.
    """
    if not isinstance(path, str) or not is_allowed(path):
        package = "openspiel" if isinstance(path, str) and path.startswith("openspiel:") else "<package>"
        raise ArtefactError(
            f"{where}: names {cut(path)}, code that is not ours; if you trust it, say --allow {package}, in Python "
            f"load_policy(..., allow=['{package}'])"
        )
    return path


def check_names(spec, where: str) -> None:
    """Hold all that `spec`, out of the file `where`, names against the list, however deep; nothing is imported.

    Besides class paths these are all texts that could be import paths, since some arguments are such.

    Raises:
        ArtefactError: something is not on the list, or there is absurdly much of it.
    """
    for i, (key, text) in enumerate(_texts(spec)):
        if i > MOST_PARTS:
            raise ArtefactError(f"{where}: its init_args have more than {MOST_PARTS} parts; take it for damaged")
        if key == "class_path":
            check_name(text, where)
        if isinstance(text, int | float) and abs(text) > 2**63:
            raise ArtefactError(f"{where}: {key[:200]} is a number beyond 64 bits; take it for damaged")
        if not isinstance(text, str):
            continue
        if len(text) > LONGEST_TEXT or "\\" in text:
            raise ArtefactError(
                f"{where}: {key[:200]}={text[:200]!r} is too long, or holds a backslash; it is not taken"
            )
        for name in _DOTTED.findall(text):
            if not is_allowed(name) and _could_be_imported(name.split(".")[0]):
                check_name(name, where)


def import_allowed(path: str, where: str):
    """The class or function at `path`, an import path out of the file `where`, which must be defined in the list.

    Raises:
        ArtefactError: it is not on the list, not there, or something of others that an allowed module has imported.
    """
    module, _, name = check_name(path, where).rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ArtefactError(
            f"{where}: names {path[:200]}: no such heuristic, player or network here ({str(error)[:200]})"
        ) from error
    home = getattr(found, "__module__", None)
    if not isinstance(home, str) or not is_allowed(home):
        raise ArtefactError(f"{where}: names {path[:200]}, which is no class or function defined in an allowed package")
    return found


def check_code(spec, where: str) -> None:
    """`check_names`, and then `import_allowed` of every class path in `spec`."""
    check_names(spec, where)
    for key, path in _texts(spec):
        if key == "class_path" and path is not None:
            import_allowed(path, where)


def _could_be_imported(package: str) -> bool:
    try:
        return package in sys.modules or importlib.util.find_spec(package) is not None
    except (ImportError, ValueError):
        return True


def _texts(part, key: str = "", depth: int = 0) -> Iterator[tuple[str, object]]:
    """(key, value) of all that stands in nested dictionaries and lists; of a list the key is that of the list."""
    if depth > DEEPEST:
        raise ArtefactError(f"init_args: {key[:200]} is nested more than {DEEPEST} deep; take it for damaged")
    if isinstance(part, dict):
        yield key, None  # so that whoever counts counts empty ones as well
        for name, value in part.items():
            if name == "class_path":
                yield name, value
            else:
                yield from _texts(value, str(name), depth + 1)
    elif isinstance(part, list | tuple):
        yield key, None
        for value in part:
            yield from _texts(value, key, depth + 1)
    else:
        yield key, part
