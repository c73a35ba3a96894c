"""The file of a replay: floats survive, every byte changed and every cut is found, reading needs one line's memory."""

import json
import math
import resource
import tracemalloc

import numpy as np
import pytest
import torch
from conftest import small_mlp
from replays import forge, record_games

from lit_rl.run.errors import ArtefactError
from lit_rl.run.replay import verify
from lit_rl.run.replay_file import SCHEMA, ReplayWriter, canonical, read, seal


@pytest.fixture
def replay(tmp_path, kuhn):
    path = tmp_path / "replay.jsonl"
    record_games(path, kuhn, small_mlp(kuhn), num_envs=4, steps=6, limit=4)
    return path


def refused(path, game, line):
    with pytest.raises(ArtefactError, match=rf"{path.name}, line {line}: "):
        for _ in read(path):
            pass
    with pytest.raises(ArtefactError, match=rf"{path.name}, line {line}: "):
        verify(path, game)


def test_floats_survive_exactly():
    rng = np.random.default_rng(0)
    floats = rng.integers(0, 2**32, 20_000, dtype=np.uint32).view(np.float32)
    floats = np.concatenate([floats[np.isfinite(floats)], np.float32([0.0, -0.0, 1e-45, 3.4028235e38, 0.1])])
    back = np.array(json.loads(canonical({"x": torch.from_numpy(floats)}))["x"], np.float32)
    assert (back.view(np.uint32) == floats.view(np.uint32)).all()
    doubles = rng.integers(0, 2**64, 20_000, dtype=np.uint64).view(np.float64)
    doubles = doubles[np.isfinite(doubles)]
    assert (np.array(json.loads(canonical({"x": doubles}))["x"]).view(np.uint64) == doubles.view(np.uint64)).all()
    assert canonical({"n": 2**53, "m": 2**53 + 1}) == b'{"m":"9007199254740993","n":9007199254740992}'
    for bad in (math.nan, math.inf):
        with pytest.raises(ValueError, match="JSON compliant"):
            canonical({"x": bad})


def test_every_single_byte_mutation_is_found_at_its_line(replay, kuhn):
    data = replay.read_bytes()
    rng = np.random.default_rng(1)
    for at in rng.integers(0, len(data), 1500).tolist():
        mutated = bytearray(data)
        mutated[at] ^= int(rng.integers(1, 256))
        replay.write_bytes(mutated)
        line = data[:at].count(b"\n") + 1
        with pytest.raises(ArtefactError, match=rf"line {line}: "):
            for _ in read(replay):
                pass


def test_every_cut_is_found(replay, kuhn):
    data = replay.read_bytes()
    lines = data.splitlines(keepends=True)
    for n in range(len(lines)):
        replay.write_bytes(b"".join(lines[:n]))
        refused(replay, kuhn, n + 1)
        replay.write_bytes(b"".join(lines[:n]) + lines[n][: len(lines[n]) // 2])
        refused(replay, kuhn, n + 1)
        replay.write_bytes(b"".join(lines[:n]) + lines[n][:-1])
        refused(replay, kuhn, n + 1)


@pytest.mark.parametrize(
    ("edit", "line"),
    [
        (lambda x: [x[0], x[2], x[1], *x[3:]], 2),
        (lambda x: [*x[:3], x[2], *x[3:]], 4),
        (lambda x: [*x[:3], *x[4:]], 4),
        (lambda x: x[1:], 1),
        (lambda x: [*x, x[-1]], -1),
        (lambda x: [*x, b"\n"], -1),
        (lambda x: [x[0], x[-1]], 2),
    ],
    ids=["swapped", "doubled", "removed", "headless", "two ends", "a blank line", "emptied"],
)
def test_lines_out_of_place_are_found(replay, kuhn, edit, line):
    lines = replay.read_bytes().splitlines(keepends=True)
    replay.write_bytes(b"".join(edit(lines)))
    refused(replay, kuhn, line if line > 0 else len(lines) + 1)


def test_newer_schema_other_rules_and_long_lines_are_refused(replay, kuhn, leduc):
    with pytest.raises(ArtefactError, match=r"line 1: is of kuhn_poker 1.0, the rules here are leduc_poker 1.0"):
        verify(replay, leduc)
    forge(replay, lambda header: header.update(version="0.9"), line=1)
    with pytest.raises(ArtefactError, match=r"line 1: is of kuhn_poker 0.9, the rules here are kuhn_poker 1.0"):
        verify(replay, kuhn)
    forge(replay, lambda header: header.update(schema=SCHEMA + 6), line=1)
    with pytest.raises(ArtefactError, match=rf"line 1: schema 7, this program reads up to {SCHEMA}; update"):
        verify(replay, kuhn)
    replay.write_bytes(b"[" * (1 << 25))
    with pytest.raises(ArtefactError, match="line 1: longer than"):
        verify(replay, kuhn)
    for nasty in ({"x": []}, {"kind": "header", "schema": "1"}):
        replay.write_bytes(seal("", nasty)[0])
        with pytest.raises(ArtefactError):
            verify(replay, kuhn)
    deep = b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}\n"
    replay.write_bytes(deep)
    refused(replay, kuhn, 1)


def test_reading_needs_the_memory_of_one_line(tmp_path, kuhn):
    path = tmp_path / "large.jsonl"
    text, previous = seal("", {"kind": "header", "schema": SCHEMA})
    with path.open("wb") as file:
        file.write(text)
        for index in range(200):
            line, previous = seal(previous, {"kind": "game", "index": index, "pad": "x" * 100_000})
            file.write(line)
        file.write(seal(previous, {"kind": "end", "games": 200})[0])
    assert path.stat().st_size > 20e6
    tracemalloc.start()
    assert sum(1 for _ in read(path)) == 201
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2e6


def test_a_file_size_limit_leaves_a_whole_file(tmp_path):
    """The same with real writes that stop short."""
    writer = ReplayWriter(tmp_path / "r.jsonl")
    writer.begin({"run": "x"})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            while True:
                writer.append({"pad": "x" * 700})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert sum(1 for _ in read(writer.path)) == 1 + writer.state_dict()["games"] == 13
