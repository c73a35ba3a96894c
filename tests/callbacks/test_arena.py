"""The arena: it measures, writes, tells the matchmaker, and leaves the run alone."""

import csv
import json

import lightning as L
import numpy as np
import pytest
from league_runs import HEURISTICS, SPEC, digest, exact_return, league_data, league_fit, lively, same

from callbacks.arena import Arena
from datamodules.self_play import SelfPlayDataModule
from lit_rl.evaluation import policy_table
from lit_rl.league.player_file import save_player
from lit_rl.league.players import HeuristicPlayer, player_table
from lit_rl.run.errors import ConfigError


def test_the_arena_measures_writes_and_tells_the_matchmaker(tmp_path, leduc, leduc_tree):
    folder = tmp_path / "run"
    data = league_data(opponents=HEURISTICS, self_play_share=1.0)  # so that the matchmaker hears of the arena alone
    trainer, model = league_fit(
        data, callbacks=[Arena(every=2, games=4000)], folder=folder, max_epochs=4
    )  # twice; pairs of members once
    content = json.loads((folder / "arena.json").read_text())
    names = ["main", "always_call", "always_raise", "hand_strength"]
    assert content["members"] == names and (folder / "arena.png").stat().st_size > 10_000
    table = policy_table(model.export_policy(), leduc_tree)
    players = [table] + [player_table(HeuristicPlayer(path, leduc), leduc_tree) for path in HEURISTICS]
    with (folder / "metrics.csv").open() as file:
        logged = [row for row in csv.DictReader(file) if row.get("eval/win_rate/always_call")][-1]
    for i, row in enumerate(content["matrix"]):
        assert row[i] is None
        for j, cell in enumerate(row):
            if i != j:
                low, high = cell["win_rate_interval"]
                assert low < cell["win_rate"] < high and high - low < 0.04 and cell["games"] == 4000
                low, high = cell["return_interval"]
                assert low < cell["mean_return"] < high and high - low < 0.5
                other = content["matrix"][j][i]
                assert cell["win_rate"] + other["win_rate"] == pytest.approx(1)
                exact = exact_return(leduc_tree, players[i], players[j]).mean()
                assert cell["mean_return"] == pytest.approx(exact, abs=5 * 5 / np.sqrt(4000))
        if i:
            assert float(logged[f"eval/win_rate/{names[i]}"]) == pytest.approx(
                content["matrix"][0][i]["win_rate"], abs=1e-6
            )
    counts = trainer.datamodule.opposition.counts
    assert counts["always_call"][1] == 1000  # 4,000 games, remembered as 1,000
    assert counts["always_call"][0] / 1000 == pytest.approx(content["matrix"][0][1]["win_rate"], abs=0.03)


def test_watching_changes_no_weight(tmp_path):
    data = dict(opponents=HEURISTICS, self_play_share=0.5, matchmaker="uniform")
    _, plain = league_fit(league_data(**data), callbacks=[], folder=tmp_path / "plain")
    _, watched = league_fit(league_data(**data), callbacks=[Arena(every=2, games=100)], folder=tmp_path / "watched")
    assert same(digest(plain), digest(watched))


def test_an_unknown_opponent_of_the_arena_is_refused_by_name(tmp_path):
    with pytest.raises(ConfigError, match="against='ghost': neither a member of the league nor a role"):
        league_fit(folder=tmp_path / "run", callbacks=[Arena(every=1, against=["ghost"])])


def test_a_member_whose_file_was_replaced_is_left_out_this_time(tmp_path, leduc):
    """Another run in the same league may replace a file between two looks at it."""
    save_player(tmp_path / "rival.pt", lively(leduc), leduc, SPEC)

    class Replace(L.Callback):
        def on_train_batch_end(self, trainer, *_):
            save_player(tmp_path / "rival.pt", lively(leduc, 1), leduc, SPEC)

    data = league_data(opponents=[str(tmp_path / "rival.pt"), "random"])
    with pytest.warns(UserWarning, match=r"arena: goes without rival: .* SHA-256 is not the recorded one"):
        league_fit(
            data, callbacks=[Replace(), Arena(every=1, games=100)], folder=tmp_path / "run", quiet=False, max_epochs=1
        )
    assert json.loads((tmp_path / "run" / "arena.json").read_text())["members"] == ["main", "random"]


def test_a_game_too_few_is_refused():
    with pytest.raises(ConfigError, match="games=0"):
        Arena(games=0)


def test_it_needs_a_league(tmp_path):
    data = SelfPlayDataModule("envs.leduc_poker", num_envs=64, num_steps=8)
    with pytest.raises(ConfigError, match=r"plays in a league; use data\.class_path=LeagueDataModule"):
        league_fit(data, callbacks=[Arena()], folder=tmp_path / "run")
