"""envs -> lit_rl -> datamodules -> callbacks -> scripts, tests: each may import what stands to its left."""

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent
ORDER = ["envs", "lit_rl", "datamodules", "callbacks", "scripts", "tests"]
HEAVY = {"envs": {"torch", "lightning", "jsonargparse"}}
ALGORITHMS = {"lit_rl.ppo", "lit_rl.rnad", "lit_rl.imitation", "lit_rl.armac.armac"}


def imports(path, for_types=True):
    """(line, name) of each import of the file; without those that only type checkers see, which import nothing."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree) if for_types else executed(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.lineno, node.module
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def executed(node):
    """All nodes below, but for what stands under `if TYPE_CHECKING:`."""
    yield node
    if not (isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"):
        for child in ast.iter_child_nodes(node):
            yield from executed(child)


def module_of(path):
    return path.relative_to(ROOT).as_posix().removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def circle():
    """Modules of ours that import each other in a ring, also from within functions; [] if none do."""
    files = {module_of(path): path for room in ORDER[:-1] for path in (ROOT / room).rglob("*.py")}
    known = {
        name: {n for _, n in imports(path, for_types=False) if n in files and n != name} for name, path in files.items()
    }
    done, trail = set(), []

    def visit(name):
        if name in trail:
            return trail[trail.index(name) :]
        if name not in done:
            trail.append(name)
            for other in sorted(known[name]):
                if found := visit(other):
                    return found
            done.add(trail.pop())
        return []

    return next((found for name in files if (found := visit(name))), [])


def offences(path):
    room, stem = path.relative_to(ROOT).parts[0], path.stem
    if path.relative_to(ROOT).as_posix() == "lit_rl/cli.py":
        return
    is_face = path.relative_to(ROOT).as_posix() == "lit_rl/__init__.py"  # it names all rooms, and imports when asked
    for line, name in imports(path, for_types=not is_face):
        top = name.split(".")[0]
        if top in ORDER and ORDER.index(top) > ORDER.index(room):
            yield f"{path.relative_to(ROOT)}:{line} imports {name}, which stands to its right"
        if top in HEAVY.get(room, ()) and stem != "network":
            yield f"{path.relative_to(ROOT)}:{line} imports {name}; {room} knows nothing of learning"
        if module_of(path) in ALGORITHMS and name in ALGORITHMS - {module_of(path)}:
            yield f"{path.relative_to(ROOT)}:{line} imports {name}; algorithms never import each other"


def test_import_order():
    files = [path for room in ORDER for path in (ROOT / room).rglob("*.py")]
    assert len(files) > 20
    assert [offence for path in files for offence in offences(path)] == []


def test_no_module_imports_itself_by_way_of_others():
    assert circle() == []


def test_a_circle_is_found(tmp_path, monkeypatch):
    texts = {"a": "import envs.b", "b": "def f():\n    from envs.c import x", "c": "from envs import a"}
    for name, text in texts.items():
        (tmp_path / "envs").mkdir(exist_ok=True)
        (tmp_path / "envs" / f"{name}.py").write_text(text + "\n")
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    assert circle() == ["envs.a", "envs.b", "envs.c"]


def test_what_only_type_checkers_import_is_no_circle(tmp_path, monkeypatch):
    lines = ["from typing import TYPE_CHECKING", "if TYPE_CHECKING:", "    from envs.b import x as x", "import envs.{}"]
    (tmp_path / "envs").mkdir()
    (tmp_path / "envs" / "b.py").write_text("import envs.a\n")
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    (tmp_path / "envs" / "a.py").write_text("\n".join(lines).format("c"))
    assert circle() == []
    (tmp_path / "envs" / "a.py").write_text("\n".join(lines).format("b"))
    assert sorted(circle()) == ["envs.a", "envs.b"]


def test_the_listing_of_lit_rl_is_a_table_of_contents():
    listed = [path for path in (ROOT / "lit_rl").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()]
    assert len(listed) <= 20


def test_the_test_can_fail(tmp_path, monkeypatch):
    bad = tmp_path / "envs" / "game.py"
    bad.parent.mkdir()
    bad.write_text("import torch\nfrom lit_rl.ppo import PPO\n")
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    assert len(list(offences(bad))) == 3


def test_no_drawers():
    names = {path.name for room in ORDER for path in (ROOT / room).rglob("*.py")}
    assert names.isdisjoint({"utils.py", "common.py", "helpers.py", "base.py"})
