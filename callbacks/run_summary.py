"""What a run leaves behind: summary.json, a learning curve, and the numbers on the screen."""

import csv
import io
import itertools
import time
from pathlib import Path

import lightning as L
import torch

from envs.exact.evaluation import all_rows
from lit_rl.evaluation import Evaluation, Exact, evaluator_for
from lit_rl.policy import state_shape_of
from lit_rl.run.checkpoint_files import replace_file
from lit_rl.run.figures import new_figure, save_figure
from lit_rl.run.run_folder import write_json
from lit_rl.run.saved_values import saved_dict, saved_float, saved_list

CURVE_POINTS = 500  # about as many as the picture has columns of pixels for
UNTRAINED = "no --ckpt_path: what follows is of an untrained network, with the weights it begins with"
COLOURS = (("#888888", "--"), ("#b3541e", ":"), ("#2f7d4f", "-."), ("#7a4fa3", "--"))  # of yardsticks, over and over


class RunSummary(L.Callback):
    """Print what `data.evaluation` measures of the exported policy, after fit, validate and test.

    After a fit the run folder also holds summary.json, learning_curve.png, of the first evaluation's headline, and a
    picture of matches by opponent and seat: matches.png. `litrl validate` draws that of a checkpoint into its run
    folder, matches_<checkpoint>.png. `litrl predict` writes the exported policy: policy.csv.

    Args:
        plot: draw pictures.
    """

    def __init__(self, plot: bool = True):
        self.plot = plot
        self._began, self._seconds_before = 0.0, 0.0
        self._log_dir: str | None = None
        self._curve: list[list[float]] = []  # [decisions, headline] of validations
        self._measured_at = 0.0  # decisions, of the running validation

    def state_dict(self) -> dict:
        return {"curve": self._curve, "seconds": self._seconds()}

    def load_state_dict(self, state_dict: dict) -> None:
        saved_dict(state_dict, "RunSummary", ("curve", "seconds"))
        self._curve = [
            [saved_float(x, "RunSummary.curve") for x in saved_list(point, "RunSummary.curve", 2)]
            for point in saved_list(state_dict["curve"], "RunSummary.curve")
        ]
        self._seconds_before = saved_float(state_dict["seconds"], "RunSummary.seconds", 0.0)

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._began = time.perf_counter()
        log_dir = trainer.log_dir  # on every rank: Lightning broadcasts it
        self._log_dir = log_dir if trainer.loggers else None  # without a logger it is where run folders would lie

    def on_validation_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, outputs, batch, *args) -> None:
        """Remember where the point lies: what was done beside training is of an earlier policy."""
        decisions = getattr(batch, "decisions", None)
        self._measured_at = float(pl_module.decisions if decisions is None else decisions)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        jobs = trainer.datamodule.evaluation
        if trainer.state.fn == "fit" and jobs and jobs[0].headline in trainer.callback_metrics:
            self._curve.append([self._measured_at, float(trainer.callback_metrics[jobs[0].headline])])
            thin(self._curve, CURVE_POINTS)
        elif trainer.state.fn != "fit" and trainer.is_global_zero:
            self._measure(trainer, pl_module)

    on_test_end = on_validation_end

    def on_predict_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, outputs, batch, *args) -> None:
        """Write policy.csv: each infostate (player, obs) with the probability of each action; of a policy with a memory
        each infoset, and the row (from 0) of the one at which the same player decided before, -1 for none."""
        if not trainer.is_global_zero:
            return
        job: Exact = batch
        policy = pl_module.export_policy()
        evaluator, remembers = evaluator_for(policy, job.evaluator), bool(state_shape_of(policy))
        names = evaluator.game.action_names or [str(a) for a in range(evaluator.game.num_actions)]
        path = _judged_folder(trainer) / "policy.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        text = io.StringIO(newline="")
        writer = csv.writer(text)
        writer.writerow(["player", "obs", *(["before"] if remembers else []), *names])
        rows = ((player, obs) for some, _, players in all_rows(evaluator) for player, obs in zip(players, some))
        pasts = ([before] for before in evaluator.before) if remembers else itertools.repeat([], evaluator.num_rows)
        for (player, obs), past, probs in zip(rows, pasts, outputs.tolist(), strict=True):
            writer.writerow([player, " ".join(str(x) for x in obs.flatten()), *past, *(f"{p:.6f}" for p in probs)])
        replace_file(path, text.getvalue().encode())
        if _is_untrained(trainer, pl_module):
            print(UNTRAINED)
        print(f"policy of {evaluator.num_rows} infostates: {path}")

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        measured = self._measure(trainer, pl_module)
        if self._log_dir is None:
            return
        folder = Path(self._log_dir)
        last = folder / "checkpoints" / "last.ckpt"
        jobs = trainer.datamodule.evaluation
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
            if score is not None and getattr(callback, "monitor", None):
                summary["best_checkpoint"] = callback.best_model_path
                summary["best_" + callback.monitor.removeprefix("eval/").replace("/", "_")] = float(score)
        write_json(folder / "summary.json", summary | measured)
        if jobs and self.plot:
            title = f"{trainer.datamodule.game.name}: {type(pl_module).__name__}, exported policy"
            plot_learning_curve(self._curve, jobs[0], title, folder / "learning_curve.png")
        print(f"run folder: {folder}")
        print(f"  {', '.join(sorted(p.name for p in folder.iterdir()))}")
        if last.exists() and (folder / "config.yaml").exists():
            print(f"evaluate:   litrl validate --config {folder / 'config.yaml'} --ckpt_path {last}")
        elif last.exists():
            print(f'load:       lit_rl.load_policy("{last}")')

    def _end_curve(self, decisions: float, value: float) -> None:
        """The last point of a run that trainer.max_steps, max_time or EarlyStopping has ended."""
        if not self._curve or self._curve[-1][0] != decisions:
            self._curve.append([decisions, value])

    def _seconds(self) -> float:
        return self._seconds_before + (time.perf_counter() - self._began if self._began else 0.0)

    def _measure(self, trainer: L.Trainer, pl_module: L.LightningModule) -> dict:
        """Do all evaluations once more, in full precision, and print them; what summary.json is to say."""
        jobs, summary = trainer.datamodule.evaluation, {}
        if jobs:
            name, decisions = trainer.datamodule.game.name, int(pl_module.decisions)
            if _is_untrained(trainer, pl_module):
                print(UNTRAINED)
            print(f"\n{name}, exported policy after {decisions:,} decisions (reward units per game):")
        for i, job in enumerate(jobs):
            metrics = job(pl_module.export_policy())
            if i == 0 and trainer.state.fn == "fit" and job.headline in metrics:
                self._end_curve(float(decisions), metrics[job.headline])
            summary |= job.summary(metrics)
            print("\n".join(f"  {line}" for line in job.lines(metrics)))
            self._draw(job, trainer, pl_module)
        return summary

    def _draw(self, job: Evaluation, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        name, fits = type(job).__name__.lower(), trainer.state.fn == "fit"
        if not self.plot or (fits and self._log_dir is None):
            return
        judged = Path(trainer.ckpt_path).stem if trainer.ckpt_path and not fits else None
        folder = Path(self._log_dir) if fits else _judged_folder(trainer)
        path = folder / (f"{name}.png" if judged is None else f"{name}_{judged}.png")
        what = f"{trainer.datamodule.game.name}: {type(pl_module).__name__}"
        drawn = job.draw(f"{what} after {int(pl_module.decisions):,} decisions", path)
        if drawn and not fits:
            print(f"  picture: {path}")


def _judged_folder(trainer: L.Trainer) -> Path:
    """The run folder of the checkpoint that is judged; where run folders would lie if it has none."""
    checkpoints = Path(trainer.ckpt_path).parent if trainer.ckpt_path else Path()
    return checkpoints.parent if checkpoints.name == "checkpoints" else Path(trainer.default_root_dir)


def _is_untrained(trainer: L.Trainer, pl_module: L.LightningModule) -> bool:
    return trainer.state.fn != "fit" and trainer.ckpt_path is None and int(pl_module.decisions) == 0


def thin(curve: list[list[float]], most: int) -> None:
    """Leave out points of a curve until `most` are left: each time the one whose two neighbours lie closest together.

    Evenly spaced points stay so within a factor of two; the first and the last one stay.
    """
    while len(curve) > most:
        del curve[min(range(1, len(curve) - 1), key=lambda i: curve[i + 1][0] - curve[i - 1][0])]


def plot_learning_curve(curve: list[list[float]], job: Evaluation, title: str, path: Path) -> None:
    """The headline of an evaluation over decisions, with its yardsticks."""
    from matplotlib.ticker import EngFormatter

    figure = new_figure(7, 4.2)
    axes = figure.subplots()
    decisions, values = torch.tensor(curve, dtype=torch.float64).reshape(-1, 2).T.tolist()
    axes.plot(decisions, values, color="#1f5fa8", linewidth=1.8, marker="o", markersize=3, label=title.split(": ")[-1])
    for (name, value), (colour, style) in zip(job.yardsticks().items(), itertools.cycle(COLOURS)):
        axes.axhline(value, color=colour, linestyle=style, linewidth=1.2, label=f"{name}, {value:.4g}")
    if job.logarithmic:
        axes.set_yscale("log")
    axes.xaxis.set_major_formatter(EngFormatter(sep=" "))
    axes.set_xlabel("decisions sampled")
    axes.set_ylabel(job.label)
    axes.set_title(title)
    axes.grid(True, which="both", alpha=0.2)
    if curve:
        end = (decisions[-1], values[-1])
        axes.annotate(f"{end[1]:.4g}", end, textcoords="offset points", xytext=(-4, 8), ha="right")
    axes.legend(framealpha=0.9, edgecolor="none", fontsize=9)  # yardsticks may run behind it
    axes.spines[["top", "right"]].set_visible(False)
    save_figure(path, figure)
