"""The `litrl usi` command: any checkpoint or player of shogi as a USI engine, for the boards that shogi is played on.

    litrl usi runs/shogi_ppo/version_0              the best checkpoint of a run
    litrl usi envs.shogi.heuristics.two_ply         a heuristic

It reads and answers usi, isready, setoption, usinewgame, position, go, stop, ponderhit, gameover and quit, one a line
(Tord Romstad's Universal Shogi Interface). It thinks for one look at the board, whatever time it has,
and plays the likeliest move; with the option Sample it draws one. What it cannot read it answers by one line, `info
string error: ...`, and goes on. It resigns where it has no move, and declares a win by the 27-point rule.
"""

import argparse
import math
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from envs.game import Game, load_game
from envs.shogi import compact, rules
from envs.shogi.notation import MoveError, PositionError, move_of, read_sfen
from lit_rl.league.play import game_path, spec_of
from lit_rl.league.players import NetworkPlayer, Player, Spec, load_player, name_of, names_a_file
from lit_rl.run.allowed import trust
from lit_rl.run.errors import ArtefactError, ConfigError, exit_code
from lit_rl.run.own_code import import_from

ROW = np.arange(1)
CENTIPAWNS = 600.0  # of log odds: what other engines' scores mean about
OPTIONS = ("option name Sample type check default false", "option name USI_Ponder type check default false")


class Position:
    """The table of one position, see `lit_rl.league.players.Table`."""

    def __init__(self, game: Game):
        self.game = game
        self.state = game.new_state()
        self.player = np.zeros(1, np.int8)
        self.legal = np.zeros((1, game.num_actions), np.bool_)
        self.obs = np.zeros((1, *game.obs_shape), game.obs_dtype)

    def set(self, state: np.ndarray) -> None:
        """Show the position of `state` [1]."""
        self.state[:] = state
        self.player[0] = state["turn"][0]
        self.legal[:], self.obs[:] = False, 0
        self.game.legal_actions(self.state[0], self.legal[0])
        self.game.observe(self.state[0], int(self.player[0]), self.obs[0])


class Engine:
    """One conversation: every line that comes in is answered by lines to `say`.

    Args:
        game: `envs.shogi`, or the same with other actions.
        player: who plays.
        name: of the player.
        say: takes one line at a time.

    Raises:
        ConfigError: a game with other rules, or a player that remembers what it has seen.
    """

    def __init__(self, game: Game, player: Player, name: str, say: Callable[[str], None]):
        if game.state_dtype != rules.STATE:
            raise ConfigError(f"game={game.name}: USI is for shogi, such as {compact.GAME.name}")
        if getattr(player, "state_shape", ()):
            raise ConfigError(f"{name}: remembers what it has seen, and USI tells positions alone")
        self.game, self.player, self.name, self.say = game, player, name, say
        self.table, self.samples = Position(game), False
        self.rng = np.random.default_rng()
        self.held: str | None = None  # the answer to a go that ends with stop
        self.known = True  # the position that was told last could be read

    def hear(self, line: str) -> bool:
        """Answer one line; whether to go on."""
        word, *words = line.split() or [""]
        if word == "quit":
            return False
        if word == "usi":
            for answer in (f"id name lit-rl {self.name}", "id author lit-rl", *OPTIONS, "usiok"):
                self.say(answer)
        elif word == "isready":
            self.say("readyok")
        elif word == "setoption" and words[:2] == ["name", "Sample"]:
            self.samples = words[-1:] == ["true"]
        elif word == "position":
            self._position(words)
        elif word == "go":
            self.held = self._best_move()
            if "infinite" not in words and "ponder" not in words:
                self._answer()
        elif word in ("stop", "ponderhit"):
            self._answer()
        return True

    def _answer(self) -> None:
        if self.held is not None:
            self.say(f"bestmove {self.held}")
        self.held = None

    def _position(self, words: list[str]) -> None:
        split = words.index("moves") if "moves" in words else len(words)
        try:
            if words[:1] == ["startpos"]:
                state = self.game.new_state()
            elif words[:1] == ["sfen"]:
                state = read_sfen(" ".join(words[1:split]))
            else:
                raise PositionError(f"position {' '.join(words)!r}: give startpos, or sfen and the position")
            for usi in words[split + 1 :]:
                rules.play(state[0], move_of(state[0], usi))
        except (PositionError, MoveError) as error:
            self.known = False
            self.say(f"info string error: {error}")
            return
        self.known = True
        self.table.set(state)

    def _best_move(self) -> str:
        """A USI move, win, or resign."""
        state = self.table.state[0]
        if not self.known:
            self.say("info string error: go without a position that could be read")
            return "resign"
        if state["end"] == rules.IMPASSE:
            return "win"
        if state["end"] != rules.RUNNING:
            return "resign"
        probs = np.zeros((1, self.game.num_actions), np.float32)
        self.player.begin(ROW)
        self.player.act(self.table, ROW, probs)
        legal = np.flatnonzero(self.table.legal[0])
        likely = probs[0, legal].astype(np.float64)
        action = self.rng.choice(legal, p=likely / likely.sum()) if self.samples else legal[likely.argmax()]
        name = self.game.names_of(state, int(action))[0]
        if isinstance(self.player, NetworkPlayer):
            self.say(f"info depth 1 score cp {self._score()} pv {name}")
        return name

    def _score(self) -> int:
        """The network's value, which is P(win) - P(loss), as centipawns."""
        with torch.no_grad():
            obs, legal = torch.from_numpy(self.table.obs), torch.from_numpy(self.table.legal)
            value = float(self.player.policy(obs, legal).value[0])
        value = min(max(value, -0.999), 0.999)
        return round(CENTIPAWNS * math.log((1 + value) / (1 - value)))


def open_engine(text: str, game: str | None, say: Callable[[str], None]) -> Engine:
    """The engine that plays as `text` says: a run folder, a checkpoint, a player file or an import path.

    Raises:
        ConfigError, ArtefactError, ValueError: no such player, or none of shogi.
    """
    spec: Spec = spec_of(text)
    if isinstance(spec, str) and not names_a_file(spec):
        trust([spec])
        game = game or "envs.shogi"
    rules_of = load_game(game_path(game, [spec]))
    return Engine(rules_of, load_player(spec, rules_of), name_of(spec), say)


def command_line() -> argparse.ArgumentParser:
    """What `litrl usi` takes."""
    parser = argparse.ArgumentParser(
        "litrl usi", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("player", help="a run folder, a checkpoint, a player file, an import path or random")
    parser.add_argument("--game", help="import path of its interface; files name their own, else envs.shogi")
    parser.add_argument("--code", type=Path, help="the folder of your own games and players, if not the current one")
    parser.add_argument("--allow", nargs="+", default=[], metavar="PACKAGE", help="files may name code from there too")
    return parser


def main(args: list[str] | None = None) -> None:
    """Run the command line; exit codes as those of `litrl fit`."""
    parsed = command_line().parse_args(args)
    try:
        import_from(parsed.code)
        trust([*parsed.allow, *filter(None, [parsed.game])])
        engine = open_engine(parsed.player, parsed.game, lambda line: print(line, flush=True))
        for line in sys.stdin:
            if not engine.hear(line):
                break
    except (ConfigError, ArtefactError, ValueError, OSError) as error:
        code = 2 if isinstance(error, ValueError) and not isinstance(error, ConfigError) else exit_code(error)
        print(f"error[{code}]: {error}", file=sys.stderr)
        sys.exit(code)
    except KeyboardInterrupt:
        sys.exit(130)
