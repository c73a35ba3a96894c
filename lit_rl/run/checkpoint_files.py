"""Checkpoints that survive: staged beside their target, synced, read back, and listed by hash in a manifest.

Lightning's own writer stages in $TMPDIR and does not sync; where that lies on another disk, a kill or a full disk in
mid-copy destroys the checkpoint that was there. Here every instant of a write leaves at least two complete generations
of that name, and each of them is known to the manifest before it appears:

    manifest.json (new entry) -> staged file becomes <name>.ckpt -> the one it replaced becomes <name>.previous.ckpt

A file is trusted if its SHA-256 stands in the manifest beside it; which one is the newest says the entry's sequence
number, never a file time. Everything inside loads with `torch.load(weights_only=True)`.
"""

import gc
import hashlib
import io
import json
import os
import re
import shutil
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from lit_rl.run.errors import ArtefactError
from lit_rl.run.plain_file import check_archive, first_line, load_plain

MANIFEST = "manifest.json"
ENTRY = {"sequence": int, "size": int, "file": str, "sha256": str, "resumable": bool, "quiescent": bool}
CHUNK = 1 << 20


def replace_file(path: Path, data: bytes) -> None:
    """Write `data` to `path` so that, whatever happens, either the old content or the new one is there."""
    stage, _ = _stage(path, lambda sink: sink.write(data))
    os.replace(stage, path)
    sync_folder(path.parent)


def verify(path: Path) -> dict:
    """The manifest's entry for the checkpoint at `path`; {} if no manifest knows it and its own checksums are right.

    Raises:
        ArtefactError: no such file, truncated, altered, or no checkpoint at all.
    """
    if not path.is_file():
        raise ArtefactError(f"checkpoint {path}: no such file{_remedy(path)}")
    entries = _read_manifest(path.parent)
    size = path.stat().st_size
    sha = _sha256(path)
    for entry in entries:
        if entry["sha256"] == sha:
            return entry
    expected = [entry for entry in entries if entry["file"] in (path.name, path.name.replace(".previous", ""))]
    if expected:
        wanted = expected[-1]["size"]
        what = f"truncated, {size} of {wanted} bytes" if size < wanted else "its SHA-256 is not the recorded one"
        raise ArtefactError(f"checkpoint {path}: {what}{_remedy(path)}")
    if damage := damage_of(path):
        raise ArtefactError(f"checkpoint {path}: {damage}{_remedy(path)}")
    return {}


def damage_of(path: Path) -> str:
    """What the checksums of a file's zip records say, which torch.load does not look at; "" if they are right."""
    try:
        check_archive(path, "checkpoint")
        with zipfile.ZipFile(path) as archive:
            bad = archive.testzip()
    except ArtefactError as error:
        return str(error).removeprefix(f"checkpoint {path}: ")
    except Exception as error:
        return f"no checkpoint ({first_line(error)})"
    return f"damaged at {bad}" if bad else ""


def newest_verified(folder: Path) -> tuple[Path | None, list[str]]:
    """The newest verified checkpoint in `folder` to go on from, and why others were refused.

    The highest sequence number among those that `callbacks.LastCheckpoint` saved; one saved during a validation, which
    would not be logged again, only where there is no other. Without a manifest the optimizer steps inside decide.
    """
    good, refused = [], []
    for path in sorted(folder.glob("*.ckpt")):
        try:
            entry, step = verify(path), -1
            if not entry:
                checkpoint = load_plain(path, "checkpoint")
                entry, step = _describe(checkpoint), int(checkpoint["global_step"])
            if not entry["resumable"]:
                continue
            good.append((entry["quiescent"], entry.get("sequence", -1), step, path))
        except ArtefactError as error:
            refused.append(str(error).split(";")[0])
        except Exception as error:
            refused.append(f"checkpoint {path}: cannot be loaded ({first_line(error)})")
    return (max(good)[-1] if good else None), refused


def remove_stages(folder: Path) -> list[str]:
    """Delete what a killed writer left half-written in `folder`; returns the names."""
    orphans = sorted(folder.glob(".*.stage"))
    for path in orphans:
        path.unlink(missing_ok=True)
    return [path.name for path in orphans]


@contextmanager
def _no_collection() -> Iterator[None]:
    """Pause the garbage collector.

    torch.save and torch.load each make a class, a cycle of 2 kB that is garbage as soon as they return. A collection in
    their midst would move it to an older generation, and the oldest, full of torch's and numba's objects, is hardly
    ever collected: a leak in all but name.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def refuse_nan(checkpoint: dict[str, Any]) -> None:
    for name, tensor in checkpoint.get("state_dict", {}).items():
        if isinstance(tensor, torch.Tensor) and tensor.is_floating_point() and bool(torch.isnan(tensor).any()):
            raise FloatingPointError(f"weight {name} is NaN; no checkpoint written, the one before stays")


class _Sink(io.RawIOBase):
    """An open file that counts and hashes what is written to it.

    After an error, or a signal's Stopped, it swallows the rest, for torch's writer, which has to end its archive, would
    raise something else: `error` is for whoever opened the file to raise.
    """

    def __init__(self, handle: int):
        self.handle, self.size, self.hash = handle, 0, hashlib.sha256()
        self.error: BaseException | None = None

    def write(self, data) -> int:
        try:
            rest = memoryview(data).cast("B")
            self.size += len(rest)
            self.hash.update(rest)
            while rest and self.error is None:
                rest = rest[os.write(self.handle, rest[:CHUNK]) :]
        except BaseException as error:
            self.error = error
        return len(data)


def _with_plain_numbers(value):
    """The same with Python's numbers for those of subclasses, such as jsonargparse's PositiveFloat, which would not
    load again; containers that hold none stay themselves."""
    if isinstance(value, int | float) and type(value) not in (bool, int, float):
        return int(value) if isinstance(value, int) else float(value)
    if type(value) is dict:
        plain = {key: _with_plain_numbers(x) for key, x in value.items()}
        return plain if any(plain[key] is not value[key] for key in value) else value
    if type(value) in (list, tuple):
        plain = type(value)(_with_plain_numbers(x) for x in value)
        return plain if any(a is not b for a, b in zip(plain, value)) else value
    return value


@_no_collection()
def stage_checkpoint(path: Path, checkpoint: dict[str, Any]) -> tuple[Path, _Sink]:
    """`checkpoint` in a file of its own beside `path`, written record by record, then loaded to see that it loads."""
    checkpoint = _with_plain_numbers(checkpoint)
    stage, sink = _stage(path, lambda sink: torch.save(checkpoint, sink))
    try:
        torch.load(stage, weights_only=True, map_location="cpu")
    except OSError:
        raise
    except Exception as error:
        stage.unlink()
        found = re.search(r"GLOBAL (\S+)", str(error))
        raise ArtefactError(
            f"checkpoint not written, it holds {found[1] if found else 'code'} and would not load with "
            "weights_only=True; keep only tensors, numbers, strings and containers of them in state_dict() and hparams"
        ) from error
    return stage, sink


def _stage(path: Path, fill: Callable[[_Sink], Any]) -> tuple[Path, _Sink]:
    """What `fill` writes in a file of its own beside `path`, synced and read back."""
    stage = path.with_name(f".{path.name}.stage")
    try:
        with open(stage, "wb", buffering=0) as file:
            sink = _Sink(file.fileno())
            try:
                fill(sink)
            except RuntimeError as error:  # of torch's writer again, if a signal came before `write` could catch it
                raise error.__context__ or error from None
            if sink.error is not None:
                raise sink.error
            os.fsync(file.fileno())
        if _sha256(stage) != sink.hash.hexdigest():
            raise OSError(f"{stage} does not read back as it was written")
    except BaseException:
        stage.unlink(missing_ok=True)
        raise
    return stage, sink


def second_name(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copyfile(source, target)


def previous(path: Path) -> Path:
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _read_manifest(folder: Path) -> list[dict]:
    """Entries in the order of their sequence numbers; [] where there is no readable manifest."""
    path = folder / MANIFEST
    if not path.exists():
        return []
    try:
        manifest = json.loads(path.read_bytes())
        entries = [{"resumable": True, "quiescent": False} | entry for entry in manifest["checkpoints"]]
        for entry in entries:
            for name, kind in ENTRY.items():
                if type(entry[name]) is not kind:
                    raise TypeError(f"{name} is no {kind.__name__}")
            if entry["sequence"] < 0 or entry["size"] < 0 or not re.fullmatch("[0-9a-f]{64}", entry["sha256"]):
                raise ValueError("a number or a hash is none")
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError, IsADirectoryError) as error:
        warnings.warn(f"{path} is damaged ({first_line(error)}); going by the checkpoints' own checksums", stacklevel=2)
        return []
    return sorted(entries, key=lambda entry: entry["sequence"])


def add_to_manifest(path: Path, sink: _Sink, checkpoint: dict[str, Any]) -> None:
    """Add an entry for what `sink` took; entries of files that are there stay, others go."""
    known = {entry["sha256"]: entry for entry in _read_manifest(path.parent)}
    entries = []
    for file in path.parent.glob("*.ckpt"):
        sha = _sha256(file)
        if sha in known:
            entries.append(known[sha])
        elif not known and not damage_of(file):  # the manifest is lost or damaged
            content = load_plain(file, "checkpoint")
            entries.append(
                _describe(content) | {"sequence": 0, "file": file.name, "size": file.stat().st_size, "sha256": sha}
            )
    new = _describe(checkpoint) | {
        "sequence": 1 + max((entry["sequence"] for entry in known.values()), default=0),
        "file": path.name,
        "size": sink.size,
        "sha256": sink.hash.hexdigest(),
    }
    entries = sorted([*entries, new], key=lambda entry: entry["sequence"])
    replace_file(path.parent / MANIFEST, json.dumps({"schema": 1, "checkpoints": entries}, indent=1).encode())


def _describe(checkpoint: dict[str, Any]) -> dict:
    return {
        "global_step": int(checkpoint.get("global_step", 0)),
        "resumable": bool(checkpoint.get("loops")) and bool(checkpoint.get("optimizer_states")),
        "quiescent": bool(checkpoint.get("quiescent", False)),  # saved between two minibatches, not during validation
        **checkpoint.get("run", {}),
    }


def _remedy(path: Path) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        known = {entry["sha256"]: entry["sequence"] for entry in _read_manifest(path.parent)}
    others = [(known.get(_sha256(other), -1), other) for other in path.parent.glob("*.ckpt") if other != path]
    newest = max(others, default=(-1, None))
    return f"; use {newest[1]}" if newest[0] >= 0 else "; there is no other verified checkpoint beside it"
