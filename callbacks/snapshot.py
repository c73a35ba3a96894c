"""The run's own past: its exported policy joins the league every so often, and the population stays small."""

from collections.abc import Iterable

import lightning as L
from jsonargparse.typing import NonNegativeInt, PositiveInt

from datamodules.league_play import LeagueDataModule
from lit_rl.algorithm import is_log_iteration
from lit_rl.league.league import Member
from lit_rl.league.opposition import Opposition
from lit_rl.league.player_file import network_of, save_player
from lit_rl.run.errors import ConfigError, check_ranges


class Snapshot(L.Callback):
    """Every so many iterations add the exported policy to the league as a member of role past, <run>-<iteration>.

    In play are the newest snapshots and, log-spaced, some of all before (`retained`); the others are
    retired, and come back if the spacing shifts to them. Logs league/members, of those in play.

    Args:
        every: iterations between two snapshots.
        recent: how many of the newest are in play.
        spaced: how many of all, log-spaced.
    """

    def __init__(self, every: PositiveInt = 100, recent: NonNegativeInt = 5, spaced: NonNegativeInt = 5):
        check_ranges(Snapshot.__init__, locals())
        if recent + spaced < 1:
            raise ConfigError("recent=0, spaced=0: no snapshot would ever be in play; raise one of them")
        self.every, self.recent, self.spaced = int(every), int(recent), int(spaced)

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if stage == "fit":
            LeagueDataModule.of(trainer, "Snapshot")

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        data, iteration = trainer.datamodule, trainer.current_epoch + 1
        opposition: Opposition = data.opposition
        if trainer.is_global_zero and iteration % self.every == 0:
            name = f"{opposition.run}-{iteration:07d}"
            file = opposition.members_folder / f"{name}.pt"
            sha256 = save_player(file, pl_module.export_policy(), data.game, network_of(pl_module))
            notes = {"run": opposition.run, "iteration": iteration}
            member = Member(
                name, "past", birth=int(pl_module.decisions), parent=opposition.run, file=str(file.absolute()),
                sha256=sha256, notes=notes,
            )  # fmt: skip
            opposition.league.add(member, replace=True)
            self._thin_out(opposition, iteration)
        if is_log_iteration(trainer):
            self.log("league/members", float(len(opposition.shares)), rank_zero_only=True)

    def _thin_out(self, opposition: Opposition, iteration: int) -> None:
        league = opposition.league
        own = {
            m.notes["iteration"]: m for m in league.members("active", "retired")
            if m.role == "past" and m.notes.get("run") == opposition.run and m.notes["iteration"] <= iteration
        }  # fmt: skip
        keep = retained(own, self.recent, self.spaced)
        league.set_state("active", {m.name: "" for i, m in own.items() if i in keep})
        league.set_state("retired", {m.name: "thinned out" for i, m in own.items() if i not in keep})


def retained(iterations: Iterable[int], recent: int, spaced: int) -> set[int]:
    """Which of a run's snapshots stay in play: the newest, and some of all its past, ever more thinly.

    Of n snapshots the last `recent`, and those numbered n^(i / spaced), i = 0 .. spaced - 1, counted from 1.
    """
    taken = sorted(iterations)
    n = len(taken)
    keep = set(taken[max(0, n - recent) :])
    return keep | {taken[round(n ** (i / spaced)) - 1] for i in range(spaced) if n}
