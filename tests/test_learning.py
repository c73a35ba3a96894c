"""Each headline config against the number in its header; minutes each, so `pytest -m slow` only."""

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "worst"),
    [
        ("kuhn_ppo", 0.0350), ("leduc_ppo", 0.391), ("kuhn_rnad_1m", 0.0094), ("leduc_rnad", 0.235),
        ("kuhn_armac_1m", 0.0099), ("leduc_armac_3m", 0.220),
    ],
)  # fmt: skip
def test_headline_config(config, worst, tmp_path):
    """One fresh seed against the worst that was ever seen of this config (configs/README.md, configs/LOG.md)."""
    from lit_rl.run.study.seeds import run

    summary = run(str(ROOT / "configs" / f"{config}.yaml"), 21, tmp_path, [])
    assert summary["nash_conv"] < 1.3 * worst


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "options", "nash_conv", "share"),
    [
        (None, [], None, 0.95),
        ("leduc_ppo", ["--trainer.max_epochs=500", "--trainer.check_val_every_n_epoch=500"], (0.5, 3), 0.9),
        ("leduc_rnad", [], (0.1, 0.3), 0.6),
    ],
)
def test_an_exploiter_finds_what_there_is(config, options, nash_conv, share, tmp_path):
    """Against uniform play, a half-trained and a good policy: the part of the exact best response's gain that it finds.

    One fresh seed; the last bound is below the worst seed of the config's header.
    """
    from lit_rl.run.study.seeds import run

    victim, begin = "random", []
    if config is not None:
        summary = run(str(ROOT / "configs" / f"{config}.yaml"), 22, tmp_path / "victim", options)
        assert nash_conv[0] < summary["nash_conv"] < nash_conv[1]
        (path,) = (tmp_path / "victim").glob("seed_22/version_0/checkpoints/last.ckpt")
        victim, begin = str(path), ["--trainer.callbacks+=StartFrom", "--trainer.callbacks.policy", str(path)]
    arguments = ["--data.opponents", json.dumps([victim]), *begin]
    run(str(ROOT / "configs" / "leduc_exploiter.yaml"), 23, tmp_path / "exploiter", arguments)
    (verdict,) = (tmp_path / "exploiter").glob("seed_23/version_0/verdict.json")
    assert json.loads(verdict.read_text())["share"] > share
