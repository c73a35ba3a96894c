"""Pictures as files, drawn without a screen.

A `Figure` made by itself, and not by pyplot, needs no backend and no closing: nothing global is touched.
"""

import io
from pathlib import Path
from typing import TYPE_CHECKING

from lit_rl.run.checkpoint_files import replace_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def new_figure(width: float, height: float) -> "Figure":
    """An empty figure of so many inches, whose parts make room for each other."""
    from matplotlib.figure import Figure  # here: a third of a second that most commands can do without

    return Figure(figsize=(width, height), layout="constrained")


def save_figure(path: Path, figure: "Figure") -> None:
    """Write `figure` as PNG, its folder with it; a file that is there is replaced at once or not at all."""
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=140)
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, image.getvalue())
