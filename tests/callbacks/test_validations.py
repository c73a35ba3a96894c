"""Validations: the last iteration is validated, a run has ten points at least; slow ones are done beside training."""

import csv
import threading

import lightning as L
import pytest
import torch
from conftest import small_mlp
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from callbacks.run_summary import RunSummary
from callbacks.trainer import Trainer
from callbacks.validations import Validations
from datamodules.self_play import SelfPlayDataModule
from lit_rl.evaluation import Evaluation, Exact, exact_metrics
from lit_rl.ppo import PPO
from lit_rl.run.signals import Stopped
from lit_rl.run.study.runs import read_run


@pytest.mark.parametrize(
    ("length", "asked", "where"),
    [
        (4, 100, [1, 2, 3, 4]),
        (25, 100, [2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 25]),
        (12, 1, list(range(1, 13))),
        (40, 3, [*range(3, 40, 3), 40]),
    ],
)
def test_iterations_that_are_validated(make_fit, length, asked, where):
    summary, validations = RunSummary(plot=False), Validations()
    trainer, model, data = make_fit(
        data={"num_envs": 4, "num_steps": 2}, max_epochs=length, check_val_every_n_epoch=asked,
        callbacks=[validations, summary],
    )  # fmt: skip
    trainer.fit(model, data)
    assert [point[0] / 8 for point in summary._curve] == where
    assert trainer.check_val_every_n_epoch == asked  # as it was, for whatever comes next


def test_fewer_if_asked_for_and_the_end_alone_if_switched_off(make_fit):
    for options, number in (({}, 2), ({"limit_val_batches": 0}, 1)):
        summary = RunSummary(plot=False)
        trainer, model, data = make_fit(
            data={"num_envs": 4, "num_steps": 2}, max_epochs=9, check_val_every_n_epoch=5,
            callbacks=[Validations(least=1), summary], **options,
        )  # fmt: skip
        trainer.fit(model, data)
        assert len(summary._curve) == number


def test_a_run_that_ends_early_has_its_last_point(make_fit, tmp_path):
    from lightning.pytorch.loggers import CSVLogger

    summary = RunSummary()
    trainer, model, data = make_fit(
        data={"num_envs": 4, "num_steps": 2}, model={"update_epochs": 1, "num_minibatches": 1}, max_epochs=-1,
        max_steps=3, check_val_every_n_epoch=100, callbacks=[Validations(), summary],
        logger=CSVLogger(tmp_path, name=""),
    )  # fmt: skip
    trainer.fit(model, data)
    assert [point[0] for point in summary._curve] == [24.0]


# Beside training


class Slow(Exact):
    slow = True


class Truth(L.Callback):
    """NashConv by decisions, of every policy that a run has had at the border of two iterations; and its thread."""

    def __init__(self):
        self.found, self.beside = {}, set()

    def on_train_epoch_start(self, trainer, pl_module):
        metrics = exact_metrics(pl_module.export_policy(), trainer.datamodule.tree)
        self.found[float(pl_module.decisions)] = metrics["eval/nash_conv"]
        self.beside |= {each.name for each in threading.enumerate()}


def run(folder, *callbacks, job=None, length=40, ckpt_path=None, **options):
    """(trainer, model, summary) of a run of `length` iterations of 32 decisions."""
    L.seed_everything(5)
    model = PPO("envs.kuhn_poker", network=small_mlp)
    evaluation = [Slow() if job is None else job]
    data = SelfPlayDataModule("envs.kuhn_poker", num_envs=8, num_steps=4, evaluation=evaluation)
    summary = RunSummary()
    trainer = Trainer(
        max_epochs=length, default_root_dir=folder, accelerator="cpu", enable_progress_bar=False,
        callbacks=[summary, *callbacks], **options,
    )  # fmt: skip
    trainer.fit(model, data, ckpt_path=ckpt_path)
    return trainer, model, summary


def keep_best():
    return ModelCheckpoint(monitor="eval/nash_conv", filename="best", enable_version_counter=False)


def weights(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def test_slow_evaluations_leave_the_weights_alone_and_say_where_they_measured(tmp_path):
    truth = Truth()
    trainer, model, summary = run(tmp_path / "beside", Validations(share=1.0), truth)
    _, without, _ = run(tmp_path / "without", limit_val_batches=0)
    assert torch.equal(weights(model), weights(without))
    assert "measurement" in truth.beside
    *before, last = summary._curve
    assert len(before) >= 2 and last[0] == 40 * 32
    assert {at for at, _ in before} <= {32.0 * i for i in range(1, 40)}
    for at, value in before:
        assert value == pytest.approx(truth.found[at], abs=1e-6)
    with (trainer.run_folder / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["eval/nash_conv"]]
    at = [float(row["eval/decisions"]) for row in rows if row["eval/decisions"]]
    assert at == [point[0] for point in before]
    assert all(float(row["perf/evaluation_forward_seconds"]) > 0 for row in rows)
    assert read_run(trainer.run_folder).series("eval/nash_conv")[0] == [*at, last[0]]
    assert not (trainer.run_folder / "checkpoints" / "measured.ckpt").exists()


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
def test_the_best_file_is_the_run_where_it_was_measured(tmp_path):
    best = keep_best()
    trainer, model, _ = run(tmp_path / "whole", Validations(share=1.0), best)
    path = trainer.run_folder / "checkpoints" / "best.ckpt"
    stored = torch.load(path, weights_only=True)
    again, model_then = PPO("envs.kuhn_poker", network=small_mlp), Exact()
    again.load_state_dict(stored["state_dict"])
    model_then.open(again.game, 0, None)
    assert model_then(again.export_policy())["eval/nash_conv"] == pytest.approx(float(best.best_model_score), abs=1e-6)
    if int(again.decisions) < 40 * 32:  # else the last iteration's own validation was the best
        assert stored["epoch"] * 32 == int(again.decisions)
    _, resumed, _ = run(tmp_path / "resumed", Validations(share=1.0), keep_best(), ckpt_path=str(path))
    assert torch.equal(weights(resumed), weights(model))


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
def test_what_is_measured_first_stays_the_best_if_the_run_gets_worse(tmp_path):
    """The scores are made up, so that the best one is measured beside training for sure."""

    class Worse(Slow):
        def __call__(self, policy):
            found = super().__call__(policy)
            self.calls = getattr(self, "calls", 0) + 1
            return found | {"eval/nash_conv": 0.1 * self.calls}

    best = keep_best()
    trainer, model, summary = run(tmp_path / "whole", Validations(share=1.0), best, job=Worse())
    path = trainer.run_folder / "checkpoints" / "best.ckpt"
    stored = torch.load(path, weights_only=True)
    assert int(stored["state_dict"]["decisions"]) == summary._curve[0][0] == 32 * stored["epoch"]
    _, resumed, _ = run(tmp_path / "resumed", Validations(share=1.0), keep_best(), job=Worse(), ckpt_path=str(path))
    assert torch.equal(weights(resumed), weights(model))


class Endless(Evaluation):
    headline, slow = "eval/x", True

    def open(self, game, seed, make_env):
        self.began, self.thread = threading.Event(), None

    def __call__(self, policy):
        if threading.current_thread() is threading.main_thread():
            return {"eval/x": 0.0}
        self.thread = threading.current_thread()
        obs, legal = torch.zeros(1, 11), torch.ones(1, 2, dtype=torch.bool)
        while True:
            policy(obs, legal)
            self.began.set()


class Trouble(L.Callback):
    def __init__(self, job, error):
        self.job, self.error = job, error

    def on_train_batch_end(self, trainer, *args):
        if self.job.thread is not None:
            assert self.job.began.wait(60)
            raise self.error


@pytest.mark.parametrize(("error", "raised"), [(RuntimeError("a bug"), RuntimeError), (Stopped(15), SystemExit)])
def test_a_run_that_breaks_gives_up_what_is_being_measured(tmp_path, error, raised):
    job = Endless()
    with pytest.raises(raised):
        run(tmp_path, Validations(share=1.0), Trouble(job, error), job=job, length=1000)
    job.thread.join(60)
    assert not job.thread.is_alive()


def test_a_run_that_ends_sooner_gives_up_what_is_being_measured(tmp_path):
    job = Endless()
    run(tmp_path, Validations(share=1.0), job=job, length=-1, max_steps=400)
    assert job.thread is not None
    job.thread.join(60)
    assert not job.thread.is_alive()


def test_what_an_evaluation_raises_ends_the_run(tmp_path):
    class Broken(Slow):
        def __call__(self, policy):
            raise FloatingPointError("eval/nash_conv=-1")

    with pytest.raises(FloatingPointError, match="nash_conv=-1"):
        run(tmp_path, Validations(share=1.0), job=Broken())


def test_what_steers_a_run_is_measured_while_it_waits(tmp_path):
    stopping = EarlyStopping("eval/nash_conv", patience=100)
    _, _, summary = run(tmp_path, Validations(share=1.0), stopping, length=12)
    assert [point[0] for point in summary._curve] == [32.0 * i for i in range(1, 13)]


def test_a_share_is_kept(tmp_path):
    """The first measurement and the last iteration's validation: a millionth of the time leaves room for no more."""
    _, _, summary = run(tmp_path, Validations(share=1e-6), length=30)
    assert len(summary._curve) == 2
    with pytest.raises(ValueError, match=r"share=0\.0: needs more than 0"):
        Validations(share=0.0)
