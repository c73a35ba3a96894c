"""`litrl` and `python -m lit_rl`: signals are handled before the seconds that importing everything takes."""

import os
import sys

from lit_rl.run.signals import Stopped, requests


def main() -> None:
    """The command of `lit_rl.cli`."""
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


def _leave(code: int) -> None:
    """End now: all is saved, and the interpreter's own end takes seconds with torch and numba loaded."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
