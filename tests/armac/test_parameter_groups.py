"""Several networks under one optimizer."""

import lightning as L
import pytest

from datamodules.self_play import SelfPlayDataModule
from lit_rl.armac.armac import ARMAC
from lit_rl.armac.parameter_groups import Groups, GroupSettings


@pytest.mark.filterwarnings("ignore")
def test_each_network_has_its_own_rate_clip_and_steps(tmp_path):
    """Networks whose steps of the iteration are over stay as they are, moments included."""
    groups = Groups(
        regret=GroupSettings(1e-2, 1e-2, clip=1e-3, steps=3),
        average=GroupSettings(1e-3, 1e-4, steps=2),
        critic=GroupSettings(3e-3, 1e-3, every=3),
    )
    model = ARMAC("envs.kuhn_poker", mix_lambda=0.5, groups=groups)
    data = SelfPlayDataModule("envs.kuhn_poker", num_envs=16, num_steps=4)
    seen = []

    class Watch(L.Callback):
        def on_before_zero_grad(self, trainer, pl_module, optimizer):
            groups = {group["name"]: group for group in optimizer.param_groups}
            state = optimizer.state
            steps = {n: {int(state[p]["step"]) for p in g["params"] if p in state} for n, g in groups.items()}
            norms = {
                n: sum(float(p.grad.square().sum()) for p in g["params"] if p.grad is not None) ** 0.5
                for n, g in groups.items()
            }
            seen.append((steps, norms, {n: g["lr"] for n, g in groups.items()}))

    trainer = L.Trainer(
        max_epochs=4, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[Watch()], default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(model, data)
    steps, _, rates = seen[-1]
    assert trainer.global_step == 12
    last = {name: max(s, default=0) for name, s in steps.items()}
    assert last["regret"] >= 11 and last["average"] == 8 and last["critic"] == 2 and last["actor"] == 4
    assert max(n["regret"] for _, n, _ in seen) <= 1.001e-3 < max(n["critic"] for _, n, _ in seen)
    assert seen[0][2]["average"] == pytest.approx(1e-3) and rates["average"] == pytest.approx(1e-4)
