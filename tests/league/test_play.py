"""`litrl play`: a person at the table, in a terminal too, and two players watched."""

import os
import pty
import subprocess
import sys
import time

import pytest
import torch

import lit_rl
from lit_rl.league import play
from scripts.replay import main as replay

KUHN = ("--game", "envs.kuhn_poker", "--seed", "3")


@pytest.fixture
def at_table(monkeypatch, capsys):
    """Run the command with what the person types, and leave when nothing is left to type; what was printed."""

    def run(*arguments: str, typed: str = "") -> str:
        lines = iter(typed.split())
        monkeypatch.setattr("builtins.input", lambda prompt: next(lines, "q"))
        play.main(list(arguments))
        return capsys.readouterr().out

    return run


def test_a_person_sees_what_the_seat_may_know(at_table):
    """Seed 3 deals K and J: player 0's king is told, the other's jack only at the end."""
    before, after = at_table("random", *KUHN, typed="bet").split("player 0: 0 pass   1 bet")[:2]
    assert "chance: deal K\n  chance: something that you do not see\ncards K ? | moves -\nyou are " in before
    assert "J" not in before
    assert "cards K J | moves b" in after and "returns: player 0 +" in after


def test_bad_input_is_asked_again(at_table):
    out = at_table("random", *KUHN, typed="7 fold b")
    assert "'7' is no action here: give a number or a name of 0 pass, 1 bet" in out
    assert "'fold' is no action here" in out and "returns:" in out


def test_what_the_beginning_of_a_name_means():
    names = {0: ("fold", "ｆ２"), 1: ("call",), 2: ("raise",), 3: ("raise all",)}
    found = [play._meant(typed, names) for typed in ("f", "raise", "rai", "2", "4", "", "RAISE ALL", "F2")]
    assert found == [[0], [2], [2, 3], [2], [], [], [3], [0]]


def test_a_decision_is_taken_back(at_table):
    """Taken back and made again, the game is the one without: the same cards, the same answers drawn."""
    straight = at_table("random", *KUHN, typed="pass bet")
    back = at_table("random", *KUHN, typed="pass u pass u u pass bet")
    assert back.count("player 1: bet") == 3 and straight.count("player 1: bet") == 1
    assert back[back.index("returns:") :] == straight[straight.index("returns:") :]
    assert "there is nothing of yours to take back" in back and "to take back" not in straight.replace("u: take", "")


@pytest.fixture(scope="module")
def policy_file(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("play") / "kuhn.pt"
    lit_rl.save_policy(lit_rl.PPO("envs.kuhn_poker"), path)
    return path


def test_what_the_policy_would_do(at_table, policy_file):
    """The numbers are those of the policy where the person stands: with the king, to begin."""
    out = at_table(str(policy_file), "--seed", "3", typed="?")
    here = lit_rl.load_policy(policy_file).at(["deal K", "deal J"])
    assert "   ".join(f"{name} {p:.3f}" for name, p in here.items()) + "   value " in out


def test_replay(at_table, policy_file, tmp_path, capsys):
    """Recorded games follow from the rules, taken back or not; a file that is there is not written over."""
    path = tmp_path / "games.jsonl"
    out = at_table(str(policy_file), "--seed", "3", "--replay", str(path), typed="bet u pass 0 1 0 1 u 0 1 0 0 1 1")
    games = int(out.splitlines()[-2].split()[0])
    assert games >= 2
    replay(["verify", str(path)])
    assert f"ok, {games} games" in capsys.readouterr().out
    with pytest.raises(SystemExit) as end:
        play.main([str(policy_file), "--replay", str(path)])
    assert end.value.code == 2 and "is there already" in capsys.readouterr().err


def test_two_players_are_watched(at_table):
    out = at_table(
        "envs.leduc_heuristics.always_call", "random", "--watch", "--game", "envs.leduc_poker", "--games", "4",
        "--seed", "1",
    )  # fmt: skip
    assert out.count("returns:") == 4 and out.count("random is player 0") == out.count("random is player 1") == 2
    assert "something that you do not see" not in out and "4 games, random:" in out


@pytest.mark.parametrize(
    "arguments, what",
    [
        (["random"], "none of the players says which game"),
        (["random", "random", *KUHN], "--watch takes two players"),
        (["random", *KUHN, "--seat", "2"], "has seats 0 to 1"),
        (["nothing.of.ours", *KUHN], "nothing.of.ours"),
        (["missing.pt", *KUHN], "missing.pt"),
        (["random", "--game", "envs.nothing"], "no such module"),
    ],
)
def test_bad_arguments(arguments, what, capsys):
    with pytest.raises(SystemExit) as end:
        play.main(arguments)
    error = capsys.readouterr().err
    assert end.value.code in (2, 3) and what in error and error.count("\n") == 1


def test_in_a_terminal(tmp_path):
    """A real one: the prompt appears, a game is played to its end, Ctrl-D leaves."""
    leader, follower = pty.openpty()
    command = [sys.executable, "-m", "lit_rl", "play", "random", *KUHN]
    running = subprocess.Popen(command, stdin=follower, stdout=follower, stderr=follower, close_fds=True)
    os.close(follower)
    seen, waited = b"", time.monotonic() + 60
    try:
        for prompt, typed in ((b"> ", b"?\n"), (b"pass 0.500", b"bet\n"), (b"returns:", b"")):
            while prompt not in seen and time.monotonic() < waited:
                seen += os.read(leader, 4096)
            assert prompt in seen, seen
            os.write(leader, typed)
        while seen.count(b"> ") < 3 and time.monotonic() < waited:
            seen += os.read(leader, 4096)
        os.write(leader, b"\x04")
        assert running.wait(60) == 0
    finally:
        running.kill()
        os.close(leader)
