"""The demo, run as a new user runs it."""
