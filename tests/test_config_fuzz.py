"""Broken configs: every one ends with one line and exit code 2, and no invalid value is accepted."""

import copy
import dataclasses
import functools
import inspect
import math
import random
import signal
import types
import typing
import warnings
from pathlib import Path

import lightning as L
import pytest
import yaml

ROOT = Path(__file__).parent.parent
CONFIGS = sorted(path.stem for path in (ROOT / "configs").glob("*.yaml"))

QUIET = [
    "--trainer.logger", "false", "--trainer.enable_checkpointing", "false", "--trainer.enable_progress_bar", "false",
    "--trainer.limit_val_batches", "0", "--trainer.max_epochs", "1",
]  # fmt: skip


def at_least(low):
    return lambda x: isinstance(x, int | float) and not isinstance(x, bool) and low <= x < math.inf


# What no annotation says, by the last key of a path.
KNOWN = {
    "lr": at_least(0),
    "eps": at_least(0),
    "start": at_least(0),
    "end": at_least(0),
    "check_val_every_n_epoch": lambda x: x is None or at_least(1)(x),
    "game": lambda x: isinstance(x, str) and x.startswith("envs."),
    "target": lambda x: isinstance(x, str) and x.startswith(("model.", "data.")),
}
JUNK = [
    -1, 0, 2, 1.5, -0.5, math.inf, -math.inf, math.nan, "abc", "", None, True, False, [], {}, [1, 2], {"a": 1}, "-3",
    "nan", "1e-3", "../../etc/passwd", "os.path", {"class_path": "os.path"}, {"class_path": 7}, "envs.rng",
    {"class_path": "torch.optim.Adam", "init_args": {"lr": -1}},
]  # fmt: skip


DOUBLED = ["model: {}\n", "data: 3\n", "trainer: []\n", "seed_everything: x\n", "nonsense: 1\n"]
SCRAPS = ["", "\t", ":", "{", "]", "\n", "'", "&a ", "*a", "!!python/name:os.system ", "é", "\x00", "- "]


def fits(value, hint) -> bool | None:
    """Whether `value` may stand where `hint` is annotated; None: an annotation that says no more than a class."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        answers = [fits(value, part) for part in typing.get_args(hint)]
        return True if True in answers else None if None in answers else False
    if typing.get_origin(hint) is typing.Literal:
        return value in typing.get_args(hint)
    if hint is bool:
        return value is None or isinstance(value, bool)  # the parser lets null pass for any bool: it counts as false
    if hint in (str, type(None)):
        return isinstance(value, hint)
    if inspect.isclass(hint) and issubclass(hint, int | float):
        whole = isinstance(value, int) and not isinstance(value, bool)
        if not (whole or (isinstance(value, float) and not issubclass(hint, int) and math.isfinite(value))):
            return False
        return all(holds(value, bound) for holds, bound in getattr(hint, "_restrictions", ()))
    return None


def allowed(value, key: str, hint) -> bool:
    """Whether a config with `value` at the end of a path may be accepted. A string counts as what it spells, too."""
    meant = [value]
    if isinstance(value, str) and value:
        spelt = yaml.safe_load(value)
        meant.append(float(spelt) if spelt in ("1e-3", "nan") else spelt)
    return any(fits(x, hint) is not False and KNOWN.get(key, lambda x: True)(x) for x in meant)


def annotations(owner) -> dict:
    if owner is None:
        return {}
    return typing.get_type_hints(owner if dataclasses.is_dataclass(owner) else owner.__init__)


def class_named(path: str) -> type | None:
    """What a class_path, or the short name of one, stands for; None where it stands for nothing."""
    from lit_rl.run.messages import _known_classes

    found = {kind for kind in _known_classes() if path in (kind.__name__, f"{kind.__module__}.{kind.__qualname__}")}
    return found.pop() if len(found) == 1 else None


def hint_of(config: dict, path: tuple):
    """The annotation of the argument at the end of `path`; None where there is none to be found."""
    node, owner, hint = {"trainer": None} | config, None, None
    for depth, key in enumerate(path):
        if key == "init_args":
            owner, hint = class_named(node["class_path"]), None
        else:
            hint = annotations(owner).get(key)
            settings = [kind for kind in (hint, *typing.get_args(hint)) if dataclasses.is_dataclass(kind)]
            owner = L.Trainer if depth == 0 and key == "trainer" else settings[0] if settings else None
        node = node[key]
    return hint


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


def mutate(config: dict, rng: random.Random) -> tuple[str, str, tuple | None]:
    """(YAML text, kind, what must be allowed if it is accepted: (value, key, annotation) or None)."""
    config = copy.deepcopy(config)
    path = rng.choice(list(leaves(config)))
    node, key = parent_of(config, path), path[-1]
    kind = rng.choice(["junk", "junk", "junk", "misspelt", "missing", "text", "doubled"])
    if kind == "junk":
        value = rng.choice(JUNK)
        if key in ("num_envs", "num_steps") and rng.random() < 0.1:
            value = 10**18
        hint = hint_of(config, path)
        node[key] = value
        return yaml.safe_dump(config), kind, (value, key, hint)
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


def too_long(what: str, *signal_and_frame) -> None:
    """Nothing may take for ever. (No Exception: the command would make an exit code of it.)"""
    pytest.fail(f"a minute of the processor's time for {what}")


def fuzz(count: int, seed: int, tmp_path: Path, capsys) -> dict[str, int]:
    from lit_rl.cli import main

    rng, tally = random.Random(seed), {}
    bases = []
    for name in CONFIGS:
        config = yaml.safe_load((ROOT / "configs" / f"{name}.yaml").read_text())
        config["data"]["init_args"] |= {"num_envs": 4, "num_steps": 4}
        if config["data"]["class_path"] == "LeagueDataModule":
            config["data"]["init_args"]["league"] = "league.sqlite"  # no run folder, no league there
        config["trainer"]["max_epochs"] = 1
        idle = ("ModelCheckpoint", "ExploiterSpawner")  # which need a run folder
        kept = [c for c in config["trainer"]["callbacks"] if not any(name in str(c) for name in idle)]
        config["trainer"]["callbacks"] = [*kept, {"class_path": "RunSummary", "init_args": {"plot": False}}]
        bases.append(config)
    for i in range(count):
        text, kind, claim = mutate(bases[i % len(bases)], rng)
        path = tmp_path / "config.yaml"
        path.write_text(text)
        code = 0
        signal.signal(signal.SIGVTALRM, functools.partial(too_long, f"case {i}, {CONFIGS[i % len(bases)]}:\n{text}"))
        signal.setitimer(signal.ITIMER_VIRTUAL, 60)  # of the processor: the slowest compiles for 11
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                main(["fit", "--config", str(path), *QUIET])
        except SystemExit as stop:
            code = stop.code
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        err = capsys.readouterr().err
        what = f"case {i} of {CONFIGS[i % len(bases)]} ({kind}, {claim}), exit {code}:\n{text}\n{err[-3000:]}"
        assert "Traceback" not in err, what
        if code == 0:
            assert kind != "misspelt", what
            assert claim is None or allowed(*claim), what
        else:
            line = err.splitlines()[-1]
            unstable = code == 4 and claim and claim[:2] == (0, "eps")  # a valid value that divides 0 by 0 later on
            assert unstable or (code == 2 and line.startswith("error[2]: ") and len(line) > 20), what
        tally[f"{kind}, exit {code}"] = tally.get(f"{kind}, exit {code}", 0) + 1
    return dict(sorted(tally.items()))


@pytest.mark.filterwarnings("ignore")
def test_broken_configs(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert sum(fuzz(54, 1, tmp_path, capsys).values()) == 54


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seed", [2, 3])
def test_many_broken_configs(tmp_path, capsys, monkeypatch, seed):
    monkeypatch.chdir(tmp_path)
    tally = fuzz(2600, seed, tmp_path, capsys)
    with capsys.disabled():
        print(f"\n2,600 broken configs: {tally}")
