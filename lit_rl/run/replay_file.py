"""The file of a replay: a chain of JSON lines that shows every change, and is whole after every game.

A header line, one line per game (`run.replay`) and an end line, each canonical JSON (sorted keys, no spaces, floats
as their shortest exact decimals, integers beyond 2^53 as strings) that closes with the sha256 of the line before and of
itself. So a byte changed, a line lost, moved or doubled, and an end cut off all show at the first line concerned. The
chain finds accidents and edits; it is no signature. Reading needs the memory of one line, at most `MAX_LINE` bytes.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from itertools import count
from pathlib import Path
from types import MappingProxyType

import numpy as np
from torch import Tensor

from lit_rl.run.errors import ArtefactError

SCHEMA = 1
MAX_LINE = 1 << 24  # bytes: some ten thousand decisions
MAX_EXACT = 1 << 53  # integers beyond are rounded by readers that know only doubles
_SEAL = len(b',"sha256":"') + 64 + len(b'"}\n')


def canonical(record: Mapping) -> bytes:
    """The one way to write `record` (may hold tensors) as JSON. Raises ValueError where a number is not finite."""

    def plain(value):
        if isinstance(value, Tensor | np.ndarray | np.generic):
            value = value.tolist()
        if isinstance(value, Mapping):
            return {key: plain(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [plain(item) for item in value]
        return str(value) if isinstance(value, int) and abs(value) > MAX_EXACT else value

    return _dump(plain(record))


def _dump(record: Mapping) -> bytes:
    return json.dumps(record, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def seal(previous: str, record: Mapping) -> tuple[bytes, str]:
    """The line of `record` after a line whose hash is `previous`, and this line's hash."""
    body = canonical(record)
    digest = hashlib.sha256(previous.encode() + body).hexdigest()
    return body[:-1] + f',"sha256":"{digest}"}}\n'.encode(), digest


class ReplayWriter:
    """Appends games to a file that is whole after every game: each append overwrites the end line and renews it.

    A new writer needs `begin` for a new file, or `load_state_dict` to go on with one.
    """

    nothing = MappingProxyType({"offset": 0, "sha256": "", "games": 0})  # the state before `begin`

    def __init__(self, path: Path):
        self.path = path
        self._state = dict(self.nothing)

    def state_dict(self) -> dict:
        """offset of the end line in bytes, sha256 of the line before it, number of games."""
        return dict(self._state)

    def load_state_dict(self, state_dict: Mapping) -> None:
        """Go on with the file where `state_dict` was taken, cutting off what was written later.

        Raises:
            ArtefactError: the file is not the one that `state_dict` was taken from. OSError: it cannot be written.
        """
        state = {name: state_dict[name] for name in self.nothing}
        with self.path.open("r+b") as file:
            file.seek(max(state["offset"] - _SEAL, 0))
            if file.read(_SEAL) != f',"sha256":"{state["sha256"]}"}}\n'.encode():
                raise ArtefactError(
                    f"{self.path}: does not hold the {state['games']} games that the checkpoint knows of; put the "
                    "run's own file back, or move this one away and a new one is begun"
                )
            self._state = state
            self._end(file)

    def begin(self, header: Mapping) -> None:
        """Start the file over with `header`. Raises OSError."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_bytes(b"")
        self._append({"kind": "header", "schema": SCHEMA} | dict(header), 0)

    def append(self, game: Mapping) -> None:
        """Add one game.

        Raises:
            ValueError: it holds a number that is not finite, or is too long; nothing changed.
            OSError: it could not be written; the file ends after the last whole game.
        """
        self._append({"kind": "game", "index": self._state["games"]} | dict(game), 1)

    def sync(self) -> None:
        """Wait until the file is on the disk."""
        with self.path.open("rb") as file:
            os.fsync(file.fileno())

    def _append(self, record: Mapping, games: int) -> None:
        line, digest = seal(self._state["sha256"], record)
        if len(line) > MAX_LINE:
            raise ValueError(f"a line of {len(line)} bytes; at most {MAX_LINE} can be read again")
        after = {"offset": self._state["offset"] + len(line), "sha256": digest, "games": self._state["games"] + games}
        with self.path.open("r+b", buffering=0) as file:
            try:
                _write(file, line + _end_line(after), self._state["offset"])
            except OSError:
                self._end(file)
                raise
        self._state = after

    def _end(self, file) -> None:
        end = _end_line(self._state) if self._state["offset"] else b""
        _write(file, end, self._state["offset"])
        file.truncate(self._state["offset"] + len(end))


def _end_line(state: Mapping) -> bytes:
    return seal(state["sha256"], {"kind": "end", "games": state["games"]})[0]


def _write(file, data: bytes, offset: int) -> None:
    while data:
        written = os.pwrite(file.fileno(), data, offset)
        data, offset = data[written:], offset + written


def read(path: Path) -> Iterator[tuple[int, dict]]:
    """(line number, record) of the header and of every game; the end line is checked and kept back.

    Raises:
        ArtefactError: names the first line that was changed, lost, doubled, moved, cut off or is of a newer schema.
    """

    def refused(number: int, what: str) -> ArtefactError:
        return ArtefactError(f"{path}, line {number}: {what}")

    previous, games, ended = "", 0, False
    with path.open("rb") as file:
        for number in count(1):
            line = file.readline(MAX_LINE + 1)
            if not line and ended:
                return
            if ended:
                raise refused(number, "goes on after its end line; the lines before are whole")
            if not line:
                raise refused(number, "the end line is missing: cut off; resume the run or copy the file again")
            if len(line) > MAX_LINE:
                raise refused(number, f"longer than {MAX_LINE} bytes; no replay of ours")
            try:
                if number == 1 and isinstance(schema := json.loads(line).get("schema"), int) and schema > SCHEMA:
                    raise refused(number, f"schema {schema}, this program reads up to {SCHEMA}; update lit-rl")
                body = line[:-_SEAL] + b"}"
                digest = hashlib.sha256(previous.encode() + body).hexdigest()
                intact = line[-_SEAL:] == f',"sha256":"{digest}"}}\n'.encode()
                record = json.loads(body) if intact else {}
                intact = intact and _dump(record) == body  # one way to write it: no NaN, no key twice
            except (ValueError, RecursionError, AttributeError):
                intact = False
            kind = record.get("kind") if intact else None
            if kind != "header" if number == 1 else kind not in ("game", "end"):
                raise refused(number, "changed, cut off or out of place; copy the file again from where it was written")
            if kind != "header" and record.get("games" if kind == "end" else "index") != games:
                raise refused(number, f"miscounted: {games} games stand before it")
            previous, games, ended = digest, games + (kind == "game"), kind == "end"
            if not ended:
                yield number, record
