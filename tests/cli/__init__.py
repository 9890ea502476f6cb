"""The ``tsmemory`` command: in process, and as the program that a person starts."""
