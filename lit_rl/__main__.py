"""`litrl` and `python -m lit_rl`: signals are handled before the seconds that importing everything takes."""

import importlib
import os
import sys
from importlib.metadata import PackageNotFoundError, version
from platform import python_version

from lit_rl import __version__
from lit_rl.run.display import undying
from lit_rl.run.signals import Stopped, requests

COMMANDS = {  # each imports what it needs itself: Lightning takes seconds, and most go without
    "play": "lit_rl.league.play",
    "usi": "lit_rl.league.usi",
    "showdown-bot": "lit_rl.league.showdown_bot",
    "compare": "lit_rl.run.study.compare",
    "seeds": "lit_rl.run.study.seeds",
    "board": "lit_rl.run.study.board",
    "sweep": "lit_rl.run.study.sweep",
    "profile": "lit_rl.run.study.profile",
}


def main() -> None:
    """The command of `lit_rl.cli`."""
    if sys.argv[1:] == ["--version"]:
        print(_version())
        return
    if sys.argv[1:2] and sys.argv[1] in COMMANDS:
        importlib.import_module(COMMANDS[sys.argv[1]]).main(sys.argv[2:])
        return
    with undying():
        try:
            requests.install()
            from lit_rl.cli import main

            main()
        except Stopped as stop:
            print(stop, file=sys.stderr)
            _leave(stop.exit_code)
        except SystemExit as end:
            if isinstance(end.code, int) and end.code > 128:
                _leave(end.code)
            raise


def _version() -> str:
    """Ours and of what numbers depend on, without importing any of it."""
    found = []
    for name in ("torch", "lightning", "numba", "numpy"):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"{name} not installed")
    return f"lit-rl {__version__} ({', '.join(found)}, Python {python_version()})"


def _leave(code: int) -> None:
    """End now: all is saved, and the interpreter's own end takes seconds with torch and numba loaded."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
