"""Validations: the last iteration is validated, and a run has ten points at least."""

import pytest

from callbacks.run_summary import RunSummary
from callbacks.validations import Validations


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
