"""A player's side of a Pokémon Showdown server: logging in, challenges, and what is asked in each battle.

The protocol is that of the server's PROTOCOL.md over a websocket. What a side has been told becomes an observation by
the same `watcher.js` as in training. Servers that ask for a password are not served.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field

from envs.showdown.battle import Battle
from envs.showdown.host import Host

PATIENCE = 30.0  # seconds for the server to answer a log-in
SOCKET = "/showdown/websocket"


class ServerError(ValueError):
    """The server cannot be reached, or will not have us; says why."""


@dataclass
class Room:
    """A battle on the server, as our side has been told of it."""

    lines: list[str] = field(default_factory=list)
    request: dict | None = None
    answered: int | None = None  # number of the request that was last answered


class Client:
    """One user of a server.

    Args:
        server: ws://host:port.
        name: of the user.
        decide: (room, Battle) -> None: makes the decisions that are due on side 0 of the battle.
        ended: (room, True where we have won, False where not, None where nobody has) -> None.

    Raises:
        ServerError: websockets is not installed, nobody answers, or the name is not to be had.
    """

    def __init__(
        self, server: str, name: str, decide: Callable[[str, Battle], None], ended: Callable[[str, bool | None], None]
    ):
        try:
            from websockets.sync.client import connect
        except ImportError:
            raise ServerError("websockets is not installed: pip install 'lit-rl[showdown]'") from None
        self.name, self.decide, self.ended = name, decide, ended
        self.rooms: dict[str, Room] = {}
        self.host = Host()
        try:
            self.socket = connect(server.rstrip("/") + SOCKET, max_size=None, open_timeout=PATIENCE)
        except Exception as error:
            self.host.close()
            raise ServerError(f"--server {server}: nobody answers ({type(error).__name__}: {error})") from None
        self._log_in(server)

    def close(self) -> None:
        self.socket.close()
        self.host.close()

    def _log_in(self, server: str) -> None:
        """Take the name, as soon as the server has greeted us."""
        asked = False
        for _ in range(100):
            try:
                message = self.socket.recv(timeout=PATIENCE)
            except TimeoutError:
                break
            for line in message.split("\n"):
                kind, *rest = line[1:].split("|")
                if kind == "challstr" and not asked:
                    asked = True
                    self.say("", f"/trn {self.name},0,")
                if kind == "nametaken":
                    raise ServerError(f"--name {self.name}: {rest[-1]}; give another, or a server with --no-security")
                if kind == "updateuser" and plain(rest[0]) == plain(self.name):
                    return
        raise ServerError(f"--server {server}: did not let {self.name} in within {PATIENCE:.0f} s")

    def say(self, room: str, text: str) -> None:
        self.socket.send(f"{room}|{text}")

    def challenge(self, whom: str, format: str, team: str | None) -> None:
        self.say("", f"/utm {team or 'null'}")
        self.say("", f"/challenge {whom}, {format}")

    def accept(self, whom: str, team: str | None) -> None:
        self.say("", f"/utm {team or 'null'}")
        self.say("", f"/accept {whom}")

    def hear(self, timeout: float) -> list[tuple[str, str]]:
        """Take in one message, and play what is due; (user, format) of those who challenge us in it.

        Raises:
            TimeoutError: there was none. ServerError: the connection is lost, or the server refuses what we do.
        """
        try:
            message = self.socket.recv(timeout=timeout)
        except TimeoutError:
            raise
        except Exception as error:
            raise ServerError(f"the connection to the server is lost ({type(error).__name__}: {error})") from None
        lines, room = message.split("\n"), ""
        if lines[0].startswith(">"):
            room, lines = lines[0][1:], lines[1:]
        if room.startswith("battle-"):
            self._battle(room, lines)
            return []
        found = []
        for line in lines:
            kind, *rest = line[1:].split("|")
            if kind == "popup":
                raise ServerError(f"the server says: {' '.join(rest)[:300]}")
            if kind != "pm" or len(rest) < 3:
                continue
            if rest[2].startswith("/error "):
                raise ServerError(f"the server says: {rest[2].removeprefix('/error ')[:300]}")
            if rest[2].startswith("/challenge ") and plain(rest[0]) != plain(self.name):
                found.append((rest[0].strip(), rest[2].removeprefix("/challenge ").strip()))
        return found

    def _battle(self, name: str, lines: list[str]) -> None:
        room = self.rooms.setdefault(name, Room())
        for line in lines:
            kind, *rest = line[1:].split("|")
            if kind == "request":
                if rest and rest[0]:
                    room.request = json.loads("|".join(rest))
            elif kind == "error" and rest[0].startswith("[Unavailable choice]"):
                room.answered = None  # the request that says more comes next, or has come
            elif kind == "error":
                raise ServerError(f"{name}: the server refuses a choice: {rest[0]}")
            elif kind in ("win", "tie"):
                del self.rooms[name]
                self.say("", f"/leave {name}")
                self.ended(name, None if kind == "tie" else plain(rest[0]) == plain(self.name))
                return
            else:
                room.lines.append(line)
        self._answer(name, room)

    def _answer(self, name: str, room: Room) -> None:
        """Choose what is asked, once the lines that led to it are there."""
        request = room.request
        if request is None or request.get("wait") or request.get("rqid") == room.answered:
            return
        if request.get("teamPreview") and "|teampreview" not in {line[:12] for line in room.lines}:
            return
        asked, seen = self.host.ask(
            {"op": "see", "side": request["side"]["id"], "lines": room.lines, "request": request}
        )
        battle = Battle(self.host, 0, (0, 0, 0), (-1, -1))
        battle.take_in([None, [asked, None], [seen, seen], None])
        while battle.look():
            self.decide(name, battle)
        room.answered = request.get("rqid")
        self.say(name, f"/choose {battle.choices()[0]}|{room.answered}")


def plain(name: str) -> str:
    """A user's name as the server compares it."""
    return "".join(c for c in name.split("@")[0].lower() if c.isascii() and c.isalnum())
