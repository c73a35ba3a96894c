"""A league of some pages to do harm to, what it holds, and the harm."""

import shutil
from pathlib import Path

from envs.game import Interface
from lit_rl.league.league import League, Member, Result

NAMES = ("learner", "calls", "search", *(f"past{i}" for i in range(12)))


def make_league(folder: Path, game: Interface) -> tuple:
    """Write folder/league.sqlite and close it; what it holds. folder/open: a copy, its last changes in its -wal."""
    league = League(folder / "league.sqlite", game)
    league.add(Member("learner", "main"))
    league.add(Member("calls", "heuristic", path="envs.leduc_heuristics.always_call", permanent=True))
    league.add(Member("search", "external", path="my_pkg.Search", init_args={"depth": 3}, notes={"why": "x" * 500}))
    for name in NAMES[3:]:
        (folder / f"{name}.pt").write_bytes(name.encode())
        league.add(Member(name, "past", file=f"{name}.pt", notes={"run": "learner"}))
    for i in range(60):
        results = [Result("learner", name, i % 2, i % 5, i % 3, 1, 0.1 * i, -0.1 * i) for name in NAMES[1:6]]
        league.record("learner", i, "train", results)
        if i % 5 == 0:
            league.roster("learner", i, 10**6)
    shutil.copytree(folder, folder / "open")
    held = content(league)
    league.close()
    assert (folder / "open" / "league.sqlite-wal").stat().st_size > 0
    return held


def content(league):
    rosters = [league.roster("learner", i, 10**6) for i in range(0, 60, 5)]
    found = league.members(), league.results(), rosters, league.payoffs(), league.games()
    return found


def write_something(league):
    league.record("learner", 10_000, "train", [Result("learner", "calls", 0, 1, 0, 0)])
    league.add(Member("new", "random"))
    league.set_state("retired", {"past1": "old"})


def damage(path, rng):
    """Do one kind of harm to the file; says which."""
    data = bytearray(path.read_bytes())
    pages = max(1, len(data) // 4096)
    kind = rng.choice(
        ["flip", "flip", "flips", "header", "schema", "cut", "zero page", "zeros", "swap", "twice", "junk"]
    )
    at, page = rng.randrange(len(data)), 4096 * rng.randrange(pages)
    other = 4096 * rng.randrange(pages)
    if kind in ("flip", "header", "schema"):
        at = {"flip": at, "header": rng.randrange(100), "schema": rng.randrange(min(4096, len(data)))}[kind]
        data[at] ^= 1 << rng.randrange(8)
    elif kind == "flips":
        for _ in range(20):
            data[rng.randrange(len(data))] = rng.randrange(256)
    elif kind == "cut":
        del data[rng.choice([at, page, 0, len(data) - 1]) :]
    elif kind == "zero page":
        data[page : page + 4096] = bytes(len(data[page : page + 4096]))
    elif kind == "zeros":
        data[at : at + 64] = bytes(len(data[at : at + 64]))
    elif kind == "swap":
        data[page : page + 4096], data[other : other + 4096] = data[other : other + 4096], data[page : page + 4096]
    elif kind == "twice":
        data[page : page + 4096] = data[other : other + 4096]
    else:
        data[at : at + 16] = rng.randbytes(len(data[at : at + 16]))
    path.write_bytes(data)
    return kind
