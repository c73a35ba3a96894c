"""The command line as a user meets it: a run, its folder, validate again, overlays, strangers' classes."""

import json
import sys
from pathlib import Path

import docstring_parser
import pytest
import torch
import yaml
from harness import ROOT, SMALL

from lit_rl.ppo import PPO

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::lightning.pytorch.utilities.warnings.PossibleUserWarning"),
]


def test_fit_then_validate_prints_the_same_number(command, tmp_path):
    code, out, _ = command("fit", *SMALL, "--trainer.default_root_dir", "here", "--seed_everything", 3)
    run = tmp_path / "here" / "version_0"
    assert code == 0
    assert {p.name for p in run.iterdir()} >= {
        "config.yaml", "metrics.csv", "summary.json", "learning_curve.png", "checkpoints",
    }  # fmt: skip
    files = {p.name for p in (run / "checkpoints").iterdir()}
    assert files == {"best.ckpt", "best.previous.ckpt", "last.ckpt", "last.previous.ckpt", "manifest.json"}
    summary = json.loads((run / "summary.json").read_text())
    assert summary["seed"] == 3 and summary["decisions"] == 4 * 32 * 8
    number = f"NashConv        {summary['nash_conv']:.6f}"
    assert number in out

    code, out, _ = command(
        "validate", "--config", run / "config.yaml", "--ckpt_path", run / "checkpoints" / "last.ckpt"
    )
    assert code == 0 and number in out
    code, out, _ = command("test", "--config", run / "config.yaml", "--ckpt_path", run / "checkpoints" / "last.ckpt")
    assert code == 0 and number in out

    code, out, _ = command("predict", "--config", run / "config.yaml", "--ckpt_path", run / "checkpoints" / "last.ckpt")
    assert code == 0
    rows = [line.split(",") for line in Path(out.split(": ")[-1].strip()).read_text().splitlines()]
    assert rows[0] == ["player", "obs", "pass", "bet"] and len(rows) == 13
    assert all(float(r[2]) + float(r[3]) == pytest.approx(1, abs=1e-5) for r in rows[1:])

    best = json.loads((run / "summary.json").read_text())["best_nash_conv"]
    code, out, _ = command(
        "validate", "--config", run / "config.yaml", "--ckpt_path", run / "checkpoints" / "best.ckpt"
    )
    assert code == 0 and f"NashConv        {best:.6f}" in out


def test_checkpoints_hold_no_code(command, tmp_path):
    """They load with weights_only=True, and a class method alone rebuilds the policy."""
    command("fit", *SMALL, "--trainer.default_root_dir", "here")
    path = tmp_path / "here" / "version_0" / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    assert checkpoint["hyper_parameters"]["game"] == "envs.kuhn_poker"
    model = PPO.load_from_checkpoint(path)
    assert model.policy.policy_head.out_features == 2


def test_saved_config_runs_again_and_the_command_line_wins(command, tmp_path):
    command("fit", *SMALL, "--trainer.default_root_dir", "a")
    code, _, err = command(
        "fit", "--config", tmp_path / "a/version_0/config.yaml", "--model.clip", "0.37",
        "--trainer.default_root_dir", "b", "--trainer.max_epochs", 6,
        "--ckpt_path", tmp_path / "a/version_0/checkpoints/last.ckpt",
    )  # fmt: skip
    assert code == 0, err
    config = yaml.safe_load((tmp_path / "b/version_0/config.yaml").read_text())
    assert config["model"]["init_args"]["clip"] == 0.37
    assert json.loads((tmp_path / "b/version_0/summary.json").read_text())["iterations"] == 6


def test_strangers_classes_from_the_current_folder(command, tmp_path):
    (tmp_path / "my_things.py").write_text(
        "import lightning as L\n"
        "from envs.matrix_game import matrix_game\n"
        "from lit_rl.networks import MLP\n"
        "GAME = matrix_game('mine', [[0, 1], [1, 0]], ['a', 'b'])\n"
        "class Shout(L.Callback):\n"
        "    def __init__(self, word: str): self.word = word\n"
        "    def on_train_end(self, trainer, pl_module): print(self.word)\n"
        "class Net(MLP):\n"
        "    def __init__(self, game, hidden: tuple[int, ...] = (4,)): super().__init__(game, hidden)\n"
    )
    code, out, err = command(
        "fit", *SMALL, "--data.game", "my_things", "--model.network=my_things.Net",
        "--trainer.callbacks+=my_things.Shout", "--trainer.callbacks.word=hoy",
    )  # fmt: skip
    assert code == 0, err
    assert "hoy" in out and "mine, exported policy" in out
    sys.modules.pop("my_things")


@pytest.mark.parametrize("overlay", ["tensorboard", "wandb_offline"])
def test_logger_overlays(command, tmp_path, overlay, monkeypatch):
    pytest.importorskip(overlay.split("_")[0])
    monkeypatch.setenv("WANDB_SILENT", "true")
    code, _, err = command(
        "fit",
        *SMALL,
        "--config",
        ROOT / "configs" / "loggers" / f"{overlay}.yaml",
        "--trainer.default_root_dir",
        "here",
    )
    assert code == 0, err
    assert (tmp_path / "here/version_0/metrics.csv").exists()  # the CSV log is always there
    names = [p.as_posix() for p in tmp_path.rglob("*")]
    assert any("tfevents" in n if overlay == "tensorboard" else n.endswith(".wandb") for n in names)


def test_help_explains_every_argument_of_ours(command):
    code, out, _ = command("fit", "--model.help", "PPO")
    assert code == 0
    out = "".join(out.split())
    for argument in docstring_parser.parse(PPO.__doc__).params:
        assert f"--model.{argument.arg_name}" in out
        if f"--model.{argument.arg_name}." not in out:  # settings explain their own fields
            assert "".join(argument.description.split()) in out, argument.arg_name


def test_print_config_needs_no_run(command, tmp_path):
    code, out, _ = command("fit", *SMALL, "--print_config")
    assert code == 0
    assert yaml.safe_load(out)["data"]["init_args"]["game"] == "envs.kuhn_poker"
    assert not (tmp_path / "runs").exists()
