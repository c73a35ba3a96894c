"""What runs have left behind, side by side: comparisons, seeds, sweeps, and pages to look at."""
