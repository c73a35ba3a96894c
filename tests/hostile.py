"""Checkpoints that somebody has tampered with, and what becomes of them, in a process of its own with bounds checks.

    LITRL_BOUNDS_CHECK=1 python tests/hostile.py 40 kuhn_ppo leduc_league

trains each of those runs (`harness.RUNS`) for a moment, takes its checkpoint at the border and in the middle of an
iteration, changes one thing in a copy of it and loads that. What is refused must be refused by ArtefactError or
ConfigError, in one line. What is accepted must be the same content, or lie where no rule says what it should be (FREE);
then an iteration is played and cut into batches, so that an index gone astray would show. Prints a tally as JSON.
"""

import copy
import io
import json
import os
import random
import sys
import tempfile
import warnings
from collections import Counter
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import torch
from harness import ROOT, RUNS
from torch import Tensor

from lit_rl.algorithm import before_rollout
from lit_rl.run.errors import ArtefactError, ConfigError

# What neither the rules nor the rest of a checkpoint determine: numbers that were drawn, measured, learned or clocked.
FREE = (
    "streams", "action_streams", "last_value", "last_state", "memos", "more", "carried", "dirpath", "kth_value",
    "best_model_score", "current_score", "FiniteGuard", "GradNorm", "RunSummary", "MixLambda", "EpisodeStats", "seed",
    "value", "log_prob", "exploration", "rewards", "bootstrap", "logits", "extras", "state", "temperature", "learner",
    "regrets", "policies", "visits", "sums", "counts", "born", "key", "utilities", "counters", "target", "vector",
    "weight", "weights", "seen", "total", "kept", "minibatches", "lessons", "memo", "memory", "critic_memory",
    "meta_regret", "slot", "turn", "earned", "tally", "shares", "self_play_share", "table", "refreshed", "cursor",
    "members", "settings", "curve", "seconds", "skips", "rows", "steps", "ended_at", "states", "bins", "run",
    "iteration", "dropped", "loops", "decisions", "offset", "sha256", "games",
)  # fmt: skip
OPTIONAL = ("ModelCheckpoint", "Replay")  # callbacks whose state may be missing, as where they are new in the config
PARTS = ("iteration", "memories", "loops", "callbacks")  # besides the datamodule's


class Prepared:
    """A run in this process, after it has ended: loads states into its own module, datamodule and callbacks."""

    def __init__(self, name: str, folder: Path):
        from callbacks.last_checkpoint import LastCheckpoint
        from lit_rl.cli import main

        self.name, self.checkpoints, kept = name, [], {}
        hook = LastCheckpoint.on_train_batch_end

        def on_train_batch_end(callback, trainer, module, outputs, batch, batch_idx):
            hook(callback, trainer, module, outputs, batch, batch_idx)
            kept["trainer"] = trainer
            if trainer.current_epoch == 3 and batch_idx == 0:
                dumped = trainer._checkpoint_connector.dump_checkpoint(weights_only=False)
                buffer = io.BytesIO()
                torch.save(dumped, buffer)
                buffer.seek(0)
                self.checkpoints.append(torch.load(buffer, weights_only=True))

        LastCheckpoint.on_train_batch_end = on_train_batch_end
        short = [
            "--trainer.max_epochs",
            "5",
            "--trainer.check_val_every_n_epoch",
            "99",
            "--trainer.log_every_n_steps",
            "1",
        ]
        quiet = ["--trainer.enable_progress_bar", "false", "--trainer.default_root_dir", str(folder)]
        try:
            with redirect_stdout(io.StringIO()):
                main(["fit", *RUNS[name], *short, *quiet])
        finally:
            LastCheckpoint.on_train_batch_end = hook
        self.checkpoints.append(torch.load(folder / "version_0/checkpoints/last.ckpt", weights_only=True))
        self.trainer = kept["trainer"]
        self.module, self.data = self.trainer.lightning_module, self.trainer.datamodule
        self.trainer.state.fn = "fit"

    def parts(self, checkpoint: dict) -> list[str]:
        return [key for key in checkpoint if key in PARTS or key.endswith("DataModule")]

    def load(self, checkpoint: dict) -> None:
        """All that a resume does before the first batch, but for weights and optimizers."""
        self.module.on_load_checkpoint(checkpoint)
        for callback in self.trainer.callbacks:
            callback.on_load_checkpoint(self.trainer, self.module, checkpoint)
        for callback in self.trainer.callbacks:
            if callback.state_key in checkpoint["callbacks"]:
                callback.load_state_dict(copy.deepcopy(checkpoint["callbacks"][callback.state_key]))
        self.data.load_state_dict(checkpoint[type(self.data).__name__])

    def go_on(self) -> None:
        """One iteration, but for the steps."""
        if hasattr(self.data.opponents, "load_missing_players"):
            self.data.opponents.load_missing_players()
        rollout = self.data.loader.rollout
        if self.data.loader.cursor < len(self.data.loader) and rollout is not None:
            list(self.module.make_batches(rollout, torch.Generator().manual_seed(0)))
        before_rollout(self.module, 4, 0)
        rollout = self.data.collect(rollout)
        list(self.module.make_batches(rollout, torch.Generator().manual_seed(0)))


def leaves(value, path=()):
    """(path, value) of all that is no container with something in it."""
    if isinstance(value, dict | list | tuple) and len(value):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(item, (*path, key))
    else:
        yield path, value


def at(value, path):
    for key in path:
        value = value[key]
    return value


def mutated(value, rng: random.Random, others: list):
    """(what was done, another value in the place of `value`)."""
    kinds = [("none", None), ("text", "x"), ("number", 7), ("list", []), ("dict", {}), ("huge", 2**62), ("below", -3)]
    if isinstance(value, Tensor):
        kinds += tensor_kinds(value, rng)
        same = [x for x in others if isinstance(x, Tensor) and x.dtype == value.dtype and x.shape == value.shape]
        same = [x for x in same if not torch.equal(x, value)]
        if same:
            kinds += [("swapped", rng.choice(same).clone())] * 3
    elif isinstance(value, bytes):
        data = bytearray(value)
        if data:
            for _ in range(3):
                data[rng.randrange(len(data))] = rng.randrange(256)
            kinds += [("flipped", bytes(data)), ("random", rng.randbytes(len(data))), ("ones", b"\xff" * len(data))] * 3
        kinds += [("short", value[:-1]), ("long", value + b"\0")]
    elif isinstance(value, int | float):
        kinds += [("negative", -value - 1), ("next", value + 1), ("nan", float("nan")), ("inf", float("inf"))] * 2
    return rng.choice(kinds)


def tensor_kinds(value: Tensor, rng: random.Random) -> list:
    kinds = [
        ("dtype", value.to(torch.int32 if value.dtype != torch.int32 else torch.float64)),
        ("wider", value[..., None]),
    ]
    if value.ndim:
        kinds += [("row lost", value[:-1]), ("rows doubled", torch.cat([value, value]))]
        kinds += [("sparse", value.to_sparse())]
    if value.numel():
        changed = value.clone().reshape(-1)
        i = rng.randrange(len(changed))
        if value.dtype == torch.bool:
            changed[i] = ~changed[i]
            kinds += [("flipped", changed.view(value.shape))] * 4
            odd = value.clone()
            odd.view(torch.uint8).reshape(-1)[i] = 77
            kinds += [("odd bool", odd)]
            return kinds
        if value.is_floating_point():
            extremes = (float("nan"), float("inf"), -1e30, 1e30, -1.0, 2.0)
        else:
            extremes = (torch.iinfo(value.dtype).max, torch.iinfo(value.dtype).min, 1, 2)
        for extreme in extremes:
            one = changed.clone()
            one[i] = extreme
            kinds += [(f"one {extreme}", one.view(value.shape)), (f"all {extreme}", torch.full_like(value, extreme))]
        bits = np.random.default_rng(rng.randrange(2**32)).bytes(value.numel() * value.element_size())
        kinds += [("random bytes", torch.frombuffer(bytearray(bits), dtype=value.dtype).view(value.shape))]
        kinds += [("permuted", changed[torch.randperm(len(changed))].view(value.shape))] * 2
    return kinds


def tampered(checkpoint: dict, parts: list[str], rng: random.Random) -> tuple[tuple, str, dict]:
    """(path, what was done there, the checkpoint so changed); what is not on the path is shared."""
    part = rng.choice([part for part in parts for _ in range(8 if part.endswith("DataModule") else 2)])
    everything = list(leaves(checkpoint[part], (part,)))
    path, value = rng.choice(everything)
    if rng.random() < 0.15:  # a key too few or too many, at any height
        path = path[: rng.randrange(1, len(path))] if len(path) > 1 else path
        target = at(checkpoint, path)
        if isinstance(target, dict) and target:
            lost = rng.choice(sorted(target, key=str))
            changed = (
                {key: x for key, x in target.items() if key != lost} if rng.random() < 0.6 else target | {"more": 1}
            )
            return (*path, lost if lost not in changed else "more"), "keys", replaced(checkpoint, path, changed)
        return path, "gone", replaced(checkpoint, path, None)
    what, new = mutated(value, rng, [x for _, x in everything])
    return path, what, replaced(checkpoint, path, new)


def replaced(value, path, new):
    if not path:
        return new
    if isinstance(value, dict):
        return {key: replaced(x, path[1:], new) if key == path[0] else x for key, x in value.items()}
    items = [replaced(x, path[1:], new) if i == path[0] else x for i, x in enumerate(value)]
    return type(value)(items)


def same(a, b) -> bool:
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b)
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def without_filler(value):
    """The same, but rows of a rollout that were not played are 0: nobody learns from them, and no rule tells them."""
    if isinstance(value, dict) and "played" in value:
        played = value["played"]
        whole = {name: x for name, x in value.items() if isinstance(x, Tensor) and x.shape[:2] == played.shape}
        return value | {name: x.masked_fill(~played[(...,) + (None,) * (x.ndim - 2)], 0) for name, x in whole.items()}
    if isinstance(value, dict):
        return {key: without_filler(x) for key, x in value.items()}
    return [without_filler(x) for x in value] if isinstance(value, list) else value


def try_one(run: Prepared, rng: random.Random) -> tuple[str, str]:
    """(outcome, where and what)."""
    original = rng.choice(run.checkpoints)
    path, what, checkpoint = tampered(original, run.parts(original), rng)
    where = f"{run.name}: {'.'.join(map(str, path))} {what}"
    try:
        run.load(checkpoint)
    except (ArtefactError, ConfigError) as error:
        return ("refused", where) if len(str(error).splitlines()) == 1 else ("of many lines", where)
    except Exception as error:
        return "crashed", f"{where}: {type(error).__name__}: {error}"
    if same(*(without_filler(at(x, path[:1])) for x in (original, checkpoint))):
        return "the same", where
    optional = what == "keys" and str(path[-1]).startswith(OPTIONAL)
    if not optional and not any(name in FREE for name in path):
        return "accepted in silence", where
    try:
        run.go_on()
    except (ArtefactError, ConfigError, FloatingPointError):
        return "refused", where
    except Exception as error:
        return "crashed later", f"{where}: {type(error).__name__}: {error}"
    return "free", where


def main(count: int, names: list[str]) -> dict:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    os.chdir(ROOT)
    tally, worst, free = Counter(), [], Counter()
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            run = Prepared(name, Path(folder))
            for checkpoint in run.checkpoints:
                run.load(checkpoint)
                run.go_on()
            for number in range(count):
                outcome, where = try_one(run, random.Random(f"{name} {number}"))
                tally[outcome] += 1
                if outcome not in ("refused", "the same", "free"):
                    worst.append(f"{outcome}: {where}"[:300])
                if outcome == "free":
                    free[where.split(": ", 1)[1].split(" ")[0].split(".")[-1]] += 1
    return {"tally": dict(tally), "worst": worst, "free": dict(free)}


if __name__ == "__main__":
    print(json.dumps(main(int(sys.argv[1]), sys.argv[2:])))
