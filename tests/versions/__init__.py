"""The adapters on the oldest and the newest frameworks: ``python -m tests.versions``."""
