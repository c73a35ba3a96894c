"""A job: a `litrl fit` in a process of its own, and the folder that tells how it went.

    job.json        its facts: state, attempts, pid, when it was started, and what its owner notes beside
    log             what its process printed
    version_<n>/    its run folder; verdict.json there is its last word, if it has one

The states that a job gives itself are new, running, stopped and failed; its owner may note others.
"""

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from lit_rl.run.own_code import HOME, own_folder
from lit_rl.run.run_folder import write_json

GRACE = 10.0  # seconds between asking a process to stop and killing it
RANKS = ("LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_leaving: list[subprocess.Popen] = []  # asked to stop, by a run that has ended


class Job:
    """The job in `folder`, whichever process began it.

    The child process outlives this object and this process: another `Job` of the same folder finds it running.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._child: subprocess.Popen | None = None  # None: it is another process's, or not started

    @property
    def exists(self) -> bool:
        return (self.folder / "job.json").exists()

    @property
    def facts(self) -> dict:
        """What job.json says now."""
        return json.loads((self.folder / "job.json").read_text())

    def note(self, **facts) -> dict:
        """Write these facts beside the others; all of them."""
        known = self.facts | facts
        write_json(self.folder / "job.json", known)
        return known

    def create(self, **facts) -> None:
        """Begin anew in this folder, with these facts."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.folder / "job.json", {"state": "new", "attempts": 0, "seconds": 0.0} | facts)

    def run_file(self, name: str) -> Path | None:
        """The file of that name in the job's run folder; None if there is none."""
        return next(iter(sorted(self.folder.glob(f"version_*/{name}"))), None)

    def fit_command(self, config: Path, arguments: Sequence[str] = ()) -> list[str]:
        """`litrl fit` by `config` and `arguments`, or of the run that was begun here, from its last checkpoint."""
        command = [sys.executable, "-m", "lit_rl", "fit"]
        begun = self.run_file("config.yaml")
        if begun is not None:
            return [*command, "--config", str(begun), "--ckpt_path", "last"]
        return [*command, "--config", str(config), *arguments]

    def start(self, command: Sequence[str], niceness: int = 0, device: str | None = None) -> None:
        """Run `command` as a session of its own.

        Args:
            niceness: added to this process's.
            device: cpu, or the number of the GPU that it may see; None for all that this process sees.
        """
        with open(self.folder / "log", "ab") as log:
            self._child = subprocess.Popen(
                list(command), stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=_environment(device),
                start_new_session=True,
            )  # fmt: skip
        pid = self._child.pid
        if niceness:
            with contextlib.suppress(OSError):  # it has ended already
                os.setpriority(os.PRIO_PROCESS, pid, min(19, os.getpriority(os.PRIO_PROCESS, 0) + niceness))
        self.note(
            state="running", attempts=self.facts["attempts"] + 1, pid=pid, born=_born(pid), started=time.time()
        )  # fmt: skip

    @property
    def alive(self) -> bool:
        """The job's process is there, and no zombie."""
        _leaving[:] = [child for child in _leaving if child.poll() is None]
        if self._child is not None:
            return self._child.poll() is None
        facts = self.facts
        pid, born = facts.get("pid"), facts.get("born")
        return bool(pid and born) and _born(pid) == born and _stat(pid)[0] != "Z"

    @property
    def seconds(self) -> float:
        """Since it was started."""
        return time.time() - self.facts["started"]

    def send(self, signum: int) -> None:
        """Send a signal, if the process is there to get it."""
        if self._child is not None:
            self._child.send_signal(signum)
        elif self.alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.facts["pid"], signum)

    def stop(self) -> None:
        """Ask it to stop, without waiting: it checkpoints, and goes on when it is started again."""
        self.send(signal.SIGTERM)
        if self._child is not None:
            _leaving.append(self._child)
        with contextlib.suppress(OSError):
            self.note(state="stopped")

    def stop_if_late(self, timeout: float) -> None:
        """Ask it to stop once it has run `timeout` seconds, and kill it GRACE seconds later."""
        late = self.seconds - timeout
        if late > 0:
            self.send(signal.SIGKILL if late > GRACE else signal.SIGTERM)

    def verdict(self, timeout: float = float("inf")) -> dict:
        """What its run left in verdict.json, once its process is gone.

        Raises:
            ValueError: nothing, or nothing readable; says how it ended. OSError: the file cannot be read.
        """
        path = self.run_file("verdict.json")
        if path is None:
            raise ValueError(
                f"time-out after {self.seconds:.0f} s" if self.seconds > timeout else self.last_word()
            )  # fmt: skip
        return json.loads(path.read_text())

    def last_word(self) -> str:
        """Exit code and last line of the log of a process that left no verdict."""
        log = self.folder / "log"
        lines = log.read_text(errors="replace").split("\n") if log.exists() else []
        said = next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
        code = None if self._child is None else self._child.returncode
        ended = (
            "" if code is None else f"killed by {signal.Signals(-code).name}: " if code < 0 else f"exit code {code}: "
        )
        return f"ended without a verdict ({ended}{said[:300]})"

    def move_aside(self, keep: Sequence[str] = ()) -> None:
        """Put away what an earlier life of the job has left, but for the files `keep`, and stop what still runs."""
        if self.exists:
            self.send(signal.SIGTERM)
        there = sorted(path.name for path in self.folder.iterdir())
        stale = [name for name in there if name not in keep and not name.startswith("before_")]
        if stale:
            aside = self.folder / f"before_{hashlib.sha256(repr(there).encode()).hexdigest()[:8]}"
            aside.mkdir()
            for name in stale:
                (self.folder / name).rename(aside / name)


def jobs_in(folder: Path) -> list[Job]:
    """The jobs of that folder, by name."""
    return [Job(path.parent) for path in sorted(folder.glob("*/job.json"))]


def _environment(device: str | None) -> dict[str, str]:
    """This process's, without its rank, and with lit-rl and the user's own code on the path."""
    environment = {name: value for name, value in os.environ.items() if name not in RANKS}
    folders = (HOME, own_folder(), os.environ.get("PYTHONPATH"))
    environment["PYTHONPATH"] = os.pathsep.join(str(folder) for folder in folders if folder)
    if device is not None:
        environment["CUDA_VISIBLE_DEVICES"] = "" if device == "cpu" else device
    return environment


def _stat(pid: int) -> list[str]:
    """Fields of /proc/<pid>/stat from the process's state on; [""] if there is no such process."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return [""]


def _born(pid: int) -> str:
    """When the process began, in the kernel's ticks: tells it from a later one of the same number. "" if unknown."""
    fields = _stat(pid)
    return fields[19] if len(fields) > 19 else ""
