"""Broken configs: every one ends with one line and exit code 2, and no invalid value is accepted."""

import copy
import math
import random
import signal
import warnings
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
CONFIGS = ("kuhn_ppo", "leduc_ppo")

QUIET = [
    "--trainer.logger", "false", "--trainer.enable_checkpointing", "false", "--trainer.enable_progress_bar", "false",
]  # fmt: skip


def whole(x, least):
    return isinstance(x, int) and not isinstance(x, bool) and x >= least


def number(x, low, high=math.inf, open_low=False):
    fits = isinstance(x, int | float) and not isinstance(x, bool) and low <= x <= high and math.isfinite(x)
    return fits and not (open_low and x == low)


# What may stand at the end of a path of keys. YAML's strings count as what they spell ("1e-3" is a number).
VALID = {
    "num_envs": lambda x: whole(x, 1),
    "num_steps": lambda x: whole(x, 1),
    "update_epochs": lambda x: whole(x, 1),
    "num_minibatches": lambda x: whole(x, 1),
    "check_val_every_n_epoch": lambda x: x is None or whole(x, 1),
    "clip": lambda x: number(x, 0, open_low=True),
    "value_coef": lambda x: number(x, 0),
    "visit_exponent": lambda x: x is None or number(x, 0, 1),
    "ema_decay": lambda x: x is None or number(x, 0, 1),
    "lr": lambda x: number(x, 0),
    "eps": lambda x: number(x, 0),
    "start": lambda x: number(x, 0),
    "end": lambda x: number(x, 0),
    "game": lambda x: isinstance(x, str) and x.startswith("envs."),
    "monitor": lambda x: x is None or isinstance(x, str),
    "target": lambda x: isinstance(x, str) and x.startswith(("model.", "data.")),
}
JUNK = [
    -1, 0, 2, 1.5, -0.5, math.inf, -math.inf, math.nan, "abc", "", None, True, False, [], {}, [1, 2], {"a": 1}, "-3",
    "nan", "1e-3", "../../etc/passwd", "os.path", {"class_path": "os.path"}, {"class_path": 7}, "envs.rng",
    {"class_path": "torch.optim.Adam", "init_args": {"lr": -1}},
]  # fmt: skip


DOUBLED = ["model: {}\n", "data: 3\n", "trainer: []\n", "seed_everything: x\n", "nonsense: 1\n"]
SCRAPS = ["", "\t", ":", "{", "]", "\n", "'", "&a ", "*a", "!!python/name:os.system ", "é", "\x00", "- "]


def leaves(node, path=()):
    if isinstance(node, dict):
        for key in node:
            yield from leaves(node[key], (*path, key))
    elif isinstance(node, list) and node and isinstance(node[0], dict):
        for i, item in enumerate(node):
            yield from leaves(item, (*path, i))
    else:
        yield path


def parent_of(config, path):
    for key in path[:-1]:
        config = config[key]
    return config


def mutate(config: dict, rng: random.Random) -> tuple[str, str, object]:
    """(YAML text, kind, what must be true if it is accepted: (key, value) or None)."""
    config = copy.deepcopy(config)
    path = rng.choice(list(leaves(config)))
    node, key = parent_of(config, path), path[-1]
    kind = rng.choice(["junk", "junk", "junk", "misspelt", "missing", "text", "doubled"])
    if kind == "junk":
        value = rng.choice(JUNK)
        if key in ("num_envs", "num_steps") and rng.random() < 0.1:
            value = 10**18
        node[key] = value
        return yaml.safe_dump(config), kind, (key, value)
    if kind == "misspelt" and isinstance(key, str):
        at = rng.randrange(len(key) + 1)
        node[key[:at] + rng.choice("xq_") + key[at:]] = node.pop(key)
        return yaml.safe_dump(config), kind, None
    if kind == "missing":
        if isinstance(node, dict):
            del node[key]
        return yaml.safe_dump(config), kind, None
    text = yaml.safe_dump(config)
    if kind == "doubled":
        return text + rng.choice(DOUBLED), kind, None
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(text))
        text = text[:at] + rng.choice(SCRAPS) + text[at + rng.randint(0, 2) :]
    return text, "text", None


def fuzz(count: int, seed: int, tmp_path: Path, capsys) -> dict[str, int]:
    from lit_rl.cli import main

    rng, tally = random.Random(seed), {}
    bases = []
    for name in CONFIGS:
        config = yaml.safe_load((ROOT / "configs" / f"{name}.yaml").read_text())
        config["data"]["init_args"] |= {"num_envs": 4, "num_steps": 4, "max_tree_nodes": 0}
        config["trainer"]["max_epochs"] = 1
        config["trainer"]["callbacks"] = [c for c in config["trainer"]["callbacks"] if "ModelCheckpoint" not in str(c)]
        bases.append(config)
    for i in range(count):
        text, kind, claim = mutate(rng.choice(bases), rng)
        path = tmp_path / "config.yaml"
        path.write_text(text)
        code = 0
        signal.signal(signal.SIGVTALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_VIRTUAL, 60)  # dies of it: nothing may take for ever
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                main(["fit", "--config", str(path), *QUIET, "--trainer.max_epochs", "1"])
        except SystemExit as stop:
            code = stop.code
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        err = capsys.readouterr().err
        what = f"case {i} ({kind}, {claim}), exit {code}:\n{text}\n{err[-3000:]}"
        assert "Traceback" not in err, what
        if code == 0:
            assert kind != "misspelt", what
            if claim and claim[0] in VALID:
                value = yaml.safe_load(str(claim[1])) if isinstance(claim[1], str) and claim[1] else claim[1]
                value = float(value) if value == "1e-3" else value
                assert VALID[claim[0]](value), what
        else:
            line = err.splitlines()[-1]
            memory = code == 1 and any(word in line for word in ("MemoryError", "allocate", "Storage size"))
            unstable = code == 4 and claim == ("eps", 0)  # a valid value that divides 0 by 0 later on
            assert memory or unstable or (code == 2 and line.startswith("error[2]: ") and len(line) > 20), what
        tally[f"{kind}, exit {code}"] = tally.get(f"{kind}, exit {code}", 0) + 1
    return dict(sorted(tally.items()))


@pytest.mark.filterwarnings("ignore")
def test_broken_configs(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert sum(fuzz(80, 1, tmp_path, capsys).values()) == 80


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seed", [2, 3])
def test_many_broken_configs(tmp_path, capsys, monkeypatch, seed):
    monkeypatch.chdir(tmp_path)
    tally = fuzz(2600, seed, tmp_path, capsys)
    with capsys.disabled():
        print(f"\n2,600 broken configs: {tally}")
