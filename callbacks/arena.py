"""How the run fares against the members of its league, with intervals."""

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path

import lightning as L
import numpy as np
from jsonargparse.typing import PositiveInt

from callbacks.snapshot import needs_a_league
from datamodules.league_play import LeagueDataModule
from envs.rng import derive_key
from lit_rl.league.league import Result
from lit_rl.league.match import Match, play_match
from lit_rl.league.matchmaking import ROLES
from lit_rl.league.players import NetworkPlayer, Player
from lit_rl.league.ratings import wilson_interval
from lit_rl.run.checkpoint_io import replace_file
from lit_rl.run.errors import ConfigError, check_ranges
from lit_rl.run.run_folder import write_json

ARENA_STREAM = 8


class Arena(L.Callback):
    """Every so many iterations let the exported policy play the members in play, every seat equally often.

    Logs eval/win_rate/<member> and eval/return/<member> (reward units per game), and lets the matchmaker know. Writes
    <run>/arena.json, with Wilson's 95 % intervals, and arena.png: a matrix of win rates, the members among themselves
    included (each of those pairs is played once). Draws no random number of the run's.

    Args:
        every: iterations between two evaluations.
        games: per pair.
        against: names or roles of the members to play; empty for all in play.
        matrix: also play the members against each other.
    """

    def __init__(
        self, every: PositiveInt = 500, games: PositiveInt = 2000, against: Sequence[str] = (), matrix: bool = True
    ):
        check_ranges(Arena.__init__, locals())
        self.every, self.games, self.against, self.matrix = int(every), int(games), list(against), matrix
        self._log_dir: Path | None = None

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if stage == "fit":
            needs_a_league(trainer, "Arena")
            log_dir = trainer.log_dir  # on every rank: Lightning broadcasts it
            self._log_dir = Path(log_dir) if trainer.logger is not None and log_dir else None

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        iteration = trainer.current_epoch + 1
        if iteration % self.every:
            return
        data = trainer.datamodule
        table = self._play(trainer, pl_module, data, iteration) if trainer.is_global_zero else None
        table = trainer.strategy.broadcast(table)
        data.remember([result for _, results in table.values() for result in results])
        for name, (facts, _) in table.items():
            self.log(f"eval/win_rate/{name}", facts["win_rate"], rank_zero_only=True)
            self.log(f"eval/return/{name}", facts["mean_return"], rank_zero_only=True)

    def _play(self, trainer, pl_module, data: LeagueDataModule, iteration: int) -> dict[str, tuple[dict, list[Result]]]:
        """On the first rank: member -> how the learner fared against it."""
        known = {m.name: m for m in data.league.members()}
        names = [n for n in data.shares if not self.against or n in self.against or known[n].role in self.against]
        for wanted in self.against:
            if wanted not in known and wanted not in ROLES:
                raise ConfigError(f"against={wanted!r}: neither a member of the league nor a role")
        players = {name: data.player(name) for name in names}
        policy = pl_module.export_policy()
        training, learner = policy.training, NetworkPlayer(policy, pl_module.device)
        table, own = {}, []
        for name in names:
            match = self._match(data, iteration, data.run, learner, name, players[name])
            results = _results(data.run, name, match)
            table[name] = (_facts(match), results)
            own += results
        policy.train(training)
        data.league.record(data.run, iteration, "arena", own)
        if self.matrix:
            self._members_among_themselves(data, iteration, players)
        if self._log_dir is not None and names:
            self._write(data, iteration, {name: facts for name, (facts, _) in table.items()})
        return table

    def _members_among_themselves(self, data: LeagueDataModule, iteration: int, players: dict[str, Player]) -> None:
        payoffs, names, results = data.league.payoffs("arena matrix"), list(players), []
        for i, a in enumerate(names):
            for b in names[:i]:
                if (a, b) not in payoffs:
                    match = self._match(data, 0, a, players[a], b, players[b])
                    results += _results(a, b, match)
        if results:
            data.league.record(data.run, iteration, "arena matrix", results)

    def _match(self, data: LeagueDataModule, iteration: int, a: str, first: Player, b: str, second: Player) -> Match:
        pair = int.from_bytes(hashlib.sha256(f"{a}\n{b}".encode()).digest()[:8])
        seed = derive_key(data.seed, ARENA_STREAM, iteration, pair)
        return play_match(data.game, first, second, self.games, seed, data.truncate_after)

    def _write(self, data: LeagueDataModule, iteration: int, own: dict[str, dict]) -> None:
        payoffs = data.league.payoffs("arena matrix")
        names = [data.run, *own]
        matrix: list[list[dict | None]] = []
        for a in names:
            row: list[dict | None] = []
            for b in names:
                facts = payoffs.get((a, b))
                if a == data.run and b in own:
                    row.append(own[b])
                elif b == data.run and a in own:
                    low, high = own[a]["interval"]
                    row.append(own[a] | {"win_rate": 1 - own[a]["win_rate"], "interval": [1 - high, 1 - low]})
                    row[-1]["mean_return"] = own[a]["mean_return_of_other"]
                elif facts is not None and a != b:
                    interval = list(wilson_interval(facts.score, facts.games))
                    entry = {"win_rate": facts.score / facts.games, "interval": interval, "games": facts.games}
                    row.append(entry | {"mean_return": facts.total_return / facts.games})
                else:
                    row.append(None)
            matrix.append(row)
        write_json(self._log_dir / "arena.json", {"iteration": iteration, "members": names, "matrix": matrix})
        draw_matrix(names, matrix, f"{data.game.name}, iteration {iteration}", self._log_dir / "arena.png")


def _results(member: str, opponent: str, match: Match) -> list[Result]:
    losses = match.games - match.wins - match.draws
    rows = zip(match.wins, match.draws, losses, match.returns, match.others)
    return [
        Result(member, opponent, seat, int(w), int(d), int(lost), float(r), float(o))
        for seat, (w, d, lost, r, o) in enumerate(rows)
    ]


def _facts(match: Match) -> dict:
    games = int(match.games.sum())
    return {
        "win_rate": match.win_rate, "interval": list(match.win_interval()), "games": games,
        "mean_return": match.mean_return, "mean_return_of_other": float(match.others.sum() / games),
    }  # fmt: skip


def draw_matrix(names: Sequence[str], matrix: Sequence[Sequence[dict | None]], title: str, path: Path) -> None:
    """A heat map of win rates, row against column; the half-width of the interval stands under each."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    rates = np.array([[np.nan if x is None else x["win_rate"] for x in row] for row in matrix])
    n = len(names)
    figure, axes = plt.subplots(figsize=(2.4 + 0.62 * n, 1.8 + 0.5 * n), layout="constrained")
    image = axes.imshow(rates, cmap="RdBu", vmin=0, vmax=1, aspect="auto")
    for i, row in enumerate(matrix):
        for j, x in enumerate(row):
            if x is not None:
                half = (x["interval"][1] - x["interval"][0]) / 2
                colour = "white" if abs(x["win_rate"] - 0.5) > 0.3 else "black"
                text = f"{100 * x['win_rate']:.0f}\n±{100 * half:.1f}"
                axes.text(j, i, text, ha="center", va="center", fontsize=7, color=colour)
    axes.set_xticks(range(n), names, rotation=45, ha="right", fontsize=8)
    axes.set_yticks(range(n), names, fontsize=8)
    axes.set_title(f"win rate in % of row against column\n{title}", fontsize=9)
    figure.colorbar(image, ax=axes, shrink=0.8)
    data = io.BytesIO()
    figure.savefig(data, dpi=140)
    plt.close(figure)
    replace_file(path, data.getvalue())
