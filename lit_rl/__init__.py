"""Learning: policies, rollouts, returns, losses and one LightningModule per algorithm."""

from lit_rl.run.own_code import claim_packages

__version__ = "0.1.0"

claim_packages()
