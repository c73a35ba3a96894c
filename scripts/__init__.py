"""Commands around the packages: bench, seeds, replay."""
