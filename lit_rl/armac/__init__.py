"""ARMAC: regret matching with a history critic, an actor mixed in, and its scheduler."""
