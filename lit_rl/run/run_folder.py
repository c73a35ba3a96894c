"""The folder of a run: claimed by one process, its metrics.csv continued where a checkpoint stands.

status.json says in `checkpointed` whether the run has ever got as far as a checkpoint. False stands there before the
first one, true before the first one is visible; so false, and nothing else, proves that there is none to lose.
"""

import csv
import fcntl
import io
import json
import os
import shutil
import socket
import warnings
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from lit_rl.run.checkpoint_files import MANIFEST, replace_file
from lit_rl.run.errors import ConfigError, StorageError


def claim_run_folder(root: Path) -> Path:
    """Create <root>/version_<n> with the next free n; two processes never get the same one.

    Raises:
        StorageError: it cannot be created there.
    """
    made = [path for path in (root, *root.parents) if not path.exists()]
    try:
        root.mkdir(parents=True, exist_ok=True)
        taken = [int(p.name[8:]) for p in root.glob("version_*") if p.name[8:].isdigit()]
        number = max(taken, default=-1) + 1
        while True:
            try:
                (root / f"version_{number}").mkdir()
                _new.append([root / f"version_{number}", *made])
                return root / f"version_{number}"
            except FileExistsError:
                number += 1
    except OSError as error:
        raise StorageError(
            f"trainer.default_root_dir={str(root)!r}: cannot create a run folder there ({error.strerror}); "
            "choose a folder you may write to"
        ) from error


_held: list[io.TextIOWrapper] = []  # a lock lives as long as its file is open
_new: list[list[Path]] = []  # run folders that this process has claimed, each with the folders made around it
NOTHING_YET = {"lock", "status.json", "crash"}  # what lies in a run folder before the run has begun


def release_run_folders(keep: bool = True) -> None:
    """Give back what `lock_run_folder` took. (The end of the process, however it comes, does so too.)

    Unless told to keep them, the folders that were claimed here and in which no run has begun are deleted.
    """
    while _new:
        folder, *around = _new.pop()
        if not keep and folder.is_dir() and {path.name for path in folder.iterdir()} <= NOTHING_YET:
            shutil.rmtree(folder, ignore_errors=True)
            with suppress(OSError):  # another run lies there
                for path in around:
                    path.rmdir()
    while _held:
        _held.pop().close()


def lock_run_folder(folder: Path) -> None:
    """Hold the folder for this process.

    Raises:
        ConfigError: another process holds it. StorageError: the folder cannot be written to.
    """
    try:
        file = open(folder / "lock", "a+")  # noqa: SIM115 (held below)
    except OSError as error:
        raise StorageError(f"run folder {folder}: cannot be written to ({error.strerror})") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        owner = file.read().strip() or "another process"
        file.close()
        raise ConfigError(f"run folder {folder}: in use by {owner}; wait for it, or start a run of its own") from None
    except OSError as error:  # some network file systems know no locks
        warnings.warn(
            f"run folder {folder}: cannot be locked ({error.strerror}); make sure that one run uses it", stacklevel=2
        )
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()} since {datetime.now():%Y-%m-%d %H:%M:%S}\n")
    file.flush()
    _held.append(file)


def read_status(folder: Path) -> dict:
    """What <folder>/status.json says; {} if there is none, or none that can be read."""
    try:
        status = json.loads((folder / "status.json").read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return status if isinstance(status, dict) else {}


def without_checkpoint(folder: Path) -> str:
    """Why the run in `folder` may have had a checkpoint, although none to go on from is there; "" if it had none."""
    if (folder / "checkpoints").exists() and (not os.path.isdir(folder / "checkpoints") or _traces(folder)):
        return "its checkpoints folder is not as a run leaves it before the first checkpoint"
    status = read_status(folder)
    if not status:
        return "its status.json is missing or damaged"
    if status.get("checkpointed") is not False or status.get("state") == "finished":
        return f"its status.json ({str(status.get('state'))[:20]}) does not say that it never had one"
    return ""


def _traces(folder: Path) -> bool:
    """A file of the checkpoints folder that is more than a write cut off, or a folder that cannot be read.

    The manifest is none: it knows a checkpoint before that has its name.
    """
    try:
        return any(not name.endswith(".stage") and name != MANIFEST for name in os.listdir(folder / "checkpoints"))
    except OSError:
        return True


def move_aside(path: Path) -> None:
    """Give the file, if there is one, a free name beside it: metrics.previous.csv, then metrics.previous2.csv ..."""
    number = 1
    while (aside := path.with_name(f"{path.stem}.previous{number if number > 1 else ''}{path.suffix}")).exists():
        number += 1
    if path.exists():
        os.rename(path, aside)


def write_json(path: Path, content: dict) -> None:
    """Replace a JSON file atomically."""
    replace_file(path, (json.dumps(content, indent=2) + "\n").encode())


class MetricsFile(ExperimentWriter):
    """Lightning's writer of metrics.csv, which goes on with a file that is there and never leaves half of one."""

    def __init__(self, log_dir: str):
        super().__init__(log_dir)
        self.metrics_keys = self._read()[0]

    def _check_log_dir_exists(self) -> None:
        """Lightning would delete the file here."""

    def save(self) -> None:
        try:
            super().save()
        except OSError as error:
            raise StorageError(
                f"{self.metrics_file_path}: cannot be written ({error.strerror}); free some space"
            ) from error

    def num_rows(self) -> int:
        path = Path(self.metrics_file_path)
        if not path.exists():
            return 0
        with path.open("rb") as file:  # in pieces: a long run's file must not grow into the memory
            return max(0, sum(piece.count(b"\n") for piece in iter(lambda: file.read(65_536), b"")) - 1)

    def keep(self, num_rows: int) -> None:
        """Drop all rows after the first `num_rows`: what a run wrote after the checkpoint it now goes on from."""
        names, rows = self._read()
        self.metrics_keys = names
        self._write(names, rows[:num_rows])

    def _read(self) -> tuple[list[str], list[dict]]:
        path = Path(self.metrics_file_path)
        if not path.exists():
            return [], []
        text = path.read_text()
        whole = text[: text.rfind("\n") + 1]  # a killed run may leave half a line
        reader = csv.DictReader(io.StringIO(whole))
        return list(reader.fieldnames or []), list(reader)

    def _write(self, names: list[str], rows: list[dict]) -> None:
        if not names:
            Path(self.metrics_file_path).unlink(missing_ok=True)
            return
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, names)
        writer.writeheader()
        writer.writerows(rows)
        replace_file(Path(self.metrics_file_path), text.getvalue().encode())

    def _rewrite_with_new_header(self, fieldnames: list[str]) -> None:
        self._write(fieldnames, self._read()[1])


class RunTensorBoard(TensorBoardLogger):
    """Lightning's TensorBoard logger in <run>/tensorboard; the command says which run (see `configs/loggers`)."""

    def __init__(self) -> None:
        super().__init__(save_dir=".", name="", version="tensorboard")
        self.run_folder = Path()

    @property
    def root_dir(self) -> str:
        return str(self.run_folder)

    save_dir = root_dir

    @property
    def log_dir(self) -> str:
        return str(self.run_folder / "tensorboard")


class RunLogger(CSVLogger):
    """Lightning's CSV logger over a `MetricsFile`, in a folder given whole."""

    def __init__(self, folder: Path):
        super().__init__(folder.parent, name="", version=folder.name, flush_logs_every_n_steps=1)

    @property
    @rank_zero_experiment
    def experiment(self) -> MetricsFile:
        if self._experiment is None:
            os.makedirs(self.log_dir, exist_ok=True)
            self._experiment = MetricsFile(log_dir=self.log_dir)
        return self._experiment


def open_run(root: Path, folder: Path | None = None) -> RunLogger:
    """The log of a new run in `root`, or of the one in `folder`, which is this process's until it gives it back.

    Raises:
        StorageError, ConfigError: as `claim_run_folder` and `lock_run_folder`.
    """
    if rank_zero_only.rank != 0:
        return RunLogger(root / "version_of_rank_0")  # writes nothing; Lightning tells it the first rank's folder
    folder = folder or claim_run_folder(root)
    lock_run_folder(folder)
    return RunLogger(folder)
