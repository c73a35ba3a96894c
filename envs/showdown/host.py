"""Processes of Node that hold battles: starting them, asking them, and replacing one that has died or hangs.

A host answers one line of JSON with another, and keeps nothing that is not told in `Host.battles`, too: how each
battle was opened and what was chosen in it since. So a host that was killed or says nothing for too long is replaced by
a new one, which plays its battles again up to where they stood; the simulator does the same from the same seed. If the
same question ends the new one, too, it is asked battle by battle, and the battle that it was is lost. A host that
cannot be replaced ends the run in one line.
"""

import itertools
import json
import os
import re
import select
import shutil
import subprocess
import tempfile
import threading
import time
import weakref
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

from envs.env import RulesError
from envs.showdown import LAYOUT, VERSION

NODE = 18  # the oldest that is known to do
FOLDER = "~/.lit_rl/showdown"
SIZES = ("species", "moves", "items", "abilities", "types")
REPLACED = 3  # times in a row, for one question
ONE_BY_ONE = 2  # so many have failed: find out which battle it is
PATIENCE, PATIENCE_PER_BATTLE = 60.0, 1.0  # seconds for an answer
MANY = ("battles", "seeds")  # what a question may have many of; a team costs less than a battle
START_PATIENCE = 120.0  # of a new process, each question


class ShowdownMissingError(ValueError):
    """Node or the package is not there, or not the one that is needed; says how it gets there."""


class HostError(RulesError):
    """A host died or hung, and its successors did, too; or the simulator refused what it was told."""


def package_folder() -> Path:
    """Where the package lies, looked at before Node is started.

    Raises:
        ShowdownMissingError: there is none, or another version.
    """
    home = Path(os.environ.get("LIT_RL_SHOWDOWN", FOLDER)).expanduser()
    folder = home / "node_modules" / "pokemon-showdown"
    install = f"npm install --prefix {home} pokemon-showdown@{VERSION}"
    try:
        found = json.loads((folder / "package.json").read_text())["version"]
    except (OSError, ValueError, KeyError, TypeError):
        raise ShowdownMissingError(
            f"pokemon-showdown is not in {home}: {install} (or set LIT_RL_SHOWDOWN to where it is)"
        ) from None
    if found != VERSION:
        raise ShowdownMissingError(f"pokemon-showdown {found} is in {home}, needs {VERSION}: {install}")
    return folder


def node_program() -> str:
    """Where Node is.

    Raises:
        ShowdownMissingError: nowhere, or it is too old.
    """
    node = shutil.which("node")
    if node is None:
        raise ShowdownMissingError(f"node is not on the PATH: install Node.js {NODE} or newer (nodejs.org)")
    said = subprocess.run([node, "--version"], capture_output=True, text=True, check=False).stdout.strip()
    major = re.match(r"v(\d+)\.", said)
    if major is None or int(major[1]) < NODE:
        raise ShowdownMissingError(
            f"node {said or '?'} ({node}) is too old: install Node.js {NODE} or newer (nodejs.org)"
        )
    return node


class Host:
    """One process of Node with any number of battles, each under a key of its own.

    Args:
        format: by its name, custom rules included.
        teams: packed; null: the format generates them.

    Attributes:
        battles: key -> (seeds of the battle and of both teams, teams by number or None, choices [(p1, p2)] made since).
        replaced: so often the process was replaced.

    Raises:
        ShowdownMissingError: see `package_folder` and `node_program`. ValueError: no such format.
    """

    def __init__(self, format: str | None = None, teams: tuple[str, ...] | None = None):
        self.battles: dict[int, tuple[tuple[str, str, str], tuple[int, int] | None, list[tuple[str, str]]]] = {}
        self.replaced, self._format, self._teams = 0, format, teams
        self._keys, self._tickets = itertools.count(), itertools.count()
        self._dropped: list[int] = []  # keys
        self._asked: dict[int, dict] = {}  # ticket -> question, unanswered; in their order
        self._answers: dict[int, tuple[str, dict]] = {}  # ticket -> op and answer, not yet received
        self._unwanted: set[int] = set()  # tickets
        self._silent = False  # it takes no question
        self._command = [node_program(), str(Path(__file__).with_name("host.js")), str(package_folder())]
        self._process: subprocess.Popen | None = None
        self._begin()

    def new_key(self) -> int:
        return next(self._keys)

    def drop(self, keys: list[int]) -> None:
        """Forget these battles, by the way of the next question; may be called at any time, by a finalizer, too."""
        self._dropped += keys

    def forget(self, tickets: list[int]) -> None:
        """Nobody will receive these answers; may be called at any time, too."""
        self._unwanted |= set(tickets)

    def ask(self, message: dict) -> Any:
        """The answer to `message`."""
        return self.receive(self.send(message))

    def send(self, message: dict) -> int:
        """Ask without waiting, so that several hosts work at once; with the ticket `receive` fetches the answer."""
        if self._dropped:
            keys, self._dropped = self._dropped, []
            for key in keys:
                self.battles.pop(key, None)
            message = message | {"drop": keys}
        ticket = next(self._tickets)
        self._asked[ticket] = message
        if not self._silent:
            try:
                self._write(message)
            except (OSError, TimeoutError):
                self._silent = True  # found out again by `receive`, which mends it
        return ticket

    def receive(self, ticket: int) -> Any:
        """The answer to the message of that ticket; a host that has died or hangs is replaced first.

        Raises:
            ValueError: the format or a team cannot be had. HostError: see there.
        """
        failures = 0
        while ticket not in self._answers:
            oldest, message = next(iter(self._asked.items()))
            try:
                if self._silent:
                    raise OSError("it takes no question")
                if failures == ONE_BY_ONE and message["op"] == "choose":
                    answer = self._one_by_one(message)
                    self._write_all(list(self._asked.values())[1:])
                else:
                    answer = self._read(self._limit(message))
                    self._note(message, answer)
            except (OSError, TimeoutError) as error:
                failures += 1
                why = f"{error}{self._last_words()}"
                if failures > REPLACED:
                    raise HostError(
                        f"showdown: a host was replaced {REPLACED} times and failed again on '{message['op']}' "
                        f"({why}); try a smaller data.num_envs, or look for memory"
                    ) from None
                self._replace(again=failures != ONE_BY_ONE or message["op"] != "choose")
                continue
            failures = 0
            del self._asked[oldest]
            if oldest in self._unwanted:
                self._unwanted.remove(oldest)
            else:
                self._answers[oldest] = message["op"], answer
        op, answer = self._answers.pop(ticket)
        if "error" in answer:
            raise (HostError if op in ("open", "choose") else ValueError)(f"showdown: {answer['error']}")
        return answer["ok"]

    def _replace(self, again: bool = True) -> None:
        """A new process with the battles as they stood; again: asked once more all that is unanswered."""
        self.replaced += 1
        self._silent = False
        try:
            self._begin()
            self._restore()
            if again:
                self._write_all(self._asked.values())
        except (OSError, TimeoutError):
            self._silent = True

    def _one_by_one(self, message: dict) -> dict:
        """The answer to 'choose', each battle asked about alone: those that end the process are lost."""
        found = []
        for battle in message["battles"]:
            try:
                found += self._own({"op": "choose", "battles": [battle]})
                self._note({"op": "choose", "battles": [battle]}, {"ok": found[-1:]})
            except (OSError, TimeoutError) as error:
                found.append([0, None, None, [False, False], f"it ends the simulator ({error}{self._last_words()})"])
                self.battles.pop(battle[0], None)
                self._replace(again=False)
                if self._silent:
                    raise OSError("it takes no question") from None
        return {"ok": found}

    def close(self) -> None:
        """End the process; closing its input would do, and so does the end of this object or of Python."""
        if self._process is not None:
            self._process = None
            self._end()

    @property
    def pid(self) -> int:
        return self._process.pid

    def _begin(self) -> None:
        self.close()
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        # a session of its own: Ctrl-C is ours to answer, and the end of its input is the host's sign to end
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, start_new_session=True
        )
        self._end = weakref.finalize(self, _end, self._process, self._errors, os.getpid())
        self._said, self._silent = [b""], False
        os.set_blocking(self._process.stdin.fileno(), False)
        hello = self._own({"op": "hello"})
        if wrong := [f"{name} {hello['sizes'][name]}" for name in SIZES if hello["sizes"][name] != LAYOUT[name]]:
            raise ShowdownMissingError(
                f"pokemon-showdown in {self._command[2]} is not {VERSION} as published "
                f"({', '.join(wrong)}): install again"
            )
        if self._format is not None:
            self._own({"op": "start", "format": self._format, "teams": self._teams})

    def _own(self, message: dict) -> Any:
        """Ask the running process, without replacing it."""
        self._write(message)
        answer = self._read(START_PATIENCE + self._limit(message))
        if "error" in answer:
            self.close()
            raise ValueError(f"showdown: {answer['error']}")
        return answer["ok"]

    def _restore(self) -> None:
        if self.battles:
            self._own({"op": "open", "battles": [[key, *of] for key, of in self.battles.items()]})

    def _note(self, message: dict, answer: dict) -> None:
        """Write down how the battles go on."""
        if "error" in answer:
            return
        if message["op"] == "open":
            for key, seeds, which, made in message["battles"]:
                self.battles[key] = (seeds, which, list(made))
        if message["op"] == "choose":
            for (key, *chosen), (winner, *_) in zip(message["battles"], answer["ok"]):
                if winner is not None:
                    self.battles.pop(key, None)
                elif key in self.battles:  # or it was dropped since
                    self.battles[key][2].append(tuple(chosen))

    def _patience(self) -> float:
        """Seconds for all that is unanswered."""
        return sum(map(self._limit, self._asked.values()), PATIENCE)

    def _limit(self, message: dict) -> float:
        return PATIENCE + PATIENCE_PER_BATTLE * sum(len(message.get(many, ())) for many in MANY)

    def _write_all(self, messages: Iterable[dict]) -> None:
        for message in messages:
            self._write(message)

    def _write(self, message: dict) -> None:
        """Put a question into the pipe; answers are taken out meanwhile, or a host that cannot say one takes none."""
        data, end = memoryview(json.dumps(message).encode() + b"\n"), time.monotonic() + self._patience()
        to, answers = self._process.stdin.fileno(), self._process.stdout.fileno()
        while data:
            said, takes, _ = select.select([answers], [to], [], max(end - time.monotonic(), 0))
            if takes:
                data = data[os.write(to, data) :]
            elif said:
                self._take()
            else:
                raise TimeoutError("it took no question for too long")

    def _read(self, limit: float) -> dict:
        end = time.monotonic() + limit
        while b"\n" not in self._said[-1]:
            if not select.select([self._process.stdout], [], [], max(end - time.monotonic(), 0))[0]:
                raise TimeoutError(f"it gave no answer for {limit:.0f} s")
            self._take()
        line, _, rest = b"".join(self._said).partition(b"\n")
        self._said = [rest]
        return json.loads(line)

    def _take(self) -> None:
        self._said.append(os.read(self._process.stdout.fileno(), 1 << 20))
        if not self._said[-1]:
            raise OSError("it has ended")

    def _last_words(self) -> str:
        if self._process is None:
            return ""
        self._errors.seek(0)
        lines = [line for line in self._errors.read().decode(errors="replace").splitlines() if "Error" in line]
        return f": {lines[0].strip()[:200]}" if lines else ""


def _end(process: subprocess.Popen, errors: IO[bytes], owner: int) -> None:
    if owner == os.getpid():  # not in a fork
        process.kill()
        for file in (process.stdin, process.stdout, errors):
            file.close()
        process.wait()


_of_this_thread = threading.local()


def shared_hosts(format: str, teams: tuple[str, ...] | None, num_hosts: int) -> list[Host]:
    """Hosts that all envs of this thread with the same format and teams share: starting one takes a second.

    They end with the thread. Policies may be measured in one beside training, and a pipe has room for one at a time.
    """
    hosts = vars(_of_this_thread).setdefault(os.getpid(), {}).setdefault((format, teams), [])
    while len(hosts) < num_hosts:
        hosts.append(Host(format, teams))
    return hosts[:num_hosts]
