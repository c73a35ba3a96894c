"""What the scheduler of a mixed policy does: shares, regrets and table in the log, and one picture at the end."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import lightning as L
import torch
from torch import Tensor

from lit_rl.algorithm import is_log_iteration
from lit_rl.armac.mix_scheduler import MixStatistics
from lit_rl.run.checkpoint_files import replace_file
from lit_rl.run.errors import ConfigError
from lit_rl.run.saved_values import need, saved_dict, saved_float, saved_int, saved_list, saved_text

MOST_POINTS, MOST_STATES = 2000, 24  # of the picture


class Mixes(Protocol):
    """What MixLambda needs of an algorithm."""

    decisions: Tensor  # sampled so far

    def mix_statistics(self) -> MixStatistics:
        """Of the iteration that is ending."""


class MixLambda(L.Callback):
    """Log mix/lambda_mean and mix/lambda_std over the decisions of an iteration, mix/share/<bin>: share of them that
    played each bin (continuous: were nearest to it), mix/regret/<bin>: its mean regret over the states of the table,
    and mix/table/size, hits, misses, evictions, mean_age (in rows).

    After a fit <run>/mix_lambda.png shows mix_lambda and the shares over the run, and mix_lambda in the states most
    often met in the last logged iteration. With several devices: the first one's decisions.
    """

    def __init__(self) -> None:
        self._log_dir: str | None = None
        self._curve: list[list[float]] = []  # [decisions, mean, standard deviation, *shares], one per logged iteration
        self._bins: tuple[float, ...] = ()
        self._states: list[tuple[str, int, float]] = []  # in words, decisions, mean mix_lambda; the last iteration's

    def state_dict(self) -> dict:
        return {"curve": self._curve, "bins": self._bins, "states": self._states}

    def load_state_dict(self, state_dict: dict) -> None:
        saved_dict(state_dict, "MixLambda", ("curve", "bins", "states"))
        need(isinstance(state_dict["bins"], tuple), "MixLambda.bins is no tuple")
        self._bins = tuple(saved_float(x, "MixLambda.bins", 0.0, 1.0) for x in state_dict["bins"])
        self._curve, self._states = [], []
        for point in saved_list(state_dict["curve"], "MixLambda.curve"):
            saved_list(point, "MixLambda.curve", 3 + len(self._bins))
            self._curve.append([saved_float(x, "MixLambda.curve") for x in point])
        for state in saved_list(state_dict["states"], "MixLambda.states"):
            need(isinstance(state, tuple) and len(state) == 3, "MixLambda.states has what is no state")
            words, number, mean = state
            words = saved_text(words, "MixLambda.states")
            number = saved_int(number, "MixLambda.states")
            self._states.append((words, number, saved_float(mean, "MixLambda.states", 0.0, 1.0)))

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if not hasattr(pl_module, "mix_statistics"):
            raise ConfigError(
                f"callback MixLambda watches an algorithm that mixes two policies; {type(pl_module).__name__} has no "
                "mix_statistics(): leave the callback out"
            )

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._log_dir = trainer.log_dir  # on every rank: Lightning broadcasts it

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not is_log_iteration(trainer):
            return
        mixed: MixStatistics = pl_module.mix_statistics()
        self._bins = tuple(mixed.bins)
        shares = (torch.bincount(mixed.bin, minlength=len(self._bins)) / len(mixed.bin)).tolist()
        mean = float(mixed.mix_lambda.mean())
        std = float(mixed.mix_lambda.std(correction=0))
        metrics = {"lambda_mean": mean, "lambda_std": std}
        metrics |= {f"share/{value:g}": share for value, share in zip(self._bins, shares)}
        if mixed.regrets is not None:
            metrics |= {f"regret/{value:g}": regret for value, regret in zip(self._bins, mixed.regrets.tolist())}
        metrics |= {f"table/{name}": number for name, number in mixed.table.items()}
        for name, value in metrics.items():
            self.log(f"mix/{name}", value, rank_zero_only=True)
        self._curve.append([float(pl_module.decisions), mean, std, *shares])
        if len(self._curve) > MOST_POINTS:
            del self._curve[1::2]
        if mixed.key is not None and mixed.words is not None:
            self._states = states_most_met(mixed.key, mixed.mix_lambda, mixed.words)

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._log_dir is not None and self._curve and trainer.is_global_zero:
            title = f"{trainer.datamodule.game.name}: {type(pl_module).__name__}, share of the actor"
            path = Path(self._log_dir) / "mix_lambda.png"
            plot_mix_lambda(self._curve, self._states, self._bins, title, path)


def states_most_met(key: Tensor, mix_lambda: Tensor, words: Callable[[int], str]) -> list[tuple[str, int, float]]:
    """The states of most decisions, most first: (in words, decisions, mean mix_lambda)."""
    keys, row, counts = key.unique(return_inverse=True, return_counts=True)
    means = torch.zeros(len(keys), dtype=torch.float64, device=key.device)
    means = means.index_add_(0, row, mix_lambda.double()) / counts
    most = counts.argsort(descending=True, stable=True)[:MOST_STATES]
    return [(words(k), n, mean) for k, n, mean in zip(keys[most].tolist(), counts[most].tolist(), means[most].tolist())]


def plot_mix_lambda(
    curve: list[list[float]], states: list[tuple[str, int, float]], bins: tuple[float, ...], title: str, path: Path
) -> None:
    """mix_lambda and the shares of the bins over decisions; beside them, where there are any, the states'."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import EngFormatter

    figure = plt.figure(figsize=(11, 5) if states else (7, 5), layout="constrained")
    grid = figure.add_gridspec(2, 2 if states else 1)
    over_run, of_bins = figure.add_subplot(grid[0, 0]), figure.add_subplot(grid[1, 0])
    decisions, mean, std, *shares = torch.tensor(curve, dtype=torch.float64).T
    over_run.fill_between(decisions, mean - std, mean + std, color="#1f5fa8", alpha=0.2, linewidth=0)
    over_run.plot(decisions, mean, color="#1f5fa8", linewidth=1.8, marker="o", markersize=2, label="mean ± deviation")
    over_run.set_ylabel("mix_lambda\n(0 regret matching, 1 actor)")
    colours = plt.get_cmap("viridis")(torch.linspace(0, 0.9, len(bins)).numpy())
    of_bins.stackplot(decisions, *shares, colors=colours, labels=[f"{value:g}" for value in bins])
    of_bins.set_ylabel("share of each bin")
    of_bins.set_xlabel("decisions sampled")
    for axes in (over_run, of_bins):
        axes.set_ylim(0, 1)
        axes.xaxis.set_major_formatter(EngFormatter(sep=" "))
        axes.grid(True, alpha=0.2)
        axes.legend(
            frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(0, 1), ncols=len(bins), borderaxespad=0.1
        )
    if states:
        right = figure.add_subplot(grid[:, 1])
        words, numbers, means = zip(*states)
        right.barh(range(len(states)), means, color="#1f5fa8", height=0.7)
        right.set_yticks(range(len(states)), [f"{w}  ({n:,})" for w, n in zip(words, numbers)], fontsize=7)
        right.invert_yaxis()
        right.set_xlim(0, 1)
        right.set_xlabel("mix_lambda at the end")
        right.set_title("states (decisions in the last logged iteration)", fontsize=9)
        right.grid(True, axis="x", alpha=0.2)
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title)
    image = io.BytesIO()
    figure.savefig(image, dpi=140)
    plt.close(figure)
    replace_file(path, image.getvalue())
