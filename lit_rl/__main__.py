"""`litrl` and `python -m lit_rl`: signals are handled before the seconds that importing everything takes."""

import sys

from lit_rl.signals import Stopped, requests


def main() -> None:
    """The command of `lit_rl.cli`."""
    try:
        requests.install()
        from lit_rl.cli import main

        main()
    except Stopped as stop:
        print(stop, file=sys.stderr)
        sys.exit(stop.exit_code)


if __name__ == "__main__":
    main()
