"""The command line as a user meets it: a run, its folder, validate again, overlays, strangers' classes."""

import json
import sys
from pathlib import Path

import docstring_parser
import pytest
import torch
import yaml
from harness import ROOT, SMALL

from lit_rl.cli import LitRLCLI
from lit_rl.ppo import PPO
from lit_rl.run.errors import ConfigError

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


def test_a_packaged_config_goes_by_its_name_and_a_path_means_a_path(command, tmp_path):
    code, out, _ = command("fit", "--config", "leduc_ppo", "--config=loggers/tensorboard", "--print_config")
    config = yaml.safe_load(out)
    assert code == 0 and config["data"]["init_args"]["game"] == "envs.leduc_poker"
    assert config["trainer"]["logger"]["class_path"] == "lit_rl.run.run_folder.RunTensorBoard"
    (tmp_path / "leduc_ppo").write_text((ROOT / "configs" / "kuhn_ppo.yaml").read_text())
    code, out, _ = command("fit", "--config", "leduc_ppo", "--print_config")
    assert code == 0 and yaml.safe_load(out)["data"]["init_args"]["game"] == "envs.kuhn_poker"


@pytest.mark.parametrize("config", sorted(path.stem for path in (ROOT / "configs").glob("*.yaml")))
def test_no_config_gives_a_number_that_a_schedule_owns(command, monkeypatch, config):
    """All of ours pass the check that `litrl fit` makes, right before anything is built."""

    def checked(self):
        raise ConfigError("all is checked")

    monkeypatch.setattr(LitRLCLI, "instantiate_classes", checked)
    code, _, err = command("fit", "--config", config)
    assert code == 2 and err.splitlines()[-1] == "error[2]: all is checked"


def test_what_is_always_on_can_be_left_out_by_name(command, tmp_path):
    words = ("--without", "[RunSummary, LastCheckpoint, Validations]", "--trainer.default_root_dir", "here")
    code, out, _ = command("fit", *SMALL, *words)
    names = {path.name for path in (tmp_path / "here" / "version_0").iterdir()}
    assert code == 0 and not names & {"summary.json", "learning_curve.png", "status.json"} and "NashConv" not in out
    assert {"config.yaml", "metrics.csv"} <= names
    listed = ("--trainer.callbacks+=RunSummary", "--trainer.callbacks.plot=false")
    code, out, _ = command("fit", *SMALL, *listed, "--without", "RunSummary", "--trainer.max_epochs", 1)
    assert code == 0 and "run folder" not in out


def test_judging_an_untrained_network_is_said(command, tmp_path):
    code, out, _ = command("validate", *SMALL)
    assert code == 0 and "no --ckpt_path: what follows is of an untrained network" in out
    code, out, _ = command("predict", *SMALL, "--trainer.default_root_dir", "here")
    assert code == 0 and "untrained network" in out
    command("fit", *SMALL, "--trainer.default_root_dir", "here")
    last = tmp_path / "here" / "version_0" / "checkpoints" / "last.ckpt"
    code, out, _ = command("validate", *SMALL, "--ckpt_path", last)
    assert code == 0 and "untrained" not in out


def test_a_checkpoint_of_something_else_is_refused_before_anything_is_compiled(command, tmp_path, monkeypatch):
    command("fit", *SMALL, "--trainer.default_root_dir", "here")
    last = tmp_path / "here" / "version_0" / "checkpoints" / "last.ckpt"

    def too_late(*args, **kwargs):
        raise AssertionError("compiled")

    for name in ("rehearse", "open_evaluation"):
        monkeypatch.setattr(f"datamodules.self_play.{name}", too_late)
    other = ("--data.game", "envs.leduc_poker", "--ckpt_path", last)
    for subcommand, words, found in (
        ("fit", other, "checkpoint is of PPO on kuhn_poker"),
        ("validate", other, "checkpoint is of PPO on kuhn_poker"),
        ("predict", ("--model.network.hidden", "[5]", "--ckpt_path", last), "has shape"),
    ):
        code, _, err = command(subcommand, *SMALL, *words)
        assert code == 3 and found in err.splitlines()[-1], err


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
    beside = (tmp_path / "here" / "version_0" / "tensorboard").as_posix()  # in the run folder
    assert any(
        "tfevents" in n and n.startswith(beside) if overlay == "tensorboard" else n.endswith(".wandb") for n in names
    )


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
