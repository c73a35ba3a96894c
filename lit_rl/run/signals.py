"""SIGTERM, SIGINT, SIGHUP, SIGUSR1: a run in training ends its batch, checkpoints and leaves; all else leaves at once.

Process-wide, since signal handlers are. Lightning's own handling exits with 0 after SIGTERM, and with several devices
calls a collective from inside the handler; at SIGUSR1, by which SLURM announces the end of a job's time, it saves in
mid-step. Here one rank's signal reaches the others after the batch, when they ask each other
(`callbacks.LastCheckpoint`); forwarding it would make Ctrl-C, which a terminal sends to all, look like two.
"""

import os
import shlex
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

HANDLED = {
    signal.SIGTERM: "_on_signal",
    signal.SIGINT: "_on_signal",
    signal.SIGHUP: "_on_signal",
    signal.SIGUSR1: "_on_signal",
    signal.SIGALRM: "_on_alarm",
}
LAST_WORDS = 1.0  # seconds that they may take
GRACE = 4.0  # seconds until the end of the batch; then the run leaves with the checkpoint it has


class Stopped(BaseException):
    """Asked to stop by a signal. (No Exception: nothing on the way up may take it for an error of its own.)"""

    def __init__(self, signum: int):
        self.signum = signum
        self.folder: Path | None = None  # of the run, where there is one to go on with
        super().__init__(signum)

    def __str__(self) -> str:
        config = shlex.quote(str(self.folder / "config.yaml")) if self.folder else ""
        way_on = f"; go on with: litrl fit --config {config} --ckpt_path last" if self.folder else ""
        return f"stopped by {signal.Signals(self.signum).name}{way_on}"

    @property
    def exit_code(self) -> int:
        return 128 + self.signum  # as shells count: 130 for SIGINT, 143 for SIGTERM


class _Requests:
    """`received`: the signal that asks to stop, 0 if none. `deferred`: somebody looks at it after each batch.

    `last_words`: called with that signal before a second one ends the process.
    """

    def __init__(self) -> None:
        self.received, self.deferred = 0, False
        self.last_words: Callable[[int], None] = lambda signum: None
        self._leaving = False
        self._before: dict[int, Any] = {}

    def install(self) -> None:
        """Take over the signals, SIGINT also where a background shell had it ignored; nohup's SIGHUP stays ignored.

        Outside the main thread, which alone may do so, nothing is taken over.
        """
        self.received, self.deferred, self._leaving = 0, False, False
        if threading.current_thread() is not threading.main_thread():
            return
        for signum, handler in HANDLED.items():
            if signum == signal.SIGHUP and signal.getsignal(signum) == signal.SIG_IGN:
                continue
            before = signal.signal(signum, getattr(self, handler))
            self._before.setdefault(signum, before)

    def restore(self) -> None:
        """Give the signals back to whoever had them before the first `install`."""
        self.clear_alarm()
        self.last_words = lambda signum: None
        while self._before:
            signal.signal(*self._before.popitem())

    def clear_alarm(self) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        if self.received:
            self._leave_now()
        self.received = signum
        if not self.deferred:
            raise Stopped(signum)
        signal.setitimer(signal.ITIMER_REAL, GRACE)

    def _leave_now(self) -> None:
        """Asked twice: now; files are replaced atomically."""
        code = 128 + self.received
        if not self._leaving:
            self._leaving = True
            late = threading.Timer(LAST_WORDS, os._exit, [code])  # a device or a disk may hang
            late.daemon = True
            late.start()
            with suppress(Exception):
                self.last_words(self.received)
        os._exit(code)

    def _on_alarm(self, signum: int, frame: FrameType | None) -> None:
        raise Stopped(self.received)


requests = _Requests()
