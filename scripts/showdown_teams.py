"""Legal teams for a format of Pokémon Showdown, by rejection: its generator makes them, its validator picks.

    python -m scripts.showdown_teams --format gen9vgc2025regi --count 20 --folder my_teams

Writes one text file per team in Showdown's own form, which `datamodules.showdown.ShowdownDataModule` reads (`teams:`).
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from envs.showdown.teams import generate_teams


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--format", default="gen9vgc2025regi")
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tries", type=int, default=10_000, help="teams to generate at most")
    given = parser.parse_args(arguments)
    for name in ("count", "tries"):
        if getattr(given, name) < 1:
            parser.error(f"--{name} {getattr(given, name)}: needs at least 1")
    if given.folder.exists() and any(given.folder.iterdir()):
        parser.error(f"--folder {given.folder}: is not empty; name a new one")
    found, tried = [], 0
    try:
        for team in generate_teams(given.format, given.seed, given.tries):
            tried += 1
            if team is not None:
                found.append(team)
            if len(found) == given.count:
                break
    except ValueError as error:
        parser.error(str(error))
    if not found:
        parser.error(f"--tries {given.tries}: none of them is legal in {given.format}; try more")
    given.folder.mkdir(parents=True, exist_ok=True)
    for i, team in enumerate(found):
        (given.folder / f"team_{i:04}.txt").write_text(team)
    print(f"{len(found)} of {tried} generated teams are legal in {given.format}: {given.folder}")


if __name__ == "__main__":
    main()
