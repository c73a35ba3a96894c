"""Draw how PPO circles and PPO + moving magnet converges: matching pennies and biased rock-paper-scissors.

    python scripts/trajectory.py [--out .github/rnad_trajectory.png] [--iterations 600]

Both start from the same weights away from the equilibrium, learn from the same number of sampled games, without
entropy bonus; the only difference is alpha KL(pi || pi_ref) with the moving reference. Also prints how far the last
policy is from the equilibrium (NashConv), and draws that over the iterations.
"""

import argparse
import logging
import warnings
from pathlib import Path

import lightning as L
import numpy as np
import torch

from datamodules.self_play import SelfPlayDataModule
from envs.exact import GameTree
from lit_rl.batches import Minibatches
from lit_rl.evaluation import policy_table
from lit_rl.networks import MLP
from lit_rl.ppo import PPO
from lit_rl.references import Magnet
from lit_rl.rnad import RNaD
from lit_rl.run.figures import new_figure, save_figure
from scripts.seeds import ROOT

COLORS = {"PPO": "#b3541e", "PPO + magnet": "#1f5fa8"}
EQUILIBRIUM = {"matching_pennies": (0.5, 0.5), "biased_rps": (0.2, 0.6, 0.2)}


class Recorder(L.Callback):
    """Keeps the last iterate's action probabilities after each iteration."""

    def __init__(self, tree: GameTree):
        self.tree, self.policies = tree, []

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.policies.append(policy_table(pl_module.policy, self.tree))


def last_iterates(algorithm: str, game: str, iterations: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Policies [iterations, rows, A] after each iteration, and their NashConv [iterations]."""
    torch.manual_seed(seed)
    options = dict(
        network=lambda g: MLP(g, hidden=(32,), activation="tanh"), minibatches=Minibatches(1, 1), entropy_coef=0.0,
        optimizer=lambda p: torch.optim.SGD(p, lr=0.05),
    )  # fmt: skip
    if algorithm == "PPO":
        model = PPO(f"envs.{game}", **options)
    else:
        model = RNaD(f"envs.{game}", reference=lambda p, g: Magnet(p, g, rate=0.02), reference_coef=0.5, **options)
    with torch.no_grad():  # both players begin with a habit
        model.policy.policy_head.weight.normal_(std=0.35)
    if algorithm == "PPO + magnet":
        model.reference.policy.load_state_dict(model.policy.state_dict())
    data = SelfPlayDataModule(f"envs.{game}", num_envs=1024, num_steps=2, seed=seed)
    recorder = Recorder(GameTree(data.game))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = L.Trainer(
            accelerator="cpu", max_epochs=iterations, logger=False, enable_checkpointing=False, num_sanity_val_steps=0,
            enable_progress_bar=False, enable_model_summary=False, limit_val_batches=0, callbacks=[recorder],
        )  # fmt: skip
        trainer.fit(model, data)
    tree = recorder.tree
    return np.stack(recorder.policies), np.array([tree.evaluate(p).nash_conv for p in recorder.policies])


def draw(runs: dict, path: Path) -> None:
    """Two planes of policies and the distance to equilibrium; `runs` is {(game, algorithm): last_iterates(...)}."""
    figure = new_figure(13, 4.3)
    left, middle, right = figure.subplots(1, 3)
    corners = np.array([[0.0, 0.0], [0.5, 3**0.5 / 2], [1.0, 0.0]])  # rock, paper, scissors
    middle.plot(*corners[[0, 1, 2, 0]].T, color="#bbbbbb", linewidth=1)
    for (x, y), name, align in zip(corners, ("rock", "paper", "scissors"), ("right", "center", "left")):
        middle.annotate(
            name, (x, y), xytext=(0, 6 if y else -12), textcoords="offset points", ha=align, color="#555555"
        )
    for (game, algorithm), (policies, nash_conv) in runs.items():
        color = COLORS[algorithm]
        if game == "matching_pennies":
            axes, points = left, policies[:, :, 0]  # each player's probability of heads
        else:
            axes, points = middle, policies[:, 0] @ corners
        axes.plot(*points.T, color=color, linewidth=1.1, alpha=0.85, label=algorithm)
        axes.plot(*points[0], "o", color="#333333", markersize=5, zorder=3)
        axes.plot(*points[-1], "s", color=color, markersize=7, markeredgecolor="white", zorder=4)
        style = "-" if game == "biased_rps" else ":"
        right.plot(nash_conv, style, color=color, linewidth=1.2, label=f"{algorithm}, {game.replace('_', ' ')}")
    left.plot(0.5, 0.5, "*", color="#222222", markersize=13, zorder=5)
    middle.plot(*(np.array(EQUILIBRIUM["biased_rps"]) @ corners), "*", color="#222222", markersize=13, zorder=5)
    left.set(xlabel="player 0: probability of heads", ylabel="player 1: probability of heads", title="matching pennies")
    left.set_aspect("equal")
    left.set(xlim=(0, 1), ylim=(0, 1))
    middle.legend(*left.get_legend_handles_labels(), frameon=False, loc="upper left")
    middle.set(title="biased rock-paper-scissors, player 0")
    middle.set_aspect("equal")
    middle.axis("off")
    right.set(yscale="log", xlabel="iteration", ylabel="NashConv of the last iterate", title="distance to equilibrium")
    right.set(ylim=(2e-4, None))
    right.grid(True, which="both", alpha=0.2)
    right.legend(frameon=False, fontsize=8, loc="lower left")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    save_figure(path, figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / ".github" / "rnad_trajectory.png")
    parser.add_argument("--iterations", type=int, default=600)
    args = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    runs = {}
    for game in EQUILIBRIUM:
        for algorithm in COLORS:
            runs[game, algorithm] = last_iterates(algorithm, game, args.iterations)
            last = runs[game, algorithm][1][-50:]
            print(f"{game:<18} {algorithm:<6} NashConv of the last 50 policies: mean {last.mean():.4f}", flush=True)
    draw(runs, args.out)
    print(args.out)


if __name__ == "__main__":
    main()
