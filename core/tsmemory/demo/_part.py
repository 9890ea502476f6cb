"""One half of the demo in a process of its own.

python -m tsmemory.demo._part _first|_second URL USER SESSION
"""

from __future__ import annotations

import gc
import importlib
import sys

__all__ = ["main"]


def main(part: str, url: str, user_id: str, session_id: str) -> None:
    """Run the half; the process then ends."""
    gc.disable()  # a third of a framework's import; what it makes stays to the end
    importlib.import_module(f"tsmemory.demo.{part}").main(url, user_id, session_id)
    gc.freeze()  # nor is it looked through then


if __name__ == "__main__":
    main(*sys.argv[1:])
