"""Teams: a folder of text files in Showdown's own form, one team each, held against the simulator's validator.

python -m scripts.showdown_teams --format gen9vgc2025regi --count 20 --folder my_teams
"""

from collections.abc import Iterator
from pathlib import Path

from envs.rng import draw64, make_streams
from envs.showdown.host import Host

TEAM_STREAM = 8
AT_ONCE = 20  # teams in one question


def read_teams(folder: str | Path, format: str) -> tuple[str, ...]:
    """The teams of all *.txt in `folder`, packed, in the order of their names.

    Raises:
        ValueError: there is none, or the validator refuses one; its own words.
        ShowdownMissingError: Node or the package is not there.
    """
    files = sorted(Path(folder).expanduser().glob("*.txt"))
    if not files:
        raise ValueError(f"teams={str(folder)!r}: no *.txt in it; one team each, in Showdown's text form")
    try:
        texts = [file.read_text() for file in files]
    except UnicodeDecodeError as error:
        raise ValueError(f"teams={str(folder)!r}: not all *.txt are text ({error.reason})") from None
    host = Host()
    try:
        answers = host.ask({"op": "validate", "format": format, "teams": texts})
    finally:
        host.close()
    for file, (_, problems) in zip(files, answers):
        if problems:
            raise ValueError(f"teams: {file}: {format} refuses it: {' '.join(problems)[:500]}")
    return tuple(packed for packed, _ in answers)


def generate_teams(format: str, seed: int, tries: int) -> Iterator[str | None]:
    """Teams in text form out of the simulator's generator for random doubles, at level 50; None for an illegal one.

    The same seed makes the same teams.
    """
    host, streams = Host(), make_streams(1, seed, TEAM_STREAM)
    try:
        for start in range(0, tries, AT_ONCE):
            seeds = [f"{int(draw64(streams, 0)):016x}" for _ in range(min(AT_ONCE, tries - start))]
            yield from host.ask({"op": "generate", "format": format, "seeds": seeds})
    finally:
        host.close()
