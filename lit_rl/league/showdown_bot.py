"""Let a policy play on a Pokémon Showdown server: it logs in, and takes challenges or challenges somebody.

    litrl showdown-bot runs/vgc_ppo/version_0 --server ws://127.0.0.1:8000 --name MyBot --games 10
    litrl showdown-bot runs/vgc_ppo/version_0 --server ws://127.0.0.1:8000 --challenge Somebody

The server must take names without a password, as one of your own does that is started with --no-security.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np

from envs.env import RulesError
from envs.game import load_interface
from envs.showdown import INTERFACE, VGC
from envs.showdown.battle import Battle
from envs.showdown.client import Client, ServerError, plain
from envs.showdown.teams import read_teams
from lit_rl.league.play import spec_of
from lit_rl.league.players import NetworkPlayer, Player, load_player, names_a_file
from lit_rl.league.ratings import wilson_interval
from lit_rl.run.allowed import trust
from lit_rl.run.errors import ArtefactError, ConfigError, exit_code
from lit_rl.run.own_code import import_from

ROOMS = 16  # battles at a time
HEARS = 1.0  # seconds between two looks at the time


class Bot:
    """A player in the battles of one user: a table whose rows are the rooms.

    Args:
        player: decides.
        seed: of its draws.
    """

    def __init__(self, player: Player, seed: int):
        self.player_of_all, self.rng = player, np.random.default_rng(seed)
        self.obs = np.zeros((ROOMS, *INTERFACE.obs_shape), INTERFACE.obs_dtype)
        self.legal = np.zeros((ROOMS, INTERFACE.num_actions), np.bool_)
        self.player = np.zeros(ROOMS, np.int8)
        self.rows: dict[str, int] = {}
        self.results: list[bool | None] = []

    def decide(self, room: str, battle: Battle) -> None:
        """Make the decision that is due on side 0."""
        if room not in self.rows:
            self.rows[room] = min(set(range(ROOMS)) - set(self.rows.values()))
            self.player_of_all.begin(np.array([self.rows[room]]))
        row = self.rows[room]
        self.obs[row], self.legal[row] = battle.observe(0), False
        self.legal[row, battle.legal] = True
        probs = np.zeros(self.legal.shape, np.float32)
        self.player_of_all.act(self, np.array([row]), probs)
        likely = probs[row, battle.legal].astype(np.float64)
        battle.take(int(self.rng.choice(battle.legal, p=likely / likely.sum())))

    def ended(self, room: str, won: bool | None) -> None:
        self.rows.pop(room, None)
        self.results.append(won)
        print(f"{room}: {'won' if won else 'a tie' if won is None else 'lost'}", flush=True)

    @property
    def free(self) -> bool:
        return len(self.rows) < ROOMS

    def __str__(self) -> str:
        score, games = sum(0.5 if won is None else won for won in self.results), len(self.results)
        low, high = wilson_interval(float(score), float(games))
        return f"{games} battles, win rate {score / games:.3f} [{low:.3f}, {high:.3f}]"


def play(client: Client, bot: Bot, args: argparse.Namespace, teams: tuple[str, ...] | None) -> None:
    """Play `args.games` battles, and say how they went.

    Raises:
        ServerError: the server refuses something, or nobody has moved for `args.patience` seconds.
    """
    begun, heard = 0, time.monotonic()
    team = lambda: None if teams is None else teams[int(bot.rng.integers(len(teams)))]  # noqa: E731
    while len(bot.results) < args.games:
        if args.challenge and begun == len(bot.results) and not client.rooms:
            client.challenge(args.challenge, args.format, team())
            begun += 1
        try:
            challengers = client.hear(HEARS)
            heard = time.monotonic()
        except TimeoutError:
            if time.monotonic() - heard > args.patience:
                raise ServerError(f"--patience {args.patience:g}: no word from the server for so long") from None
            continue
        for who, format in challengers:
            if not args.challenge and plain(format) == plain(args.format) and bot.free:
                client.accept(who, team())
            else:
                client.say("", f"/reject {who}")


def command_line() -> argparse.ArgumentParser:
    """What `litrl showdown-bot` takes."""
    parser = argparse.ArgumentParser(
        "litrl showdown-bot", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("player", help="a run folder, a checkpoint, a player file, an import path or random")
    parser.add_argument("--server", default="ws://127.0.0.1:8000", help="ws://host:port")
    parser.add_argument("--name", default="litrl", help="the user's, at most 18 characters")
    parser.add_argument("--format", default=VGC, help="in Showdown's words, custom rules included")
    parser.add_argument("--teams", help="a folder of teams, as data.teams; drawn per battle")
    parser.add_argument("--challenge", metavar="USER", help="challenge this user; else challenges are accepted")
    parser.add_argument("--games", type=int, default=1, help="so many battles")
    parser.add_argument("--greedy", action="store_true", help="take the likeliest action; else it is drawn")
    parser.add_argument("--seed", type=int, default=0, help="of its draws")
    parser.add_argument("--patience", type=float, default=600.0, help="seconds without a word from the server")
    parser.add_argument("--code", type=Path, help="the folder of your own networks and players, if not the current one")
    parser.add_argument("--allow", nargs="+", default=[], metavar="PACKAGE", help="files may name code from there too")
    return parser


def main(args: list[str] | None = None) -> None:
    """Run the command line; exit codes as those of `litrl fit`."""
    parsed, client = command_line().parse_args(args), None
    try:
        if parsed.games < 1:
            raise ConfigError(f"--games {parsed.games}: needs at least 1")
        if not 1 <= len(plain(parsed.name)) <= 18 or len(parsed.name) > 18:
            raise ConfigError(f"--name {parsed.name!r}: needs letters or digits, at most 18 characters")
        import_from(parsed.code)
        trust(parsed.allow)
        spec = spec_of(parsed.player)
        if isinstance(spec, str) and not names_a_file(spec):
            trust([spec])
        player = load_player(spec, load_interface("envs.showdown"))
        if parsed.greedy:
            if not isinstance(player, NetworkPlayer):
                raise ConfigError(f"--greedy: {parsed.player} is no network")
            player.greedy = True
        teams = None if parsed.teams is None else read_teams(parsed.teams, parsed.format)
        bot = Bot(player, parsed.seed)
        client = Client(parsed.server, parsed.name, bot.decide, bot.ended)
        print(f"{parsed.name} is on {parsed.server}", flush=True)
        play(client, bot, parsed, teams)
        print(bot)
    except (ConfigError, ArtefactError, RulesError, ValueError, OSError) as error:
        code = 2 if isinstance(error, ValueError) and not isinstance(error, ConfigError) else exit_code(error)
        print(f"error[{code}]: {error}", file=sys.stderr)
        sys.exit(code)
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        if client is not None:
            client.close()
