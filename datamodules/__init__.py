"""Wiring: who plays whom, for how long."""
