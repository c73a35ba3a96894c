"""How the run fares against the members of its league, with intervals."""

import hashlib
import warnings
from collections.abc import Sequence
from pathlib import Path

import lightning as L
from jsonargparse.typing import PositiveInt

from datamodules.league_play import LeagueDataModule
from envs.rng import derive_key
from lit_rl.league.league import Result
from lit_rl.league.match import Match, match_players
from lit_rl.league.matchmaking import ROLES
from lit_rl.league.matrix import Cell, cell_of, draw_matrix, result_matrix
from lit_rl.league.players import NetworkPlayer, Player
from lit_rl.run.errors import ArtefactError, ConfigError, check_ranges
from lit_rl.run.run_folder import write_json

ARENA_STREAM = 8


class Arena(L.Callback):
    """Every so many iterations let the exported policy play the members in play, every seat equally often.

    Logs eval/return/<member> (reward units per game) and eval/win_rate/<member> (draws count half), and lets the
    matchmaker know. Writes <run>/arena.json, with 95 % intervals of both, and arena.png: a matrix of mean returns, the
    members among themselves included (each of those pairs is played once). Draws no random number of the run's.

    Args:
        every: iterations between two evaluations.
        games: per pair.
        against: names or roles of the members to play; empty for all in play.
        matrix: also play the members against each other.
    """

    logs_evaluations = True  # beside those of the datamodule

    def __init__(
        self, every: PositiveInt = 500, games: PositiveInt = 2000, against: Sequence[str] = (), matrix: bool = True
    ):
        check_ranges(Arena.__init__, locals())
        self.every, self.games, self.against, self.matrix = int(every), int(games), list(against), matrix
        self._log_dir: Path | None = None

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if stage == "fit":
            LeagueDataModule.of(trainer, "Arena")
            log_dir = trainer.log_dir  # on every rank: Lightning broadcasts it
            self._log_dir = Path(log_dir) if trainer.logger is not None and log_dir else None

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        iteration = trainer.current_epoch + 1
        if iteration % self.every:
            return
        data: LeagueDataModule = trainer.datamodule
        played = self._play(pl_module, data, iteration) if trainer.is_global_zero else None
        cells, results = trainer.strategy.broadcast(played)
        data.opposition.remember(results)
        for name, (cell, _) in cells.items():
            self.log(f"eval/win_rate/{name}", cell["win_rate"], rank_zero_only=True)
            self.log(f"eval/return/{name}", cell["mean_return"], rank_zero_only=True)

    def _play(
        self, pl_module: L.LightningModule, data: LeagueDataModule, iteration: int
    ) -> tuple[dict[str, tuple[Cell, Cell]], list[Result]]:
        """On the first rank: how the learner fared against each member, and the member against it."""
        opposition = data.opposition
        known = {m.name: m for m in opposition.league.members()}
        for wanted in self.against:
            if wanted not in known and wanted not in ROLES:
                raise ConfigError(f"against={wanted!r}: neither a member of the league nor a role")
        players = self._opponents(data, {name: member.role for name, member in known.items()})
        policy = pl_module.export_policy()
        training, learner = policy.training, NetworkPlayer(policy, pl_module.device)
        cells, results = {}, []
        for name, player in players.items():
            match = self._match(data, iteration, opposition.run, learner, name, player)
            cells[name] = cell_of(match)
            results += match.results(opposition.run, name)
        policy.train(training)
        opposition.league.record(opposition.run, iteration, "arena", results)
        if self.matrix:
            self._members_among_themselves(data, iteration, players)
        if self._log_dir is not None and cells:
            self._write(data, iteration, cells)
        return cells, results

    def _opponents(self, data: LeagueDataModule, roles: dict[str, str]) -> dict[str, Player]:
        """Members in play, by name; one whose file another run has just replaced is left out this time."""
        against, players = self.against or ROLES, {}
        for name in data.opposition.shares:
            if name in against or roles[name] in against:
                try:
                    players[name] = data.opposition.player(name)
                except ArtefactError as error:
                    warnings.warn(f"arena: goes without {name}: {error}", stacklevel=2)
        return players

    def _members_among_themselves(self, data: LeagueDataModule, iteration: int, players: dict[str, Player]) -> None:
        """Each pair once: what they play does not change."""
        league, names, results = data.opposition.league, list(players), []
        payoffs = league.payoffs("arena matrix")
        for i, a in enumerate(names):
            for b in names[:i]:
                if (a, b) not in payoffs:
                    match = self._match(data, 0, a, players[a], b, players[b])
                    results += match.results(a, b)
        if results:
            league.record(data.opposition.run, iteration, "arena matrix", results)

    def _match(self, data: LeagueDataModule, iteration: int, a: str, first: Player, b: str, second: Player) -> Match:
        pair = int.from_bytes(hashlib.sha256(f"{a}\n{b}".encode()).digest()[:8])
        seed = derive_key(data.seed, ARENA_STREAM, iteration, pair)
        return match_players(data.make_env, first, second, self.games, seed)

    def _write(self, data: LeagueDataModule, iteration: int, own: dict[str, tuple[Cell, Cell]]) -> None:
        payoffs = data.opposition.league.payoffs("arena matrix")
        names, matrix = result_matrix(data.opposition.run, own, payoffs)
        write_json(self._log_dir / "arena.json", {"iteration": iteration, "members": names, "matrix": matrix})
        draw_matrix(names, matrix, f"{data.game.name}, iteration {iteration}", self._log_dir / "arena.png")
