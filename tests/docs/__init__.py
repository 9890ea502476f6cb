"""README, docs and notebooks run."""
