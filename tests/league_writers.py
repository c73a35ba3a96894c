"""Processes that write to one league while others of them are killed.

    python league_writers.py <file> <writers> <results of each> <kills>

Run as a program of its own, since it forks. Each writer notes a result in its journal once `record` has returned.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

from envs.game import load_game
from lit_rl.league.league import League, Member, Result


def write(path: Path, writer: int, each: int) -> None:
    league = League(path, load_game("envs.kuhn_poker"))
    journal = path.with_name(f"journal_{writer}")
    done = len(journal.read_text().split()) if journal.exists() else 0
    with journal.open("a") as file:
        for i in range(done, each):
            league.record(f"writer {writer}", i, "train", [Result(f"a{writer}", "b", i % 2, 1 + i % 3, 0, 2, i, -i)])
            file.write(f"{i}\n")
            file.flush()


def spawn(path: Path, writer: int, each: int) -> int:
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            write(path, writer, each)
            code = 0
        finally:
            os._exit(code)
    return pid


def main(path: Path, writers: int, each: int, kills: int) -> None:
    league = League(path, load_game("envs.kuhn_poker"))
    for name in ["b", *(f"a{i}" for i in range(writers))]:
        league.add(Member(name, "random"))
    league.close()  # a connection must not be carried over a fork
    rng, killed, running = random.Random(0), 0, {spawn(path, i, each): i for i in range(writers)}
    while running:
        if killed < kills:
            time.sleep(rng.uniform(0.0, 0.01))
            os.kill(rng.choice(list(running)), signal.SIGKILL)
        pid, status = os.waitpid(-1, 0)
        writer, code = running.pop(pid), os.waitstatus_to_exitcode(status)
        assert code in (0, -signal.SIGKILL), f"writer {writer} ended with {code}"
        if code:
            killed += 1
            running[spawn(path, writer, each)] = writer
    print(killed)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
