"""The env of Pokémon Showdown against the simulator itself; skipped where Node or the package is absent."""

import gc
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from envs.env import IllegalActionError, SavedGamesError
from envs.game import load_interface, parts
from envs.showdown import FORCED, INTERFACE, LAYOUT, PASS, PREVIEW, SWITCH, VERSION, VGC
from envs.showdown import host as hosting
from envs.showdown.battle import choice_text, legal_actions
from envs.showdown.env import ShowdownEnv
from envs.showdown.host import Host, HostError, ShowdownMissingError, node_program, package_folder


def absent():
    try:
        node_program(), package_folder()
    except ShowdownMissingError as error:
        return str(error)
    return ""


needs_showdown = pytest.mark.skipif(bool(absent()), reason=absent())
ORACLE = Path(__file__).with_name("showdown_oracle.js")


class Oracle(Host):
    """A host that can be asked for the simulator's secrets."""

    def _begin(self):
        self._command[1] = str(ORACLE)
        super()._begin()


def play(env, steps, rows=None):
    """Random play; every array that the env shows, step by step, as bytes."""
    said = []
    for _ in range(steps):
        env.step(env.sample(env.legal.astype(np.float32)))
        said.append(b"".join(getattr(env, name).tobytes() for name in ("obs", "legal", "player", "rewards", "done")))
    return said


@pytest.fixture(scope="module")
def env():
    return ShowdownEnv(4, seed=1)


@pytest.fixture(scope="module")
def oracle():
    found = Oracle(VGC)
    yield found
    found.close()


@pytest.fixture
def watched(oracle, monkeypatch):
    """An env whose host tells the battle's secrets to the test."""
    monkeypatch.setattr("envs.showdown.env.shared_hosts", lambda *_: [oracle])
    return ShowdownEnv(3, seed=5)


def whole_choices(asked, made=()):
    """All whole choices of a side, by the masks."""
    legal = legal_actions(asked, list(made))
    return [made] if not legal else [all_ for a in legal for all_ in whole_choices(asked, (*made, a))]


@needs_showdown
def test_the_masks_are_what_the_simulator_takes(watched, oracle):
    """Every pair of actions, at every request of some battles, is legal here if and only if the simulator takes it."""
    pairs, kinds = list(itertools.product(range(INTERFACE.num_actions), repeat=2)), set()
    for _ in range(60):
        for battle in watched._battles:
            side = battle.player
            asked, uncertain = battle.asked[side], "maybe" in json.dumps(oracle.ask(
                {"op": "told", "key": battle.key, "side": side})["request"])  # fmt: skip
            if battle.made[side] or uncertain or (asked[0] != FORCED and len(battle.moves) % 3):
                continue
            legal = {choice_text(asked, list(each)) for each in whole_choices(asked)}
            kinds.add(asked[0])
            if asked[0] == PREVIEW:
                texts = sorted(legal) + ["team 1,1,2,3", "team 7,1,2,3"]
            else:
                texts = [choice_text(asked, list(pair)) for pair in pairs]
            taken = oracle.ask({"op": "takes", "key": battle.key, "side": side, "texts": texts})
            assert {text for text, yes in zip(texts, taken) if yes} == legal, asked
        play(watched, 1)
    assert kinds == {PREVIEW, 2, FORCED}


@needs_showdown
def test_an_observation_follows_from_the_sides_own_channel(watched, oracle):
    """A new watcher, fed with one side's lines and request alone, sees what the env shows."""
    size = INTERFACE.obs_parts["choice"].start
    for _ in range(40):
        play(watched, 1)
        battle = watched._battles[0]
        for side in (0, 1):
            told = oracle.ask({"op": "told", "key": battle.key, "side": side})
            again = oracle.ask({"op": "watch", "side": side, "lines": told["lines"], "request": told["request"]})
            assert again[:size] == battle.seen[side][:size].tolist()


@needs_showdown
def test_what_the_other_side_hides_never_shows(watched, oracle):
    """Moves, items, abilities and tera types of the other side are seen only once its channel has named them."""
    numbers = oracle.ask({"op": "numbers"})
    columns, seen, hidden = LAYOUT["mon"], 0, 0
    for _ in range(60):
        play(watched, 1)
        for battle, side in itertools.product(watched._battles, (0, 1)):
            told = oracle.ask({"op": "told", "key": battle.key, "side": side})
            words = "".join(c for c in "\n".join(told["lines"]).lower() if c.isalnum() or c == "\n")
            foes = parts(INTERFACE, battle.seen[side])["foe"]
            for kind, names in (("moves", ["move_1", "move_2", "move_3", "move_4"]), ("items", ["item"]),
                                ("abilities", ["ability"]), ("types", ["tera_type"])):  # fmt: skip
                by_number = {number: name for name, number in numbers[kind].items()}
                for value in foes[:, [columns.index(name) for name in names]].ravel().tolist():
                    if value in by_number:
                        seen += 1
                        assert by_number[value] in words, (by_number[value], kind)
            for mon in told["foe"]:  # what has not been named is in no column of that Pokémon
                row = foes[foes[:, 0] == numbers["species"][mon["species"]]]
                for move in mon["moves"]:
                    if move not in words:
                        hidden += 1
                        assert numbers["moves"][move] not in row[:, -4:].ravel()
            if "start" not in words.split("\n"):
                continue
            places = foes[:, columns.index("place")]
            came = {line.split("|")[3].split(",")[0] for line in told["lines"]
                    if line.startswith((f"|switch|p{2 - side}", f"|drag|p{2 - side}"))}  # fmt: skip
            assert (places > 1).sum() <= len(came) <= 4  # nobody else is known to have been picked
    assert seen > 100 and hidden > 100


@needs_showdown
def test_secrets_that_differ_look_alike():
    """Two battles that differ in what one side hides look alike to the other side."""
    secret = TEAM_OF_SIX.replace("|sitrusberry|", "|leftovers|").replace("protect", "substitute")
    host, seen = Host(VGC, (TEAM_OF_SIX, secret)), []
    for which in ((0, 0), (0, 1)):
        key = host.new_key()
        first = host.ask({"op": "open", "battles": [[key, ("0000000000000001",) * 3, which, []]]})[0][2]
        seen.append([first, host.ask({"op": "choose", "battles": [[key, "team 1,2,3,4", "team 1,2,3,4"]]})[0][2]])
    host.close()
    for before, after in zip(*seen):
        assert before[0] == after[0]  # player 0 sees the same
        assert before[1] != after[1]  # player 1 knows its own


TEAM_OF_SIX = "]".join(
    f"{name}||sitrusberry|{ability}|protect,{move}||85,85,85,85,85,85||||50|,,,,,Water"
    for name, ability, move in (
        ("Vaporeon", "waterabsorb", "scald"), ("Arcanine", "flashfire", "flareblitz"),
        ("Garchomp", "roughskin", "earthquake"), ("Sylveon", "pixilate", "hypervoice"),
        ("Amoonguss", "regenerator", "spore"), ("Hariyama", "guts", "closecombat"),
    )
)  # fmt: skip


@needs_showdown
def test_the_same_seed_is_the_same_bytes_for_any_number_of_hosts():
    assert play(ShowdownEnv(5, seed=3), 30) == play(ShowdownEnv(5, seed=3, num_hosts=2), 30)


@needs_showdown
@pytest.mark.parametrize("num_hosts", [1, 2])
def test_one_half_decides_while_the_other_is_simulated_and_no_byte_changes(num_hosts):
    env, twin = ShowdownEnv(5, seed=3, num_hosts=num_hosts), ShowdownEnv(5, seed=3)
    assert env.parts == (slice(0, 3), slice(3, 5))
    assert {id(b.host) for b in env._battles[:3]} & {id(b.host) for b in env._battles[3:]} == (
        set() if num_hosts == 2 else {id(env.hosts[0])}
    )
    first, second = env.parts
    for _ in range(60):
        action = env.sample(env.legal.astype(np.float32))
        twin.step(action)
        env.send(action[first], first)
        env.send(action[second], second)
        env.receive(first)
        assert not env.done[second].any() and not env.rewards[second].any()
        done = env.done.copy()
        env.receive(second)
        done |= env.done
        for name in ("obs", "legal", "player", "num_decisions", "chance_streams"):
            assert getattr(env, name).tobytes() == getattr(twin, name).tobytes()
        assert (done == twin.done).all()


@needs_showdown
def test_an_env_that_ends_in_the_midst_of_a_step_leaves_its_hosts_to_others():
    broken, twin = ShowdownEnv(4, seed=11), ShowdownEnv(4, seed=12)
    host = broken.hosts[0]
    play(broken, 7)
    broken.send(broken.legal[:2].argmax(1), broken.parts[0])
    assert host._asked
    keys = [battle.key for battle in broken._battles]
    del broken
    gc.collect()
    play(twin, 16)
    assert not host._asked and not host._answers and not host._unwanted
    assert not host.battles.keys() & set(keys)


@needs_showdown
def test_a_host_that_dies_with_two_questions_open_answers_both():
    env, twin = ShowdownEnv(6, seed=21), ShowdownEnv(6, seed=21)
    host = env.hosts[0]
    for step in range(8):
        action = env.sample(env.legal.astype(np.float32))
        for part in env.parts:
            env.send(action[part], part)
        if step % 4 == 3:
            os.kill(host.pid, signal.SIGKILL)
        for part in env.parts:
            env.receive(part)
        twin.step(action)
        assert env.obs.tobytes() == twin.obs.tobytes()


@needs_showdown
def test_a_saved_env_goes_on_as_it_would_have(env):
    play(env, 30)
    state, other = env.state_dict(), ShowdownEnv(4, seed=99)
    other.load_state_dict(state)
    np.testing.assert_array_equal(other.observe_all(), env.observe_all())
    assert play(other, 30) == play(env, 30)


@needs_showdown
@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda s: s | {"game": "kuhn"}, ValueError, "is of kuhn, not of showdown"),
        (lambda s: s | {"seeds": s["seeds"][:-8]}, ValueError, "seeds has 88 bytes, num_envs=4 needs 96"),
        (lambda s: s | {"moves": s["moves"][:-2] + b"."}, SavedGamesError, "moves are not as many as lengths"),
        (lambda s: s | {"moves": b"\x07" + s["moves"][1:]}, SavedGamesError, "env row 0 has the illegal action 7"),
        (lambda s: s | {"teams": b"\x05" * 32}, SavedGamesError, "not of the 0 in the pool"),
        (lambda s: {"game": s["game"]}, SavedGamesError, "chance_streams is NoneType, needs bytes"),
    ],
)
def test_damaged_states_are_refused_and_change_nothing(env, change, error, words):
    play(env, 3)
    state, before = env.state_dict(), env.observe_all()
    with pytest.raises(error, match=words):
        env.load_state_dict(change(state))
    np.testing.assert_array_equal(env.observe_all(), before)
    play(env, 2)


@needs_showdown
def test_a_host_that_is_killed_or_hangs_is_replaced_and_its_battles_go_on(monkeypatch):
    env, twin = ShowdownEnv(3, seed=8), ShowdownEnv(3, seed=8)
    alone = Host(VGC)
    for battle in env._battles:
        alone.battles[battle.key] = battle.host.battles[battle.key]
        battle.host = alone
    env.hosts = [alone]
    os.kill(alone.pid, signal.SIGKILL)
    assert play(env, 20) == play(twin, 20)
    os.kill(alone.pid, signal.SIGSTOP)
    with monkeypatch.context() as patched:
        patched.setattr(hosting, "PATIENCE", 0.5)
        assert play(env, 6) == play(twin, 6)
    assert alone.replaced >= 2
    monkeypatch.setattr(alone, "_command", ["true"])  # from here on it cannot be kept alive
    os.kill(alone.pid, signal.SIGKILL)
    with pytest.raises(HostError, match=r"a host was replaced 3 times and failed again on 'choose' \(.*\); try a"):
        play(env, 20)


@needs_showdown
@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("throw", "the simulator broke down: a fault of its own"),
        ("exit", r"it ends the simulator \(it has ended\)"),
        ("hang", r"it ends the simulator \(it gave no answer for \d+ s\)"),
    ],
)
def test_a_battle_that_ends_the_simulator_is_lost_by_name_and_the_others_go_on(monkeypatch, how, words):
    if how == "hang":
        monkeypatch.setattr(hosting, "PATIENCE", 5.0)
        monkeypatch.setattr(hosting, "PATIENCE_PER_BATTLE", 0.0)
    twin, started = ShowdownEnv(4, seed=31), []
    seed = f"{twin._battles[1].seeds[0]:016x}"
    monkeypatch.setenv("SHOWDOWN_POISON", f"{how} {seed}")

    def hosts(*_):
        started.append(Oracle(VGC))
        return started

    monkeypatch.setattr("envs.showdown.env.shared_hosts", hosts)
    env = ShowdownEnv(4, seed=31)
    with pytest.warns(UserWarning, match=rf"showdown: the battle of seeds {seed}, .* is lost, and a draw: {words}$"):
        for _ in range(30):
            action = env.sample(env.legal.astype(np.float32))
            twin.step(action)
            env.step(action)
            if env.done[1]:
                break
    assert env.done[1] and not env.rewards[1].any() and env.battles_lost == 1
    assert started[0].replaced == (0 if how == "throw" else 3)
    others = [0, 2, 3]
    assert (env.obs[others] == twin.obs[others]).all() and not twin.done[1]
    play(env, 20)
    started[0].close()


@needs_showdown
def test_two_threads_have_hosts_of_their_own_and_they_end_with_them():
    found = {}

    def fight(seed):
        env = ShowdownEnv(2, seed)
        found[seed] = play(env, 20), {host.pid for host in env.hosts}

    threads = [threading.Thread(target=fight, args=(seed,)) for seed in (41, 42)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not found[41][1] & found[42][1]
    assert not any(alive(pid) for _, pids in found.values() for pid in pids)
    for seed in (41, 42):
        assert play(ShowdownEnv(2, seed), 20) == found[seed][0]


@needs_showdown
@pytest.mark.parametrize("num_battles", [40, pytest.param(1000, marks=pytest.mark.slow),
                                         pytest.param(10_000, marks=pytest.mark.slow)])  # fmt: skip
def test_battles_that_are_over_leave_nothing_behind(oracle, monkeypatch, num_battles):
    """As many battles are kept as there are rows, and the heap in use does not grow with those that were."""
    monkeypatch.setattr("envs.showdown.env.shared_hosts", lambda *_: [oracle])
    env, used = ShowdownEnv(8, seed=51), []
    while env.battles_ended < num_battles:
        play(env, 10)
        if len(used) < 1 and env.battles_ended >= num_battles // 4:
            used.append(oracle.ask({"op": "kept"})[1])
    battles, in_use = oracle.ask({"op": "kept"})
    print(
        f"{env.battles_ended} battles, heap {used[0] / 1e6:.1f} -> {in_use / 1e6:.1f} MB, {env.asked_again} asked again"
    )
    assert battles == len(oracle.battles) and battles <= 8 + 4  # and those of another test's env
    assert in_use - used[0] < 20e6


def alive(pid):
    """Whether the process is there, and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@needs_showdown
def test_no_host_outlives_its_parent_that_is_killed():
    code = "from envs.showdown.host import Host; import time; print(Host().pid, flush=True); time.sleep(60)"
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    for _ in range(100):
        if not alive(pid):
            return
        time.sleep(0.1)
    raise AssertionError(f"node {pid} is still there")


@needs_showdown
def test_rows_at_rest_stand_still_and_the_others_play_on_as_they_would_have():
    env, twin = ShowdownEnv(4, seed=61), ShowdownEnv(4, seed=61)
    play(env, 6), play(twin, 6)
    env.rest(np.array([0, 2]))
    before, host = env.obs[[0, 2]].tobytes(), env.hosts[0]
    keys = {env._battles[i].key for i in (0, 2)}
    for _ in range(30):
        for each in (env, twin):
            each.step(each.sample(each.legal.astype(np.float32)))
        assert env.obs[[1, 3]].tobytes() == twin.obs[[1, 3]].tobytes() and env.obs[[0, 2]].tobytes() == before
        assert not env.done[[0, 2]].any()
    assert not host.battles.keys() & keys


@needs_showdown
def test_illegal_actions_change_nothing(env):
    before = env.observe_all()
    with pytest.raises(IllegalActionError, match="showdown, env row 0: action 99 is illegal"):
        env.step(np.full(4, 99))
    with pytest.raises(TypeError, match="integers"):
        env.step(np.zeros(4))
    np.testing.assert_array_equal(env.observe_all(), before)


@needs_showdown
def test_battles_are_broken_off_with_what_both_sides_know():
    env = ShowdownEnv(2, seed=2, truncate_after=20, observe_all=True)
    play(env, 20)
    assert env.truncated.all() and env.done.all() and not env.rewards.any()
    assert (env.final_obs[..., 0] > 0).all() and env.num_decisions.tolist() == [0, 0]


@needs_showdown
def test_a_refused_choice_ends_the_run_in_the_simulators_words(env):
    battle = env._battles[0]
    with pytest.raises(HostError, match=r"refused p1's choice 'dance': \[Invalid choice\]"):
        battle.host.ask({"op": "choose", "battles": [[battle.key, "dance", ""]]})


@needs_showdown
@pytest.mark.parametrize(
    ("format", "words"),
    [
        ("gen9nonsense", "unknown format 'gen9nonsense'"),
        ("gen9randombattle", "is singles; only doubles"),
        (VGC + ",Nonsense", 'Unrecognized rule "Nonsense"'),
        ("gen9vgc2025regi", "generates no teams; give it a folder"),
    ],
)
def test_formats_that_cannot_be_played_are_one_line(oracle, format, words):
    with pytest.raises(ValueError, match=f"^showdown: .*{words}.*$"):
        oracle.ask({"op": "start", "format": format, "teams": None})


def test_sizes_and_names():
    assert load_interface("envs.showdown") is INTERFACE
    assert INTERFACE.obs_parts["choice"].stop == INTERFACE.obs_shape[0] == LAYOUT["size"]
    assert len(INTERFACE.action_names) == INTERFACE.num_actions == 47
    assert INTERFACE.action_names[SWITCH] == "switch 1" and INTERFACE.action_names[PASS] == "pass"
    assert INTERFACE.action_names[18] == "move 2 tera +1".replace("tera +1", "+1 tera")


def test_a_missing_package_node_or_version_is_one_line_with_its_remedy(tmp_path, monkeypatch):
    monkeypatch.setenv("LIT_RL_SHOWDOWN", str(tmp_path))
    with pytest.raises(ShowdownMissingError, match=rf"not in {tmp_path}: npm install --prefix .*@{VERSION} \(or set"):
        package_folder()
    (tmp_path / "node_modules/pokemon-showdown").mkdir(parents=True)
    (tmp_path / "node_modules/pokemon-showdown/package.json").write_text('{"version": "0.1.0"}')
    with pytest.raises(ShowdownMissingError, match=rf"0.1.0 is in .*, needs {VERSION}: npm install"):
        package_folder()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ShowdownMissingError, match=r"node is not on the PATH: install Node.js 18"):
        node_program()
    (tmp_path / "node").write_text("#!/bin/sh\necho v12.22.0\n")
    (tmp_path / "node").chmod(0o755)
    with pytest.raises(ShowdownMissingError, match=r"node v12.22.0 .* is too old: install Node.js 18"):
        node_program()


@needs_showdown
def test_a_side_that_a_hidden_ability_traps_is_asked_again_and_told_no_sooner():
    team = TEAM_OF_SIX.replace("Vaporeon||sitrusberry|waterabsorb", "Gothitelle||sitrusberry|shadowtag")
    env, switches = ShowdownEnv(1, seed=0, teams=(team,)), slice(SWITCH, PASS)

    def play_one(action):
        assert env.legal[0, action]
        env.step(np.array([action]))

    for place in (2, 3, 4, 5, 1, 2, 3, 4):  # the second side leads with Gothitelle, the first without
        play_one(SWITCH + place - 1)
    assert env.player[0] == 0
    play_one(int(env.legal[0].argmax()))
    assert env.legal[0, switches].any()  # the ability has not been seen
    play_one(SWITCH + int(env.legal[0, switches].argmax()))
    for _ in range(2):
        assert env.player[0] == 1
        play_one(int(env.legal[0].argmax()))
    assert env.asked_again == 1 and env.player[0] == 0 and not env.done[0]
    play_one(int(env.legal[0].argmax()))
    assert not env.legal[0, switches].any()  # now it knows
    play_one(int(env.legal[0].argmax()))
    assert env.player[0] == 0 or parts(INTERFACE, env.obs)["field"][0, 0] == 2
