"""Snapshots: they join the league, are thinned out, and a resumed run makes them again."""

import pytest
from league_runs import digest, league_fit, open_league, same, small

from callbacks.snapshot import Snapshot, retained
from datamodules.self_play import SelfPlayDataModule
from lit_rl.league.player_file import load_network
from lit_rl.run.errors import ConfigError


def test_retention_is_recent_and_log_spaced():
    assert retained(range(1, 4), 5, 5) == {1, 2, 3}
    assert retained(range(1, 101), 3, 2) == {98, 99, 100, 1, 10}
    assert retained(range(10, 1010, 10), 0, 4) == {10, 30, 100, 320}  # numbers 1, 3.2, 10, 31.6 of 100
    assert retained([], 3, 3) == set() and retained([7], 0, 1) == {7}


def test_snapshots_join_and_are_thinned_out(tmp_path, leduc):
    folder = tmp_path / "run"
    trainer, model = league_fit(folder=folder, callbacks=[Snapshot(every=1, recent=2, spaced=2)], max_epochs=10)
    league = open_league(folder, leduc)
    members = {m.name: m for m in league.members() if m.role == "past"}
    assert list(members) == [f"main-{i:07d}" for i in range(1, 11)]
    in_play = [int(m.name[-7:]) for m in members.values() if m.state == "active"]
    assert in_play == [1, 3, 9, 10] and all(league.resolve(m.file).exists() for m in members.values())
    last = members["main-0000010"]
    policy = load_network(league.resolve(last.file), leduc, last.sha256, lambda: small(leduc))
    assert same(digest(policy), digest(model.export_policy())) and last.birth == int(model.decisions)
    assert trainer.datamodule.opposition.counts  # they were played against
    assert set(trainer.datamodule.opposition.shares) <= set(members)
    league.close()


def test_a_resumed_run_replaces_the_snapshots_it_makes_again(tmp_path, leduc):
    spawn = [Snapshot(every=2, recent=3, spaced=2)]
    _, whole = league_fit(folder=tmp_path / "whole", callbacks=spawn, max_epochs=9)
    first, _ = league_fit(folder=tmp_path / "run", callbacks=spawn, max_epochs=5)
    first.save_checkpoint(tmp_path / "half.ckpt")
    league_fit(
        folder=tmp_path / "run", callbacks=spawn, max_epochs=9, ckpt_path=tmp_path / "half.ckpt"
    )  # came as far as 9, and was lost
    _, resumed = league_fit(folder=tmp_path / "run", callbacks=spawn, max_epochs=9, ckpt_path=tmp_path / "half.ckpt")
    assert same(digest(whole), digest(resumed))
    leagues = [open_league(tmp_path / name, leduc) for name in ("whole", "run")]
    assert leagues[0].results() == leagues[1].results()
    assert [m._replace(created="") for m in leagues[0].members()] == [
        m._replace(created="") for m in leagues[1].members()
    ]
    for league in leagues:
        league.close()


def test_none_in_play_is_refused():
    with pytest.raises(ConfigError, match="no snapshot would ever be in play"):
        Snapshot(recent=0, spaced=0)


def test_it_needs_a_league(tmp_path):
    data = SelfPlayDataModule("envs.leduc_poker", num_envs=64, num_steps=8)
    with pytest.raises(ConfigError, match=r"plays in a league; use data\.class_path=LeagueDataModule"):
        league_fit(data, callbacks=[Snapshot()], folder=tmp_path / "run")
