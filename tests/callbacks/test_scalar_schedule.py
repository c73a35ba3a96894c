"""ScalarSchedule: targets are hit in the same iteration, typos are refused at the start."""

import lightning as L
import pytest

from callbacks.scalar_schedule import ScalarSchedule
from lit_rl.schedules import Linear, Step


class Recorder(L.Callback):
    def __init__(self):
        self.seen = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if batch_idx == 0:
            rollout = trainer.train_dataloader.rollout
            self.seen.append(
                (pl_module.entropy_coef, trainer.datamodule.num_steps, rollout.num_decisions, rollout.temperature)
            )


def test_scalar_schedule_applies_to_the_rollout_of_the_same_iteration(make_fit):
    recorder = Recorder()
    trainer, model, data = make_fit(
        max_epochs=3,
        callbacks=[
            ScalarSchedule("model.entropy_coef", Linear(0.4, 0.0)),
            ScalarSchedule("model.sampling_temperature", Linear(2.0, 1.0)),
            ScalarSchedule("data.num_steps", Step(8, 2, every=1)),
            recorder,
        ],
    )
    trainer.fit(model, data)
    entropy, steps, decisions, temperature = zip(*recorder.seen)
    assert entropy == pytest.approx([0.4, 0.2, 0.0])
    assert steps == (8, 16, 32) and decisions == tuple(64 * s for s in steps)
    assert temperature == pytest.approx([2.0, 1.5, 1.0])
    assert float(trainer.callback_metrics["schedule/entropy_coef"]) == 0.0


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("model.entropy_coeff", "did you mean model.entropy_coef"),
        ("data.num_stepz", "did you mean data.num_steps"),
        ("model.zzz", "numbers there: .*clip.*entropy_coef"),
        ("data.num_envs", "fixed once the run has begun"),
        ("model.sampling_temperature", "sampling_temperature=0"),
        ("entropy_coef", "needs model.<attribute> or data.<attribute>"),
    ],
)
def test_scalar_schedule_refuses_typos_at_start(make_fit, target, message):
    with pytest.raises(ValueError, match=message):
        trainer, model, data = make_fit(callbacks=[ScalarSchedule(target, Linear())])
        trainer.fit(model, data)
