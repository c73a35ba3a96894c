"""`litrl sweep`: what a space.yaml says, and a study that several processes share, one of them killed."""

import builtins
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lit_rl.run.errors import ArtefactError, ConfigError
from lit_rl.run.study import sweep
from lit_rl.run.study.sweep import Plan, Sweep, read_plan

ROOT = Path(__file__).parents[3]
SPACE = """
config: kuhn_ppo
fixed: {trainer.max_epochs: 40, trainer.check_val_every_n_epoch: 4}
space:
  model.clip: {uniform: [0.05, 0.3]}
  model.optimizer.init_args.lr: {log_uniform: [1e-5, 1e-2]}
  model.minibatches.update_epochs: {int: [1, 3]}
  model.network.init_args.hidden: {choice: [[16], [32, 32]]}
startup_trials: 3
"""


@pytest.fixture
def space(tmp_path):
    path = tmp_path / "space.yaml"
    path.write_text(SPACE)
    return path


def test_a_space_becomes_options_of_fit(space):
    plan = read_plan(space)
    assert plan.space["model.optimizer.init_args.lr"] == ("log_uniform", [1e-5, 1e-2])
    assert (plan.startup_trials, plan.warmup, plan.metric) == (3, 2, "eval/nash_conv")
    arguments = plan.arguments({"model.clip": 0.2, "model.network.init_args.hidden": [32, 32]})
    assert arguments == [
        "--config", "kuhn_ppo", "--trainer.max_epochs=40", "--trainer.check_val_every_n_epoch=4", "--model.clip=0.2",
        "--model.network.init_args.hidden=[32, 32]",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("config: kuhn_ppo", "", "needs config"),
        ("startup_trials", "startups", "startups means nothing; known are config"),
        ("startup_trials: 3", "startup_trials: -3", "startup_trials=-3: needs a whole number"),
        (
            "{uniform: [0.05, 0.3]}",
            "{uniform: [0.3, 0.05]}",
            r"space.model.clip.uniform=\[0.3, 0.05\]: needs the smaller",
        ),
        ("{uniform: [0.05, 0.3]}", "{normal: [0.3, 0.05]}", "needs one of uniform, log_uniform, int, choice"),
        ("{uniform: [0.05, 0.3]}", "{uniform: [a, b]}", "needs two numbers"),
        ("{log_uniform: [1e-5, 1e-2]}", "{log_uniform: [0, 1e-2]}", "both above 0"),
        ("{int: [1, 3]}", "{int: [1]}", "the smallest and the largest"),
        ("{int: [1, 3]}", "{int: [1, 2.5]}", "needs two numbers"),
        ("trainer.max_epochs: 40", "model.clip: 0.1", "stands in space and in fixed"),
        ("trainer.max_epochs: 40", "seed_everything: 1", "is no option of litrl fit that a sweep may set"),
        ("{int: [1, 3]}", "{choice: []}", "a list of values to choose from"),
        ("config:", "config: [", "is no YAML"),
    ],
)
def test_a_wrong_space_is_refused_by_its_field(space, old, new, said):
    assert old in SPACE
    space.write_text(SPACE.replace(old, new))
    with pytest.raises(ConfigError, match=said):
        read_plan(space)


def test_without_optuna_one_line_says_how_to_get_it(space, tmp_path, monkeypatch, capsys):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "optuna":
            raise ModuleNotFoundError("No module named 'optuna'", name="optuna")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(SystemExit) as end:
        sweep.main([str(space), "--folder", str(tmp_path / "s")])
    err = capsys.readouterr().err
    assert end.value.code == 2 and "pip install 'lit-rl[sweep]'" in err and err.count("\n") == 1
    assert not (tmp_path / "s").exists()


CURVE = """epoch,decisions,eval/nash_conv
0,10,{0}
1,20,{1}
2,30,{2}
"""


@pytest.fixture
def quick(monkeypatch):
    """Trainings that take no time: each leaves three validations of `clip`, or ends as `codes` says for its number."""
    pytest.importorskip("optuna")
    codes, begun = {}, []

    def fit(self, trial, values, root, lock, log):
        begun.append((trial.number, values))
        code = codes.pop(trial.number, 0)
        log.write_text("error: so it is\n")
        if code == 0:
            (root / "version_0").mkdir(exist_ok=True)
            (root / "version_0" / "metrics.csv").write_text(CURVE.format(*[values["model.clip"]] * 3))
            (root / "version_0" / "summary.json").write_text(json.dumps({"nash_conv": values["model.clip"]}))
        return code, False

    monkeypatch.setattr(Sweep, "_fit", fit)
    monkeypatch.setattr(Sweep, "_try_arguments", lambda self: None)
    return codes, begun


PLAN = Plan("kuhn_ppo", {"model.clip": ("uniform", [0.0, 1.0]), "data.num_envs": ("choice", [8, 16])})


@pytest.mark.filterwarnings("default")
def test_so_many_trials_as_were_asked_for(quick, tmp_path):
    _, begun = quick
    first = Sweep(PLAN, tmp_path / "s", 4)
    first.work()
    Sweep(PLAN, tmp_path / "s", 6).work()  # the same study, made longer
    assert [number for number, _ in begun] == list(range(6))
    trials = first.study.get_trials()
    best = min(trials, key=lambda t: t.value)
    assert [t.value for t in trials] == [values["model.clip"] for _, values in begun]
    assert len({t.value for t in trials}) == 6 and trials[0].intermediate_values == dict.fromkeys(
        (1, 2, 3), trials[0].value
    )
    assert "6 trials: 6 complete, 0 pruned, 0 fail" in first.tell() and f"--model.clip={best.value}" in first.tell()
    with pytest.raises(ConfigError, match="holds a sweep of another space"):
        Sweep(Plan("kuhn_ppo", {"model.clip": ("uniform", [0.0, 2.0])}), tmp_path / "s", 6)


@pytest.mark.filterwarnings("default")
def test_a_trial_left_behind_is_taken_up_with_its_own_values(quick, tmp_path):
    codes, begun = quick
    codes[1] = 5  # the disk is full
    study = Sweep(PLAN, tmp_path / "s", 3)
    with pytest.raises(ArtefactError, match="trial 1 ended with exit code 5"):
        study.work()
    study.work()
    assert [number for number, _ in begun] == [0, 1, 1, 2] and begun[1] == begun[2]
    assert [t.state.name for t in study.study.get_trials()] == ["COMPLETE"] * 3


@pytest.mark.filterwarnings("default")
def test_a_trial_that_somebody_holds_is_left_alone(quick, tmp_path):
    study = Sweep(PLAN, tmp_path / "s", 2)
    trial, lock = study._claim()
    other = Sweep(PLAN, tmp_path / "s", 2)
    mine, held = other._claim()
    assert (trial.number, mine.number) == (0, 1) and other._claim() is None
    lock.close()
    again, taken = other._claim()
    assert again.number == 0
    held.close()
    taken.close()


@pytest.mark.filterwarnings("default")
def test_nan_is_a_trial_that_failed_and_a_wrong_option_ends_the_sweep(quick, tmp_path, capsys):
    codes, _ = quick
    codes[0] = 4
    study = Sweep(PLAN, tmp_path / "s", 2)
    study.work()
    assert [t.state.name for t in study.study.get_trials()] == ["FAIL", "COMPLETE"]
    assert "trial 0: failed, error: so it is" in capsys.readouterr().out
    codes[0] = 2
    with pytest.raises(ConfigError, match="none has succeeded yet: error: so it is"):
        Sweep(PLAN, tmp_path / "t", 2).work()


@pytest.mark.filterwarnings("default")
def test_a_damaged_study_is_refused(quick, tmp_path):
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "study.sqlite").write_bytes(b"no database" * 500)
    with pytest.raises(ArtefactError, match=r"study.sqlite: cannot be used"):
        Sweep(PLAN, tmp_path / "s", 2)


def test_an_option_that_fit_does_not_know_makes_no_study(space, tmp_path, capsys):
    pytest.importorskip("optuna")
    space.write_text(SPACE.replace("model.clip", "model.clap"))
    with pytest.raises(SystemExit) as end:
        sweep.main([str(space), "--folder", str(tmp_path / "s")])
    assert end.value.code == 2 and "clap" in capsys.readouterr().err
    assert not (tmp_path / "s" / "study.sqlite").exists()


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_twenty_trials_by_two_processes_one_killed(space, tmp_path):
    """No trial is lost, and none is run twice: the killed one's trial goes on in its own run folder."""
    optuna = pytest.importorskip("optuna")
    folder = tmp_path / "s"
    command = [sys.executable, "-m", "lit_rl", "sweep", str(space), "--trials", "20", "--folder", str(folder)]
    env = {**os.environ, "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"}

    def start(name):
        with (tmp_path / name).open("w") as said:
            return subprocess.Popen(command, env=env, stdout=said, stderr=subprocess.STDOUT)

    workers = [start("a"), start("b")]
    checkpoint = "version_*/checkpoints/last.ckpt"
    while not list(folder.glob(f"trial_3/{checkpoint}")):
        assert workers[0].poll() is None, (tmp_path / "a").read_text()
        time.sleep(0.2)
    victim = next(i for i in (0, 1) if "trial 3:" in (tmp_path / "ab"[i]).read_text())
    os.kill(workers[victim].pid, signal.SIGKILL)
    workers.append(start("c"))
    for i, worker in enumerate(workers):
        assert worker.wait(1500) == (-signal.SIGKILL if i == victim else 0), (tmp_path / "abc"[i]).read_text()
    study = optuna.load_study(study_name="sweep", storage=f"sqlite:///{folder / 'study.sqlite'}")
    trials = study.get_trials()
    print([(t.number, t.state.name, t.value) for t in trials])
    assert [t.number for t in trials] == list(range(20))
    assert {t.state.name for t in trials} <= {"COMPLETE", "PRUNED"}
    for trial in trials:
        assert [path.name for path in folder.glob(f"trial_{trial.number}/version_*")] == ["version_0"]
    told = "".join((tmp_path / name).read_text() for name in "abc")
    assert "trial 3: goes on, its process is gone" in told
    ended = [n for n in range(20) if sum(f"trial {n}: {end}" in told for end in ("0.", "1.", "pruned")) != 1]
    assert ended == []
