"""Stopwatch: each second is charged once, to the right part, in windows that lie evenly over the run.

The clock is one that stands still but where a part of the run says so.
"""

import json

import lightning as L
import pytest

from callbacks.scalar_schedule import ScalarSchedule
from callbacks.stopwatch import PARTS, WARM, Stopwatch
from lit_rl.schedules import Linear


class Clock(L.Callback):
    """A second passes in each call of one part of the run."""

    def __init__(self, where="env"):
        self.where, self.seconds, self.seen = where, 0.0, []

    def __call__(self):
        return self.seconds

    def slow(self, owner, name):
        inner = getattr(owner, name)

        def outer(*args, **kwargs):
            self.seconds += 1.0
            return inner(*args, **kwargs)

        setattr(owner, name, outer)

    def on_train_start(self, trainer, pl_module):  # before the watch, which thus sees the slow one
        places = {
            "env": (trainer.datamodule.env, "step"), "rollout rest": (trainer.datamodule.env, "sample"),
            "rollout forward": (pl_module.policy, "forward"), "batches": (pl_module, "make_batches"),
            "forward and loss": (pl_module, "training_step"), "optimizer": (pl_module, "configure_gradient_clipping"),
        }  # fmt: skip
        if self.where in places and hasattr(*places[self.where]):
            self.slow(*places[self.where])

    def on_train_epoch_start(self, trainer, pl_module):
        self.seen.append((trainer.current_epoch, pl_module.entropy_coef))
        self.seconds += self.where == "Lightning and callbacks"


def watched(make_fit, tmp_path, clock, *more, seconds, windows, max_epochs):
    watch = Stopwatch(tmp_path / "watch.json", seconds=seconds, windows=windows)
    watch.now = clock
    trainer, model, data = make_fit(callbacks=[*more, clock, watch], max_epochs=max_epochs)
    trainer.fit(model, data)
    return json.loads((tmp_path / "watch.json").read_text())


@pytest.mark.parametrize(
    "where", ["env", "batches", "forward and loss", "rollout forward", "optimizer", "Lightning and callbacks"]
)
def test_a_second_is_charged_to_its_part(make_fit, tmp_path, where):
    facts = watched(make_fit, tmp_path, Clock(where), seconds=16.0, windows=1, max_epochs=500)
    (window,) = facts["windows"]
    parts = {name: spent for name, spent in window["parts"].items() if spent}
    if where == "rollout forward":  # the same network learns, too
        assert parts.pop("forward and loss") > 0 and parts[where] >= 8 * window["iterations"]
    assert parts.keys() == {where} and set(window["parts"]) == set(PARTS) - {"validation"}
    assert window["seconds"] == sum(window["parts"].values()) >= 16 and window["iterations"] >= 2
    assert window["decisions"] == window["iterations"] * 64 * 8


def test_windows_lie_evenly_over_the_run(make_fit, tmp_path):
    """The run jumps from window to window, and its schedules with it; then it ends."""
    clock, schedule = Clock(), ScalarSchedule("model.entropy_coef", Linear(0.0, 999.0))
    facts = watched(make_fit, tmp_path, clock, schedule, seconds=64.0, windows=2, max_epochs=1000)
    assert [window["iteration"] for window in facts["windows"]] == [250, 750]
    assert [window["iterations"] for window in facts["windows"]] == [4, 4]  # of 8 steps of the env
    assert all(entropy == pytest.approx(iteration) for iteration, entropy in clock.seen)
    assert [i for i, _ in clock.seen] == [*range(250 - WARM, 254), *range(750 - WARM, 754)]
    assert facts["scheduled"] == ["model.entropy_coef"] and facts["iterations"] == 1000
    assert facts["settings"]["data.num_envs"] == 64 and facts["settings"]["trainer.precision"] == "32-true"


@pytest.mark.parametrize(("max_epochs", "windows"), [(12, 1), (2, 0)])
def test_a_run_shorter_than_its_windows(make_fit, tmp_path, max_epochs, windows):
    facts = watched(make_fit, tmp_path, Clock(), seconds=1e6, windows=3, max_epochs=max_epochs)
    assert len(facts["windows"]) == windows
