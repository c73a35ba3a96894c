"""Each headline config against the number in its header; minutes each, so `pytest -m slow` only."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "scripts"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "bound"),
    [
        ("kuhn_ppo", 0.05), ("leduc_ppo", 0.45), ("kuhn_rnad_1m", 0.03), ("leduc_rnad", 0.4), ("kuhn_armac_1m", 0.03),
        ("leduc_armac_3m", 0.3),
    ],
)  # fmt: skip
def test_headline_config(config, bound, tmp_path):
    """One fresh seed; the bound is above the worst seed of the header."""
    from seeds import run

    summary = run(str(ROOT / "configs" / f"{config}.yaml"), 21, tmp_path, [])
    assert summary["nash_conv"] < bound
