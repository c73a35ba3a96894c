"""The run's own past: its exported policy joins the league every so often, and the population stays small."""

import lightning as L
from jsonargparse.typing import NonNegativeInt, PositiveInt

from datamodules.league_play import LeagueDataModule
from lit_rl.league.league import Member, retained
from lit_rl.league.players import network_of, save_player
from lit_rl.meter import is_log_iteration
from lit_rl.run.errors import ConfigError, check_ranges


class Snapshot(L.Callback):
    """Every so many iterations add the exported policy to the league as a member of role past, <run>-<iteration>.

    In play are the newest snapshots and, log-spaced, some of all before (`league.retained`); the others are
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
            needs_a_league(trainer, "Snapshot")

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        data, iteration = trainer.datamodule, trainer.current_epoch + 1
        if trainer.is_global_zero and iteration % self.every == 0:
            name = f"{data.run}-{iteration:07d}"
            file = data.folder / f"{name}.pt"
            sha256 = save_player(file, pl_module.export_policy(), data.game, network_of(pl_module))
            member = Member(
                name, "past", birth=int(pl_module.decisions), parent=data.run, file=str(file.absolute()), sha256=sha256,
                notes={"run": data.run, "iteration": iteration},
            )  # fmt: skip
            data.league.add(member, replace=True)
            self._thin_out(data, iteration)
        if is_log_iteration(trainer):
            self.log("league/members", float(len(data.shares)), rank_zero_only=True)

    def _thin_out(self, data: LeagueDataModule, iteration: int) -> None:
        own = {
            m.notes["iteration"]: m for m in data.league.members("active", "retired")
            if m.role == "past" and m.notes.get("run") == data.run and m.notes["iteration"] <= iteration
        }  # fmt: skip
        keep = retained(own, self.recent, self.spaced)
        data.league.set_state("active", {m.name: "" for i, m in own.items() if i in keep})
        data.league.set_state("retired", {m.name: "thinned out" for i, m in own.items() if i not in keep})


def needs_a_league(trainer: L.Trainer, what: str) -> LeagueDataModule:
    """The trainer's datamodule, with a league's file on the first rank.

    Raises:
        ConfigError: it is no LeagueDataModule, or has no file.
    """
    data = trainer.datamodule
    if not isinstance(data, LeagueDataModule):
        raise ConfigError(f"{what}: plays in a league; use data.class_path=LeagueDataModule, not {type(data).__name__}")
    if trainer.is_global_zero:
        _ = data.folder
    return data
