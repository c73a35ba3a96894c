"""`litrl profile`: what is told follows from what was measured."""

import json
import subprocess

import pytest

from lit_rl.run.errors import ArtefactError, ConfigError
from lit_rl.run.study import profile
from lit_rl.run.study.profile import NOTHING, Change, Measurement, Profile, changes, lines_of, together

SETTINGS = {
    "threads": 1, "data.num_threads": 1, "data.num_envs": 128, "data.num_steps": 4,
    "model.minibatches.merge_rows": True, "trainer.precision": "32-true",
}  # fmt: skip


def window(iteration, iterations, seconds, **parts):
    return {
        "iteration": iteration, "iterations": iterations, "decisions": 512 * iterations, "seconds": seconds,
        "busy": 0.5, "parts": parts,
    }  # fmt: skip


def measured(scale=1.0, **more):
    windows = [window(250, 10, 1.0 * scale, env=0.25, rest=0.75), window(750, 20, 4.0 * scale, env=1.0, rest=3.0)]
    facts = {"game": "g", "algorithm": "PPO", "iterations": 1000, "windows": windows, "device": "cpu"}
    facts |= {"validation": {"seconds": 0.5, "times": 20}, "settings": SETTINGS, "scheduled": []}
    return Measurement(facts | more)


def test_a_whole_run_out_of_its_windows():
    """500 iterations of 0.1 s, 500 of 0.2 s, 20 validations of half a second."""
    start = measured()
    assert start.seconds == pytest.approx(500 * 0.1 + 500 * 0.2 + 10)
    assert start.decisions == 512_000
    shares = start.shares()
    assert shares["env"] == pytest.approx([0.25, 0.25, 0.25 * 150 / 160])
    assert shares["validation"] == pytest.approx([0, 0, 10 / 160])
    assert sum(share[-1] for share in shares.values()) == pytest.approx(1)
    text = "\n".join(lines_of(start, "wall"))
    assert "512,000 decisions in 160.0 s" in text and "this process got 0.50 of a core" in text and "at 750" in text
    assert "busy" not in "\n".join(lines_of(start, "cpu"))


def test_what_is_tried(monkeypatch):
    monkeypatch.setattr(profile.os, "sched_getaffinity", lambda pid: range(6), raising=False)
    found, left = changes(measured(), profile.AXES, "wall")
    said = [str(change) for change in found]
    assert said == [
        "--threads=2", "--threads=4", "--threads=6", "--data.num_threads=2", "--data.num_threads=4",
        "--data.num_threads=6", "--data.num_envs=32  --data.num_steps=16", "--data.num_envs=256  --data.num_steps=2",
        "--data.num_envs=64  --data.num_steps=8", "--model.minibatches.merge_rows=false",
        "--trainer.precision=bf16-mixed",
    ]  # fmt: skip
    assert not left and [change.learns_otherwise for change in found] == [False] * 6 + [True] * 3 + [False, True]
    settings = SETTINGS | {"model.minibatches.merge_rows": None}
    found, left = changes(measured(scheduled=["data.num_steps"], settings=settings), profile.AXES, "cpu")
    assert [str(change) for change in found] == ["--trainer.precision=bf16-mixed"]
    assert [line.split(":")[0] for line in left] == ["threads", "num_threads", "envs_steps", "merge_rows"]
    assert "since a schedule sets data.num_steps" in left[2]
    found, left = changes(measured(), ["merge_rows"], "wall")
    assert len(found) == 1 and not left


def test_the_best_of_each_kind_together():
    a, b, c = (Change((axis,), {axis: value}) for axis, value in (("x", "1"), ("x", "2"), ("y", "1")))
    other = Change(("z",), {"z": "1"}, True)
    assert together([(a, 1.2), (b, 1.3), (c, 1.02), (other, 0.9)]) == b
    best = together([(a, 1.4), (b, 1.3), (c, 1.1), (other, 1.5)])
    assert best.options == {"x": "1", "y": "1", "z": "1"} and best.learns_otherwise
    assert together([(a, 1.0)]) == NOTHING


def test_a_slowing_machine_is_no_gain(monkeypatch, capsys):
    """Each measurement takes longer than the one before: a change lies between two of the run as it stands."""
    scales = iter([1.1, 1.21, 1.331])
    made = Profile([], 1.0, "wall")
    monkeypatch.setattr(made, "measure", lambda change: measured(next(scales), validation={"seconds": 0, "times": 0}))
    tried = made.try_each(measured(validation={"seconds": 0, "times": 0}), [Change(("x",), {"x": "1"})])
    assert tried[0][1] == pytest.approx(1.0) and "1.00 x as fast" in capsys.readouterr().out


def test_what_a_short_run_says_is_passed_on(monkeypatch):
    def ends(code, said="error[2]: clip=-1"):
        done = subprocess.CompletedProcess([], code, "", said)
        monkeypatch.setattr(profile.subprocess, "run", lambda *a, **k: done)
        return Profile(["--config", "x"], 1.0, "wall")

    with pytest.raises(ConfigError, match=r"litrl fit says error.2.: clip=-1"):
        ends(2).measure(NOTHING)
    with pytest.raises(ArtefactError, match="exit code 1"):
        ends(1).measure(NOTHING)


@pytest.mark.parametrize(
    ("words", "said"), [(["--seconds", "0"], "--seconds 0.0"), (["--repeats", "0"], "--repeats 0")]
)
def test_bad_input(words, said, capsys):
    with pytest.raises(SystemExit) as end:
        profile.main(["--config", "kuhn_ppo", *words])
    assert end.value.code == 2 and said in capsys.readouterr().err


@pytest.mark.slow
def test_a_real_run(capsys):
    """Where the time goes and one thing tried; arguments of litrl fit are passed on."""
    words = [
        "--config",
        "kuhn_ppo",
        "--trainer.max_epochs",
        "90",
        "--trainer.accelerator",
        "cpu",
        "--data.num_envs",
        "16",
    ]
    profile.main([*words, "--seconds", "0.2", "--repeats", "1", "--only", "merge_rows", "--clock", "cpu"])
    said = capsys.readouterr().out
    assert "kuhn_poker, PPO: " in said and "90 iterations" in said and "rollout forward" in said
    assert "--model.minibatches.merge_rows=" in said and "recommended: " in said
    if "recommended: nothing" not in said:
        assert json.dumps("litrl fit --config kuhn_ppo --trainer.max_epochs 90")[1:-1] in said
