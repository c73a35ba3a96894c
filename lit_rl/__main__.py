"""`litrl` and `python -m lit_rl`: signals are handled before the seconds that importing everything takes."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

from lit_rl.run.display import undying
from lit_rl.run.signals import Stopped, requests

HOME = Path(__file__).resolve().parent.parent  # of lit_rl, envs, datamodules and callbacks


def main() -> None:
    """The command of `lit_rl.cli`."""
    with undying():
        try:
            requests.install()
            _command()()
        except Stopped as stop:
            print(stop, file=sys.stderr)
            _leave(stop.exit_code)
        except SystemExit as end:
            if isinstance(end.code, int) and end.code > 128:
                _leave(end.code)
            raise


def _command() -> Callable[[], None]:
    """`lit_rl.cli.main`, imported with our home in front.

    With `python -m` the current folder comes first, and it may hold an `envs` or a `callbacks` of its own.
    """
    sys.path.insert(0, str(HOME))
    try:
        from lit_rl.cli import main
    finally:
        sys.path.remove(str(HOME))
    return main


def _leave(code: int) -> None:
    """End now: all is saved, and the interpreter's own end takes seconds with torch and numba loaded."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
