"""Files of strangers: what they name is looked at before it is imported, what they ask for before it is allocated."""

import struct
import subprocess
import sys
import warnings
import zlib
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from league_runs import HEURISTICS, SPEC, lively
from test_opposition import by_names

from callbacks.exploiter_spawner import ExploiterSpawner
from envs.vector_env import VectorEnv
from lit_rl.league.league import League, Member
from lit_rl.league.matchmaking import uniform
from lit_rl.league.opposition import Opposition, permanent_members
from lit_rl.league.player_file import build_network, load_network, save_player
from lit_rl.league.players import load_player
from lit_rl.league.seating import Seating
from lit_rl.run import allowed
from lit_rl.run.checkpoint_files import newest_verified, verify
from lit_rl.run.checkpoint_io import VerifiedCheckpointIO
from lit_rl.run.errors import ArtefactError

ROOT = Path(__file__).parents[2]
SHARPENED = "lit_rl.league.policies.Sharpened"
MINE = """
import torch
from lit_rl.networks import MLP
from envs.leduc_heuristics import always_call
class Net(MLP):
    pass
class Looks(MLP):
    def __init__(self, game, hidden=(16,)):
        self.one = torch.ones(1).item()  # not on the meta device
        super().__init__(game, hidden)
class Says:
    def __init__(self, game, book=""):
        self.book = book
    def begin(self, rows):
        pass
    def act(self, table, rows, probs):
        probs[rows] = table.legal[rows]
"""


@pytest.fixture
def evil(tmp_path, monkeypatch):
    """A module that leaves a mark where it is imported, and a stranger's own package; afterwards nothing is trusted."""
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'mark')!r}, 'w')\n{MINE}")
    (tmp_path / "mine.py").write_text(MINE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(allowed, "_trusted", set())
    yield tmp_path
    assert not (tmp_path / "mark").exists() and "evil" not in sys.modules
    sys.modules.pop("mine", None)


def named(network):
    """A checkpoint of a stranger's whose hyper-parameters name the network."""
    return lambda path, leduc: torch.save(
        {
            "run": {"exports": "policy", "game": leduc.name, "version": leduc.version},
            "state_dict": {f"policy.{name}": x for name, x in lively(leduc).state_dict().items()},
            "hyper_parameters": {"network": network},
        },
        path,
    )


def saved(network):
    return lambda path, leduc: save_player(path, lively(leduc), leduc, network)


EVIL = {
    "class path": {"class_path": "evil.Net", "init_args": {"hidden": [16]}},
    "nested": {"class_path": SHARPENED, "init_args": {"network": {"class_path": "evil.Net"}, "temperature": 0.5}},
    "in a list": {"class_path": SPEC["class_path"], "init_args": {"hidden": [16, {"class_path": "evil.Net"}]}},
    "a text": {"class_path": SPEC["class_path"], "init_args": {"hidden": [16], "activation": "evil.Net"}},
    "a text of YAML": {"class_path": SPEC["class_path"], "init_args": {"activation": "{class_path: evil.Net}"}},
    "hidden by escapes": {"class_path": SPEC["class_path"], "init_args": {"activation": '{"class_path": "\\x65vil"}'}},
    "no text": {"class_path": ["evil.Net"]},
    "nothing": {"class_path": None},
    "a module of the library": {"class_path": "os.system"},
    "somebody else's by way of ours": {"class_path": "lit_rl.cli.os"},
    "a class of others by way of ours": {"class_path": "lit_rl.networks.Tensor"},
    "something else of ours": {"class_path": "lit_rl.ppo.PPO"},
    "a way out of ours": {"class_path": "envs./../evil.Net"},
    "a longer name": {"class_path": "lit_rlevil.Net"},
    "a module of ours": {"class_path": "lit_rl.networks"},
}


@pytest.mark.parametrize("name", EVIL)
@pytest.mark.parametrize("write", [named, saved])
def test_networks_of_files_are_never_imported_from_elsewhere(evil, leduc, write, name):
    path = evil / "p.pt"
    write(EVIL[name])(path, leduc)
    with pytest.raises(ArtefactError, match=r"player file .*p\.pt: ") as caught:
        load_network(path, leduc)
    assert len(str(caught.value)) < 1000
    with pytest.raises(ArtefactError):
        load_player(str(path), leduc)
    with pytest.raises(ArtefactError):
        build_network(EVIL[name], leduc)


def test_absurd_arguments_are_refused_at_once(evil, leduc):
    many, deep = [], []
    for _ in range(60):
        many, deep = [many, many], [deep]
    for hidden in (many, deep, [1] * 100_000, ["x" * 100_000], [2**70], [1 << 100_000], [-5], [2**40], [1] * 9000):
        save_player(evil / "p.pt", lively(leduc), leduc, {"class_path": "lit_rl.networks.MLP"})
        content = torch.load(evil / "p.pt", weights_only=True)
        content["network"]["init_args"] = {"hidden": hidden}
        for change in ({}, {"network": {"class_path": hidden}}, {"network": hidden}, {"version": hidden}):
            torch.save(content | change, evil / "p.pt")
            with pytest.raises(ArtefactError, match=r"p\.pt: "):
                load_network(evil / "p.pt", leduc)


def opposition_of(league, leduc, specs=()):
    return Opposition(
        Seating(VectorEnv(leduc, 16, seed=1), 2), uniform, by_names(leduc), league=league, folder=league.path.parent,
        permanent=permanent_members(specs, leduc),
    )  # fmt: skip


@pytest.mark.parametrize(
    "fields",
    [
        {"path": "evil.Says"}, {"path": "evil.always_call", "role": "heuristic"}, {"path": "os.system"},
        {"path": "lit_rl.cli.os"}, {"path": "lit_rl.league.players.np"}, {"path": "subprocess.Popen"},
        {"path": "envs.leduc_heuristics.always_call", "init_args": {"x": {"class_path": "evil.Says"}}},
        {"path": "lit_rl.league.players.NetworkPlayer", "init_args": {"policy": "evil.Net"}},
    ],
)  # fmt: skip
def test_members_of_a_strangers_league_are_quarantined_before_they_are_imported(evil, leduc, fields):
    league = League(evil / "league.sqlite", leduc)
    league.add(Member("x", **({"role": "external"} | fields)))
    opposition = opposition_of(league, leduc, HEURISTICS[:1])
    with pytest.warns(UserWarning, match="x is quarantined: member x of the league: names"):
        opposition.refresh(0, 0, 0.0)
    assert league.find("x").state == "quarantined" and list(opposition.shares) == ["always_call"]
    state = opposition.state_dict()  # as a stranger's checkpoint could have it
    state["members"]["always_call"] |= fields
    again = opposition_of(league, leduc)
    again.load_state_dict(state)
    with pytest.raises(ArtefactError, match=r"plays in the checkpoint's games and is lost: .*names"):
        again.load_missing_players()
    league.close()


def test_what_the_users_own_words_name_is_trusted_in_files_too(evil, leduc):
    spec = {"class_path": "mine.Net", "init_args": {"hidden": [16]}}
    save_player(evil / "p.pt", lively(leduc), leduc, spec)
    with pytest.raises(ArtefactError, match=r"names mine.Net, code that is not ours; if you trust it, say --allow"):
        load_network(evil / "p.pt", leduc)
    assert "mine" not in sys.modules
    league = League(evil / "league.sqlite", leduc)
    league.add(Member("calls", "heuristic", path="mine.always_call"))
    book = {"class_path": "mine.Says", "init_args": {"book": "openings.json"}}
    opposition = opposition_of(league, leduc, [book])  # which names the package
    opposition.refresh(0, 0, 0.0)
    assert set(opposition.shares) == {"calls", "Says(book=openings.json)"}
    assert type(load_network(evil / "p.pt", leduc)).__name__ == "Net"
    assert allowed.trusted() == ["mine"]
    nested = {"class_path": SHARPENED, "init_args": {"network": spec, "temperature": 0.5}}
    save_player(evil / "s.pt", build_network(nested, leduc), leduc, nested)
    load_network(evil / "s.pt", leduc)
    looks = {"class_path": "mine.Looks"}  # cannot be built on the meta device
    save_player(evil / "l.pt", build_network(looks, leduc), leduc, looks)
    load_network(evil / "l.pt", leduc)
    save_player(evil / "l.pt", build_network(looks, leduc), leduc, looks | {"init_args": {"hidden": [30_000] * 2}})
    with pytest.raises(ArtefactError, match=r"l.pt: its network asks for a tensor of \[30000, 30000\]"):
        load_network(evil / "l.pt", leduc)
    league.close()


def test_the_command_takes_what_its_config_names_and_allow(evil, leduc, command):
    path = evil / "p.pt"
    save_player(path, lively(leduc), leduc, {"class_path": "mine.Net", "init_args": {"hidden": [16]}})
    (evil / "o.yaml").write_text(
        "model: {class_path: PPO, init_args: {network: {class_path: lit_rl.networks.MLP}}}\n"
        f"data: {{class_path: LeagueDataModule, init_args: {{game: envs.leduc_poker, opponents: [{path}], num_envs: 16,"
        " num_steps: 4, evaluation: []}}\n"
        f"trainer: {{max_epochs: 1, accelerator: cpu, enable_progress_bar: false, default_root_dir: {evil}}}\n"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        code, _, err = command("fit", "--config", evil / "o.yaml")
        assert code == 3 and "names mine.Net, code that is not ours; if you trust it, say --allow" in err
        assert "mine" not in sys.modules
        code, _, err = command("fit", "--config", evil / "o.yaml", "--allow", "[mine]")
        assert code == 0, err
        allowed._trusted.clear()
        own = ["--model.init_args.network=mine.Net", "--model.init_args.network.init_args.hidden=[16]"]
        code, _, err = command("fit", "--config", evil / "o.yaml", *own)
        assert code == 0 and "mine" in allowed.trusted() and "lit_rl" not in allowed.trusted(), err


def test_exploiters_trust_what_their_run_trusts(evil):
    config = str(ROOT / "configs" / "leduc_exploiter.yaml")
    spawner, data = ExploiterSpawner(config), SimpleNamespace(seed=1)
    assert "allow" not in yaml.safe_load(spawner._configuration(data, evil, 1))
    allowed.trust(["mine.Net"])
    assert yaml.safe_load(spawner._configuration(data, evil, 1))["allow"] == ["mine"]


def test_libraries_are_not_trusted_as_a_whole(evil):
    allowed.trust_named_in({"class_path": "torch.nn.Linear", "init_args": {"x": [{"class_path": "mine.Net"}]}})
    allowed.trust(["os.system", "json"])
    assert allowed.trusted() == ["mine"] and not allowed.is_allowed("torch.hub.load")
    assert allowed.is_allowed("torch.optim.Adam") and not allowed.is_allowed("envsx.y")


# Memory


def zip_bomb(path, size, name="p/data.pkl"):
    """An archive with one record of `size` zero bytes, in a file of a thousandth of it."""
    block = 1 << 20
    packer = zlib.compressobj(1, zlib.DEFLATED, -15)
    chunk = packer.compress(bytes(block)) + packer.flush(zlib.Z_FULL_FLUSH)
    data = chunk * (size // block) + packer.flush()
    crc = zlib.crc32(bytes(block))  # wrong, for who looks at it has unpacked everything
    common = struct.pack("<HHHHHIIIHH", 20, 0, 8, 0, 33, crc, len(data), size, len(name), 0)
    local = b"PK\3\4" + common + name.encode()
    central = b"PK\1\2" + struct.pack("<H", 20) + common + struct.pack("<HHHII", 0, 0, 0, 0, 0) + name.encode()
    end = b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, 1, 1, len(central), len(local) + len(data), 0)
    path.write_bytes(local + data + central + end)


CHILD = """
import resource, sys, time
from pathlib import Path
from envs.game import load_game
from lit_rl.league.player_file import load_network
from lit_rl.run.checkpoint_files import newest_verified
from lit_rl.run.checkpoint_io import VerifiedCheckpointIO
from lit_rl.run.errors import ArtefactError
leduc, path = load_game("envs.leduc_poker"), Path(sys.argv[1])
before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
for read in (lambda: load_network(path, leduc), lambda: VerifiedCheckpointIO().load_checkpoint(path)):
    if "both" not in sys.argv and read.__code__.co_names[0] != "load_network":
        continue
    try:
        read()
    except ArtefactError as error:
        print(str(error)[:300], file=sys.stderr)
    else:
        sys.exit("taken")
assert newest_verified(path.parent)[0] is None or "both" not in sys.argv
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024, time.perf_counter() - began)
"""


def refusal(path, *how):
    """(MiB more than before, seconds) that a process of its own needs to refuse the file."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(path), *how], capture_output=True, text=True, timeout=300, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr[-2000:]
    memory, seconds = map(float, done.stdout.split())
    print(f"\n{path.stat().st_size} bytes refused with {memory:.0f} MiB in {seconds:.2f} s: {done.stderr[-300:]}")
    return memory, seconds


@pytest.mark.parametrize("name", ["p/data.pkl", "p/data/0"])
def test_two_gigabytes_in_two_megabytes_are_refused_unread(tmp_path, name):
    zip_bomb(tmp_path / "bomb.ckpt", 2 << 30, name)
    memory, seconds = refusal(tmp_path / "bomb.ckpt", "both")
    assert memory < 500 and seconds < 20  # some 0.1 s where nobody else computes


def test_a_layer_of_30000_by_30000_is_refused_before_it_is_allocated(leduc, tmp_path):
    path, huge = tmp_path / "p.pt", SPEC | {"init_args": {"hidden": [30_000, 30_000]}}
    small = lively(leduc).state_dict()
    for state in (small, {name: x.flatten()[:1].expand(30_000, 30_000) for name, x in small.items()}):
        save_player(path, lively(leduc), leduc, huge)
        content = torch.load(path, weights_only=True)
        torch.save(content | {"state_dict": state}, path)
        assert path.stat().st_size < 20_000
        memory, seconds = refusal(path)
        assert memory < 500 and seconds < 20


def test_records_that_overlap_and_files_that_are_none_are_refused(tmp_path, leduc):
    path = tmp_path / "p.ckpt"
    save_player(path, lively(leduc), leduc, SPEC)
    data = bytearray(path.read_bytes())
    at = data.rindex(b"PK\1\2")
    size = struct.unpack_from("<I", data, at + 24)[0]
    struct.pack_into("<II", data, at + 20, size + 10**9, size + 10**9)
    path.write_bytes(data)
    for read in (verify, VerifiedCheckpointIO().load_checkpoint, lambda path: load_network(path, leduc)):
        with pytest.raises(ArtefactError, match=r"p.ckpt: (its records are to be|is none|.*is none)"):
            read(path)
    assert newest_verified(tmp_path)[0] is None
    torch.save({"a": 1}, path, _use_new_zipfile_serialization=False)
    with pytest.raises(ArtefactError, match="is none"):
        load_network(path, leduc)


def tensors(state):
    return lambda content: content | {"state_dict": state}


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ([1, 2], "state_dict is a list"), ({"a": 7}, "a is a int, not a tensor"), ({3: torch.ones(1)}, "not a tensor"),
        ({"a": torch.ones(3).to_sparse()}, "a is no dense tensor"),
        ({"a": torch.ones(1).expand(10**9)}, "needs 4000000000 bytes, the file has 4 for it"),
        ({"a": torch.empty(10**9, device="meta")}, "needs|no dense tensor|cannot be loaded"),
        ({}, "its weights are of another network"),
        ({f"x{i}": torch.ones(1) for i in range(50)}, "its weights are of another network"),
    ],
)  # fmt: skip
def test_states_that_are_none_are_refused_by_name(leduc, tmp_path, state, words):
    path = tmp_path / "p.pt"
    save_player(path, lively(leduc), leduc, SPEC)
    torch.save(tensors(state)(torch.load(path, weights_only=True)), path)
    with pytest.raises(ArtefactError, match=f"p.pt: .*({words})"):
        load_network(path, leduc)
    shared = torch.ones(5000)
    torch.save(tensors({f"x{i}": shared for i in range(50)})(torch.load(path, weights_only=True)), path)
    with pytest.raises(ArtefactError, match="its tensors need 1000000 bytes, the file has"):
        load_network(path, leduc)
