"""Schedules are pure, meet their ends exactly, hold past the end, and refuse what makes no sense."""

import math

import lightning as L
import pytest
import torch
from lightning.pytorch.cli import ReduceLROnPlateau

from lit_rl.schedules import (
    Constant,
    Cosine,
    Exponential,
    Linear,
    Piecewise,
    PowerLaw,
    Schedule,
    Step,
    WarmUp,
    optimizer_and_scheduler,
)

CURVES = [
    Constant(0.3), Linear(1, 0), Cosine(1, 0.1), Exponential(1, 0.01), PowerLaw(0.5, 0.05), PowerLaw(1, 0.1, power=0.5),
    Piecewise([[0, 1], [0.5, 0.2], [1, 0]]), WarmUp(5, Cosine(1, 0)), Step(1, 0.5, every=10),
]  # fmt: skip


@pytest.mark.parametrize("schedule", CURVES, ids=lambda s: type(s).__name__)
def test_pure_bounded_and_held_past_the_end(schedule):
    total = 40
    values = [schedule(i, total) for i in range(10 * total)]
    assert values == [schedule(i, total) for i in range(10 * total)]
    assert all(0 <= v <= 1 for v in values)
    assert set(values[total:]) == {values[total - 1]}  # a cosine does not rise again


@pytest.mark.parametrize(
    ("schedule", "middle"),
    [
        (Linear(1, 0), 0.5),
        (Cosine(1, 0), 0.5),
        (Exponential(1, 0.01), 0.1),
        (PowerLaw(0.5, 0.05), 0.5 / 5.5),  # 0.5 / (1 + u (0.5 / 0.05 - 1)) at u = 1/2
        (Piecewise([[0, 1], [0.5, 0.2], [1, 0]]), 0.2),
    ],
)
def test_known_values(schedule, middle):
    assert schedule(50, 101) == pytest.approx(middle)


@pytest.mark.parametrize("cls", [Linear, Cosine, Exponential, PowerLaw])
def test_ends_are_met(cls):
    schedule = cls(0.7, 0.2)
    assert schedule(0, 30) == pytest.approx(0.7)
    assert schedule(29, 30) == pytest.approx(0.2)
    assert schedule(0, 1) == pytest.approx(0.7)


DOCUMENTED = [  # of a shogi system, p = min(step, total) / total of the way: schedule, the factor by its formula
    (Linear(1, 0.1), lambda step, p: (1 - p) * (1 - 0.1) + 0.1),
    (Linear(1, 0.0), lambda step, p: 1 - p),
    (Cosine(1, 0.0), lambda step, p: (1 + math.cos(math.pi * p)) / 2),
    (Cosine(1, 0.25), lambda step, p: 0.25 + 0.75 * (1 + math.cos(math.pi * p)) / 2),
    (Exponential(1, 0.995**400), lambda step, p: 0.995 ** min(step, 400)),
    (Step(1, 0.5, every=150), lambda step, p: 0.5 ** (min(step, 400) // 150)),
    (Constant(1), lambda step, p: 1.0),
    (WarmUp(100, Linear(1, 0.1)), lambda step, p: min((step + 1) / 101, 1 - 0.9 * max(min(step, 400) - 100, 0) / 300)),
]


@pytest.mark.parametrize("schedule, formula", DOCUMENTED, ids=lambda each: type(each).__name__)
def test_documented_formulas(schedule, formula):
    """Their total counts steps, ours values: that of step `total` is the last. Past it theirs go on, ours hold."""
    total = 400
    for step in (0, 1, 99, 100, 149, 150, 200, 399, 400, 1000):
        assert schedule(step, total + 1) == pytest.approx(formula(step, min(step, total) / total))


def test_step_and_warm_up():
    assert [Step(8, 0.5, every=2)(i, 6) for i in range(8)] == [8, 8, 4, 4, 2, 2, 2, 2]
    warm = WarmUp(3, Linear(1, 0))
    assert [warm(i, 8) for i in range(9)] == pytest.approx([0.25, 0.5, 0.75, 1, 0.75, 0.5, 0.25, 0, 0])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Linear(math.nan, 0), "start=nan"),
        (lambda: Constant(math.inf), "value=inf"),
        (lambda: Exponential(1, 0), "end=0"),
        (lambda: PowerLaw(1, 0.1, power=-1), "power=-1"),
        (lambda: Step(every=0), "every=0"),
        (lambda: WarmUp(0, Linear()), "length=0"),
        (lambda: Piecewise([[0, 1], [0.5, 0]]), "increase from 0 to 1"),
        (lambda: Piecewise([[0, 1], [0.5, 0], [0.5, 1], [1, 1]]), "increase from 0 to 1"),
        (lambda: Linear()(-1, 10), "index -1"),
        (lambda: Linear()(0, 0), "total 0"),
    ],
)
def test_nonsense_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


class OneWeight(L.LightningModule):
    """Trains one weight under a schedule and remembers the learning rate of each optimizer step."""

    def __init__(self, schedule, interval):
        super().__init__()
        self.policy = torch.nn.ParameterList([torch.nn.Parameter(torch.ones(()))])
        self.lr_schedule, self.lr_interval, self.rates = schedule, interval, []
        self.optimizer = lambda p: torch.optim.SGD(p, lr=0.1)

    def training_step(self, batch, batch_idx):
        self.rates.append(self.optimizers().param_groups[0]["lr"])
        return self.policy[0] ** 2

    configure_optimizers = optimizer_and_scheduler


def rates(schedule, interval, max_epochs=4, ckpt_path=None, tmp_path=None, save_as=None):
    module = OneWeight(schedule, interval)
    trainer = L.Trainer(
        max_epochs=max_epochs, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=tmp_path, log_every_n_steps=1,
    )  # fmt: skip
    loader = torch.utils.data.DataLoader(torch.zeros(3), num_workers=0)
    trainer.fit(module, loader, ckpt_path=ckpt_path)
    if save_as:
        trainer.save_checkpoint(save_as)
    return module.rates


@pytest.mark.filterwarnings("ignore:.*does not have many workers.*")
def test_learning_rate_per_iteration_and_per_step(tmp_path):
    per_iteration = rates(Linear(1, 0), "iteration", tmp_path=tmp_path)
    assert per_iteration == pytest.approx([0.1] * 3 + [0.2 / 3] * 3 + [0.1 / 3] * 3 + [0] * 3)
    per_step = rates(Linear(1, 0), "step", tmp_path=tmp_path)
    assert per_step == pytest.approx([0.1 * (1 - i / 11) for i in range(12)])
    assert rates(None, "step", tmp_path=tmp_path) == [0.1] * 12


@pytest.mark.filterwarnings("ignore:.*does not have many workers.*")
def test_torchs_own_schedulers(tmp_path):
    got = rates(lambda o: torch.optim.lr_scheduler.StepLR(o, step_size=2, gamma=0.5), "iteration", tmp_path=tmp_path)
    assert got == pytest.approx([0.1] * 6 + [0.05] * 6)


@pytest.mark.filterwarnings("ignore:.*does not have many workers.*")
def test_learning_rate_survives_resume_and_holds_when_the_run_is_over(tmp_path):
    whole = rates(Cosine(1, 0.1), "iteration", max_epochs=4, tmp_path=tmp_path)
    rates(Cosine(1, 0.1), "iteration", max_epochs=4, tmp_path=tmp_path, save_as=tmp_path / "end.ckpt")
    resumed = rates(Cosine(1, 0.1), "iteration", max_epochs=8, tmp_path=tmp_path, ckpt_path=tmp_path / "end.ckpt")
    longer = rates(Cosine(1, 0.1), "iteration", max_epochs=8, tmp_path=tmp_path)
    assert whole[-1] == pytest.approx(0.01)
    assert resumed[3:] == pytest.approx(longer[15:])  # a function of the iteration of the run as it is now


def test_a_schedule_must_define_something():
    with pytest.raises(TypeError, match="defines neither"):
        Schedule()(0, 10)


def test_reduce_on_plateau_reads_the_exact_nash_conv(make_fit):
    """A plateau scheduler that never sees enough improvement halves the rate after each validation but the first."""
    plateau = ReduceLROnPlateau
    trainer, model, data = make_fit(
        {"lr_schedule": lambda o: plateau(o, monitor="eval/nash_conv", factor=0.5, patience=0, threshold=0.9)},
        max_epochs=8, check_val_every_n_epoch=2,
    )  # fmt: skip
    trainer.fit(model, data)
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(1e-3 * 0.5**3)
