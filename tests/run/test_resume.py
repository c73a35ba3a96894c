"""Going on from a checkpoint: from any minibatch, with odd rhythms, in a branch, always the same bits."""

import hashlib
import json
import shutil
import signal

import lightning as L
import pytest
import torch
from harness import RUNS, digest, feed, fit_arguments, last_line, resume_arguments
from lightning.pytorch.loggers import CSVLogger

from callbacks.last_checkpoint import LastCheckpoint
from callbacks.scalar_schedule import ScalarSchedule
from lit_rl.schedules import Cosine, Linear

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # fork of a process with threads
]


@pytest.mark.parametrize(
    ("precision", "numbers"),
    [
        ("32-true", (0, 3, 4, 5, 6, 7, 11, 18, 22)),
        pytest.param("bf16-mixed", (0, 4, 6, 22), marks=pytest.mark.slow),
    ],
)
def test_every_minibatch_is_a_place_to_go_on_from(litrl, tmp_path, undisturbed, precision, numbers):
    """Stopped after each minibatch of some iterations, first, middle and last ones: always the same bits."""
    short = ["--trainer.precision", precision, "--trainer.max_epochs", "6", "--trainer.check_val_every_n_epoch", "2"]
    name = "leduc_ppo"  # four minibatches per iteration
    assert litrl(fit_arguments(name, tmp_path / "whole") + short, tmp_path / "log") == 0
    reference = digest(tmp_path / "whole" / "version_0")
    for number in numbers:
        root = tmp_path / str(number)
        assert litrl(fit_arguments(name, root) + short, tmp_path / "log", sabotage=("stop_after_batch", number)) == 143
        assert litrl(resume_arguments(root / "version_0"), tmp_path / "log") == 0, last_line(tmp_path / "log")
        assert digest(root / "version_0") == reference, number


def test_stopped_at_borders_and_within_again_and_again(litrl, tmp_path):
    """Lightning's counters stay in step: twice between two iterations, then within one; the run can be made longer."""
    short = ["--trainer.max_epochs", "8", "--trainer.check_val_every_n_epoch", "2"]
    assert litrl(fit_arguments("leduc_ppo", tmp_path / "whole") + short, tmp_path / "log") == 0
    arguments, folder = fit_arguments("leduc_ppo", tmp_path / "a") + short, tmp_path / "a" / "version_0"
    for minibatch, current in ((7, [2, 2, 2, 2]), (15, [4, 4, 4, 4]), (18, [4, 4, 5, 5]), (23, [6, 6, 6, 6])):
        code = litrl(arguments, tmp_path / "log", sabotage=("stop_after_batch", minibatch))
        assert code == 143, last_line(tmp_path / "log")
        progress = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["loops"]["fit_loop"]
        for counts in (progress["epoch_progress"]["total"], progress["epoch_progress"]["current"]):
            assert [counts[name] for name in ("completed", "processed", "started", "ready")] == current
        arguments = resume_arguments(folder)
    assert litrl(arguments, tmp_path / "log") == 0, last_line(tmp_path / "log")
    assert digest(folder) == digest(tmp_path / "whole" / "version_0")
    longer = [*resume_arguments(folder), "--trainer.max_epochs", "9"]
    assert litrl(longer, tmp_path / "log") == 0, last_line(tmp_path / "log")


@pytest.mark.parametrize("name", ["last_card_ppo", pytest.param("last_card_neurd", marks=pytest.mark.slow)])
def test_memories_go_on_to_the_last_bit(litrl, tmp_path, undisturbed, name):
    """Stopped between the passes over a rollout, at its ends and within: stored, refreshed and references' memories."""
    short = ["--trainer.max_epochs", "5" if name == "last_card_ppo" else "11", "--trainer.check_val_every_n_epoch", "2"]
    assert litrl(fit_arguments(name, tmp_path / "whole") + short, tmp_path / "log") == 0, last_line(tmp_path / "log")
    reference = digest(tmp_path / "whole" / "version_0")
    for number in (0, 5, 6, 7, 8, 9):
        root = tmp_path / str(number)
        code = litrl(fit_arguments(name, root) + short, tmp_path / "log", sabotage=("stop_after_batch", number))
        assert code == 143, last_line(tmp_path / "log")
        assert litrl(resume_arguments(root / "version_0"), tmp_path / "log") == 0, last_line(tmp_path / "log")
        assert digest(root / "version_0") == reference, number


@pytest.mark.parametrize(
    "odd",
    [
        ["--trainer.accumulate_grad_batches", "2"],
        ["--trainer.limit_train_batches", "3"],
        ["--trainer.val_check_interval", "2"],
    ],
    ids=lambda odd: odd[0],
)
def test_trainers_with_odd_rhythms(litrl, tmp_path, odd):
    """Stopped in the middle of accumulated gradients, short of a rollout's last batch, where a validation is due."""
    short = ["--trainer.max_epochs", "5", "--trainer.check_val_every_n_epoch", "1", *odd]
    assert litrl(fit_arguments("leduc_ppo", tmp_path / "whole") + short, tmp_path / "log") == 0
    for number in (4, 5, 6):
        root = tmp_path / str(number)
        args = fit_arguments("leduc_ppo", root) + short
        assert litrl(args, tmp_path / "log", sabotage=("stop_after_batch", number)) == 143
        assert litrl(resume_arguments(root / "version_0"), tmp_path / "log") == 0, last_line(tmp_path / "log")
        assert digest(root / "version_0") == digest(tmp_path / "whole" / "version_0"), number


def test_a_run_that_stopped_early_stays_as_it_is(litrl, tmp_path):
    """EarlyStopping ended it; going on from its last checkpoint does not train on."""
    early = [
        "--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor", "eval/nash_conv",
        "--trainer.callbacks.patience", "1", "--trainer.callbacks.min_delta", "5",
    ]  # fmt: skip
    assert litrl(fit_arguments("kuhn_ppo", tmp_path) + early, tmp_path / "log") == 0
    folder = tmp_path / "version_0"
    before, iterations = digest(folder), json.loads((folder / "status.json").read_text())["iteration"]
    assert iterations < 60
    assert litrl(resume_arguments(folder), tmp_path / "log") == 0
    assert json.loads((folder / "status.json").read_text())["iteration"] == iterations
    assert digest(folder) == before


def test_a_branch_killed_before_its_first_checkpoint_begins_where_it_began(litrl, tmp_path, undisturbed):
    start = str(undisturbed["kuhn_ppo"][2] / "checkpoints" / "best.ckpt")
    branch = ["--ckpt_path", start, "--trainer.max_epochs", "70"]  # the best may be the last of 60
    assert litrl(fit_arguments("kuhn_ppo", tmp_path / "a") + branch, tmp_path / "log") == 0
    killed = litrl(fit_arguments("kuhn_ppo", tmp_path / "b") + branch, tmp_path / "log", sabotage=("die_at_start",))
    assert killed == -signal.SIGKILL
    assert litrl(resume_arguments(tmp_path / "b" / "version_0"), tmp_path / "log") == 0
    assert digest(tmp_path / "b" / "version_0") == digest(tmp_path / "a" / "version_0")


def test_a_longer_run_goes_on_from_the_end_of_a_shorter_one(litrl, tmp_path, undisturbed):
    """With schedules that do not depend on the length; the end of a run is a border like any other."""
    constant = ["--model.lr_schedule", "null", "--config", "constant.yaml"]
    (tmp_path / "constant.yaml").write_text("trainer: {callbacks: []}\n")
    constant[-1] = str(tmp_path / "constant.yaml")
    base = [*RUNS["kuhn_ppo"], *constant, "--trainer.enable_progress_bar", "false"]
    for root, epochs in (("long", "7"), ("short", "4")):
        args = ["fit", *base, "--trainer.max_epochs", epochs, "--trainer.default_root_dir", str(tmp_path / root)]
        assert litrl(args, tmp_path / "log") == 0, (tmp_path / "log").read_text()[-2000:]
    folder = tmp_path / "short" / "version_0"
    assert litrl([*resume_arguments(folder), "--trainer.max_epochs", "7"], tmp_path / "log") == 0
    weights = [
        torch.load(f / "checkpoints/last.ckpt", weights_only=True) for f in (tmp_path / "long/version_0", folder)
    ]
    for name, tensor in weights[0]["state_dict"].items():
        assert torch.equal(tensor, weights[1]["state_dict"][name]), name
    assert weights[0]["SelfPlayDataModule"]["ranks"][0]["env"] == weights[1]["SelfPlayDataModule"]["ranks"][0]["env"]


class Rates(L.Callback):
    """The learning rate of each iteration."""

    def __init__(self):
        self.of = {}

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.of.setdefault(trainer.current_epoch, trainer.optimizers[0].param_groups[0]["lr"])


@pytest.mark.parametrize("interval", ["iteration", "step"])
@pytest.mark.parametrize("before", [None, Linear(1.0, 0.5), lambda o: torch.optim.lr_scheduler.LinearLR(o, 0.5)])
def test_a_run_is_extended_with_a_new_schedule(make_fit, tmp_path, before, interval):
    """Whatever its learning rate did before, from the checkpoint on it is the new schedule's at that iteration."""
    folder = {"enable_checkpointing": True, "callbacks": [LastCheckpoint()], "logger": CSVLogger(tmp_path, name="")}
    trainer, model, data = make_fit({"lr_schedule": before}, max_epochs=3, **folder)
    trainer.fit(model, data)
    rates, schedule = Rates(), Cosine(2.0, 0.1)
    folder["callbacks"] = [LastCheckpoint(), rates, ScalarSchedule("model.entropy_coef", Linear(0.07, 0.0))]
    folder["logger"] = CSVLogger(tmp_path, name="")
    trainer, model, data = make_fit({"lr_schedule": schedule, "lr_interval": interval}, max_epochs=8, **folder)
    trainer.fit(model, data, ckpt_path=str(tmp_path / "version_0" / "checkpoints" / "last.ckpt"))
    base, batches = model.optimizer(model.parameters()).defaults["lr"], model.batches_per_iteration
    each = 1 if interval == "iteration" else batches
    expected = {i: base * schedule(i * each, 8 * each) for i in range(3, 8)}
    assert rates.of == pytest.approx(expected, rel=1e-12)
    assert model.entropy_coef == 0.0


def test_what_of_a_new_configuration_has_no_effect_is_said(litrl, tmp_path, undisturbed):
    """One line for what is the checkpoint's, one for what changes, one for what cannot; refusals name the setting."""
    start = ["--ckpt_path", str(undisturbed["kuhn_ppo"][2] / "checkpoints" / "last.ckpt"), "--trainer.max_epochs", "62"]
    other = [
        "--model.lr_schedule", "Cosine", "--model.lr_schedule.start", "0.5", "--model.clip", "0.07",
        "--model.optimizer.init_args.lr", "0.5", "--seed_everything", "9",
    ]  # fmt: skip
    assert litrl([*fit_arguments("kuhn_ppo", tmp_path), *start, *other], tmp_path / "log") == 0
    said = (tmp_path / "log").read_text()
    assert "goes on from PPO on kuhn_poker at iteration 60 of 62" in said
    (acts,) = [line for line in said.splitlines() if "the configuration's, from here on" in line]
    assert "clip 0.07 (was 0.1)" in acts and "lr_schedule lit_rl.schedules.Cosine (was " in acts
    (void,) = [line for line in said.splitlines() if "without effect, since the optimizer" in line]
    assert void.endswith("optimizer.lr 0.5 (was 0.002)")
    assert "seed=9 has no effect" in said and "model.entropy_coef goes on at" in said
    scheduler = ["--model.lr_schedule", "torch.optim.lr_scheduler.StepLR", "--model.lr_schedule.step_size", "5"]
    for i, (more, words) in enumerate(
        [
            (
                ["--model.optimizer", "torch.optim.SGD", "--model.optimizer.lr", "0.1"],
                "model.optimizer=torch.optim.SGD",
            ),
            (scheduler, "model.lr_schedule=torch.optim.lr_scheduler.StepLR: the checkpoint's is"),
            (["--trainer.max_epochs", "50"], "current_epoch=60, but you have set Trainer(max_epochs=50)"),
            (["--data.num_envs", "16"], "data.num_envs"),
        ]
    ):
        assert litrl([*fit_arguments("kuhn_ppo", tmp_path), *start, *more], tmp_path / f"log{i}") == 2
        assert words in last_line(tmp_path / f"log{i}")


def test_validation_changes_nothing(litrl, tmp_path, undisturbed):
    def weights(root):
        hasher = hashlib.sha256()
        checkpoint = torch.load(root / "version_0" / "checkpoints" / "last.ckpt", weights_only=True)
        feed(hasher, [checkpoint["state_dict"], checkpoint["SelfPlayDataModule"]])
        return hasher.hexdigest()

    never = ["--trainer.limit_val_batches", "0"]
    assert litrl(fit_arguments("kuhn_ppo", tmp_path) + never, tmp_path / "log") == 0, (tmp_path / "log").read_text()
    assert weights(tmp_path) == weights(undisturbed["kuhn_ppo"][2].parent)


def test_a_checkpoint_of_another_game_algorithm_or_network_is_refused(litrl, tmp_path, undisturbed):
    kuhn, leduc = (str(undisturbed[name][2] / "checkpoints" / "last.ckpt") for name in ("kuhn_ppo", "leduc_ppo"))
    cases = [
        (["--ckpt_path", leduc], "checkpoint is of PPO on leduc_poker (rules 1.0), this run is PPO on kuhn"),
        (
            ["--ckpt_path", kuhn, "--model.network.hidden", "[8]"],
            "policy_head.weight has shape (2, 64) there and (2, 8) here",
        ),
    ]
    for i, (more, words) in enumerate(cases):
        assert litrl(fit_arguments("kuhn_ppo", tmp_path) + more, tmp_path / f"log{i}") == 3
        assert words in last_line(tmp_path / f"log{i}")


LOST = {
    "missing": shutil.rmtree,
    "empty": lambda folder: [path.unlink() for path in folder.iterdir()],
    "unreadable": lambda folder: [path.write_bytes(b"no") for path in folder.glob("*.ckpt")],
    "no folder": lambda folder: (shutil.rmtree(folder), folder.write_text("")),
    "not resumable": lambda folder: [weights_alone(path) for path in folder.iterdir()],
    "without files": lambda folder: [path.unlink() for path in folder.glob("*.ckpt")],
    "no longer known": lambda folder: (shutil.rmtree(folder), (folder.parent / "status.json").unlink()),
    "known by half": lambda folder: (shutil.rmtree(folder), (folder.parent / "status.json").write_text("[1]")),
}


def weights_alone(path):
    if path.name == "last.ckpt":
        torch.save({"state_dict": torch.load(path, weights_only=True)["state_dict"], "global_step": 3}, path)
    else:
        path.unlink()


def content_of(folder):
    """Of every file below it, but for the lock that names its last holder."""
    return {
        path.relative_to(folder): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "lock"
    }


@pytest.mark.parametrize("how", LOST)
def test_lost_checkpoints_lose_nothing_else(litrl, tmp_path, undisturbed, how):
    """A run that got as far as a checkpoint is never begun anew in its folder; not a byte there changes."""
    folder = tmp_path / "version_0"
    shutil.copytree(undisturbed["kuhn_ppo"][2], folder)
    LOST[how](folder / "checkpoints")
    before = content_of(folder)
    assert litrl(resume_arguments(folder), tmp_path / "log") == 3
    assert last_line(tmp_path / "log").startswith(
        f"error[3]: ckpt_path=last: no checkpoint in {folder / 'checkpoints'}"
    )
    assert content_of(folder) == before


@pytest.mark.parametrize(
    "sabotage",
    [("die_at_start",), ("die_in_first_save", "stage_checkpoint"), ("die_in_first_save", "add_to_manifest")],
    ids=lambda name: name[-1],
)
def test_a_run_killed_before_its_first_checkpoint_begins_anew(litrl, tmp_path, undisturbed, sabotage):
    """Its status.json proves that there was none; what it had logged is moved aside all the same."""
    assert litrl(fit_arguments("kuhn_ppo", tmp_path), tmp_path / "log", sabotage=sabotage) == -signal.SIGKILL
    folder = tmp_path / "version_0"
    assert json.loads((folder / "status.json").read_text())["checkpointed"] is False
    logged = {
        name: (folder / name).read_bytes() for name in ("metrics.csv", "replay.jsonl") if (folder / name).exists()
    }
    assert "replay.jsonl" in logged
    assert litrl(resume_arguments(folder), tmp_path / "log") == 0, last_line(tmp_path / "log")
    assert digest(folder) == undisturbed["kuhn_ppo"][0]
    assert json.loads((folder / "status.json").read_text())["checkpointed"] is True
    for name, content in logged.items():
        stem, suffix = name.split(".")
        assert (folder / f"{stem}.previous.{suffix}").read_bytes() == content


def test_a_run_killed_before_it_says_that_it_has_a_checkpoint_goes_on(litrl, tmp_path, undisturbed):
    sabotage = ("die_in_first_save", "sync_folder")
    assert litrl(fit_arguments("kuhn_ppo", tmp_path), tmp_path / "log", sabotage=sabotage) == -signal.SIGKILL
    folder = tmp_path / "version_0"
    assert json.loads((folder / "status.json").read_text())["checkpointed"] is False
    assert litrl(resume_arguments(folder), tmp_path / "log") == 0, last_line(tmp_path / "log")
    assert "going on from" in (tmp_path / "log").read_text() and "last.ckpt" in (tmp_path / "log").read_text()
    assert digest(folder) == undisturbed["kuhn_ppo"][0]


def test_another_configuration_is_moved_aside(litrl, tmp_path, undisturbed):
    folder = tmp_path / "version_0"
    shutil.copytree(undisturbed["kuhn_ppo"][2], folder)
    before = (folder / "config.yaml").read_bytes()
    for _ in range(2):  # the second time it is the same one
        assert litrl([*resume_arguments(folder), "--trainer.max_epochs", "61"], tmp_path / "log") == 0
    assert (folder / "config.previous.yaml").read_bytes() == before != (folder / "config.yaml").read_bytes()
    assert not (folder / "config.previous2.yaml").exists()
