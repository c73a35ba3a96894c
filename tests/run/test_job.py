"""Jobs: little programs instead of training runs, and what becomes of them."""

import json
import os
import signal
import time

import pytest
from league_runs import program, wait_for

from lit_rl.run import job as job_module
from lit_rl.run.job import Job, jobs_in

WAIT = "import time; time.sleep(60)"
DEAF = "import signal, time, sys; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
VERDICT = """
import json, pathlib, sys
folder = pathlib.Path(sys.argv[1]) / 'version_0'
folder.mkdir()
(folder / 'verdict.json').write_text(json.dumps({'win_rate': 0.5}))
"""


@pytest.fixture
def job(tmp_path):
    job = Job(tmp_path / "0000007")
    job.create(iteration=7)
    yield job
    if "pid" in job.facts:
        job.send(signal.SIGKILL)
        assert wait_for(lambda: not job.alive)


def run(job, text, **options):
    job.start(program(text, job.folder), **options)


def test_a_job_runs_ends_and_leaves_its_verdict(job, tmp_path):
    assert job.facts == {"state": "new", "attempts": 0, "seconds": 0.0, "iteration": 7} and not job.alive
    run(job, VERDICT)
    facts = job.facts
    assert facts["state"] == "running" and facts["attempts"] == 1 and facts["pid"] and facts["iteration"] == 7
    assert wait_for(lambda: not job.alive) and job.verdict() == {"win_rate": 0.5}
    assert job.run_file("verdict.json") == job.folder / "version_0" / "verdict.json" and job.run_file("x") is None
    job.note(state="judged")
    assert [j.facts["state"] for j in jobs_in(tmp_path)] == ["judged"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import sys; print('no luck'); sys.exit(7)", r"ended without a verdict \(exit code 7: no luck\)"),
        ("import os; os.kill(os.getpid(), 9)", r"killed by SIGKILL: it said nothing"),
        ("", r"exit code 0: it said nothing"),
    ],
)
def test_the_last_word_of_a_job_without_verdict(job, text, said):
    run(job, text)
    assert wait_for(lambda: not job.alive)
    with pytest.raises(ValueError, match=said):
        job.verdict()
    with pytest.raises(ValueError, match="time-out after"):
        job.verdict(timeout=0.0)


def test_an_unreadable_verdict_is_an_error(job):
    (job.folder / "version_0").mkdir()
    (job.folder / "version_0" / "verdict.json").write_text('{"win_rate": ')
    with pytest.raises(ValueError, match="Expecting value"):
        job.verdict()


def test_another_process_finds_it_and_tells_it_from_a_later_one(job):
    run(job, WAIT)
    other = Job(job.folder)
    assert other.alive
    other.send(signal.SIGKILL)
    assert wait_for(lambda: not other.alive)  # a zombie of ours does not count as alive
    assert not job.alive and other.last_word() == "ended without a verdict (it said nothing)"
    job.note(pid=os.getpid(), born="0")  # its number, but born at another time
    assert not Job(job.folder).alive


def test_it_is_asked_to_stop_and_goes_on_later(job):
    run(job, WAIT)
    job.stop()
    assert job.facts["state"] == "stopped" and wait_for(lambda: not job.alive)
    run(job, VERDICT)
    assert job.facts["attempts"] == 2 and wait_for(lambda: not job.alive) and job.verdict()


def test_late_jobs_are_asked_and_then_killed(job, monkeypatch):
    run(job, DEAF)
    assert wait_for(lambda: "deaf" in (job.folder / "log").read_text())
    job.stop_if_late(60.0)
    assert job.alive
    job.stop_if_late(0.0)  # SIGTERM, which it does not hear
    time.sleep(0.1)
    assert job.alive
    monkeypatch.setattr(job_module, "GRACE", -1.0)
    job.stop_if_late(0.0)
    assert wait_for(lambda: not job.alive)


def test_the_command_begins_or_goes_on(job):
    begin = job.fit_command(job.folder / "exploiter.yaml", ["--data.num_envs=8"])
    assert begin[1:4] == ["-m", "lit_rl", "fit"]
    assert begin[4:] == ["--config", str(job.folder / "exploiter.yaml"), "--data.num_envs=8"]
    (job.folder / "version_0").mkdir()
    config = job.folder / "version_0" / "config.yaml"
    config.touch()
    assert job.fit_command(job.folder / "x")[4:] == ["--config", str(config), "--ckpt_path", "last"]


def test_what_an_earlier_life_left_is_put_aside(job):
    run(job, WAIT)
    (job.folder / "victim.pt").touch()
    job.move_aside(keep=["victim.pt"])
    (aside,) = job.folder.glob("before_*")
    assert sorted(p.name for p in job.folder.iterdir()) == [aside.name, "victim.pt"]
    assert sorted(p.name for p in aside.iterdir()) == ["job.json", "log"]
    facts = json.loads((aside / "job.json").read_text())
    assert wait_for(lambda: job._child.poll() is not None) and facts["state"] == "running"
    job.create()
    job.move_aside()
    assert len(list(job.folder.glob("before_*"))) == 2 and not job.exists
    job.create()


def test_its_environment(job, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "3")
    run(
        job,
        "import os; print(os.environ.get('LOCAL_RANK'), os.environ['CUDA_VISIBLE_DEVICES'], os.nice(0))",
        device="1",
        niceness=3,
    )
    assert wait_for(lambda: not job.alive)
    rank, device, nice = (job.folder / "log").read_text().split()
    assert (rank, device) == ("None", "1") and int(nice) >= os.nice(0)
