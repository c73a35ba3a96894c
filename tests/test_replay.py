"""Replays: every game can be played again, nothing that was touched passes, recording and resuming leave no trace."""

import dataclasses
import json
import math
import os
import resource
import sys
import tracemalloc
import warnings
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
from conftest import small_mlp
from numba import njit

from callbacks.replay import Replay
from envs.game import CHANCE, TERMINAL, load_game
from envs.vector_env import VectorEnv
from lit_rl.cli import main as litrl
from lit_rl.networks import MLP
from lit_rl.rollout import collect
from lit_rl.run.errors import ArtefactError, ConfigError
from lit_rl.run.replay import finished_games, game_record, verify, weights_hash
from lit_rl.run.replay_file import SCHEMA, ReplayWriter, canonical, read, seal
from scripts.replay import main

ROOT = Path(__file__).parent.parent


def record_games(path, game, policy, num_envs=32, steps=16, limit=10_000, **env):
    """A replay of all games of two rollouts, the second carrying the open games of the first."""
    env = VectorEnv(game, num_envs, seed=3, record=True, **env)
    writer = ReplayWriter(path)
    writer.begin({"run": "test", "game": f"envs.{game.name}", "name": game.name, "version": game.version})
    rollout = None
    for iteration in range(2):
        rollout = collect(env, policy, steps, previous=rollout, temperature=0.5)
        for found in list(finished_games(rollout, whole_games=True))[:limit]:
            facts = {"iteration": iteration, "decisions": 0, "precision": "32-true", "weights": weights_hash(policy)}
            writer.append(facts | game_record(game, rollout, *found, {"bin": torch.zeros(*rollout.done.shape, 2)}))
    return writer


@pytest.fixture
def replay(tmp_path, kuhn):
    path = tmp_path / "replay.jsonl"
    record_games(path, kuhn, small_mlp(kuhn), num_envs=4, steps=6, limit=4)
    return path


def test_exploration_is_on_record_and_part_of_what_is_verified(tmp_path, kuhn):
    path, policy = tmp_path / "replay.jsonl", small_mlp(kuhn)
    writer = ReplayWriter(path)
    writer.begin({"run": "test", "game": "envs.kuhn_poker", "name": kuhn.name, "version": kuhn.version})
    exploration = torch.tensor([[0.7, 0.0]]).expand(8, 2)
    rollout = collect(VectorEnv(kuhn, 8, seed=3, record=True), policy, 6, exploration=exploration)
    facts = {"iteration": 0, "decisions": 0, "precision": "32-true", "weights": weights_hash(policy)}
    for found in finished_games(rollout, whole_games=True):
        writer.append(facts | game_record(kuhn, rollout, *found, {}))
    report = verify(path, kuhn, policy)
    assert report.games_of_weights == report.games > 5

    def explored_less(record):
        record["moves"][0]["exploration"] = 0.3

    forge(path, explored_less)
    with pytest.raises(ArtefactError, match="log_prob of action"):
        verify(path, kuhn, policy)


def forge(path, change, line=2):
    """Rewrite the chain with one record changed: only the rules or the policy can tell."""
    text, previous = b"", ""
    for number, sealed in enumerate(path.read_bytes().splitlines(), 1):
        record = json.loads(sealed)
        record.pop("sha256")
        if number == line:
            change(record)
        sealed, previous = seal(previous, record)
        text += sealed
    path.write_bytes(text)


# The record


STATE = np.dtype([("dealt", np.int8), ("dice", np.int8), ("moved", np.bool_), ("over", np.bool_)])


@njit
def init(state):
    state.dealt = state.dice = 0
    state.moved = state.over = False


@njit
def current_player(state):
    if state.over:
        return TERMINAL
    return 0 if state.dice > 0 and not state.moved else CHANCE


@njit
def legal_actions(state, legal):
    legal[:] = True


@njit
def chance_probs(state, probs):
    probs[:] = (0.2, 0.3, 0.5)


@njit
def apply_action(state, action):
    if state.dice > 0 and not state.moved:
        state.moved = True
    elif action > 0:  # zero rolls again
        state.over = state.moved
        state.dice += action


@njit
def rewards(state, out):
    if state.over:
        out[0] = state.dice / 3.0
        out[1] = -out[0]


@njit
def observe(state, player, obs):
    obs[player] = 1
    obs[2] = state.dice


DICE = dataclasses.replace(  # chance plays as often as it likes, before the only decision and after it
    load_game("envs.matching_pennies"), name="dice", num_chance_outcomes=3, max_steps=1000, max_return=2.0,
    state_dtype=STATE, init=init, current_player=current_player, legal_actions=legal_actions,
    chance_probs=chance_probs, apply_action=apply_action, rewards=rewards, observe=observe,
)  # fmt: skip


@pytest.mark.parametrize(
    ("any_game", "truncate_after"),
    [(load_game("envs.kuhn_poker"), None), (load_game("envs.leduc_poker"), 3), (DICE, None)],
    ids=["kuhn", "leduc cut off", "dice"],
)
def test_every_game_is_recorded_as_it_was_and_can_be_played_again(tmp_path, any_game, truncate_after):
    policy = MLP(any_game, hidden=(16,))
    path = tmp_path / "replay.jsonl"
    record_games(path, any_game, policy, truncate_after=truncate_after)
    report = verify(path, any_game, policy)
    env = VectorEnv(any_game, 32, seed=3, truncate_after=truncate_after)
    rollout = collect(env, policy, 32, temperature=0.5)
    assert report.games == report.games_of_weights == int(rollout.done.sum())
    ends = rollout.done.flip(0).cummax(0).values.flip(0)
    assert report.decisions == int(ends.sum())
    assert report.decisions_of_weights + sum(r["carried"] for n, r in read(path) if n > 1) == report.decisions
    assert report.max_logit_error < 1e-6 and report.max_value_error < 1e-6


def test_recording_changes_no_byte_of_the_games(leduc):
    plain, recording = VectorEnv(leduc, 50, seed=1), VectorEnv(leduc, 50, seed=1, record=True)
    for _ in range(20):
        for env in (plain, recording):
            env.step(env.sample_uniform())
    assert not plain.game_streams.any() and recording.game_streams.all()
    for name, saved in plain.state_dict().items():
        assert saved == recording.state_dict()[name] or name == "game_streams", name


def test_games_whose_beginning_is_unknown_are_left_out(leduc):
    """Cut by the rollout without carrying, or begun before anything was recorded."""
    env = VectorEnv(leduc, 40, seed=0, record=True)
    policy = MLP(leduc, hidden=(8,))
    collect(env, policy, 3)
    cut = collect(env, policy, 8)
    assert all(first > 0 for _, first, _ in finished_games(cut, whole_games=False))
    stranger = VectorEnv(leduc, 40, seed=0)
    env.load_state_dict(stranger.state_dict())
    rollout = collect(env, policy, 8)
    games = list(finished_games(rollout, whole_games=True))
    assert games and all(first > 0 for _, first, _ in games)


def test_floats_survive_exactly():
    rng = np.random.default_rng(0)
    floats = rng.integers(0, 2**32, 20_000, dtype=np.uint32).view(np.float32)
    floats = np.concatenate([floats[np.isfinite(floats)], np.float32([0.0, -0.0, 1e-45, 3.4028235e38, 0.1])])
    back = np.array(json.loads(canonical({"x": torch.from_numpy(floats)}))["x"], np.float32)
    assert (back.view(np.uint32) == floats.view(np.uint32)).all()
    doubles = rng.integers(0, 2**64, 20_000, dtype=np.uint64).view(np.float64)
    doubles = doubles[np.isfinite(doubles)]
    assert (np.array(json.loads(canonical({"x": doubles}))["x"]).view(np.uint64) == doubles.view(np.uint64)).all()
    assert canonical({"n": 2**53, "m": 2**53 + 1}) == b'{"m":"9007199254740993","n":9007199254740992}'
    for bad in (math.nan, math.inf):
        with pytest.raises(ValueError, match="JSON compliant"):
            canonical({"x": bad})


# Broken files


def refused(path, game, line):
    with pytest.raises(ArtefactError, match=rf"{path.name}, line {line}: "):
        for _ in read(path):
            pass
    with pytest.raises(ArtefactError, match=rf"{path.name}, line {line}: "):
        verify(path, game)


def test_every_single_byte_mutation_is_found_at_its_line(replay, kuhn):
    data = replay.read_bytes()
    rng = np.random.default_rng(1)
    for at in rng.integers(0, len(data), 1500).tolist():
        mutated = bytearray(data)
        mutated[at] ^= int(rng.integers(1, 256))
        replay.write_bytes(mutated)
        line = data[:at].count(b"\n") + 1
        with pytest.raises(ArtefactError, match=rf"line {line}: "):
            for _ in read(replay):
                pass


def test_every_cut_is_found(replay, kuhn):
    data = replay.read_bytes()
    lines = data.splitlines(keepends=True)
    for n in range(len(lines)):
        replay.write_bytes(b"".join(lines[:n]))
        refused(replay, kuhn, n + 1)
        replay.write_bytes(b"".join(lines[:n]) + lines[n][: len(lines[n]) // 2])
        refused(replay, kuhn, n + 1)
        replay.write_bytes(b"".join(lines[:n]) + lines[n][:-1])
        refused(replay, kuhn, n + 1)


@pytest.mark.parametrize(
    ("edit", "line"),
    [
        (lambda x: [x[0], x[2], x[1], *x[3:]], 2),
        (lambda x: [*x[:3], x[2], *x[3:]], 4),
        (lambda x: [*x[:3], *x[4:]], 4),
        (lambda x: x[1:], 1),
        (lambda x: [*x, x[-1]], -1),
        (lambda x: [*x, b"\n"], -1),
        (lambda x: [x[0], x[-1]], 2),
    ],
    ids=["swapped", "doubled", "removed", "headless", "two ends", "a blank line", "emptied"],
)
def test_lines_out_of_place_are_found(replay, kuhn, edit, line):
    lines = replay.read_bytes().splitlines(keepends=True)
    replay.write_bytes(b"".join(edit(lines)))
    refused(replay, kuhn, line if line > 0 else len(lines) + 1)


def test_newer_schema_other_rules_and_long_lines_are_refused(replay, kuhn, leduc):
    with pytest.raises(ArtefactError, match=r"line 1: is of kuhn_poker 1.0, the rules here are leduc_poker 1.0"):
        verify(replay, leduc)
    forge(replay, lambda header: header.update(version="0.9"), line=1)
    with pytest.raises(ArtefactError, match=r"line 1: is of kuhn_poker 0.9, the rules here are kuhn_poker 1.0"):
        verify(replay, kuhn)
    forge(replay, lambda header: header.update(schema=SCHEMA + 6), line=1)
    with pytest.raises(ArtefactError, match=rf"line 1: schema 7, this program reads up to {SCHEMA}; update"):
        verify(replay, kuhn)
    replay.write_bytes(b"[" * (1 << 25))
    with pytest.raises(ArtefactError, match="line 1: longer than"):
        verify(replay, kuhn)
    for nasty in ({"x": []}, {"kind": "header", "schema": "1"}):
        replay.write_bytes(seal("", nasty)[0])
        with pytest.raises(ArtefactError):
            verify(replay, kuhn)
    deep = b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}\n"
    replay.write_bytes(deep)
    refused(replay, kuhn, 1)


def swap(history):
    history[0], history[1] = history[1], history[0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda r: swap(r["history"]), "chance outcome 0 is"),
        (lambda r: r.update(stream="0123456789abcdef"), "the stream says"),
        (lambda r: r["history"].append(0), "comes after the end of the game"),
        (lambda r: r["history"].pop(), "more decisions on record than actions"),
        (lambda r: r["moves"].pop(), "is no decision on record"),
        (lambda r: r["history"].__setitem__(2, 2), r"action 2 is 2, legal are \[0, 1\]"),
        (lambda r: r["history"].__setitem__(2, -1), r"action 2 is -1, legal are"),
        (lambda r: r["history"].__setitem__(2, 10**30), r"action 2 is 1000"),
        (lambda r: r["moves"][0].update(legal=[0]), "legal are"),
        (lambda r: r["moves"][0].update(player=1), "action 2 is player 0's, not 1's"),
        (lambda r: r["moves"][-1].update(rewards=[5.0, -5.0]), "rewards of decision"),
        (lambda r: r["moves"][0].update(log_prob=-0.1), "log_prob of action 2 is off"),
        (lambda r: r["moves"][0].update(logits=[0.0]), "1 logits for"),
        (lambda r: r["moves"][0].update(logits="ab"), "line 3"),
        (lambda r: r["moves"][0].update(logits=[[1.0, 2.0], 3]), "line 3"),
        (lambda r: r["moves"][0].pop("value"), "no 'value'"),
        (lambda r: r["moves"][0].update(logits=[0.3, 0.1], log_prob=math.log(1 / (1 + math.exp(-0.2)))), "are off by"),
        (lambda r: r.update(history=[]), "line 3"),
        (lambda r: r.update(history=[0] * 6), "6 actions, at most 5"),
        (lambda r: r.update(moves={}), "line 3"),
        (lambda r: r.update(truncated=True), "its end is not the end of the game"),
        (lambda r: r.update(carried=9), "carried=9"),
        (lambda r: r.update(temperature=0.0), "are off by"),
        (lambda r: r.pop("weights"), "no 'weights'"),
    ],
)
def test_a_forged_record_breaks_the_rules(tmp_path, kuhn, change, words):
    policy = small_mlp(kuhn)
    path = tmp_path / "replay.jsonl"
    record_games(path, kuhn, policy, num_envs=4, steps=6)
    forge(path, change, line=3)
    with pytest.raises(ArtefactError, match=rf"line 3: .*{words}" if words != "line 3" else words):
        verify(path, kuhn, policy)


def test_logits_are_held_against_the_policy(tmp_path, leduc):
    policy = MLP(leduc, hidden=(16,))
    path = tmp_path / "replay.jsonl"
    record_games(path, leduc, policy, num_envs=64)

    class OneByOne(torch.nn.Module):
        def forward(self, obs, legal):
            rows = [policy(o[None], m[None]) for o, m in zip(obs, legal)]
            return type(rows[0])(*(torch.cat(x) for x in zip(*rows)))

    report = verify(path, leduc, OneByOne(), weights_hash(policy))
    assert report.games_of_weights == report.games > 100 and report.max_logit_error < 1e-6
    other = MLP(leduc, hidden=(16,))
    with torch.no_grad():
        other.policy_head.weight += 1
    assert verify(path, leduc, other).games_of_weights == 0

    claimed = weights_hash(policy)
    with torch.no_grad():
        policy.policy_head.bias[2] += 1e-4
    bad = next(n for n, r in read(path) if n > 1 and any(2 in m["legal"] for m in r["moves"][r["carried"] :]))
    with pytest.raises(ArtefactError, match=rf"line {bad}: logits are off by 0.0002, more than 1e-06"):
        verify(path, leduc, policy, claimed)


def test_reading_needs_the_memory_of_one_line(tmp_path, kuhn):
    path = tmp_path / "large.jsonl"
    text, previous = seal("", {"kind": "header", "schema": SCHEMA})
    with path.open("wb") as file:
        file.write(text)
        for index in range(200):
            line, previous = seal(previous, {"kind": "game", "index": index, "pad": "x" * 100_000})
            file.write(line)
        file.write(seal(previous, {"kind": "end", "games": 200})[0])
    assert path.stat().st_size > 20e6
    tracemalloc.start()
    assert sum(1 for _ in read(path)) == 201
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2e6


# The callback


class Stop(Exception):
    pass


class SaveAndDie(L.Callback):
    """Saves in mid-iteration and stops the run at (iteration, batch) `die`."""

    def __init__(self, path, iteration, die):
        self.path, self.iteration, self.die = path, iteration, die

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if (trainer.current_epoch, batch_idx) == (self.iteration, 5):
            trainer.save_checkpoint(self.path)
        if (trainer.current_epoch, batch_idx) == self.die:
            raise Stop


def test_recording_leaves_the_training_as_it_is(make_fit):
    weights = []
    for callbacks in ([], [Replay(every=1, games=50)]):
        torch.manual_seed(1)
        trainer, model, data = make_fit(callbacks=callbacks)
        trainer.fit(model, data)
        weights.append(torch.cat([p.detach().flatten() for p in model.policy.parameters()]))
    assert torch.equal(*weights)
    assert (
        float(trainer.callback_metrics["replay/games"]) == 150
        and float(trainer.callback_metrics["replay/dropped"]) == 0
    )
    report = verify(callbacks[0].path, data.game, model.policy)
    assert report.games == 200 and report.games_of_weights == 50  # those of the end


def test_a_checkpoint_verifies_the_games_that_follow_it(make_fit, tmp_path):
    """A checkpoint at the end of iteration 0 holds the weights that play iteration 1."""
    keep = L.pytorch.callbacks.ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1)
    replay = Replay(every=1, games=20)
    trainer, model, data = make_fit({"sampling_temperature": 2.0}, callbacks=[replay, keep], enable_checkpointing=True)
    model.replay_extras = lambda rollout: {"mix_lambda": 2 * rollout.value}  # what an algorithm would add
    trainer.fit(model, data)
    checkpoint = torch.load(tmp_path / "epoch=0.ckpt", weights_only=True)
    model.load_state_dict(checkpoint["state_dict"])
    report = verify(replay.path, data.game, model.policy)
    played = [r for n, r in read(replay.path) if n > 1 and r["iteration"] == 1]
    assert report.games_of_weights == len(played) == 20
    assert checkpoint["callbacks"]["Replay"]["weights"] == played[0]["weights"]
    assert report.decisions_of_weights == sum(len(r["moves"]) - r["carried"] for r in played)
    assert all(m["extras"]["mix_lambda"] == 2 * m["value"] for r in played for m in r["moves"])


@pytest.mark.parametrize("at", [1, 2])
def test_a_resumed_run_writes_the_same_file(make_fit, tmp_path, at):
    """Killed two iterations after its checkpoint and resumed: bit by bit the file of a run that was left alone."""
    files = []
    for name, die in (("whole", None), ("killed", (at + 2, 3))):
        torch.manual_seed(2)
        callbacks = [Replay(every=1, games=7), SaveAndDie(tmp_path / f"{name}.ckpt", at, die)]
        trainer, model, data = make_fit(max_epochs=6, callbacks=callbacks, default_root_dir=tmp_path / name)
        if die:
            with pytest.raises(Stop):
                trainer.fit(model, data)
            assert verify(callbacks[0].path, data.game).games == 7 * (at + 3)
            with callbacks[0].path.open("ab") as file:
                file.write(b'{"kind":"ga')  # a kill in mid-write
            torch.manual_seed(3)
            trainer, model, data = make_fit(
                max_epochs=6, callbacks=[Replay(every=1, games=7)], default_root_dir=tmp_path / name
            )
            trainer.fit(model, data, ckpt_path=tmp_path / f"{name}.ckpt")
        else:
            trainer.fit(model, data)
        files.append((tmp_path / name / "replay.jsonl").read_bytes())
    assert files[0] == files[1] and len(files[0].splitlines()) == 2 + 7 * 7


def test_a_finished_run_that_goes_on_drops_its_closing_games(make_fit, tmp_path):
    files = []
    for name, halves in (("whole", [4]), ("halves", [2, 4])):
        ckpt = None
        for epochs in halves:
            torch.manual_seed(4)
            trainer, model, data = make_fit(
                max_epochs=epochs, callbacks=[Replay(every=2, games=3)], default_root_dir=tmp_path / name
            )
            trainer.fit(model, data, ckpt_path=ckpt)
            ckpt = tmp_path / f"{name}.ckpt"
            trainer.save_checkpoint(ckpt)
        files.append((tmp_path / name / "replay.jsonl").read_bytes())
    assert files[0] == files[1]


def test_resume_in_another_folder_or_beside_a_strange_file(make_fit, tmp_path):
    trainer, model, data = make_fit(callbacks=[Replay(every=1)], max_epochs=2, default_root_dir=tmp_path / "a")
    trainer.fit(model, data)
    trainer.save_checkpoint(tmp_path / "a.ckpt")

    elsewhere = Replay(every=1)
    trainer, model, data = make_fit(callbacks=[elsewhere], max_epochs=4, default_root_dir=tmp_path / "b")
    trainer.fit(model, data, ckpt_path=tmp_path / "a.ckpt")
    (_, header), *games = read(elsewhere.path)
    assert header["continues"] and [g["iteration"] for _, g in games] == [2] * 4 + [3] * 4 + [4] * 4
    assert verify(elsewhere.path, data.game).games == 12

    (tmp_path / "a/replay.jsonl").write_bytes(elsewhere.path.read_bytes())
    trainer, model, data = make_fit(callbacks=[Replay(every=1)], max_epochs=4, default_root_dir=tmp_path / "a")
    with pytest.raises(ArtefactError, match="does not hold the 8 games that the checkpoint knows of"):
        trainer.fit(model, data, ckpt_path=tmp_path / "a.ckpt")
    trainer, model, data = make_fit({"network": MLP}, callbacks=[Replay()], default_root_dir=tmp_path / "a")
    with pytest.raises(ArtefactError, match="games of another run"):
        trainer.fit(model, data)


def test_a_full_disk_closes_the_replay_and_training_goes_on(make_fit, tmp_path, monkeypatch):
    """The disk takes 30 kB; a torn line is never left behind."""
    real = os.pwrite

    def full(fd, data, offset):
        room = 30_000 - offset
        if room <= 0:
            raise OSError(28, "No space left on device")
        return real(fd, data[:room], offset)

    monkeypatch.setattr(os, "pwrite", full)
    replay = Replay(every=1, games=30)
    trainer, model, data = make_fit(callbacks=[replay], max_epochs=5)
    with pytest.warns(UserWarning, match="closed after the last whole game.*No space"):
        trainer.fit(model, data)
    games = verify(replay.path, data.game).games
    assert trainer.current_epoch == 5 and 30 < games < 150 and 28_000 < replay.path.stat().st_size <= 30_000
    assert float(trainer.callback_metrics["replay/games"]) == games
    assert float(trainer.callback_metrics["replay/dropped"]) == 150 - games


def test_a_file_size_limit_leaves_a_whole_file(tmp_path):
    """The same with real writes that stop short."""
    writer = ReplayWriter(tmp_path / "r.jsonl")
    writer.begin({"run": "x"})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            while True:
                writer.append({"pad": "x" * 700})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert sum(1 for _ in read(writer.path)) == 1 + writer.state["games"] == 13


def test_a_replay_added_to_an_env_that_does_not_record_is_an_error(make_fit):
    trainer, model, data = make_fit(max_epochs=1)
    trainer.fit(model, data)
    other, _, _ = make_fit(callbacks=[Replay()], max_epochs=2)
    with pytest.raises(ConfigError, match="does not record"):
        other.fit(model, data)


def test_ranges():
    with pytest.raises(ConfigError, match="every=0"):
        Replay(every=0)


# The command


@pytest.fixture
def command(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def run(*args):
        code = 0
        try:
            main([str(a) for a in args])
        except SystemExit as stop:
            code = stop.code
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """What `litrl fit` leaves behind with Replay in its config."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "o.yaml").write_text("trainer: {callbacks+: [{class_path: Replay, init_args: {every: 1, games: 3}}]}\n")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        litrl(
            ["fit", "--config", str(ROOT / "configs/kuhn_ppo.yaml"), "--config", str(folder / "o.yaml"),
             "--trainer.max_epochs=3", "--trainer.check_val_every_n_epoch=3", "--trainer.accelerator=cpu",
             "--trainer.enable_progress_bar=false", f"--trainer.default_root_dir={folder}"]
        )  # fmt: skip
    return folder / "version_0"


def test_verify_and_show(command, run_folder, tmp_path):
    file, last = run_folder / "replay.jsonl", run_folder / "checkpoints/last.ckpt"
    code, out, err = command("verify", file, "--ckpt_path", last)
    assert code == 0, err
    assert "ok, 12 games" in out and "by these weights: 3 games" in out and "other weights or precision: 9 games" in out
    code, out, _ = command("show", file, "--game", 11)
    assert code == 0 and "game 11 | iteration 3" in out and "cards" in out and "rewards" in out
    code, _, err = command("show", file, "--game", 12)
    assert code == 2 and "holds 12 games" in err
    code, _, err = command("verify", "nowhere")
    assert code == 2 and "no such file" in err
    assert command("verify")[0] == 2


def test_a_poisoned_checkpoint_is_named_with_the_line(command, run_folder, tmp_path):
    file = run_folder / "replay.jsonl"
    checkpoint = torch.load(run_folder / "checkpoints/last.ckpt", weights_only=True)
    checkpoint["state_dict"]["policy.policy_head.bias"][0] += 1e-3
    torch.save(checkpoint, "poisoned.ckpt")
    code, out, err = command("verify", file, "--ckpt_path", "poisoned.ckpt")
    assert code == 3 and not out and err.count("\n") == 1
    assert "error[3]" in err and "line 11: logits are off by 0.001" in err  # the first of the closing games
    checkpoint["state_dict"]["policy.policy_head.bias"][0] -= 1e-3
    checkpoint["state_dict"]["policy.policy_head.bias"][0] += 1e-9  # too little for the logits to tell
    checkpoint["callbacks"]["Replay"]["weights"] = "0" * 64
    torch.save(checkpoint, "odd.ckpt")
    code, out, err = command("verify", file, "--ckpt_path", "odd.ckpt")
    assert code == 3 and "not those it was saved with" in err


def test_strangers_files_run_no_code(command, run_folder, tmp_path):
    Path("evil.py").write_text("raise SystemExit('evil code ran')\n")
    Path("r.jsonl").write_bytes((run_folder / "replay.jsonl").read_bytes())
    forge(Path("r.jsonl"), lambda header: header.update(game="evil"), line=1)
    code, _, err = command("verify", "r.jsonl")
    assert code == 3 and "names evil, code that is not ours; if you trust it, say --allow" in err
    checkpoint = torch.load(run_folder / "checkpoints/last.ckpt", weights_only=True)
    checkpoint["hyper_parameters"]["network"]["class_path"] = "evil.Net"
    torch.save(checkpoint, "evil.ckpt")
    for name, words in (("evil.ckpt", "names evil.Net"), ("r.jsonl", "no usable checkpoint")):
        code, _, err = command("verify", run_folder / "replay.jsonl", "--ckpt_path", name)
        assert code == 3 and words in err and "Traceback" not in err
    (tmp_path / "mine.py").write_text("from envs.kuhn_poker import GAME\n")
    forge(Path("r.jsonl"), lambda header: header.update(game="mine"), line=1)
    assert command("verify", "r.jsonl", "--allow", "mine")[0] == 0
    sys.modules.pop("mine")
