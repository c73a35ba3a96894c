"""The `litrl play` command: a person at the table with any checkpoint, heuristic or player, or two of them watched.

    litrl play runs/leduc_ppo/version_0                      the best checkpoint of a run
    litrl play envs.leduc_heuristics.always_call --game envs.leduc_poker --seat 1
    litrl play runs/a/version_0 runs/b/version_0 --watch     two players at it

At your turn: the number or the name of an action, ? for what the other one would do in your place, u to take back your
last decision, h for help, q to leave. You see what your seat may know, and at the end of a game everything.
"""

import argparse
import copy
import hashlib
import sys
import time
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import yaml

from envs.game import CHANCE, Game, action_names, load_game
from envs.vector_env import VectorEnv
from lit_rl.league.player_file import game_path_in
from lit_rl.league.players import NetworkPlayer, Player, Spec, load_player, names_a_file
from lit_rl.run.allowed import check_name, trust
from lit_rl.run.errors import ArtefactError, ConfigError, exit_code
from lit_rl.run.own_code import import_from
from lit_rl.run.replay import Position, weights_hash
from lit_rl.run.replay_file import ReplayWriter

ROW = np.arange(1)  # games are played one at a time, in row 0 of an env
HELP = "a number or a name: play it   ?: what the other would do in your place   u: take back   h: help   q: leave"


class Leave(Exception):
    """The person has had enough."""


class Table:
    """One game after another, each between players; `None` is the person.

    Args:
        game: the rules.
        players: one per seat.
        seed: of what is dealt and sampled.
        pause: seconds after each move that nobody typed.
    """

    def __init__(self, game: Game, players: list[Player | None], seed: int, pause: float = 0.0):
        self.game, self.players, self.pause = game, players, pause
        self.env = VectorEnv(game, 1, seed)
        self.taken_back: list[tuple] = []  # what the table was before each of the person's decisions in this game

    @property
    def mover(self) -> int:
        return int(self.env.player[0])

    def play(self) -> dict:
        """One game, to its end: its record for a replay.

        Raises:
            Leave: the person left.
        """
        env, stream = self.env, int(self.env.game_streams[0])
        actions: list[int] = []
        told = 0  # events of the game that the person has been told
        self.taken_back = []
        for player in self._others():
            player.begin(ROW)
        while not actions or not env.done[0]:
            player = self.players[self.mover]
            if player is None or not self._people():
                told = self._tell(stream, actions, told)
            if player is None:
                action = self._ask(actions)
                if action is None:
                    actions, told = actions[: int(env.num_decisions[0])], 0
                    continue
            else:
                action = int(self._sample(player))
                time.sleep(self.pause)
            actions.append(action)
            env.step(np.array([action]))
        return self._ended(stream, actions, told)

    def _weights(self) -> str:
        """The hash of the first network at the table; of none where there is none."""
        networks = [player.policy for player in self._others() if isinstance(player, NetworkPlayer)]
        return weights_hash(networks[0]) if networks else hashlib.sha256().hexdigest()

    def _people(self) -> list[int]:
        return [seat for seat, player in enumerate(self.players) if player is None]

    def _others(self) -> list[Player]:
        return list({id(player): player for player in self.players if player is not None}.values())

    def _sample(self, player: Player) -> np.ndarray:
        probs = np.zeros((1, self.game.num_actions), np.float32)
        player.act(self.env, ROW, probs)
        action = self.env.sample(probs)
        return action[0]

    def _events(self, stream: int, actions: list[int]) -> Iterator[tuple[Position, int, int]]:
        """(position before it, who acts, action) of all that has happened, chance's part drawn again."""
        position, chance, left = Position(self.game), np.array([stream], np.uint64), iter(actions)
        while True:
            who = position.player
            action = position.draw(chance) if who == CHANCE else next(left, None) if who >= 0 else None
            if action is None:
                return
            yield position, who, action
            position.play(action)

    def _tell(self, stream: int, actions: list[int], told: int) -> int:
        """Print what has happened since, as the person's seat saw it; so many events are told now."""
        people, game, count = self._people(), self.game, 0
        for position, who, action in self._events(stream, actions):
            count += 1
            if count <= told or who in people:
                continue
            hidden = bool(people) and game.hidden_from is not None
            hidden = hidden and all(game.hidden_from(position.state, seat) for seat in people)
            name = "something that you do not see" if hidden else self._told(position.state, who, action)
            print(f"  {'chance' if who == CHANCE else f'player {who}'}: {name}")
        return count

    def _told(self, state: np.record, who: int, action: int) -> str:
        if who == CHANCE:
            return self.game.chance_names[action] if self.game.chance_names else str(action)
        return " ".join(action_names(self.game, state, action)[:2])

    def _look(self) -> str | None:
        """The position as the person to move may know it; None where the game cannot say."""
        state = self.env.state.copy()
        if not self.game.perfect_information:
            if self.game.redact is None:
                return None
            self.game.redact(state[0], self.mover)
        return self.game.render(state[0])

    def _ask(self, actions: list[int]) -> int | None:
        """The person's action; None where the last decision was taken back."""
        view, legal = self._look(), np.flatnonzero(self.env.legal[0]).tolist()
        if view is not None:
            print(view)
        called = {action: action_names(self.game, self.env.state[0], action) for action in legal}
        names = {action: each[0] for action, each in called.items()}
        print(f"you are player {self.mover}: " + "   ".join(f"{a} {name}" for a, name in names.items()))
        while True:
            typed = _typed("> ")
            if typed in ("q", "quit"):
                raise Leave
            if typed in ("h", "help"):
                print(HELP)
            elif typed == "?":
                self._advise(names)
            elif typed in ("u", "undo"):
                if self._take_back():
                    return None
                print("there is nothing of yours to take back in this game")
            else:
                found = _meant(typed, called)
                if len(found) == 1:
                    self.taken_back.append((self.env.state_dict(), [_memory(player) for player in self._others()]))
                    return found[0]
                what = "means more than one action" if found else "is no action here"
                print(
                    f"{typed!r} {what}: give a number or a name of " + ", ".join(f"{a} {n}" for a, n in names.items())
                )

    def _take_back(self) -> bool:
        if not self.taken_back:
            return False
        env, memories = self.taken_back.pop()
        self.env.load_state_dict(env)
        self.env.done[:] = False
        for player, memory in zip(self._others(), memories):
            _remember(player, memory)
        return True

    def _advise(self, names: dict[int, str]) -> None:
        """Print what each other player would do here, and what a network thinks that the position is worth."""
        for player in self._others():
            memory, probs = _memory(player), np.zeros((1, self.game.num_actions), np.float32)
            value = f"   value {player.value(self.env, ROW)[0]:+.3f}" if isinstance(player, NetworkPlayer) else ""
            player.act(self.env, ROW, probs)
            _remember(player, memory)
            total = float(probs[0, list(names)].sum())
            print("  " + "   ".join(f"{name} {probs[0, a] / total:.3f}" for a, name in names.items()) + value)

    def _ended(self, stream: int, actions: list[int], told: int) -> dict:
        """Show how the game ended, and return its record."""
        self._tell(stream, actions, told)
        game, history, moves = self.game, [], []
        for position, who, action in self._events(stream, actions):
            history.append(action)
            if who >= 0:
                legal = np.flatnonzero(position.legal())
                moves.append({"player": who, "legal": legal, "rewards": np.zeros(game.num_players, np.float32)})
                moves[-1]["opponent"] = True
        position = Position(game)
        decision = -1
        for action in history:
            decision += position.player >= 0
            earned = position.play(action)
            if decision >= 0:
                moves[decision]["rewards"] += earned
        returns = np.sum([move["rewards"] for move in moves], axis=0).tolist()
        print(game.render(position.state))
        print("returns: " + "   ".join(f"player {p} {r:+g}" for p, r in enumerate(returns)))
        return {
            "iteration": 0, "decisions": 0, "row": 0, "stream": f"{stream:016x}", "weights": self._weights(),
            "precision": "32-true", "carried": 0, "temperature": 1.0, "truncated": False, "history": history,
            "moves": moves,
        }  # fmt: skip


def _memory(player: Player) -> dict | None:
    return copy.deepcopy(player.state_dict()) if hasattr(player, "state_dict") else None


def _remember(player: Player, memory: dict | None) -> None:
    if memory is not None:
        player.load_state_dict(memory)


def _typed(prompt: str) -> str:
    try:
        return input(prompt).strip()
    except EOFError:
        raise Leave from None


def _meant(typed: str, names: dict[int, tuple[str, ...]]) -> list[int]:
    """The actions that may be meant: by number, by one of their names, or by the beginning of one."""
    if typed.isdecimal():
        return [int(typed)] if int(typed) in names else []
    typed = _plain(typed)
    exact = [a for a, each in names.items() if typed in map(_plain, each)]
    return exact or [a for a, each in names.items() if typed and any(_plain(name).startswith(typed) for name in each)]


def _plain(name: str) -> str:
    """Without regard to capitals, and to how wide letters and digits are written."""
    return unicodedata.normalize("NFKC", name).casefold()


def spec_of(text: str) -> Spec:
    """A player as it is typed: `random`, an import path, a file, a run folder, or {class_path: ..., init_args: ...}."""
    if text.startswith("{"):
        try:
            return yaml.safe_load(text)
        except yaml.YAMLError:
            raise ConfigError(f"{text}: is no {{class_path: ..., init_args: {{...}}}}") from None
    folder = Path(text) / "checkpoints"
    if Path(text).is_dir():
        for name in ("best.ckpt", "last.ckpt"):
            if (folder / name).is_file():
                return str(folder / name)
        raise ConfigError(f"{text}: is a folder without checkpoints/best.ckpt or last.ckpt, so no run")
    return text


def game_path(named: str | None, specs: list[Spec]) -> str:
    """The import path of the game that was named, or that a player's file names."""
    for spec in specs:
        if named is None and names_a_file(spec):
            named = check_name(game_path_in(Path(str(spec))), f"player file {spec}")
    if named is None:
        raise ConfigError("game: none of the players says which game it plays; give --game envs.leduc_poker")
    return named


def _replay(path: Path, game_path: str, game: Game, seed: int) -> ReplayWriter:
    if path.exists():
        raise ConfigError(f"--replay {path}: is there already; give another name")
    writer = ReplayWriter(path)
    facts = {"game": game_path, "name": game.name, "version": game.version, "seed": seed}
    writer.begin({"run": "", "continues": ""} | facts)
    return writer


def _play(args: argparse.Namespace) -> None:
    if args.watch != (len(args.player) == 2):
        raise ConfigError("--watch takes two players, and without it you sit opposite one")
    import_from(args.code)
    trust([*args.allow, *filter(None, [args.game])])
    specs = [spec_of(text) for text in args.player]
    for spec in specs:
        if isinstance(spec, str) and not names_a_file(spec):
            trust([spec])
    path = game_path(args.game, specs)
    game = load_game(path)
    others = [load_player(spec, game) for spec in specs]
    if args.seat is not None and not 0 <= args.seat < game.num_players:
        raise ConfigError(f"--seat {args.seat}: {game.name} has seats 0 to {game.num_players - 1}")
    seed = int(time.time()) if args.seed is None else args.seed
    table = Table(game, [], seed, args.pause)
    writer = None
    if args.replay is not None:
        if args.replay.exists():
            raise ConfigError(f"--replay {args.replay}: is there already; give another name")
        writer = ReplayWriter(args.replay)
        path = args.game or game_path_in(Path(str(specs[0])))
        writer.begin(
            {"run": "", "continues": "", "game": path, "name": game.name, "version": game.version, "seed": seed}
        )
    total, played = np.zeros(game.num_players), 0
    print(f"{game.name}, seed {seed}" + ("" if args.watch else f"; {HELP}"))
    try:
        for number in range(args.games):
            first = args.seat if args.seat is not None else number % game.num_players
            seats: list[Player | None] = [others[0]] * game.num_players
            seats[first] = others[1] if args.watch else None
            table.players = seats
            who = f"{args.player[1]} is" if args.watch else "you are"
            print(f"\ngame {number + 1}: {who} player {first}")
            record = table.play()
            total += np.roll(np.sum([move["rewards"] for move in record["moves"]], axis=0), -first)
            played += 1
            if writer is not None:
                writer.append(record)
    except Leave:
        print()
    if played:
        who = args.player[1] if args.watch else "you"
        print(f"{played} games, {who}: {total[0]:+g} in all, {total[0] / played:+.3f} a game")
    if writer is not None:
        print(f"replay: litrl-replay show {args.replay} --game 0")


def command_line() -> argparse.ArgumentParser:
    """What `litrl play` takes."""
    parser = argparse.ArgumentParser(
        "litrl play", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("player", nargs="+", help="a run folder, a checkpoint, a player file, an import path or random")
    parser.add_argument("--game", help="its import path; files name their own")
    parser.add_argument(
        "--seat", type=int, help="yours, from 0 (with --watch the second player's); else they alternate"
    )
    parser.add_argument("--watch", action="store_true", help="two players at it")
    parser.add_argument("--pause", type=float, default=0.0, help="seconds after each move that nobody typed")
    parser.add_argument("--games", type=int, default=100, help="so many games at most")
    parser.add_argument("--seed", type=int, help="of what is dealt and drawn; else from the clock")
    parser.add_argument("--replay", type=Path, help="write the finished games there, for litrl-replay")
    parser.add_argument("--code", type=Path, help="the folder of your own games and players, if not the current one")
    parser.add_argument("--allow", nargs="+", default=[], metavar="PACKAGE", help="files may name code from there too")
    return parser


def main(args: list[str] | None = None) -> None:
    """Run the command line; exit codes as those of `litrl fit`."""
    parsed = command_line().parse_args(args)
    try:
        _play(parsed)
    except (ConfigError, ArtefactError, ValueError, OSError) as error:
        code = 2 if isinstance(error, ValueError) and not isinstance(error, ConfigError) else exit_code(error)
        print(f"error[{code}]: {error}", file=sys.stderr)
        sys.exit(code)
    except KeyboardInterrupt:
        print()
        sys.exit(130)
