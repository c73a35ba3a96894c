"""What a run leaves behind: a last checkpoint, summary.json, a learning curve, and the numbers on the screen."""

import csv
import io
import time
from pathlib import Path

import lightning as L
import torch

from envs.exact import GameTree
from lit_rl.policy import exact_metrics
from lit_rl.run.checkpoint_io import replace_file
from lit_rl.run.figures import new_figure, save_figure
from lit_rl.run.run_folder import write_json

CURVE_POINTS = 500  # about as many as the picture has columns of pixels for


class RunSummary(L.Callback):
    """Print NashConv and exploitability beside the uniform policy's after fit, validate and test.

    After a fit the run folder also holds summary.json and learning_curve.png. NashConv = sum over players of what a
    best response gains; exploitability = that / players. `litrl predict` writes the exported policy: policy.csv.

    Args:
        plot: draw the learning curve.
    """

    def __init__(self, plot: bool = True):
        self.plot = plot
        self._began, self._seconds_before = 0.0, 0.0
        self._log_dir: str | None = None
        self._curve: list[list[float]] = []  # [decisions, NashConv] of validations

    def state_dict(self) -> dict:
        return {"curve": self._curve, "seconds": self._seconds()}

    def load_state_dict(self, state_dict: dict) -> None:
        self._curve = [list(point) for point in state_dict["curve"]]
        self._seconds_before = float(state_dict["seconds"])

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._began = time.perf_counter()
        self._log_dir = trainer.log_dir  # on every rank: Lightning broadcasts it

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        nash_conv = trainer.callback_metrics.get("eval/nash_conv")
        if nash_conv is None:
            return
        if trainer.state.fn == "fit":
            self._curve.append([float(pl_module.decisions), float(nash_conv)])
            thin(self._curve, CURVE_POINTS)
        elif trainer.is_global_zero:
            self._print(trainer, pl_module, exact_metrics(pl_module.export_policy(), trainer.datamodule.tree))

    on_test_end = on_validation_end

    def on_predict_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, outputs, batch, *args) -> None:
        """Write policy.csv: each infostate (player, obs) with the probability of each action."""
        if not trainer.is_global_zero:
            return
        checkpoints = Path(trainer.ckpt_path).parent if trainer.ckpt_path else Path()
        folder = checkpoints.parent if checkpoints.name == "checkpoints" else Path(trainer.default_root_dir)
        tree: GameTree = batch
        names = tree.game.action_names or [str(a) for a in range(tree.game.num_actions)]
        path = folder / "policy.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        text = io.StringIO(newline="")
        writer = csv.writer(text)
        writer.writerow(["player", "obs", *names])
        for player, obs, probs in zip(tree.row_player, tree.obs, outputs.tolist()):
            writer.writerow([player, " ".join(str(x) for x in obs.flatten()), *(f"{p:.6f}" for p in probs)])
        replace_file(path, text.getvalue().encode())
        print(f"policy of {tree.num_rows} infostates: {path}")

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._log_dir is None or not trainer.is_global_zero:
            return
        folder = Path(self._log_dir)
        last = folder / "checkpoints" / "last.ckpt"
        tree: GameTree | None = trainer.datamodule.tree
        summary = {
            "game": trainer.datamodule.game.name,
            "game_version": trainer.datamodule.game.version,
            "algorithm": type(pl_module).__name__,
            "iterations": trainer.current_epoch,
            "decisions": int(pl_module.decisions),
            "seconds": round(self._seconds(), 1),
            "seed": trainer.datamodule.seed,
        }
        if last.exists():
            summary["checkpoint"] = str(last)
        for callback in trainer.checkpoint_callbacks:
            score = getattr(callback, "best_model_score", None)
            if getattr(callback, "monitor", None) == "eval/nash_conv" and score is not None:
                summary["best_checkpoint"] = callback.best_model_path
                summary["best_nash_conv"] = float(score)
        metrics = {}
        if tree is not None:
            metrics = exact_metrics(pl_module.export_policy(), tree)
            summary |= {"nash_conv": metrics["eval/nash_conv"], "exploitability": metrics["eval/exploitability"]}
        write_json(folder / "summary.json", summary)
        if tree is not None:
            self._print(trainer, pl_module, metrics)
            if self.plot:
                plot_learning_curve(self._curve, tree, type(pl_module).__name__, folder / "learning_curve.png")
        print(f"run folder: {folder}")
        print(f"  {', '.join(sorted(p.name for p in folder.iterdir()))}")
        if last.exists():
            print(f"evaluate:   litrl validate --config {folder / 'config.yaml'} --ckpt_path {last}")

    def _seconds(self) -> float:
        return self._seconds_before + (time.perf_counter() - self._began if self._began else 0.0)

    def _print(self, trainer: L.Trainer, pl_module: L.LightningModule, metrics: dict[str, float]) -> None:
        tree: GameTree = trainer.datamodule.tree
        uniform = tree.evaluate(tree.uniform_policy())
        decisions = int(pl_module.decisions)
        print(f"\n{tree.game.name}, exported policy after {decisions:,} decisions (reward units per game):")
        print(f"  NashConv        {metrics['eval/nash_conv']:.6f}   (uniform policy {uniform.nash_conv:.6f})")
        print(f"  exploitability  {metrics['eval/exploitability']:.6f}   (uniform policy {uniform.exploitability:.6f})")
        print(f"  expected return of player 0  {metrics['eval/return_player_0']:+.6f}")


def thin(curve: list[list[float]], most: int) -> None:
    """Leave out points of a curve until `most` are left: each time the one whose two neighbours lie closest together.

    Evenly spaced points stay so within a factor of two; the first and the last one stay.
    """
    while len(curve) > most:
        del curve[min(range(1, len(curve) - 1), key=lambda i: curve[i + 1][0] - curve[i - 1][0])]


def plot_learning_curve(curve: list[list[float]], tree: GameTree, label: str, path: Path) -> None:
    """NashConv (logarithmic) over decisions, with the uniform policy and 1,000 iterations of CFR+ as yardsticks."""
    from matplotlib.ticker import EngFormatter

    figure = new_figure(7, 4.2)
    axes = figure.subplots()
    decisions, nash_conv = torch.tensor(curve, dtype=torch.float64).reshape(-1, 2).T.tolist()
    axes.plot(decisions, nash_conv, color="#1f5fa8", linewidth=1.8, marker="o", markersize=3, label=label)
    uniform = tree.evaluate(tree.uniform_policy()).nash_conv
    if uniform > 0:
        axes.axhline(uniform, color="#888888", linestyle="--", linewidth=1, label=f"uniform policy, {uniform:.3f}")
    if tree.num_infosets == tree.num_rows and tree.game.zero_sum and tree.game.num_players == 2:
        cfr = tree.evaluate(tree.cfr_plus(1000)).nash_conv
        if cfr > 0:
            axes.axhline(cfr, color="#b3541e", linestyle=":", linewidth=1.2, label=f"CFR+ (tabular), {cfr:.2g}")
    axes.set_yscale("log")
    axes.xaxis.set_major_formatter(EngFormatter(sep=" "))
    axes.set_xlabel("decisions sampled")
    axes.set_ylabel("NashConv (reward units per game)")
    axes.set_title(f"{tree.game.name}: {label}, exported policy")
    axes.grid(True, which="both", alpha=0.2)
    if curve:
        end = (decisions[-1], nash_conv[-1])
        axes.annotate(f"{end[1]:.4f}", end, textcoords="offset points", xytext=(-4, 8), ha="right")
    axes.legend(frameon=False, fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    save_figure(path, figure)
