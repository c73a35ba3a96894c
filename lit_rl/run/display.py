"""A run that goes on without its lines where nobody reads them: a closed pipe, a lost terminal, a full disk."""

import errno
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

DEAD = (errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EIO)  # what a stream that takes no more says


class Display(io.TextIOBase):
    """A text stream that drops what is written to it once its target has died; otherwise the stream it is given.

    The target's file descriptor then leads to /dev/null: others write to it as well, and the interpreter's end would
    try once more to write what is left over.
    """

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            self._stream.write(text)
        except UnicodeEncodeError:  # a path, say, that is no UTF-8
            encoding = self._stream.encoding or "utf-8"
            return self.write(text.encode(encoding, "backslashreplace").decode(encoding))
        except OSError as error:
            self._bury(error)
        return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._bury(error)

    def close(self) -> None:
        """It is not ours to close."""

    def isatty(self) -> bool:
        return self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()

    def writable(self) -> bool:
        return True

    @property
    def encoding(self) -> str:
        return self._stream.encoding

    @property
    def errors(self) -> str | None:
        return self._stream.errors

    def __getattr__(self, name: str):  # buffer, reconfigure, ...
        return getattr(self._stream, name)

    def _bury(self, error: OSError) -> None:
        if error.errno not in DEAD:
            raise error
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), self._stream.fileno())
        with suppress(OSError):
            self._stream.flush()  # what was left over


@contextmanager
def undying() -> Iterator[None]:
    """Within it, a dead stdout or stderr takes what is printed and keeps silent."""
    before = sys.stdout, sys.stderr
    with open(os.devnull, "w") as nowhere:
        ours = sys.stdout, sys.stderr = [Display(stream or nowhere) for stream in before]  # None: closed from the first
        try:
            yield
        finally:
            for stream in ours:
                stream.flush()
            sys.stdout, sys.stderr = before
