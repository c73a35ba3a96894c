"""Whose modules are whose: the user's own code is found again, and ours is not hidden by folders of the same name."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from harness import ROOT, SMALL

from lit_rl.run import own_code
from lit_rl.run.own_code import import_from, in_both, lying_in, named_in, own_folder, what_is_missing

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::lightning.pytorch.utilities.warnings.PossibleUserWarning"),
]


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Two folders, `here` the current one; what is imported is forgotten afterwards."""
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here, there):
        folder.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(own_code, "_folder", None)
    known = set(sys.modules)
    yield here, there
    for name in set(sys.modules) - known:
        if name.startswith("mine"):
            del sys.modules[name]


def test_own_code_is_imported_from_a_named_folder_and_from_the_current_one(folders):
    here, there = folders
    (here / "mine_a.py").write_text("WHERE = 'here'\n")
    (there / "mine_b.py").write_text("WHERE = 'there'\n")
    import_from(there)
    import mine_a
    import mine_b

    assert (mine_a.WHERE, mine_b.WHERE) == ("here", "there") and own_folder() == there
    import_from(here)
    assert own_folder() is None
    import_from(there / "gone")
    assert own_folder() is None and str(here) in sys.path


def test_what_a_config_names(folders):
    here, there = folders
    config = {"model": {"class_path": "mine.Net", "init_args": {"game": "my_game", "file": "a/b.pt", "lr": 0.1}}}
    config["trainer"] = {"callbacks": [{"class_path": "callbacks.arena.Arena"}, {"class_path": "lit_rl.ppo.PPO"}]}
    assert named_in(config) == {"mine", "my_game"}
    (here / "mine").mkdir()
    assert lying_in(here, named_in(config)) == []  # a folder of something else
    (here / "mine" / "net.py").write_text("")
    (there / "mine.py").write_text("")
    (there / "my_game.py").write_text("")
    assert lying_in(here, named_in(config)) == ["mine"]
    import_from(there)
    assert in_both(named_in(config)) == ["mine"]


def test_a_module_that_is_missing_is_told_where_it_was_looked_for(folders):
    here, there = folders
    assert f"my_net lies not in the current folder, {here}" in what_is_missing("No module named 'my_net'")
    import_from(there)
    assert f"lies neither in {there} nor in" in what_is_missing("game='my_game.deep': no such module")
    (here / "envs").mkdir()
    (here / "envs" / "mine.py").write_text("")
    assert f"{here / 'envs'} is not seen: rename it, to my_envs say" in what_is_missing("No module named 'envs.mine'")
    assert what_is_missing("clip=-1: needs more") == ""


def test_a_package_that_has_taken_the_name_of_ours_is_refused_in_one_line(tmp_path):
    (tmp_path / "envs").mkdir()
    (tmp_path / "envs" / "__init__.py").write_text("")
    env = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    words = [sys.executable, "-c", "import envs\ntry: import lit_rl\nexcept ImportError as error: print(error)"]
    done = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, text=True, check=True)
    path = tmp_path / "envs" / "__init__.py"
    assert done.stdout == (
        f"lit-rl has a package envs, and {path} was imported under that name: rename it, to my_envs say\n"
    )
    words[-1] = "import lit_rl, envs.game; print(envs.__file__)"
    done = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, text=True, check=True)
    assert Path(done.stdout.strip()) == ROOT / "envs" / "__init__.py"


MINE = "from lit_rl.networks import MLP\nclass Net(MLP):\n    def __init__(self, game): super().__init__(game, (4,))\n"


def test_a_config_remembers_where_own_code_lies(command, folders, tmp_path, monkeypatch):
    here, there = folders
    (there / "mine_net.py").write_text(MINE)
    words = (*SMALL, "--model.network=mine_net.Net", "--print_config")
    code, _, err = command("fit", *words)
    assert code == 2 and "mine_net lies not in the current folder" in err.splitlines()[-1]
    code, _, err = command("fit", *words, "--code", "nowhere")
    assert code == 2 and "code=nowhere: no such folder" in err.splitlines()[-1]
    assert command("fit", *words, "--code", there)[0] == 0
    sys.modules.pop("mine_net")

    overlay = tmp_path / "o.yaml"
    overlay.write_text(f"code: {there}\nmodel: {{init_args: {{network: {{class_path: mine_net.Net}}}}}}\n")
    monkeypatch.chdir(here)
    (here / "mine_net.py").write_text(MINE)
    words = ("fit", *SMALL, "--config", overlay, "--trainer.max_epochs", 1)
    code, _, err = command(*words)
    assert code == 2 and f"mine_net: lies in {there}" in err and "say which one is meant: --code" in err
    sys.modules.pop("mine_net")
    assert command(*words, "--code", here, "--trainer.default_root_dir", tmp_path / "runs")[0] == 0
    assert f"code: {here}\n" in (tmp_path / "runs" / "version_0" / "config.yaml").read_text()
    sys.modules.pop("mine_net")


def test_a_run_of_ours_alone_remembers_no_folder(command, tmp_path):
    assert command("fit", *SMALL, "--trainer.max_epochs", 1, "--trainer.default_root_dir", "runs")[0] == 0
    assert "code: null\n" in (tmp_path / "runs" / "version_0" / "config.yaml").read_text()
