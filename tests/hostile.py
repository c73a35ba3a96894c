"""Artefacts that somebody has tampered with, and what becomes of them, in a process of its own with bounds checks.

    LITRL_BOUNDS_CHECK=1 python tests/hostile.py 40 kuhn_ppo leduc_league

prints, kind by kind, what became of 40 cases for each of these runs (`harness.RUNS`), and of as many files of every
other kind (`hostile_files`), as JSON. Every case changes one thing. What is refused must be refused in one line, by
ArtefactError or ConfigError (of the command: exit code 2, 3, or 4 once a number has become infinite). What is accepted
must be the same content, or without effect: what would be saved again is what would have been saved without the change;
or lie where only its writer can know what it should be (`believed.BELIEVED`).
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
from contextlib import redirect_stderr, redirect_stdout
from fnmatch import fnmatchcase
from pathlib import Path

import torch
from believed import BELIEVED
from harness import ROOT, RUNS
from hostile_files import KINDS
from tampering import EVIL, at, same, tampered
from torch import Tensor

from lit_rl.run.errors import ArtefactError, ConfigError

PARTS = ("iteration", "memories", "callbacks")  # besides the datamodule's
HARM = ("os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "socket.connect")


class Tally:
    """Outcomes of cases, by kind of artefact."""

    def __init__(self) -> None:
        self.counts: dict[str, Counter] = {}
        self.worst: list[str] = []
        self.believed: Counter = Counter()  # places
        self._harm: list[str] = []
        sys.addaudithook(self._watch)

    def _watch(self, event: str, args: tuple) -> None:
        if (event == "import" and str(args[0]).split(".")[0] == EVIL.split(".")[0]) or event in HARM:
            self._harm.append(f"{event} {str(args)[:200]}")

    def add(self, kind: str, outcome: str, where: str, place: str = "") -> None:
        count = self.counts.setdefault(kind, Counter())
        count["cases"] += 1
        count["imports"] += len(self._harm)
        self.worst += [f"{kind}: {where}: {harm}" for harm in self._harm]
        self._harm.clear()
        count[outcome] += 1
        if outcome in ("silent", "crashed"):
            self.worst.append(f"{kind}, {outcome}: {where}"[:400])
        if outcome == "believed":
            self.believed[place] += 1

    def as_json(self) -> str:
        counts = {kind: dict(count) for kind, count in self.counts.items()}
        return json.dumps({"tally": counts, "worst": self.worst, "believed": self.believed})


def place_of(path: tuple) -> str:
    """Where in an artefact, whatever the row, the rank or the options of a callback."""
    return ".".join("#" if isinstance(key, int) else str(key).split("{")[0] for key in path)


def believed(path: tuple) -> bool:
    return any(fnmatchcase(place_of(path), pattern) for patterns in BELIEVED.values() for pattern in patterns)


def without_filler(value):
    """The same, but rows of a rollout that were not played are 0: nobody learns from them, and no rule tells them."""
    if isinstance(value, dict) and "played" in value:
        played = value["played"]
        whole = {name: x for name, x in value.items() if isinstance(x, Tensor) and x.shape[:2] == played.shape}
        return value | {name: x.masked_fill(~played[(...,) + (None,) * (x.ndim - 2)], 0) for name, x in whole.items()}
    if isinstance(value, dict):
        return {key: without_filler(x) for key, x in value.items()}
    return [without_filler(x) for x in value] if isinstance(value, list) else value


class Prepared:
    """A run in this process, after it has ended: loads states into its own module, datamodule and callbacks."""

    def __init__(self, name: str, folder: Path):
        from callbacks.last_checkpoint import LastCheckpoint
        from lit_rl.cli import main

        self.name, self.folder, self.checkpoints, kept = name, folder, [], {}
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
        self.arguments = [
            "fit", *RUNS[name], "--trainer.check_val_every_n_epoch", "99", "--trainer.log_every_n_steps", "1",
            "--trainer.enable_progress_bar", "false", "--trainer.default_root_dir",
        ]  # fmt: skip
        try:
            with redirect_stdout(io.StringIO()):
                main([*self.arguments, str(folder), "--trainer.max_epochs", "5"])
        finally:
            LastCheckpoint.on_train_batch_end = hook
        self.checkpoints.append(torch.load(folder / "version_0/checkpoints/last.ckpt", weights_only=True))
        self.trainer = kept["trainer"]
        self.module, self.data = self.trainer.lightning_module, self.trainer.datamodule
        self.trainer.state.fn = "fit"
        self.untouched = [self.saved_again(x) for x in self.checkpoints]
        self.resumed: dict[int, dict] = {}  # number of the checkpoint -> what a resumed run would save

    def parts(self, checkpoint: dict) -> list[str]:
        """Of what no tensor of weights is; the games as often as all else."""
        return [key for key in checkpoint for _ in range(4 if key.endswith("DataModule") else key in PARTS)]

    def load(self, checkpoint: dict) -> None:
        """All that a resume does before the first batch, but for weights and optimizers."""
        self.module.on_load_checkpoint(checkpoint)
        for callback in self.trainer.callbacks:
            callback.on_load_checkpoint(self.trainer, self.module, checkpoint)
        for callback in self.trainer.callbacks:
            if callback.state_key in checkpoint["callbacks"]:
                callback.load_state_dict(copy.deepcopy(checkpoint["callbacks"][callback.state_key]))
        self.data.load_state_dict(checkpoint[type(self.data).__name__])

    def saved_again(self, checkpoint: dict) -> dict:
        """What a run that has loaded it would save, but for weights, optimizers and clocks."""
        self.load(checkpoint)
        saved = {}
        self.module.on_save_checkpoint(saved)
        saved["callbacks"] = {x.state_key: x.state_dict() for x in self.trainer.callbacks}
        saved["data"] = self.data.state_dict()
        saved.pop("run")  # counts decisions on from case to case
        return copy.deepcopy(steady(saved))

    def go_on(self) -> None:
        """Two iterations, but for the steps."""
        if hasattr(self.data.opponents, "load_missing_players"):
            self.data.opponents.load_missing_players()
        finished = self.data.loader.finished  # tells what of the rollout is saved, and no checkpoint says it
        for _ in range(2):  # the iteration that was running, if one was, and a new one
            list(self.data.loader)
        self.data.loader.finished = finished

    def try_one(self, rng: random.Random) -> tuple[str, str, tuple]:
        """(outcome, where and what, path) of one case of what our own code loads."""
        number = rng.randrange(len(self.checkpoints))
        original = self.checkpoints[number]
        path, what, checkpoint = tampered(original, self.parts(original), rng)
        where = f"{self.name}: {place_of(path)} {what}"
        try:
            again = self.saved_again(checkpoint)
        except (ArtefactError, ConfigError) as error:
            return ("refused" if len(str(error).splitlines()) == 1 else "crashed"), where, path
        except Exception as error:
            return "crashed", f"{where}: {type(error).__name__}: {error}", path
        if same(*(without_filler(at(x, path[:1])) for x in (original, checkpoint))):
            return "same", where, path
        if same(without_filler(again), without_filler(self.untouched[number])):
            return "same", where, path
        try:
            self.go_on()
        except (ArtefactError, ConfigError, FloatingPointError):
            return "refused", where, path
        except Exception as error:
            return "crashed", f"{where}, later: {type(error).__name__}: {error}", path
        return ("believed" if believed(path) else "silent"), where, path

    def resume(self, checkpoint: dict) -> tuple[int, str, dict]:
        """`litrl fit --ckpt_path` of it to the end of iteration 6: exit code, stderr, what it held when it began."""
        from callbacks.last_checkpoint import LastCheckpoint
        from lit_rl.cli import main

        with tempfile.TemporaryDirectory() as folder:
            path, hook, held = Path(folder) / "tampered.ckpt", LastCheckpoint.on_train_start, {}
            torch.save(checkpoint, path)

            def on_train_start(callback, trainer, module):
                hook(callback, trainer, module)
                dumped = trainer._checkpoint_connector.dump_checkpoint(weights_only=False)
                held.update(copy.deepcopy(steady(dumped)))

            LastCheckpoint.on_train_start = on_train_start
            league = self.folder / "version_0" / "league" / "league.sqlite"
            more = ["--data.league", str(league)] if league.exists() else []
            err, code = io.StringIO(), 0
            try:
                with redirect_stdout(io.StringIO()), redirect_stderr(err):
                    main([*self.arguments, folder, *more, "--trainer.max_epochs", "6", "--ckpt_path", str(path)])
            except SystemExit as stop:
                code = stop.code
            finally:
                LastCheckpoint.on_train_start = hook
            return code, err.getvalue(), held

    def try_resume(self, rng: random.Random) -> tuple[str, str, tuple]:
        """(outcome, where and what, path) of one case that Lightning restores, any part of it."""
        number = rng.randrange(len(self.checkpoints))
        original = self.checkpoints[number]
        if number not in self.resumed:
            code, err, self.resumed[number] = self.resume(original)
            assert code == 0, err
        heavy = ("optimizer_states", "lr_schedulers", "state_dict", "loops")
        parts = [key for key in original for _ in range(5 if key in heavy else 1)]
        path, what, checkpoint = tampered(original, parts, rng)
        where = f"{self.name}: {place_of(path)} {what}"
        code, err, held = self.resume(checkpoint)
        last = (err.splitlines() or [""])[-1]
        if code in (2, 3, 4) and last.startswith(f"error[{code}]: ") and "Traceback" not in err:
            return "refused", where, path
        if code != 0:
            return "crashed", f"{where}: exit {code}: {err[-300:]}", path
        if same(without_filler(original), without_filler(checkpoint)):
            return "same", where, path
        if same(without_filler(held), without_filler(self.resumed[number])):
            return "same", where, path
        return ("believed" if believed(path) else "silent"), where, path


def steady(saved: dict) -> dict:
    """Without clocks, the names of folders, and the hash of the weights, which are there themselves."""
    drop = ("seconds", "weights", "dirpath", "best_model_path", "last_model_path", "kth_best_model_path")
    callbacks = {key: {name: x for name, x in state.items() if name not in drop} if isinstance(state, dict) else state
                 for key, state in saved["callbacks"].items()}  # fmt: skip
    return saved | {"callbacks": callbacks}


def main(count: int, names: list[str]) -> None:
    """Print what has been found so far, after each run and each kind: the last line is the whole."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    os.chdir(ROOT)
    tally = Tally()
    with tempfile.TemporaryDirectory() as folder:
        sys.path.insert(0, folder)
        Path(folder, "evil.py").write_text("raise SystemExit('imported')")
        for kind, prepare in KINDS.items():
            try_one = prepare(Path(folder))
            for number in range(count):
                outcome, where, path = try_one(random.Random(f"{kind} {number}"))
                if outcome == "other":
                    outcome = "believed" if believed(path) else "silent"
                tally.add(kind, outcome, where, place_of(path))
            print(tally.as_json(), flush=True)
        for name in names:
            place = Path(folder, name)
            place.mkdir()
            run = Prepared(name, place)
            for checkpoint in run.checkpoints:
                run.load(checkpoint)
                run.go_on()
            for number in range(count):
                outcome, where, path = run.try_one(random.Random(f"{name} {number}"))
                tally.add("checkpoint, our part", outcome, where, place_of(path))
            for number in range(-(-count // 10)):
                outcome, where, path = run.try_resume(random.Random(f"resume {name} {number}"))
                tally.add("checkpoint, resumed whole", outcome, where, place_of(path))
            print(tally.as_json(), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
