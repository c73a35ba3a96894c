"""FiniteGuard: no NaN reaches the weights."""

from types import SimpleNamespace

import lightning as L
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger

from callbacks.finite_guard import FiniteGuard


class Poison(L.Callback):
    """Puts a NaN into one place at iteration 1 and remembers the weights as they were."""

    def __init__(self, where):
        self.where, self.before = where, None

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == 1 and self.where == "weights":
            with torch.no_grad():
                pl_module.policy.policy_head.bias[0] = torch.nan
        if trainer.current_epoch == 1 and self.where == "critic":
            with torch.no_grad():
                pl_module.policy.value_head.bias[0] = torch.nan

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.current_epoch == 1:
            if self.where == "advantages":
                batch.advantages[3] = torch.inf
            if self.where == "returns":
                batch.returns[3] = torch.nan
            if self.where == "rewards":
                trainer.train_dataloader.rollout.rewards[2, 5, 1] = torch.inf
        self.before = {k: v.clone() for k, v in pl_module.state_dict().items()}

    def on_after_backward(self, trainer, pl_module):
        if trainer.current_epoch == 1 and self.where == "gradient":
            pl_module.policy.value_head.weight.grad[0, 0] = torch.nan


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("advantages", "loss term policy_loss"),
        ("returns", "loss term value_loss"),
        ("gradient", r"gradient of policy\.value_head\.weight"),
        ("rewards", r"rollout rewards\[step 2, env row 5\] = inf"),
        ("critic", r"rollout value\[step \d+, env row \d+\] = nan"),
        ("weights", "kuhn_poker, env row 0: cannot sample"),
    ],
)
def test_finite_guard_stops_before_the_weights(make_fit, tmp_path, where, message):
    poison = Poison(where)
    trainer, model, data = make_fit(callbacks=[poison, FiniteGuard()], logger=CSVLogger(tmp_path, name=""))
    with pytest.raises(FloatingPointError, match=message):
        trainer.fit(model, data)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, poison.before[name]) or where in ("critic", "weights"), name
    if where in ("advantages", "returns", "gradient"):
        (saved,) = (tmp_path / "version_0" / "crash").iterdir()
        batch = torch.load(saved, weights_only=True)
        assert len(batch["advantages"]) == len(batch["action"])


@pytest.mark.parametrize("where", ["advantages", "returns", "gradient"])
def test_finite_guard_skips_if_asked_to_and_not_for_ever(make_fit, where):
    """Eight poisoned minibatches of iteration 1: weights and moments stand still there, and go on afterwards."""
    before = {}

    class Watch(L.Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            moments = [x for s in trainer.optimizers[0].state.values() for x in s.values()]
            before[trainer.current_epoch] = [x.clone() for x in [*pl_module.policy.parameters(), *moments]]

    options = {"update_epochs": 2, "num_minibatches": 4}
    guard = FiniteGuard("skip", max_skips=8)
    trainer, model, data = make_fit(options, callbacks=[Poison(where), guard, Watch()], max_epochs=4)
    with pytest.warns(UserWarning, match=r"is not finite; optimizer step \d+ skipped"):
        trainer.fit(model, data)
    assert guard.state_dict() == {"skips": 8}
    assert all(torch.equal(a, b) for a, b in zip(before[1], before[2]))
    assert not any(torch.equal(a, b) for a, b in zip(before[2][:2], before[3][:2]))
    trainer, model, data = make_fit(options, callbacks=[Poison(where), FiniteGuard("skip", max_skips=7)], max_epochs=4)
    with pytest.warns(UserWarning), pytest.raises(FloatingPointError, match="is not finite"):
        trainer.fit(model, data)


def test_finite_guard_ends_a_run_whose_gradient_scale_collapsed(make_fit):
    scaler = SimpleNamespace(get_scale=lambda: 2.0**-3)
    trainer = SimpleNamespace(
        precision_plugin=SimpleNamespace(scaler=scaler), train_dataloader=None, current_epoch=5, global_step=40
    )
    with pytest.raises(FloatingPointError, match=r"gradient scale fell to 0\.125, use trainer\.precision=bf16-mixed"):
        FiniteGuard().on_train_batch_start(trainer, None, None, 0)


def test_finite_guard_lets_the_scaler_skip(make_fit):
    """Overflowing gradients under a gradient scaler are skipped by the scaler, not an error."""
    trainer = SimpleNamespace(precision_plugin=SimpleNamespace(scaler=object()))
    FiniteGuard().on_before_optimizer_step(trainer, None, None)
