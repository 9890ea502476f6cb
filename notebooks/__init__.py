"""The notebooks, and `run`, which executes them."""
