"""``python -m tsmemory.demo``: see `tsmemory.demo._program`."""

from __future__ import annotations

from tsmemory.demo import main

if __name__ == "__main__":
    main()
