"""What `import lit_rl` shows: some fifteen names, imported when asked, the same for tools and for people."""

import ast
import importlib
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

import lit_rl

ROOT = Path(lit_rl.__file__).parents[1]


def names_for_type_checkers():
    """Name -> module, of the imports in lit_rl/__init__.py that only type checkers see."""
    tree = ast.parse(Path(lit_rl.__file__).read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    return {alias.asname: f"{node.module}.{alias.name}" for node in block.body for alias in node.names}


def test_type_checkers_and_people_see_the_same_names():
    seen = names_for_type_checkers()
    assert sorted(seen) == sorted(lit_rl.__all__) == dir(lit_rl)
    for name, path in seen.items():
        home, _, attribute = path.rpartition(".")
        assert getattr(lit_rl, name) is getattr(importlib.import_module(home), attribute)
    assert 12 <= len(seen) <= 18


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'lit_rl' has no attribute 'PPPO'"):
        _ = lit_rl.PPPO


def test_importing_it_imports_nothing_heavy():
    heavy = "{'torch', 'lightning', 'numba', 'numpy', 'yaml'}"
    code = f"import sys, lit_rl; dir(lit_rl); print(sorted({heavy} & {{*sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_docstring_uses_names_that_are_there():
    used = set(re.findall(r"lit_rl\.(\w+)\(", lit_rl.__doc__))
    assert len(used) == 7 and used <= {*lit_rl.__all__}


def test_every_name_says_what_it_is():
    for name in lit_rl.__all__:
        assert (getattr(lit_rl, name).__doc__ or "").strip(), name


def test_pdoc_builds_the_reference_without_a_warning(tmp_path):
    pdoc = pytest.importorskip("pdoc")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pdoc.pdoc("lit_rl", output_directory=tmp_path)
    page = (tmp_path / "lit_rl.html").read_text()
    assert all(f'id="{name}"' in page for name in lit_rl.__all__ if name != "schedules")
    assert (tmp_path / "lit_rl" / "schedules.html").exists()
