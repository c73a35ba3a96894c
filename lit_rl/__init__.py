"""Learning: policies, rollouts, returns, losses and one LightningModule per algorithm."""
