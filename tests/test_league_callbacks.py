"""Snapshots, arena and exploiters: what they leave in the league, and that they leave the run alone."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from test_league_play import HEURISTICS, league_data, small
from test_players import SPEC, exact_return

from callbacks.arena import Arena
from callbacks.exploiter_spawner import ExploiterSpawner
from callbacks.exploiter_verdict import ExploiterVerdict, exploitation
from callbacks.oracle_exploiter import OracleExploiter
from callbacks.snapshot import Snapshot
from datamodules.self_play import SelfPlayDataModule
from lit_rl.evaluation import policy_table
from lit_rl.league.league import League, retained, sha256_of
from lit_rl.league.players import HeuristicPlayer, NetworkPlayer, load_policy, player_table
from lit_rl.ppo import PPO
from lit_rl.run.errors import ConfigError

ROOT = Path(__file__).parent.parent
EXPLOITER = str(ROOT / "configs" / "leduc_exploiter.yaml")


def fit(folder, callbacks, data=None, ckpt_path=None, quiet=True, **trainer):
    """Train a small PPO in the run folder `folder`."""
    torch.manual_seed(0)
    model = PPO("envs.leduc_poker", network=small, update_epochs=2, num_minibatches=2)
    model.hparams["network"] = SPEC  # as the command line leaves it, so that exploiters can rebuild their victim
    logger = CSVLogger(folder.parent, name="", version=folder.name)
    defaults = dict(
        accelerator="cpu", max_epochs=8, enable_checkpointing=False, enable_progress_bar=False, log_every_n_steps=1,
        enable_model_summary=False, num_sanity_val_steps=0, limit_val_batches=0, logger=logger,
    )  # fmt: skip
    with warnings.catch_warnings():
        if quiet:
            warnings.simplefilter("ignore")
        trainer = L.Trainer(**(defaults | trainer), callbacks=list(callbacks))
        trainer.fit(model, data or league_data(), ckpt_path=ckpt_path)
    return trainer, model


def digest(model):
    return [x.clone() for x in model.state_dict().values()]


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def open_league(folder, leduc):
    return League(folder / "league" / "league.sqlite", leduc)


def test_retention_is_recent_and_log_spaced():
    assert retained(range(1, 4), 5, 5) == {1, 2, 3}
    assert retained(range(1, 101), 3, 2) == {98, 99, 100, 1, 10}
    assert retained(range(10, 1010, 10), 0, 4) == {10, 30, 100, 320}  # numbers 1, 3.2, 10, 31.6 of 100
    assert retained([], 3, 3) == set() and retained([7], 0, 1) == {7}


def test_snapshots_join_and_are_thinned_out(tmp_path, leduc):
    folder = tmp_path / "run"
    trainer, model = fit(folder, [Snapshot(every=1, recent=2, spaced=2)], max_epochs=10)
    league = open_league(folder, leduc)
    members = {m.name: m for m in league.members() if m.role == "past"}
    assert list(members) == [f"main-{i:07d}" for i in range(1, 11)]
    in_play = [int(m.name[-7:]) for m in members.values() if m.state == "active"]
    assert in_play == [1, 3, 9, 10] and all(league.resolve(m.file).exists() for m in members.values())
    last = members["main-0000010"]
    policy = load_policy(league.resolve(last.file), leduc, last.sha256, lambda: small(leduc))
    assert same(digest(policy), digest(model.export_policy())) and last.birth == int(model.decisions)
    assert trainer.datamodule.counts  # they were played against
    assert set(trainer.datamodule.shares) <= set(members)
    league.close()


def test_a_resumed_run_replaces_the_snapshots_it_makes_again(tmp_path, leduc):
    spawn = [Snapshot(every=2, recent=3, spaced=2)]
    _, whole = fit(tmp_path / "whole", spawn, max_epochs=9)
    first, _ = fit(tmp_path / "run", spawn, max_epochs=5)
    first.save_checkpoint(tmp_path / "half.ckpt")
    fit(tmp_path / "run", spawn, max_epochs=9, ckpt_path=tmp_path / "half.ckpt")  # came as far as 9, and was lost
    _, resumed = fit(tmp_path / "run", spawn, max_epochs=9, ckpt_path=tmp_path / "half.ckpt")
    assert same(digest(whole), digest(resumed))
    leagues = [open_league(tmp_path / name, leduc) for name in ("whole", "run")]
    assert leagues[0].results() == leagues[1].results()
    assert [m._replace(created="") for m in leagues[0].members()] == [
        m._replace(created="") for m in leagues[1].members()
    ]
    for league in leagues:
        league.close()


def test_the_arena_measures_writes_and_tells_the_matchmaker(tmp_path, leduc, leduc_tree):
    folder = tmp_path / "run"
    data = league_data(opponents=HEURISTICS, self_play_share=1.0)  # so that the matchmaker hears of the arena alone
    trainer, model = fit(folder, [Arena(every=2, games=4000)], data, max_epochs=4)  # twice; pairs of members once
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
                low, high = cell["interval"]
                assert low < cell["win_rate"] < high and high - low < 0.04 and cell["games"] == 4000
                other = content["matrix"][j][i]
                assert cell["win_rate"] + other["win_rate"] == pytest.approx(1)
                exact = exact_return(leduc_tree, players[i], players[j]).mean()
                assert cell["mean_return"] == pytest.approx(exact, abs=5 * 5 / np.sqrt(4000))
        if i:
            assert float(logged[f"eval/win_rate/{names[i]}"]) == pytest.approx(
                content["matrix"][0][i]["win_rate"], abs=1e-6
            )
    counts = trainer.datamodule.counts
    assert counts["always_call"][1] == 1000  # 4,000 games, remembered as 1,000
    assert counts["always_call"][0] / 1000 == pytest.approx(content["matrix"][0][1]["win_rate"], abs=0.03)


def test_watching_changes_no_weight(tmp_path):
    data = dict(opponents=HEURISTICS, self_play_share=0.5, matchmaker="uniform")
    _, plain = fit(tmp_path / "plain", [], league_data(**data))
    _, watched = fit(tmp_path / "watched", [Arena(every=2, games=100)], league_data(**data))
    assert same(digest(plain), digest(watched))


def test_the_oracle_is_the_exact_best_response(tmp_path, leduc, leduc_tree):
    folder = tmp_path / "run"
    _, model = fit(folder, [OracleExploiter(every=4, keep=1)], max_epochs=8)
    league = open_league(folder, leduc)
    states = {m.name: m.state for m in league.members() if m.role == "exploiter"}
    assert states == {"main-oracle-0000004": "retired", "main-oracle-0000008": "active"}
    member = league.find("main-oracle-0000008")
    oracle = NetworkPlayer(load_policy(league.resolve(member.file), leduc, member.sha256))
    facts = exploitation(leduc_tree, player_table(oracle, leduc_tree), policy_table(model.policy, leduc_tree))
    assert facts["share"] == pytest.approx(1, abs=1e-6)
    assert facts["exact_return"] == pytest.approx(facts["best_return"]) and facts["best_return"] > 1
    league.close()


def test_exploitation_is_a_share_of_what_there_is(leduc_tree):
    uniform, equilibrium = leduc_tree.uniform_policy(), leduc_tree.cfr_plus(2000)
    assert exploitation(leduc_tree, uniform, uniform)["share"] == pytest.approx(0)
    assert 0.2 < exploitation(leduc_tree, equilibrium, uniform)["share"] < 0.9
    assert exploitation(leduc_tree, uniform, equilibrium)["exact_return"] < 0


class Scripted(ExploiterSpawner):
    """Exploiters that are little programs, to see what becomes of the run."""

    program = ""

    def command(self, folder, begun):
        return [sys.executable, "-S", "-c", self.program, str(folder)]


class Patiently(L.Callback):
    """Iterations that begin when no exploiter runs any more, or after `seconds`."""

    def __init__(self, spawner, seconds=60.0):
        self.spawner, self.seconds = spawner, seconds

    def on_train_epoch_start(self, trainer, pl_module):
        wait_for(lambda: all(child.poll() is not None for child in self.spawner._running.values()), self.seconds)


def wait_for(condition, seconds=60.0):
    """Whether `condition` came true within so many seconds."""
    until = time.monotonic() + seconds
    while not condition() and time.monotonic() < until:
        time.sleep(0.02)
    return condition()


CRASH = "import sys; print('no luck'); sys.exit(7)"
KILLED = "import os; os.kill(os.getpid(), 9)"
HANG = "import time, signal; signal.signal(15, signal.SIG_IGN); time.sleep(60)"
NONSENSE = """
import pathlib, sys
folder = pathlib.Path(sys.argv[1]) / 'version_0'; folder.mkdir(); (folder / 'verdict.json').write_text('{"win_rate": ')
"""
FOREIGN = """
import json, pathlib, sys
folder = pathlib.Path(sys.argv[1]) / 'version_0'; folder.mkdir()
(folder / 'verdict.json').write_text(json.dumps({"victim_sha256": "x"}))
"""


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("mode", ["background", "inline"])
@pytest.mark.parametrize(
    ("program", "reason"),
    [
        (CRASH, "exit code 7: no luck"),
        (KILLED, "killed by SIGKILL"),
        (HANG, "time-out after"),
        (NONSENSE, "Expecting value"),
        (FOREIGN, "another victim"),
    ],
)
def test_an_exploiter_that_fails_leaves_the_run_alone_and_is_reported(
    tmp_path, leduc, monkeypatch, mode, program, reason
):  # fmt: skip
    monkeypatch.setattr("callbacks.exploiter_spawner.GRACE", 0.2)
    _, without = fit(tmp_path / "without", [Snapshot(every=3)])
    spawner = Scripted(EXPLOITER, every=2, mode=mode, timeout=0.3 if program == HANG else 60, niceness=1)
    spawner.program = program
    with pytest.warns(UserWarning, match="the run goes on without it") as caught:
        patiently = [Patiently(spawner, 0.3 if program == HANG else 60)] if mode == "background" else []
        _, beside = fit(tmp_path / "with", [*patiently, Snapshot(every=3), spawner], quiet=False)
    assert same(digest(without), digest(beside))
    jobs = [json.loads(p.read_text()) for p in sorted((tmp_path / "with" / "exploiters").glob("*/job.json"))]
    failed = [job for job in jobs if job["state"] == "failed"]
    assert failed and all(reason in job["reason"] for job in failed)
    assert any(reason in str(w.message) for w in caught)
    leagues = [open_league(tmp_path / name, leduc) for name in ("without", "with")]
    shas = [{m.name: m.sha256 for m in league.members()} for league in leagues]
    assert shas[0] == shas[1] and len(shas[0]) == 3  # main and two snapshots
    for league in leagues:
        league.close()


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_exploiters_stop_with_the_run_and_are_found_again(tmp_path, monkeypatch):
    """One that is stopped goes on; one whose parent was killed is waited for."""
    program = """
import os, pathlib, sys, time
folder = pathlib.Path(sys.argv[1])
(folder / f'life_{len(list(folder.glob("life_*")))}').touch()
time.sleep(60)
"""
    spawner = Scripted(EXPLOITER, every=2)
    spawner.program = program

    def lives(count):
        return wait_for(lambda: len(list((tmp_path / "run" / "exploiters").glob("*/life_*"))) == count)

    class UntilItLives(L.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            assert trainer.current_epoch != 1 or lives(1)

    trainer, _ = fit(tmp_path / "run", [spawner, UntilItLives()], max_epochs=4)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    (job,) = (json.loads(p.read_text()) for p in (tmp_path / "run" / "exploiters").glob("*/job.json"))
    assert job["state"] == "stopped" and not spawner._running
    again = Scripted(EXPLOITER, every=100)
    again.program = program
    seen = []

    class Look(L.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            seen.append(list(again._running.values()))
            if len(seen) == 1:  # as if this run had been killed, and another had come
                assert lives(2)
                (child,) = again._running.values()
                again._take_up(trainer.datamodule, pl_module, next(iter(again._running)))
                assert list(again._running.values()) == [None]  # found, not started anew
                os.kill(child.pid, signal.SIGKILL)
                child.wait()

    with pytest.warns(UserWarning, match="ended without a verdict"):
        fit(tmp_path / "run", [again, Look()], ckpt_path=tmp_path / "last.ckpt", max_epochs=7, quiet=False)
    folder = next((tmp_path / "run" / "exploiters").iterdir())
    assert lives(2) and seen[-1] == []
    assert json.loads((folder / "job.json").read_text())["state"] == "failed"


def environment():
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


TINY = ["--trainer.max_epochs=40", "--data.num_envs=64", "--trainer.check_val_every_n_epoch=40"]


def test_an_inline_exploiter_is_trained_judged_and_met(tmp_path, leduc, leduc_tree):
    """The whole chain, by `litrl fit`: frozen, trained against, judged, registered, played against."""
    spawner = ExploiterSpawner(
        EXPLOITER, every=4, mode="inline", criterion="return", threshold=0.2, games=4000, start="scratch",
        arguments=TINY,
    )  # fmt: skip
    folder = tmp_path / "run"
    trainer, _ = fit(folder, [spawner], max_epochs=7)
    job = json.loads((folder / "exploiters" / "0000004" / "job.json").read_text())
    assert job["state"] == "registered", job
    assert job["decisions"] == 40 * 64 * 16 and job["lower_end"] > 0.2
    assert job["return"] == pytest.approx(job["exact_return"], abs=0.5)
    assert 0.2 < job["share"] <= 1
    league = open_league(folder, leduc)
    member = league.find("main-exploiter-0000004")
    assert member.role == "exploiter" and member.parent == "main" and member.notes["victim_step"] == 4 * 64 * 8
    assert "main-exploiter-0000004" in trainer.datamodule.shares
    victim = load_policy(folder / "exploiters" / "0000004" / "victim.pt", leduc, make=lambda: small(leduc))
    spy = NetworkPlayer(load_policy(league.resolve(member.file), leduc, member.sha256))
    facts = exploitation(leduc_tree, player_table(spy, leduc_tree), policy_table(victim, leduc_tree))
    assert facts["exact_return"] == pytest.approx(job["exact_return"], abs=1e-5)
    league.export_registry(tmp_path / "exploiter_registry.json")
    (entry,) = json.loads((tmp_path / "exploiter_registry.json").read_text())["exploiters"]
    assert entry["victim_step"] == 2048 and entry["win_rate"] == job["win_rate"]
    league.close()


def train(tmp_path, *arguments):
    """`litrl fit` of a tiny league run in tmp_path; its output."""
    command = [
        sys.executable, "-W", "ignore", "-m", "lit_rl", "fit", "--config", str(ROOT / "configs" / "leduc_ppo.yaml"),
        "--data", "LeagueDataModule", "--data.num_envs=32", "--data.num_steps=8", "--data.refresh_every=3",
        "--trainer.enable_progress_bar=false", "--trainer.check_val_every_n_epoch=30", "--trainer.log_every_n_steps=1",
        f"--trainer.default_root_dir={tmp_path}", *arguments,
    ]  # fmt: skip
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_two_ranks_play_one_league(tmp_path, leduc):
    snapshots = ["--trainer.callbacks+=Snapshot", "--trainer.callbacks.every=4"]
    train(
        tmp_path, "--trainer.max_epochs=13", "--trainer.devices=2", "--trainer.strategy=ddp",
        "--data.opponents=[random]", *snapshots,
    )  # fmt: skip
    league = open_league(tmp_path / "version_0", leduc)
    assert [m.name for m in league.members()] == ["main", "random", *(f"main-{i:07d}" for i in (4, 8, 12))]
    batches = {iteration for _, iteration, _, _ in league.results()}
    assert batches == {3, 6, 9, 12}
    checkpoint = torch.load(tmp_path / "version_0" / "checkpoints" / "last.ckpt", weights_only=True)
    state = checkpoint["LeagueDataModule"]["league"]
    assert len(state["ranks"]) == 2 and state["ranks"][0]["table"] != state["ranks"][1]["table"]
    assert (
        state["ranks"][0]["names"] == state["ranks"][1]["names"] == ["random", *(f"main-{i:07d}" for i in (4, 8, 12))]
    )
    # a batch holds the games of both ranks: 2 ranks x 32 rows x 3 iterations x 8 decisions, halved by self-play
    games = sum(r.games for _, iteration, _, r in league.results() if iteration == 3)
    assert 100 < games < 400
    league.close()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ExploiterSpawner("nowhere.yaml"), "config='nowhere.yaml': no such file"),
        (lambda: ExploiterSpawner(EXPLOITER, threshold=1.2), r"threshold=1.2: a win rate lies in \[0, 1\]"),
        (lambda: ExploiterSpawner(EXPLOITER, threshold=float("nan")), "threshold=nan"),
        (lambda: ExploiterSpawner(EXPLOITER, mode="detached"), "mode='detached': unknown"),
        (lambda: ExploiterSpawner(EXPLOITER, start="best"), "start='best': unknown"),
        (lambda: ExploiterSpawner(EXPLOITER, criterion="elo"), "criterion='elo': unknown"),
        (lambda: ExploiterSpawner(EXPLOITER, device="gpu"), "device='gpu': use cpu"),
        (lambda: ExploiterSpawner(EXPLOITER, every=0), "every=0"),
        (lambda: Snapshot(recent=0, spaced=0), "no snapshot would ever be in play"),
        (lambda: Arena(games=0), "games=0"),
    ],
)
def test_bad_input_is_refused_by_name(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


@pytest.mark.parametrize("callback", [Snapshot(), Arena(), OracleExploiter(), ExploiterSpawner(EXPLOITER)])
def test_they_need_a_league(tmp_path, callback):
    with pytest.raises(ConfigError, match=r"plays in a league; use data\.class_path=LeagueDataModule"):
        fit(tmp_path / "run", [callback], SelfPlayDataModule("envs.leduc_poker", num_envs=64, num_steps=8))


def test_an_unknown_opponent_of_the_arena_is_refused_by_name(tmp_path):
    with pytest.raises(ConfigError, match="against='ghost': neither a member of the league nor a role"):
        fit(tmp_path / "run", [Arena(every=1, against=["ghost"])])


def test_a_verdict_needs_one_opponent(tmp_path):
    with pytest.raises(ConfigError, match="an exploiter has one opponent and no self-play"):
        fit(tmp_path / "run", [ExploiterVerdict()], league_data(opponents=HEURISTICS))


def test_a_sharpened_exploiter_is_kept_as_it_was_judged(tmp_path, leduc, leduc_tree):
    data = league_data(opponents=HEURISTICS[:1], self_play_share=0.0)
    _, model = fit(tmp_path / "run", [ExploiterVerdict(games=200, temperature=0.25)], data, max_epochs=4)
    kept = load_policy(tmp_path / "run" / "player.pt", leduc)
    table, plain = policy_table(kept, leduc_tree), policy_table(model.export_policy(), leduc_tree)
    assert table == pytest.approx(plain**4 / (plain**4).sum(1, keepdims=True), abs=1e-5)
    content = json.loads((tmp_path / "run" / "verdict.json").read_text())
    victim = player_table(HeuristicPlayer(HEURISTICS[0], leduc), leduc_tree)
    assert content["share"] == pytest.approx(exploitation(leduc_tree, table, victim)["share"], abs=1e-6)


def test_a_verdict_can_begin_with_the_victims_weights(tmp_path, leduc):
    from lit_rl.league.players import save_player

    victim = small(leduc)
    torch.nn.init.normal_(victim.policy_head.weight)
    save_player(tmp_path / "victim.pt", victim, leduc)
    data = league_data(opponents=[str(tmp_path / "victim.pt")], self_play_share=0.0)
    verdict = ExploiterVerdict(games=200, start_from=str(tmp_path / "victim.pt"))
    begun = []

    class Look(L.Callback):
        def on_train_start(self, trainer, pl_module):
            begun.extend(digest(pl_module.policy))

    fit(tmp_path / "run", [verdict, Look()], data, max_epochs=2)
    assert same(begun, digest(victim))
    content = json.loads((tmp_path / "run" / "verdict.json").read_text())
    assert content["sha256"] == sha256_of(tmp_path / "run" / "player.pt") and content["games"] == 200
    assert content["victim_sha256"] == sha256_of(tmp_path / "victim.pt") and -0.5 < content["share"] < 1
