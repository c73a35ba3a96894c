"""Watchers and schedules, each named in the YAML by its class."""
