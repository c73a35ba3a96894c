"""`litrl usi`: a conversation line by line, through a pipe, and with cshogi's own client."""

import json
import stat
import subprocess
import sys
from functools import partial
from importlib import import_module

import pytest
import torch

from envs.shogi import documents, rules
from envs.shogi.notation import START_SFEN, move_of, read_sfen
from lit_rl.__main__ import COMMANDS
from lit_rl.cli import main
from lit_rl.league import play, usi
from lit_rl.league.game_policy import save_policy
from lit_rl.networks import MLP
from lit_rl.ppo import PPO

GREEDY = "envs.shogi.heuristics.greedy"
BREAKTHROUGH = "startpos moves 7g7f 3c3d"  # the bishops see each other


class Talk:
    """An engine in this process; `talk(line, ...)` is what it says to the lines."""

    def __init__(self, player=GREEDY, game=None):
        self.said = []
        self.engine = usi.open_engine(player, game, self.said.append)

    def __call__(self, *lines):
        self.said.clear()
        for line in lines:
            self.engine.hear(line)
        return list(self.said)


@pytest.fixture(scope="module")
def greedy():
    return Talk()


def test_it_introduces_itself(greedy):
    said = greedy("usi", "isready", "usinewgame", "gameover win", "", "something else")
    assert said[0] == "id name lit-rl greedy" and said[-2:] == ["usiok", "readyok"]
    assert not greedy.engine.hear("quit") and greedy.engine.hear("isready")


def test_it_takes_what_it_can(greedy):
    assert greedy(f"position {BREAKTHROUGH}", "go btime 0 wtime 0 byoyomi 1000") in (
        ["bestmove 8h2b+"],
        ["bestmove 8h2b"],
    )


def test_it_answers_to_stop_where_it_was_told_to_wait(greedy):
    assert greedy(f"position {BREAKTHROUGH}", "go infinite") == []
    assert greedy("stop")[0].startswith("bestmove 8h2b") and greedy("stop") == []
    assert greedy("go ponder") == [] and greedy("ponderhit")[0].startswith("bestmove 8h2b")


def test_it_resigns_and_declares(greedy):
    mated = "k8/1G7/1G7/9/9/9/9/9/8K w - 1"
    assert greedy(f"position sfen {mated}", "go") == ["bestmove resign"]
    assert greedy("position sfen +R+B+B+RG3K/PPPPP4/9/9/9/9/9/9/7k1 b 2P 1", "go") == ["bestmove win"]


@pytest.mark.parametrize(
    "position, words",
    [
        ("startpos moves 7g7f 7g7f", "move '7g7f': is not legal in lnsgkgsnl/1r5b1/"),
        ("startpos moves pass", "move 'pass': is no USI move; such are 7g7f, 8h2b+ and P*5e"),
        ("sfen 4k4/9/9/9/9/9/9/9/9 b - 1", "Black has 0 kings, needs one"),
        ("here", "give startpos, or sfen and the position"),
    ],
)
def test_what_it_cannot_read_is_one_line(greedy, position, words):
    said = greedy(f"position {position}")
    assert len(said) == 1 and said[0].startswith("info string error: ") and words in said[0] and "\n" not in said[0]
    assert greedy("go")[-1] == "bestmove resign"
    assert greedy("position startpos", "go")[-1] != "bestmove resign"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A player file of each interface."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("usi")
    for name, game in (("ours", "envs.shogi"), ("documents", "envs.shogi.documents"), ("kuhn", "envs.kuhn_poker")):
        save_policy(PPO(game, network=partial(MLP, hidden=[8])), folder / f"{name}.pt")
    return folder


@pytest.mark.parametrize("name", ["ours", "documents"])
def test_a_network_plays_legal_moves_and_tells_its_value(files, name):
    talk = Talk(str(files / f"{name}.pt"))
    state, line = read_sfen(START_SFEN)[0], []
    talk("setoption name Sample value true")
    for _ in range(12):
        info, best = talk(f"position startpos moves {' '.join(line)}", "go")
        assert info.startswith("info depth 1 score cp ") and info.endswith(best.removeprefix("bestmove"))
        line.append(best.removeprefix("bestmove "))
        rules.play(state, move_of(state, line[-1]))


def test_a_file_of_another_game_is_refused_by_name(files, capsys):
    for name, game, words in (
        ("documents", "envs.shogi", f"is of {documents.GAME.name} (rules "),
        ("kuhn", None, "kuhn_poker: USI is for shogi"),
    ):
        with pytest.raises(SystemExit) as stop:
            usi.main([str(files / f"{name}.pt"), *(["--game", game] if game else [])])
        err = capsys.readouterr().err
        assert stop.value.code in (2, 3) and words in err and err.count("\n") == 1


OTHER = "is of shogi (rules 1.0), not of shogi_documents (rules 1.0)"
THERE = "checkpoint is of PPO on shogi (rules 1.0), this run is PPO on shogi_documents (rules 1.0)"
DOCUMENTS = ("--config", "shogi_documents", "--trainer.accelerator", "cpu", "--trainer.precision", "32-true")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Of a run on `envs.shogi`."""
    folder = tmp_path_factory.mktemp("run")
    tower = {"class_path": "envs.shogi.network.Tower", "init_args": {"channels": 4, "groups": 2, "blocks": 1}}
    options = {
        "trainer.max_epochs": 1, "trainer.default_root_dir": folder, "data.num_envs": 4, "data.num_steps": 4,
        "data.evaluation": [], "trainer.callbacks": [], "model.minibatches.num_minibatches": 1,
        "model.network.init_args.body": json.dumps(tower),
    }  # fmt: skip
    main(["fit", "--config", "shogi_ppo", *(f"--{name}={value}" for name, value in options.items())])
    return str(folder / "version_0" / "checkpoints" / "last.ckpt")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "line, words",
    [
        (["usi", "FILE", "--game", "envs.shogi.documents"], OTHER),
        (["play", "FILE", "--game", "envs.shogi.documents"], OTHER),
        (["validate", *DOCUMENTS, "--ckpt_path", "FILE"], THERE),
        (["fit", *DOCUMENTS, "--ckpt_path", "FILE"], THERE),
        (["fit", *DOCUMENTS, "--data.opponents", "[FILE]"], OTHER),
    ],
    ids=["usi", "play", "validate", "resume", "opponent"],
)
def test_a_checkpoint_of_the_other_interface_is_refused_by_name(checkpoint, command, capsys, line, words):
    line = [word.replace("FILE", checkpoint) for word in line]
    if line[0] in COMMANDS:
        with pytest.raises(SystemExit) as stop:
            import_module(COMMANDS[line[0]]).main(line[1:])
        code, err = stop.value.code, capsys.readouterr().err
    else:
        code, _, err = command(*line)
    assert code == 3 and words in err and err.startswith("error[3]: ") and err.count("\n") == 1


def test_through_a_pipe():
    lines = ("usi", "isready", f"position {BREAKTHROUGH}", "go byoyomi 1000", "quit", "isready")
    done = subprocess.run(
        [sys.executable, "-m", "lit_rl", "usi", GREEDY], input="\n".join(lines) + "\n", text=True, capture_output=True,
        timeout=300,
    )  # fmt: skip
    said = done.stdout.splitlines()
    assert done.returncode == 0 and done.stderr == ""
    assert said[-2] == "readyok" and said[-1].startswith("bestmove 8h2b") and "usiok" in said


def test_with_the_client_of_cshogi(tmp_path):
    pytest.importorskip("cshogi", reason="cshogi is not installed: pip install 'lit-rl[shogi-tests]'")
    from cshogi.usi import Engine

    script = tmp_path / "engine"
    script.write_text(f"#!/bin/sh\nexec {sys.executable} -m lit_rl usi {GREEDY}\n")
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    engine = Engine(str(script))
    try:
        assert engine.name == "lit-rl greedy"
        engine.isready()
        engine.usinewgame()
        engine.position(moves=["7g7f", "3c3d"])
        best, _ = engine.go(byoyomi=1000)
        assert best.startswith("8h2b")
        engine.position(sfen="sfen 8k/9/6G1G/9/9/9/9/9/8K b - 1")
        assert engine.go(byoyomi=1000)[0]
    finally:
        pipes = engine.proc.stdin, engine.proc.stdout, engine.proc.stderr
        engine.quit()
        for pipe in pipes:
            pipe.close()


@pytest.mark.parametrize("game", ["envs.shogi", "envs.shogi.documents"])
def test_a_person_plays_by_both_kinds_of_names(monkeypatch, capsys, game):
    typed = iter(["7g7f", "２六歩", "▲１六歩(17)", "9z9z", "u"])
    monkeypatch.setattr("builtins.input", lambda prompt: next(typed, "q"))
    play.main(["random", "--game", game, "--seed", "1", "--seat", "0"])
    out = capsys.readouterr().out
    assert "'9z9z' is no action here" in out and out.count("you are player 0: ") == 5
    assert " 7g7f" in out and "player 1: " in out and "▲" in out and "|v香v桂v銀v金v玉v金v銀v桂v香|一" in out
    boards = [line.split()[1].split("/")[5:7] for line in out.splitlines() if line.startswith("sfen ")]
    assert boards[-2][0].count("P") == 3
    assert boards[-1][0].count("P") == 2  # the last of the three is taken back
