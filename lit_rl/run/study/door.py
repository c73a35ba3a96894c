"""How a command of this room ends: in one line, with the exit codes of `litrl fit`."""

import functools
import sys
from collections.abc import Callable

from lit_rl.run.display import undying
from lit_rl.run.errors import ArtefactError, ConfigError, exit_code


def guarded(main: Callable[[list[str] | None], None]) -> Callable[[list[str] | None], None]:
    """`main` with what the user can mend said in one line on stderr; Ctrl-C exits with 130."""

    @functools.wraps(main)
    def run(args: list[str] | None = None) -> None:
        with undying():
            try:
                main(args)
            except (ConfigError, ArtefactError, OSError) as error:
                print(f"error[{exit_code(error)}]: {error}", file=sys.stderr)
                sys.exit(exit_code(error))
            except KeyboardInterrupt:
                print(file=sys.stderr)
                sys.exit(130)

    return run
