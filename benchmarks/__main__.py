"""``python -m benchmarks``: every engine beside its floor and the peers. The detailed benchmarks of
one area run by their module: ``python -m benchmarks.sqlite``."""

from __future__ import annotations

from benchmarks.comparison import main

if __name__ == "__main__":
    main()
