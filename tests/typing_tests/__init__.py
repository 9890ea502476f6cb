"""What must and what must not type-check; mypy and pyright read it, nothing runs it."""
