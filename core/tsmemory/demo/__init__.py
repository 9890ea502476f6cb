"""The demo: one conversation, two processes, two frameworks. ``python -m tsmemory.demo``."""
