"""League play of Pokémon Showdown: the env is `envs.showdown.env`, all else is as in `datamodules.league_play`."""

from collections.abc import Sequence
from typing import Any

from jsonargparse.typing import ClosedUnitInterval, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from datamodules.league_play import LeagueDataModule
from envs.env import Env, RulesError
from envs.showdown import INTERFACE, VGC
from envs.showdown.env import ShowdownEnv
from envs.showdown.teams import read_teams
from lit_rl.evaluation import Evaluation
from lit_rl.run.errors import ConfigError, check_ranges


class ShowdownDataModule(LeagueDataModule):
    """Battles of Pokémon Showdown against the members of a league; without any member, self-play.

    Args:
        game: envs.showdown.
        format: in Showdown's words, custom rules included; doubles. Null: VGC's shape with generated teams.
        teams: folder of *.txt in Showdown's text form, one team each, drawn per battle; null: the format makes them.
        num_hosts: processes of Node; one keeps a core busy.
        league, opponents, matchmaker, matchmaker_options: see `datamodules.league_play.LeagueDataModule`, as for rung,
            self_play_share, refresh_every, memory_games, rate_training, run, evaluation, restart_games.
        num_envs: battles side by side; a host with 32 takes some 360 MB, with 400 some 490.
        num_steps: decisions per battle and iteration; a battle has some 50 of both sides.
        team_share: of no use here; 0.
        seed: of teams, battles, seating, sampling and shuffling (the CLI copies it from seed_everything).
        truncate_after: break battles off after so many decisions; null plays all to the end.
    """

    fixed_during_fit = (*LeagueDataModule.fixed_during_fit, "num_hosts", "format", "teams")

    def __init__(
        self,
        game: str = "envs.showdown",
        format: str | None = None,
        teams: str | None = None,
        num_hosts: PositiveInt = 1,
        league: str | None = None,
        opponents: Sequence[str | dict[str, Any]] = (),
        matchmaker: str = "pfsp",
        matchmaker_options: dict[str, Any] | None = None,
        rung: NonNegativeFloat = 0.0,
        self_play_share: ClosedUnitInterval = 0.5,
        refresh_every: PositiveInt = 20,
        memory_games: PositiveFloat = 1000.0,
        rate_training: bool = True,
        run: str | None = None,
        num_envs: PositiveInt = 32,
        num_steps: PositiveInt = 64,
        evaluation: Sequence[Evaluation] | None = None,
        team_share: ClosedUnitInterval = 0.0,
        seed: NonNegativeInt = 0,
        truncate_after: PositiveInt | None = None,
        restart_games: bool = False,
    ):
        check_ranges(ShowdownDataModule.__init__, locals())
        super().__init__(
            game, league, opponents, matchmaker, matchmaker_options, rung=rung, self_play_share=self_play_share,
            refresh_every=refresh_every, memory_games=memory_games, rate_training=rate_training, run=run,
            num_envs=num_envs, num_steps=num_steps, evaluation=evaluation, team_share=team_share, seed=seed,
            truncate_after=truncate_after, restart_games=restart_games,
        )  # fmt: skip
        if self.game is not INTERFACE:
            raise ConfigError(f"data.game={game}: this datamodule plays envs.showdown")
        self.format, self.num_hosts, self.teams_folder = format or VGC, int(num_hosts), teams
        self.settings |= {"format": self.format, "num_hosts": self.num_hosts}
        self._teams: tuple[str, ...] | None = None

    def make_env(self, num_envs: int, seed: int, *, record: bool = False, observe_all: bool = False) -> Env:
        """Battles in `num_hosts` processes of Node, which all envs of a run share."""
        try:
            if self.teams_folder is not None and self._teams is None:
                self._teams = read_teams(self.teams_folder, self.format)
            return ShowdownEnv(
                num_envs, seed, self.format, self._teams, self.num_hosts, self.truncate_after, observe_all
            )
        except RulesError:
            raise
        except (ValueError, OSError) as error:
            raise ConfigError(f"data: {error}") from None
