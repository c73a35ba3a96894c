"""A game as a picture: lieutenants of fire 50 against each other, six against six.

python -m envs.echelon game.gif
"""

import argparse
from collections.abc import Sequence

from envs.echelon import GAME
from envs.echelon.heuristics import lieutenant_50
from envs.echelon.mechs import DECISION
from envs.echelon.render import film, play, strip


def main(args: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", help="of the GIF, or of a PNG of four positions")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(args)
    states = play(GAME, lieutenant_50, options.seed)
    write = strip if options.path.endswith(".png") else film
    write(options.path, states)
    print(f"{options.path}: {len(states) * DECISION:.0f} s of a game")


if __name__ == "__main__":
    main()
