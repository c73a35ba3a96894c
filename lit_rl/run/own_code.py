"""Whose modules are whose: ours come from our home whatever lies in the current folder, the user's own are found again.

The user's own classes and games are imported from the current folder. A run that uses some writes that folder into its
config.yaml, as `code`, so that the run can go on, be validated and be played from any other folder.

Nothing heavy is imported here: this is the first module of lit-rl that runs.
"""

import importlib
import re
import sys
from collections.abc import Iterable, Iterator
from importlib.abc import MetaPathFinder
from importlib.machinery import PathFinder
from pathlib import Path

HOME = Path(__file__).resolve().parents[2]  # of lit-rl itself, its configs too, wherever it was imported from
PACKAGES = ("envs", "datamodules", "callbacks")  # ours beside lit_rl, by names that others use as well
LONGEST = 200  # characters of an import path
_PATH = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*")

_folder: Path | None = None  # where the user's own code lies, if not in the current folder


class _OurPackages(MetaPathFinder):
    """Finds our packages at home, before a folder of that name in the current one is looked at."""

    def find_spec(self, name, path=None, target=None):
        return PathFinder.find_spec(name, [str(HOME)]) if name in PACKAGES else None


def claim_packages() -> None:
    """Let the names of our packages mean ours, from now on. Called when lit_rl is imported.

    Raises:
        ImportError: something else was imported under one of these names before.
    """
    for name in PACKAGES:
        module = sys.modules.get(name)
        if module is not None and str(HOME / name) not in list(getattr(module, "__path__", ())):
            where = getattr(module, "__file__", None) or next(iter(getattr(module, "__path__", ())), "?")
            raise ImportError(
                f"lit-rl has a package {name}, and {where} was imported under that name: rename it, to my_{name} say"
            )
    if not any(isinstance(finder, _OurPackages) for finder in sys.meta_path):
        sys.meta_path.insert(0, _OurPackages())


def own_folder() -> Path | None:
    """Where the user's own code lies, if not in the current folder."""
    return _folder


def import_from(folder: Path | None) -> None:
    """Import the user's own code from `folder`, if it is there, and from the current folder."""
    global _folder
    here = Path.cwd()
    _folder = folder.absolute() if folder is not None and folder.is_dir() and not _same(folder, here) else None
    for path in filter(None, (here, _folder)):
        if str(path) in sys.path:
            sys.path.remove(str(path))
        sys.path.insert(0, str(path))
    importlib.invalidate_caches()


def named_in(config) -> set[str]:
    """The first words of all texts in a part of a configuration that could be import paths."""
    words = {text.split(".")[0] for text in _texts(config) if len(text) <= LONGEST and _PATH.fullmatch(text)}
    return words - {*PACKAGES, "lit_rl"}


def lying_in(folder: Path, names: Iterable[str]) -> list[str]:
    """Those of the names that are modules or packages in `folder`."""
    return sorted(name for name in names if (folder / f"{name}.py").is_file() or any(folder.glob(f"{name}/*.py")))


def in_both(names: Iterable[str]) -> list[str]:
    """Those of the names that lie in the current folder and in another one that was named: who is meant is not told."""
    return [] if _folder is None else lying_in(_folder, lying_in(Path.cwd(), names))


def what_is_missing(message: str) -> str:
    """What to do, as the end of a line, where a message says that a module is not found; "" where it says no such."""
    found = re.search(r"No module named '?([\w.]+)|game='([\w.]+)': no such module", message)
    name = found and (found[1] or found[2])
    return _why_missing(name) if name and len(name) <= LONGEST else ""


def _why_missing(name: str) -> str:
    root, here = name.split(".")[0], Path.cwd()
    if root in PACKAGES and lying_in(here, [root]) and not _same(here, HOME):
        return f"; the name {root} is lit-rl's own, so {here / root} is not seen: rename it, to my_{root} say"
    if lying_in(here, [root]):
        return ""
    where = f"in the current folder, {here}" if _folder is None else f"in {_folder} nor in the current folder, {here}"
    lies = "lies not" if _folder is None else "lies neither"
    return f"; {root} {lies} {where}: start in the folder that holds it, or say --code <folder>"


def _same(a: Path, b: Path) -> bool:
    return a.resolve() == b.resolve()


def _texts(part) -> Iterator[str]:
    if isinstance(part, str):
        yield part
    elif isinstance(part, dict):
        for value in part.values():
            yield from _texts(value)
    elif isinstance(part, list | tuple):
        for value in part:
            yield from _texts(value)
