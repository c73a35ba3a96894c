"""The folder of a run: one run holds it, it may move, and a place that cannot be written to is named at once."""

import csv
import json
import os
import shutil
import signal
from pathlib import Path

import pytest
from harness import SMALL, digest, fit_arguments, last_line, resume_arguments

from lit_rl.run.errors import ConfigError
from lit_rl.run.run_folder import MetricsFile, claim_run_folder, lock_run_folder, release_run_folders

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # fork of a process with threads
]


def test_one_run_per_folder(litrl, tmp_path, undisturbed):
    """A second process is refused by name; the lock of a killed one is taken over."""

    meddle = ("second_run", str(tmp_path / "version_0"), str(tmp_path / "second.log"))
    assert litrl(fit_arguments("kuhn_ppo", tmp_path), tmp_path / "log", sabotage=meddle) == -signal.SIGKILL
    line = last_line(tmp_path / "second.log")
    assert line.startswith(f"error[2]: run folder {tmp_path / 'version_0'}: in use by process ")
    assert litrl(resume_arguments(tmp_path / "version_0"), tmp_path / "log") == 0
    assert digest(tmp_path / "version_0") == undisturbed["kuhn_ppo"][0]


def test_a_start_that_comes_to_nothing_leaves_no_folder(tmp_path):
    """Neither the run folder nor those made around it; one in which a run has begun stays, as do others'."""
    for begun in (False, True):
        folder = claim_run_folder(tmp_path / "deep" / "runs")
        lock_run_folder(folder)
        (folder / "status.json").write_text("{}")
        if begun:
            (folder / "config.yaml").write_text("")
        release_run_folders(keep=False)
        assert folder.exists() == (tmp_path / "deep").exists() == begun
    folder = claim_run_folder(tmp_path / "deep" / "runs")
    release_run_folders(keep=False)
    assert not folder.exists() and (folder.parent / "version_0").exists()


def test_an_interrupted_start_leaves_no_folder(command, tmp_path, monkeypatch):
    def interrupted(*args, **kwargs):
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr("datamodules.self_play.rehearse", interrupted)
    code, _, err = command("fit", *SMALL, "--trainer.default_root_dir", "runs")
    assert code == 130 and err.splitlines()[-1] == "stopped by SIGINT"
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_to_is_said_at_once(litrl, tmp_path, undisturbed):
    (tmp_path / "file").write_text("")
    assert litrl(fit_arguments("kuhn_ppo", tmp_path / "file" / "runs"), tmp_path / "log") == 5
    assert last_line(tmp_path / "log").startswith("error[5]: trainer.default_root_dir=")


def test_elsewhere_with_another_seed_and_a_moved_folder(litrl, tmp_path, undisturbed):
    """Nothing hangs on the global seed, the hash seed, the working directory, or where the run folder lies."""
    reference, _, folder = undisturbed["kuhn_ppo"]
    root = tmp_path / "a"
    assert litrl(fit_arguments("kuhn_ppo", root), tmp_path / "log", sabotage=("stop_after_batch", 61)) == 143
    moved = tmp_path / "b" / "renamed"
    moved.parent.mkdir()
    shutil.move(root / "version_0", moved)
    for path in (moved / "checkpoints").iterdir():
        os.utime(path, (315532800, 315532800) if "last" in path.name else None)  # file times say nothing: 1980 or now

    args = [*resume_arguments(moved), "--seed_everything", "77"]
    code = litrl(args, tmp_path / "log", sabotage=("elsewhere", str(tmp_path)))
    assert code == 0, (tmp_path / "log").read_text()[-2000:]
    assert digest(moved) == reference
    best = json.loads((moved / "summary.json").read_text())
    assert Path(best["best_checkpoint"]).parent == moved / "checkpoints"
    assert best["best_nash_conv"] == json.loads((folder / "summary.json").read_text())["best_nash_conv"]


def test_killed_between_the_last_checkpoint_and_the_summary(litrl, tmp_path, undisturbed):
    code = litrl(fit_arguments("kuhn_ppo", tmp_path), tmp_path / "log", sabotage=("die_after_the_end",))
    folder = tmp_path / "version_0"
    assert code == -signal.SIGKILL and not (folder / "summary.json").exists()
    assert litrl(resume_arguments(folder), tmp_path / "log") == 0
    assert digest(folder) == undisturbed["kuhn_ppo"][0]
    assert json.loads((folder / "status.json").read_text())["state"] == "finished"
    assert (folder / "summary.json").exists() and (folder / "learning_curve.png").exists()


def test_every_run_claims_a_folder_of_its_own(tmp_path):
    """The next number that is free, whatever else lies there."""
    (tmp_path / "version_4").mkdir()
    (tmp_path / "version_old").mkdir()
    assert [claim_run_folder(tmp_path).name for _ in range(3)] == ["version_5", "version_6", "version_7"]


def test_a_folder_is_held_once(tmp_path):
    lock_run_folder(tmp_path)
    with pytest.raises(ConfigError, match=f"in use by process {os.getpid()} "):
        lock_run_folder(tmp_path)
    release_run_folders()
    lock_run_folder(tmp_path)
    release_run_folders()


def test_metrics_go_on_after_the_rows_that_are_kept(tmp_path):
    """Rows of a killed run beyond its checkpoint go, half a line too; columns may be added later."""
    first = MetricsFile(str(tmp_path))
    for step in range(4):
        first.log_metrics({"a": step}, step)
        first.save()
    path = tmp_path / "metrics.csv"
    path.write_text(path.read_text() + "4,")
    second = MetricsFile(str(tmp_path))
    assert second.num_rows() == 4
    second.keep(2)
    second.log_metrics({"a": 7, "b": 8}, 2)
    second.save()
    rows = list(csv.DictReader(path.open()))
    assert [(row["step"], row["a"], row["b"]) for row in rows] == [("0", "0", ""), ("1", "1", ""), ("2", "7", "8")]
    second.keep(0)
    assert second.num_rows() == 0
