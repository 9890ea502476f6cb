"""``python -m tsmemory``: the command line."""

from __future__ import annotations

from tsmemory.cli import main

if __name__ == "__main__":
    main()
