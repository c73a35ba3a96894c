"""Stopwatch: each second is charged once, to the right part, in windows that lie evenly over the run."""

import json
import time

import lightning as L
import pytest

from callbacks.scalar_schedule import ScalarSchedule
from callbacks.stopwatch import PARTS, WARM, Stopwatch
from lit_rl.schedules import Linear

PAUSE = 0.02


class Pause(L.Callback):
    """Takes its time in one place of each iteration."""

    def __init__(self, where):
        self.where, self.seen = where, []

    def on_train_start(self, trainer, pl_module):
        slow = {
            "env": (trainer.datamodule.env, "step"), "forward and loss": (pl_module, "training_step"),
            "batches": (pl_module, "make_batches"), "optimizer": (trainer.optimizers[0], None),
            "rollout forward": (pl_module.policy, "forward"),
        }  # fmt: skip
        if self.where == "optimizer":
            clip = pl_module.configure_gradient_clipping
            pl_module.configure_gradient_clipping = lambda *a, **k: (time.sleep(PAUSE), clip(*a, **k))[1]
        elif self.where in slow:
            owner, name = slow[self.where]
            inner = getattr(owner, name)
            setattr(owner, name, lambda *a, **k: (time.sleep(PAUSE), inner(*a, **k))[1])

    def on_train_epoch_start(self, trainer, pl_module):
        self.seen.append((trainer.current_epoch, pl_module.entropy_coef))
        if self.where == "Lightning and callbacks":
            time.sleep(PAUSE)


@pytest.mark.parametrize(
    "where", [name for name in PARTS if name not in ("opponents", "validation", "backward", "rollout rest")]
)
def test_a_pause_is_charged_to_its_part(make_fit, tmp_path, where):
    watch = Stopwatch(tmp_path / "watch.json", seconds=0.3, windows=1)
    pause = Pause(where)  # before the watch, which thus sees the slow one
    trainer, model, data = make_fit(callbacks=[pause, watch], max_epochs=500)
    trainer.fit(model, data)
    (window,) = json.loads((tmp_path / "watch.json").read_text())["windows"]
    parts = window["parts"]
    assert max(parts, key=parts.get) == where, parts
    assert sum(parts.values()) == pytest.approx(window["seconds"])
    assert window["seconds"] >= 0.3 and window["iterations"] >= 2
    assert window["decisions"] == window["iterations"] * 64 * 8


def test_windows_lie_evenly_over_the_run(make_fit, tmp_path):
    """The run jumps from window to window, and its schedules with it; then it ends."""
    watch, pause = Stopwatch(tmp_path / "watch.json", seconds=0.05, windows=2), Pause(None)
    schedule = ScalarSchedule("model.entropy_coef", Linear(0.0, 999.0))
    trainer, model, data = make_fit(callbacks=[schedule, pause, watch], max_epochs=1000)
    trainer.fit(model, data)
    facts = json.loads((tmp_path / "watch.json").read_text())
    assert [window["iteration"] for window in facts["windows"]] == [250, 750]
    assert all(entropy == iteration for iteration, entropy in pause.seen)
    assert pause.seen[0][0] == 250 - WARM and len(pause.seen) < 500
    assert facts["scheduled"] == ["model.entropy_coef"] and facts["iterations"] == 1000
    assert facts["settings"]["data.num_envs"] == 64 and facts["settings"]["trainer.precision"] == "32-true"


def test_a_run_shorter_than_its_windows(make_fit, tmp_path):
    trainer, model, data = make_fit(callbacks=[Stopwatch(tmp_path / "watch.json")], max_epochs=12)
    trainer.fit(model, data)
    (window,) = json.loads((tmp_path / "watch.json").read_text())["windows"]
    assert 1 <= window["iterations"] <= 12
    trainer, model, data = make_fit(callbacks=[Stopwatch(tmp_path / "watch.json")], max_epochs=2)
    trainer.fit(model, data)
    assert json.loads((tmp_path / "watch.json").read_text())["windows"] == []
