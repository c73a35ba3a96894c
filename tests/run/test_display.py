"""Where the lines of a run go when nobody takes them: the run goes on, and its exit code is its own."""

import errno
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from harness import ROOT, SMALL

from lit_rl.run.display import Display, undying


def fit(tmp_path: Path, *more: str, **streams) -> subprocess.Popen:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "lit_rl",
        "fit",
        *SMALL,
        "--trainer.default_root_dir",
        "here",
        *more,
    ]
    return subprocess.Popen(command, cwd=tmp_path, env=env, **streams)


def finished(tmp_path: Path) -> bool:
    return json.loads((tmp_path / "here" / "version_0" / "status.json").read_text())["state"] == "finished"


def test_a_pipe_whose_reader_leaves_after_a_line(tmp_path):
    """`litrl fit | head -1`; stderr, where nothing is to be said, stays empty."""
    run = fit(tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert run.stdout.readline()
    run.stdout.close()
    err = run.stderr.read().decode()
    run.stderr.close()
    assert run.wait(120) == 0, err
    assert finished(tmp_path) and "roken pipe" not in err and "Traceback" not in err, err


def test_a_full_disk_behind_both(tmp_path):
    with open("/dev/full", "w") as full:
        assert fit(tmp_path, stdout=full, stderr=full).wait(120) == 0
    assert finished(tmp_path)


def test_the_exit_code_of_an_error_stays(tmp_path):
    reader, writer = os.pipe()
    os.close(reader)
    run = fit(tmp_path, "--model.entropy_coef", "-1", stdout=writer, stderr=writer)
    os.close(writer)
    assert run.wait(120) == 2


@pytest.mark.parametrize("code", [errno.EPIPE, errno.ENOSPC, errno.EIO])
def test_a_dead_stream_is_silent(tmp_path, code, monkeypatch):
    class Dying(io.FileIO):
        dead = True

        def write(self, data):
            if self.dead:
                raise OSError(code, "gone")
            return super().write(data)

    stream = io.TextIOWrapper(io.BufferedWriter(Dying(str(tmp_path / "file"), "w")), write_through=False)
    monkeypatch.setattr(sys, "stdout", stream)
    with undying():
        for _ in range(10_000):
            print("a line", flush=True)
    assert sys.stdout is stream
    stream.buffer.raw.dead = False
    stream.close()
    assert (tmp_path / "file").read_text() == ""


def test_other_errors_are_no_business_of_the_display(tmp_path):
    class Odd(io.StringIO):
        def write(self, text):
            raise OSError(errno.EBADF, "odd")

    with pytest.raises(OSError, match="odd"):
        Display(Odd()).write("a line")


def test_what_the_encoding_lacks_is_spelt_out(tmp_path):
    raw = io.BytesIO()
    display = Display(io.TextIOWrapper(raw, encoding="utf-8"))
    display.write("runs/\udcff\n")
    display.flush()
    assert raw.getvalue() == b"runs/\\udcff\n"
