"""envs -> lit_rl -> datamodules -> callbacks -> scripts, tests: each may import what stands to its left."""

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent
ORDER = ["envs", "lit_rl", "datamodules", "callbacks", "scripts", "tests"]
HEAVY = {"envs": {"torch", "lightning", "jsonargparse"}}
ALGORITHMS = {"ppo", "rnad", "armac"}


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.lineno, node.module
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def offences(path):
    room, stem = path.relative_to(ROOT).parts[0], path.stem
    if path.relative_to(ROOT).as_posix() == "lit_rl/cli.py":
        return
    for line, name in imports(path):
        top = name.split(".")[0]
        if top in ORDER and ORDER.index(top) > ORDER.index(room):
            yield f"{path.relative_to(ROOT)}:{line} imports {name}, which stands to its right"
        if top in HEAVY.get(room, ()) and stem != "network":
            yield f"{path.relative_to(ROOT)}:{line} imports {name}; {room} knows nothing of learning"
        if room == "lit_rl" and stem in ALGORITHMS and name in {f"lit_rl.{a}" for a in ALGORITHMS - {stem}}:
            yield f"{path.relative_to(ROOT)}:{line} imports {name}; algorithms never import each other"


def test_import_order():
    files = [path for room in ORDER for path in (ROOT / room).rglob("*.py")]
    assert len(files) > 20
    assert [offence for path in files for offence in offences(path)] == []


def test_the_test_can_fail(tmp_path, monkeypatch):
    bad = tmp_path / "envs" / "game.py"
    bad.parent.mkdir()
    bad.write_text("import torch\nfrom lit_rl.ppo import PPO\n")
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    assert len(list(offences(bad))) == 3


def test_no_drawers():
    names = {path.name for room in ORDER for path in (ROOT / room).rglob("*.py")}
    assert names.isdisjoint({"utils.py", "common.py", "helpers.py", "base.py"})
