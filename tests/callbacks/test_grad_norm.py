"""GradNorm: norms before and after clipping."""

import pytest

from callbacks.grad_norm import GradNorm


@pytest.mark.parametrize("clip", [None, 1e-3])
def test_grad_norm_before_and_after_clipping(make_fit, clip):
    trainer, model, data = make_fit(callbacks=[GradNorm(per_group=True)], gradient_clip_val=clip, max_epochs=1)
    trainer.fit(model, data)
    metrics = {k: float(v) for k, v in trainer.callback_metrics.items()}
    assert metrics["train/grad_norm"] > 1e-3
    assert metrics["train/grad_norm/0"] == pytest.approx(metrics["train/grad_norm"])
    if clip:
        assert metrics["train/grad_norm_clipped"] == pytest.approx(clip, rel=1e-2)
        assert metrics["train/clipped_share"] == 1
    else:
        assert metrics["train/grad_norm_clipped"] == pytest.approx(metrics["train/grad_norm"])
        assert metrics["train/clipped_share"] == 0
