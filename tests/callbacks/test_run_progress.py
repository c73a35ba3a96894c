"""RunProgress: what a line keeps where the terminal is narrow."""

import io
import re

import pytest

from callbacks.run_progress import RunProgress, fitting


def test_the_last_part_is_kept_longest():
    parts = ["10.2 M decisions", "74.1 k/s", "entropy 0.512", "NashConv 0.321"]
    assert fitting(parts, 100) == "10.2 M decisions  74.1 k/s  entropy 0.512  NashConv 0.321"
    assert fitting(parts, 45) == "10.2 M decisions  74.1 k/s  NashConv 0.321"
    assert fitting(parts, 20) == "NashConv 0.321"
    assert fitting(parts, 5) == "" and fitting([], 10) == ""


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_iteration_and_headline_in_a_narrow_terminal(make_fit, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm")
    screen = Terminal()
    monkeypatch.setattr("sys.stdout", screen)
    trainer, model, data = make_fit(
        data={"num_envs": 4, "num_steps": 2}, max_epochs=1000, max_steps=64, check_val_every_n_epoch=1,
        enable_progress_bar=True, callbacks=[RunProgress()], limit_val_batches=1,
    )  # fmt: skip
    trainer.fit(model, data)
    lines = re.split(r"[\r\n]+", re.sub(r"\x1b\[[^a-zA-Z]*[a-zA-Z]", "", screen.getvalue()))
    shown = [line for line in lines if "NashConv" in line]
    assert shown and all(re.search(r"iteration +\d+/1000 .*NashConv \d\.\d\d\d", line) for line in shown)
    assert max(map(len, shown)) <= columns
    assert ("entropy" in shown[-1]) == (columns > 60)
