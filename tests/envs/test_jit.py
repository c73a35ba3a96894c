"""Kept kernels: another process loads what one has compiled, and no edit is missed."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numba
import numpy as np
import pytest

from envs import jit
from envs.jit import FOLDER, fingerprint, kept, njit

ROOT = Path(__file__).resolve().parents[2]

PLAY = """
import sys
from envs.game import load_game
from envs.vector_env import VectorEnv
import numba.core.event as event

class Count(event.Listener):
    compiled = 0
    def on_start(self, event): Count.compiled += 1
    def on_end(self, event): pass

event.register("numba:compile", Count())
for name in sys.argv[1:]:
    env = VectorEnv(load_game(name), 4, seed=0)
    for _ in range(2):
        env.step(env.sample_uniform() * 0)
    print(env.rewards[0].tolist())
print(Count.compiled)
"""


def start(folder: Path, script: str, *arguments: str, keep: Path | str | None = None) -> list[str]:
    environment = {**os.environ, FOLDER: str(folder / "kept" if keep is None else keep)}
    environment["PYTHONPATH"] = os.pathsep.join((str(folder), str(ROOT)))
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, env=environment, cwd=folder
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_no_edit_is_missed(tmp_path):
    """The rules look up a table of another module: it is edited, and nothing else is, not even its length and date."""
    (tmp_path / "my_game.py").write_text(MATRIX)
    table = tmp_path / "my_table.py"
    table.write_text("PAY = 3.0\n")
    written = table.stat()
    first, compiled = start(tmp_path, PLAY, "my_game")
    again, loaded = start(tmp_path, PLAY, "my_game")
    assert first == again == "[3.0, -3.0]"
    assert int(compiled) > 5 and loaded == "0"
    table.write_text("PAY = 4.0\n")
    os.utime(table, ns=(written.st_atime_ns, written.st_mtime_ns))
    for cached in tmp_path.glob("__pycache__/my_table*"):
        cached.unlink()  # Python itself would miss such an edit
    assert start(tmp_path, PLAY, "my_game")[0] == "[4.0, -4.0]"


MATRIX = textwrap.dedent("""
    import numpy as np
    from numba import njit
    from envs.game import TERMINAL, Game
    from my_table import PAY

    @njit
    def init(state):
        state.turn = 0

    @njit
    def current_player(state):
        return TERMINAL if state.turn == 2 else state.turn

    @njit
    def legal_actions(state, legal):
        legal[:2] = True

    @njit
    def chance_probs(state, probs):
        pass

    @njit
    def apply_action(state, action):
        state.turn += 1

    @njit
    def rewards(state, out):
        if state.turn == 2:
            out[0], out[1] = PAY, -PAY

    @njit
    def observe(state, player, obs):
        obs[player] = 1

    GAME = Game(
        name="mine", version="1", num_players=2, num_actions=2, num_chance_outcomes=0, max_steps=2, obs_shape=(2,),
        obs_dtype=np.dtype(np.uint8), state_dtype=np.dtype([("turn", np.int8)]), init=init,
        current_player=current_player, legal_actions=legal_actions, chance_probs=chance_probs,
        apply_action=apply_action, rewards=rewards, observe=observe, render=str, max_return=9.0,
        action_names=("a", "b"),
    )
    """)


MEET = """
import sys
from envs.jit import njit

def make(factor):
    @njit
    def inner(x, depth):
        total = 0
        for i in range(x):
            total += (i * factor) ^ (total >> depth)
        for i in range(x):  # too long to be inlined
            total ^= (i * factor) ^ (total >> depth)
        return total

    @njit
    def outer(x):
        return inner(x, 3) + inner(x + 1, 2)

    return outer

for factor in sys.argv[1:]:
    print(make(int(factor))(10))
"""


def test_kernels_of_several_processes_meet_in_one(tmp_path):
    """Functions made by one function have one name; the linker must not take them for one."""
    apart = [start(tmp_path, MEET, factor)[0] for factor in ("3", "5")]
    assert start(tmp_path, MEET, "3", "5") == apart and apart[0] != apart[1]


DESCEND = """
from envs.jit import njit

@njit
def descend(x, depth):
    return descend(x + depth, depth - 1) if depth > 0 else x

@njit
def start(x):
    return descend(x, 3)

print(start(10))
"""


def test_a_function_that_calls_itself_is_compiled_as_ever(tmp_path):
    """numba loads such a function, called with a constant and then with a variable, with a hole in it."""
    assert start(tmp_path, DESCEND) == start(tmp_path, DESCEND) == ["16"]
    assert not list(tmp_path.glob("**/*.nbc"))


def test_an_attribute_of_a_function_s_name_is_no_call(monkeypatch):
    @njit
    def real(x):
        return x.real

    monkeypatch.setitem(globals(), "real", real)
    fingerprint(real)


def test_a_copy_in_another_module_is_another_function(tmp_path):
    """The first one's module is gone when the second one, alike to the letter, is called from the same kernel."""
    text = "from envs.jit import njit\n\n@njit\ndef twice(x):\n    return 2 * x\n"
    around = "from envs.jit import njit\n\ndef around(f):\n    return njit(lambda x: f(x) + 1)\n"
    (tmp_path / "around.py").write_text(around)
    for name in ("here", "there"):
        (tmp_path / f"{name}.py").write_text(text)
        script = f"from {name} import twice; from around import around; print(around(twice)(4))"
        assert start(tmp_path, script) == ["9"]
        (tmp_path / f"{name}.py").unlink()


def test_half_a_file_is_compiled_again(tmp_path):
    assert start(tmp_path, PLAY, "envs.matching_pennies")[1] != "0"
    for path in (tmp_path / "kept").iterdir():
        path.write_bytes(path.read_bytes()[:-7])
    reward, compiled = start(tmp_path, PLAY, "envs.matching_pennies")
    assert reward == start(tmp_path, PLAY, "envs.matching_pennies")[0] and int(compiled) > 5


@pytest.mark.parametrize("place", ["", "/dev/null/kept"], ids=["switched off", "no folder"])
def test_nothing_kept(tmp_path, place):
    assert start(tmp_path, "from envs.rng import make_streams; print(make_streams(2, 1)[0])", keep=place)
    assert not list(tmp_path.glob("**/*.nbc"))


def test_a_folder_that_others_may_write_to_is_not_used(tmp_path, monkeypatch):
    monkeypatch.setenv(FOLDER, str(tmp_path))
    tmp_path.chmod(0o700)
    assert jit.folder() == tmp_path
    tmp_path.chmod(0o777)
    assert jit.folder() is None


def test_unused_kernels_are_removed(tmp_path, monkeypatch):
    old, new, other = tmp_path / "old.nbc", tmp_path / "new.nbc", tmp_path / "other.txt"
    for path in (old, new, other):
        path.touch()
    for path in (old, other):
        os.utime(path, (1, 1))
    monkeypatch.setattr(jit, "_checked", set())
    jit._remove_unused(tmp_path)
    assert sorted(tmp_path.iterdir()) == [new, other]


def make(constant, fill=None, table=None, **options):
    @numba.njit(**options)
    def inner(x):
        return x + constant

    def outer(x):
        return inner(x) * 2

    def with_table(x):
        return inner(x) + table[0]

    return numba.njit(outer if table is None else with_table)


def test_the_fingerprint_tells_apart_what_machine_code_does():
    alike, different = make(1), [
        make(2), make(1.0), make(True), make(np.int8(1)), make(1, fastmath=True), make(1, error_model="numpy"),
        make(1, table=np.zeros(2)), make(1, table=np.ones(2)), make(1, table=np.zeros(2, np.float32)),
        make(1, table=(0, 0)),
    ]  # fmt: skip
    assert fingerprint(make(1)) == fingerprint(alike)
    assert len({fingerprint(function) for function in [alike, *different]}) == 1 + len(different)


def test_what_cannot_be_told_is_compiled_as_ever(tmp_path, monkeypatch):
    monkeypatch.setenv(FOLDER, str(tmp_path))
    unknown = numba.typed.List([1])
    with pytest.raises(jit._Unknown):
        fingerprint(make(1, table=unknown))
    function = kept(make(1))
    assert function(2) == 6 and len(list(tmp_path.glob("outer-*.nbc"))) == 1

    @njit
    def sums(x):
        return x.sum()

    assert sums(np.ones(3)) == 3.0
