"""Speed and cost, as ratios and counts. ``python -m benchmarks``."""
