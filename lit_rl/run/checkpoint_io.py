"""Lightning's plugin for checkpoints that survive: the protocol of `run.checkpoint_files`."""

import os
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning.fabric.plugins.io import CheckpointIO

from lit_rl.run.checkpoint_files import (
    add_to_manifest,
    previous,
    refuse_nan,
    second_name,
    stage_checkpoint,
    sync_folder,
    verify,
)
from lit_rl.run.errors import ArtefactError, StorageError
from lit_rl.run.plain_file import cut, load_plain

OLDEST = (2, 6)  # Lightning that lit-rl has ever run with


class VerifiedCheckpointIO(CheckpointIO):
    """Lightning's plugin for reading and writing checkpoints, by the protocol above.

    A save that fails for lack of space (or any other OSError) leaves what was there and raises StorageError; while
    `forgiving` (`callbacks.LastCheckpoint` is, whose next save may succeed) only the `max_failures`-th in a row does.
    `after_visible` is called when a checkpoint lies under its name. `instead` is asked what to write in place of a
    checkpoint.
    """

    def __init__(self, max_failures: int = 3):
        self.max_failures = max_failures
        self.failures = 0  # in a row
        self.forgiving = False
        self.after_visible: Callable[[], None] = lambda: None
        self.instead: Callable[[dict[str, Any], Path], dict[str, Any]] = lambda checkpoint, path: checkpoint

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write `checkpoint` to `path`, keeping the file that was there as <name>.previous.ckpt.

        Raises:
            FloatingPointError: a weight is NaN. ArtefactError: something in it is no plain data.
            StorageError: not written, and no more patience.
        """
        path = Path(path)
        checkpoint = self.instead(checkpoint, path)
        refuse_nan(checkpoint)
        stage, old = path.with_name(f".{path.name}.stage"), path.with_name(f".{path.name}.old.stage")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _, sink = stage_checkpoint(path, checkpoint)
            add_to_manifest(path, sink, checkpoint)
            if path.exists():
                second_name(path, old)
            os.replace(stage, path)
            if old.exists():
                os.replace(old, previous(path))
            sync_folder(path.parent)
        except OSError as error:
            self.failures += 1
            for leftover in (stage, old):
                leftover.unlink(missing_ok=True)
            what = f"checkpoint {path} not written ({error.strerror or error}), the one before stays"
            if not self.forgiving or self.failures >= self.max_failures:
                raise StorageError(f"{what}; failed {self.failures} times in a row: free some space") from error
            warnings.warn(f"{what}; training goes on and the next save tries again", stacklevel=2)
        else:
            self.failures = 0
            self.after_visible()

    def load_checkpoint(self, path: str | Path, map_location: Any = None, weights_only: bool | None = None) -> dict:
        """Verify and load. Raises ArtefactError, see `verify`."""
        path = Path(path)
        verify(path)
        checkpoint = load_plain(path, "checkpoint", map_location)
        if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("state_dict"), dict):
            raise ArtefactError(f"checkpoint {path}: holds no state_dict")
        if "pytorch-lightning_version" not in checkpoint:  # which Lightning asks for before anybody else
            raise ArtefactError(f"checkpoint {path}: is no checkpoint of a run; a player file is read by load_policy")
        version = checkpoint.get("pytorch-lightning_version")
        found = re.fullmatch(r"(\d{1,4})\.(\d{1,4})[\w.+]{0,40}", version) if isinstance(version, str) else None
        if found is None or (int(found[1]), int(found[2])) < OLDEST:  # else it would be migrated, unseen
            wanted = ".".join(map(str, OLDEST))
            raise ArtefactError(f"checkpoint {path}: is of Lightning {cut(version)}, needs {wanted} or newer")
        return checkpoint

    def remove_checkpoint(self, path: str | Path) -> None:
        """Of a file that ModelCheckpoint wants no longer, and of the one before it."""
        for file in (Path(path), previous(Path(path))):
            file.unlink(missing_ok=True)
