"""The guard of every rebuilding: the first ten losses of each algorithm and form, seed 0, to 1e-6.

A change that means to change no number leaves them as they are. One that does records them anew, and says why:

    python tests/test_first_losses.py leduc_neurd ...      (those that it means to change, no others)
"""

import json
from pathlib import Path

import lightning as L
import pytest
import torch
from harness import RUNS, SHORT

RECORDED = Path(__file__).parent / "first_losses.json"
LOSSES: list[float] = []


class Listen(L.Callback):
    """Keep each minibatch's loss."""

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        LOSSES.append(float(outputs["loss"]))


def first_losses(name: str, root: Path) -> list[float]:
    """The first ten losses of the short run `name` of `harness.RUNS`."""
    from lit_rl.cli import main

    LOSSES.clear()
    torch.set_num_threads(1)
    listen = ["--trainer.callbacks+=test_first_losses.Listen", "--trainer.max_steps", "10"]
    main(["fit", *RUNS[name], *SHORT, *listen, "--trainer.default_root_dir", str(root)])
    return LOSSES[:10]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", RUNS)
def test_the_first_ten_losses_are_those_recorded(name, tmp_path):
    recorded = json.loads(RECORDED.read_text())
    assert recorded.keys() == RUNS.keys()
    assert first_losses(name, tmp_path) == pytest.approx(recorded[name], rel=1e-6, abs=1e-6)


if __name__ == "__main__":
    import sys
    import tempfile

    import test_first_losses  # the module that the command line imports, not this __main__

    found = json.loads(RECORDED.read_text())
    with tempfile.TemporaryDirectory() as folder:
        found |= {name: test_first_losses.first_losses(name, Path(folder)) for name in sys.argv[1:]}
    RECORDED.write_text(json.dumps(found, indent=1) + "\n")
