"""Errors and their exit codes."""

from lit_rl.run.errors import ConfigError


def test_config_error_is_a_value_error():
    assert issubclass(ConfigError, ValueError)
