"""Our player on a real server on loopback: against itself, and against poke-env's; skipped by name without them."""

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from test_showdown import absent, play

from envs.showdown import INTERFACE, VGC
from envs.showdown.battle import Battle
from envs.showdown.client import Client, ServerError, plain
from envs.showdown.env import ShowdownEnv
from envs.showdown.host import package_folder
from lit_rl.league.player_file import save_player
from lit_rl.league.players import load_player
from lit_rl.league.showdown_bot import ROOMS, Bot, command_line, main
from lit_rl.networks import Recurrent

missing = absent() or ("" if importlib.util.find_spec("websockets") else "websockets is not installed")
needs_server = pytest.mark.skipif(bool(missing), reason=missing)
PYTHON = os.environ.get("POKE_ENV_PYTHON", sys.executable)  # which has poke-env: it may need other versions than ours
ASKS = "import importlib.util, sys; sys.exit(importlib.util.find_spec('poke_env') is None)"
peer_missing = subprocess.run([PYTHON, "-c", ASKS], check=False).returncode != 0
needs_peer = pytest.mark.skipif(peer_missing, reason="poke-env is not installed")
PEER = Path(__file__).with_name("showdown_peer.py")
SECONDS = 120


def free_port():
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        return made.getsockname()[1]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """ws://127.0.0.1:port of the package's own server, in a copy of it, since it writes beside itself."""
    modules = tmp_path_factory.mktemp("server") / "node_modules"
    try:
        shutil.copytree(package_folder().parent, modules, copy_function=os.link, symlinks=True)
    except OSError:  # another disk
        shutil.rmtree(modules, ignore_errors=True)
        shutil.copytree(package_folder().parent, modules, symlinks=True)
    home = modules / "pokemon-showdown"
    (home / "logs" / "repl").mkdir(parents=True)
    (home / "config" / "chat-plugins").mkdir(exist_ok=True)
    text = (home / "config" / "config-example.js").read_text()
    (home / "config" / "config.js").write_text(
        text + "\nexports.bindaddress = '127.0.0.1';\nexports.subprocesses = 0;\n"
    )
    port = free_port()
    command = ["node", "pokemon-showdown", "start", "--skip-build", "--no-security", str(port)]
    with (home / "said").open("w") as said:
        process = subprocess.Popen(command, cwd=home, stdout=said, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
    try:
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            with socket.socket() as made:
                if made.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert process.poll() is None, (home / "said").read_text()[-2000:]
            time.sleep(0.2)
        yield f"ws://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def bot_process(server, *words):
    command = [sys.executable, "-m", "lit_rl", "showdown-bot", *words, "--server", server, "--patience", str(SECONDS)]
    bot = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    line = bot.stdout.readline()
    assert "is on" in line, line
    return bot


@needs_server
def test_two_of_ours_meet_on_a_server(server, tmp_path, capsys):
    """A policy with a memory, exported into a file, and a scripted player; each is told how it went."""
    save_player(
        tmp_path / "mine.pt", Recurrent(INTERFACE, memory=8), INTERFACE,
        {"class_path": "lit_rl.networks.Recurrent", "init_args": {"memory": 8}}, "envs.showdown",
    )  # fmt: skip
    bot = bot_process(server, str(tmp_path / "mine.pt"), "--name", "Mine", "--games", "2")
    main(["envs.showdown.players.MaxDamage", "--server", server, "--name", "Theirs", "--challenge", "Mine",
          "--games", "2", "--patience", str(SECONDS)])  # fmt: skip
    mine = bot.communicate(timeout=SECONDS)[0].splitlines()
    theirs = capsys.readouterr().out.splitlines()
    assert bot.returncode == 0 and mine[-1].startswith("2 battles, win rate ")
    opposite = {"won": "lost", "lost": "won", "a tie": "a tie"}
    told = [line.split(": ") for line in theirs if line.startswith("battle-")]
    assert [f"{room}: {opposite[how]}" for room, how in told] == mine[:2]


@needs_server
@needs_peer
def test_an_independent_client_agrees_on_how_battles_went(server):
    bot = bot_process(server, "envs.showdown.players.MaxDamage", "--name", "Ours", "--games", "2")
    command = [PYTHON, str(PEER), "RandomPlayer", server.removeprefix("ws://"), "Ours", "2"]
    peer = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=True)
    won = bot.communicate(timeout=SECONDS)[0].count(": won")
    assert f"won {2 - won} of 2" in peer.stdout


@needs_server
def test_what_a_server_will_not_have_is_one_line(server, capsys):
    bot = Bot(load_player("random", INTERFACE), 0)
    client = Client(server, "Taken", bot.decide, bot.ended)
    try:
        for words, said in (
            (["--name", "Taken"], "--name Taken: "),
            (
                ["--name", "Alone", "--challenge", "Nobody At All"],
                "the server says: The user 'Nobody At All' was not found",
            ),
            (["--name", "Waits", "--patience", "1"], "--patience 1: no word from the server for so long"),
        ):
            with pytest.raises(SystemExit) as end:
                main(["random", "--server", server, *words])
            assert end.value.code == 2 and capsys.readouterr().err.startswith(f"error[2]: {said}")
    finally:
        client.close()


@pytest.mark.skipif(bool(absent()), reason=absent())
def test_bad_words_are_one_line_each(capsys, tmp_path, monkeypatch):
    port = free_port()
    for words, said in (
        (["random", "--games", "0"], "--games 0: needs at least 1"),
        (["random", "--name", "!!"], "--name '!!': needs letters or digits"),
        (["random", "--greedy"], "--greedy: random is no network"),
        (["nowhere.pt"], "nowhere.pt: no such file"),
        (["envs.showdown.players.Nobody"], "no such heuristic or player"),
        (["random", "--teams", str(tmp_path)], "no *.txt in it"),
        (["random", "--server", f"ws://127.0.0.1:{port}"], "nobody answers" if not missing else "websockets"),
    ):
        with pytest.raises(SystemExit) as end:
            main(words)
        err = capsys.readouterr().err
        assert end.value.code in (2, 3) and said in err and len(err.splitlines()) == 1, err
    monkeypatch.setitem(sys.modules, "websockets.sync.client", None)
    with pytest.raises(ServerError, match=r"websockets is not installed: pip install 'lit-rl\[showdown\]'"):
        Client("ws://127.0.0.1:1", "x", None, None)


@pytest.mark.skipif(bool(absent()), reason=absent())
def test_a_side_decides_on_a_server_as_it_would_in_the_env():
    """Fed with a side's own lines and request, room by room, the bot sees what the env shows."""
    env = ShowdownEnv(2, seed=71)
    play(env, 21)
    seen = []

    class Looks:
        def begin(self, rows):
            assert rows.tolist() == [len(seen)]

        def act(self, table, rows, probs):
            seen.append((table.obs[rows[0]].copy(), table.legal[rows[0]].copy()))
            probs[rows] = table.legal[rows]

    bot = Bot(Looks(), 0)
    for i, battle in enumerate(env._battles):
        mine = Battle(battle.host, 0, (0, 0, 0), (-1, -1))
        mine.asked, mine.seen = [battle.asked[battle.player], None], [battle.seen[battle.player]] * 2
        mine.made = [list(battle.made[battle.player]), []]
        assert mine.look() and mine.player == 0
        bot.decide(f"battle-{i}", mine)
        np.testing.assert_array_equal(seen[i][0], env.obs[i])
        np.testing.assert_array_equal(seen[i][1], env.legal[i])
    assert bot.rows == {"battle-0": 0, "battle-1": 1} and len(bot.obs) == ROOMS
    bot.results = [True, None, False, False]
    assert str(bot).startswith("4 battles, win rate 0.375 [")
    assert plain("Some Body!@!") == "somebody" and command_line().parse_args(["random"]).format == VGC
