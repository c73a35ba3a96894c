"""Checkpoint files: every point at which a write can die, every kind of damage, and which file is the newest."""

import gc
import io
import json
import os
import random
import shutil
import signal
from pathlib import Path

import pytest
import torch
from harness import exit_status
from jsonargparse.typing import PositiveFloat, PositiveInt

from lit_rl.run.checkpoint_files import _Sink, newest_verified, verify
from lit_rl.run.checkpoint_io import VerifiedCheckpointIO
from lit_rl.run.errors import ArtefactError, StorageError
from lit_rl.run.signals import Stopped

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # fork of a process with threads
]


PRIMITIVES = ("open", "write", "fsync", "replace", "link", "unlink", "close")


def small_checkpoint(step: int) -> dict:
    generator = torch.Generator().manual_seed(step)
    weights = {"w": torch.rand(3000, generator=generator)}
    resumable = {"loops": {"fit_loop": {}}, "optimizer_states": [{}], "quiescent": True}
    told = {"global_step": step, "run": {"iteration": step}, "pytorch-lightning_version": "2.6.6"}
    return told | {"state_dict": weights} | resumable


def write_in_fork(folder: Path, step: int, fail_at: int, crash: bool) -> int:
    """Write generation `step` in a fork in which the `fail_at`-th call of a PRIMITIVE kills it or finds no space.

    Returns the exit code: 0 written, 9 killed, 5 refused.
    """
    pid = os.fork()
    if pid == 0:
        calls = 0

        def guarded(primitive):
            def call(*args, **kwargs):
                nonlocal calls
                calls += 1
                if calls == fail_at:
                    if crash:
                        os._exit(9)
                    raise OSError(28, "No space left on device")
                return primitive(*args, **kwargs)

            return call

        for name in PRIMITIVES:
            setattr(os, name, guarded(getattr(os, name)))
        try:
            VerifiedCheckpointIO().save_checkpoint(small_checkpoint(step), folder / "last.ckpt")
            os._exit(0)
        except StorageError:
            os._exit(5)
        except BaseException:
            os._exit(1)
    return exit_status(pid)


@pytest.mark.parametrize("crash", [True, False])
def test_every_crash_point_of_a_checkpoint_write(tmp_path, crash):
    """Killed, or out of space, at the n-th system call, for every n: two verified generations stay."""
    points = 0
    for n in range(1, 200):
        folder = tmp_path / str(n)
        for step in (1, 2, 3):
            VerifiedCheckpointIO().save_checkpoint(small_checkpoint(step), folder / "last.ckpt")
        code = write_in_fork(folder, 4, n, crash)
        newest, refused = newest_verified(folder)
        content = torch.load(newest, weights_only=True)
        assert content["global_step"] in ((4,) if code == 0 else (3, 4)), (n, code)
        assert torch.equal(content["state_dict"]["w"], small_checkpoint(content["global_step"])["state_dict"]["w"])
        assert refused == [] and (folder / "last.ckpt").exists()
        steps = {torch.load(p, weights_only=True)["global_step"] for p in folder.glob("*.ckpt") if verify(p)}
        assert len(steps) >= 2, (n, steps)
        VerifiedCheckpointIO().save_checkpoint(small_checkpoint(5), folder / "last.ckpt")  # and life goes on
        assert torch.load(newest_verified(folder)[0], weights_only=True)["global_step"] == 5
        if code == 0:
            break
        assert code == (9 if crash else 5), (n, code)
        points += 1
    assert code == 0 and points >= 8
    print(f"\n{points} points of {'death' if crash else 'ENOSPC'} in one checkpoint write, none loses a generation")


@pytest.mark.parametrize("place", [os, _Sink], ids=["within", "on entry"])
def test_a_signal_in_mid_write_comes_out_as_itself(tmp_path, monkeypatch, place):
    """Raised in each of the writes that torch's writer asks for: no other error hides it, the old file stays."""
    VerifiedCheckpointIO().save_checkpoint(small_checkpoint(1), tmp_path / "last.ckpt")
    write, left = place.write, 0

    def stopping(*args):
        nonlocal left
        left -= 1
        if left == 0:
            raise Stopped(signal.SIGTERM)
        return write(*args)

    monkeypatch.setattr(place, "write", stopping)
    for point in range(1, 200):
        left = point
        try:
            VerifiedCheckpointIO().save_checkpoint(small_checkpoint(2), tmp_path / "last.ckpt")
            break
        except Stopped:
            assert verify(tmp_path / "last.ckpt")["global_step"] == 1
    assert point > 10 and verify(tmp_path / "last.ckpt")["global_step"] == 2


def damage(data: bytes, other: bytes, rng: random.Random) -> bytes:
    kind = rng.randrange(6)
    at = rng.randrange(len(data))
    if kind == 0:
        return data[:at]
    if kind == 1:
        return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]
    if kind == 2:
        return data[:at] + rng.randbytes(rng.randint(1, 64)) + data[at:]
    if kind == 3:
        return data[:at] + bytes(min(512, len(data) - at)) + data[at + 512 :]
    if kind == 4:
        at = rng.randrange(len(data) // 4, 3 * len(data) // 4)
        return other[:at] + data[at:]
    return rng.randbytes(rng.randint(0, 4096))


def corrupt(folder: Path, count: int, seed: int) -> dict[str, int]:
    """Damage checkpoints and manifests `count` times; each must be refused, or be harmless: the same content."""
    rng, tally = random.Random(seed), {"refused": 0, "harmless": 0, "previous used": 0}
    for i in range(count):
        place = folder / str(i)
        for step in (1, 2):
            VerifiedCheckpointIO().save_checkpoint(small_checkpoint(step), place / "last.ckpt")
        target = place / rng.choice(["last.ckpt", "last.ckpt", "manifest.json"])
        if rng.random() < 0.3:
            (place / "manifest.json").unlink(missing_ok=True)  # a file copied alone, or a lost manifest
            target = place / "last.ckpt"
        other = io.BytesIO()
        torch.save(small_checkpoint(77), other)
        target.write_bytes(damage(target.read_bytes(), other.getvalue(), rng))
        try:
            content = VerifiedCheckpointIO().load_checkpoint(place / "last.ckpt")
            assert torch.equal(content["state_dict"]["w"], small_checkpoint(2)["state_dict"]["w"]), (i, target)
            assert content["global_step"] == 2
            tally["harmless"] += 1
        except ArtefactError as error:
            assert str(place / "last.ckpt") in str(error)
            tally["refused"] += 1
        newest, _ = newest_verified(place)
        assert newest is not None and torch.load(newest, weights_only=True)["global_step"] in (1, 2)
        tally["previous used"] += newest.name == "last.previous.ckpt"
        shutil.rmtree(place)
    return tally


def test_damaged_checkpoints_are_refused_or_harmless(tmp_path):
    tally = corrupt(tmp_path, 150, seed=1)
    assert tally["refused"] > 60 and tally["previous used"] > 60


@pytest.mark.slow
def test_many_damaged_checkpoints(tmp_path):
    print(f"\n2,500 damaged artefacts: {corrupt(tmp_path, 2500, seed=2)}")


def test_last_is_no_checkpoint_taken_during_a_validation(tmp_path):
    """best.ckpt may be the newest file, but the row of metrics of its validation would be missing afterwards."""
    checkpoint = small_checkpoint(3)
    VerifiedCheckpointIO().save_checkpoint(checkpoint, tmp_path / "last.ckpt")
    VerifiedCheckpointIO().save_checkpoint(checkpoint | {"quiescent": False}, tmp_path / "best.ckpt")
    VerifiedCheckpointIO().save_checkpoint(checkpoint | {"optimizer_states": []}, tmp_path / "weights.ckpt")
    assert newest_verified(tmp_path)[0].name == "last.ckpt"
    (tmp_path / "last.ckpt").write_bytes(b"")
    assert newest_verified(tmp_path)[0].name == "best.ckpt"


def test_what_is_not_plain_data_is_not_written(tmp_path):
    with pytest.raises(ArtefactError, match="would not load with weights_only=True"):
        VerifiedCheckpointIO().save_checkpoint(small_checkpoint(1) | {"extra": Path("x")}, tmp_path / "last.ckpt")
    with pytest.raises(FloatingPointError, match="weight w is NaN"):
        checkpoint = small_checkpoint(1)
        checkpoint["state_dict"]["w"][7] = torch.nan
        VerifiedCheckpointIO().save_checkpoint(checkpoint, tmp_path / "last.ckpt")
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_write_leaves_no_garbage(tmp_path):
    """However often the collector runs while one is written: what torch made for it must not end up among the old."""

    def old_classes() -> int:
        old = [x for x in gc.get_objects(generation=2) if type(x) is type and x.__module__ == "torch.serialization"]
        return sum("<locals>" in x.__qualname__ for x in old)

    threshold = gc.get_threshold()
    gc.collect()
    before = old_classes()  # those of writes that failed in other tests
    try:
        gc.set_threshold(20, 1, 1_000_000)
        for step in range(30):
            VerifiedCheckpointIO().save_checkpoint(small_checkpoint(step), tmp_path / "last.ckpt")
    finally:
        gc.set_threshold(*threshold)
    gc.collect(1)
    assert old_classes() == before


def test_numbers_of_the_command_line_are_saved_as_plain_ones(tmp_path):
    """A learning rate given as PositiveFloat reaches the optimizer's state; it must not cost the run its checkpoint."""
    path, rate = tmp_path / "a.ckpt", PositiveFloat(0.003)
    checkpoint = {"optimizer_states": [{"param_groups": [{"lr": rate, "betas": (0.9, PositiveInt(1))}]}], "flag": True}
    VerifiedCheckpointIO().save_checkpoint(checkpoint, path)
    (group,) = torch.load(path, weights_only=True)["optimizer_states"][0]["param_groups"]
    assert group == {"lr": 0.003, "betas": (0.9, 1)} and type(group["lr"]) is float
    assert checkpoint["optimizer_states"][0]["param_groups"][0]["lr"] is rate


@pytest.mark.parametrize(
    "change",
    [
        {"sequence": "3"}, {"sequence": True}, {"sequence": 1.0}, {"sequence": -1}, {"sequence": None}, {"size": "7"},
        {"size": -7}, {"file": 3}, {"file": None}, {"sha256": "x"}, {"sha256": None}, {"sha256": ["a"]},
        {"resumable": "no"}, {"resumable": 1}, {"quiescent": None}, {"quiescent": [1]},
    ],
    ids=str,
)  # fmt: skip
def test_a_manifest_with_odd_types_is_a_damaged_manifest(tmp_path, change):
    """A warning says so, and the checkpoints' own checksums decide."""
    for number in range(2):
        checkpoint = {"state_dict": {"w": torch.ones(3)}, "global_step": number, "loops": {"a": 1}}
        VerifiedCheckpointIO().save_checkpoint(
            checkpoint | {"optimizer_states": [1], "quiescent": True}, tmp_path / "last.ckpt"
        )
    path = tmp_path / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["checkpoints"][0] |= change
    path.write_text(json.dumps(manifest))
    with pytest.warns(UserWarning, match="manifest.json is damaged"):
        newest, refused = newest_verified(tmp_path)
    assert newest == tmp_path / "last.ckpt" and not refused


@pytest.mark.parametrize("content", ["[]", "3", "null", '{"checkpoints": {"a": 1}}', '{"checkpoints": [3]}', "{}"])
def test_a_manifest_that_is_none_is_a_damaged_manifest(tmp_path, content):
    VerifiedCheckpointIO().save_checkpoint({"state_dict": {}, "loops": {"a": 1}, "global_step": 1}, tmp_path / "a.ckpt")
    (tmp_path / "manifest.json").write_text(content)
    with pytest.warns(UserWarning, match="manifest.json is damaged"):
        assert verify(tmp_path / "a.ckpt") == {}
