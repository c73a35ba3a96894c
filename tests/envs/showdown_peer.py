"""One of poke-env's players, which challenges somebody on a server: an independent check; a process of its own.

python showdown_peer.py SimpleHeuristicsPlayer 127.0.0.1:8000 Somebody 10
"""

import asyncio
import sys

from poke_env import AccountConfiguration, ServerConfiguration
from poke_env import player as players

FORMAT = "gen9randomdoublesbattle@@@Team Preview,Picked Team Size = 4,Adjust Level = 50"


class Format(str):
    """poke-env compares it with the name in a battle's room, which has no custom rules in it."""

    __slots__ = ()

    def __eq__(self, other):
        return str(other) in (str(self), str(self).split("@@@", 1)[0])

    def __ne__(self, other):
        return not self == other

    __hash__ = str.__hash__


async def main(kind: str, server: str, whom: str, games: int) -> None:
    peer = getattr(players, kind)(
        account_configuration=AccountConfiguration("peer", None),
        server_configuration=ServerConfiguration(f"ws://{server}/showdown/websocket", ""),
        battle_format=FORMAT, max_concurrent_battles=1,
    )  # fmt: skip
    peer._format = Format(FORMAT)
    await peer.send_challenges(whom, games)
    print(f"{kind}: won {peer.n_won_battles} of {peer.n_finished_battles}", flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])))
