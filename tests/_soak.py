"""How much a test tries: little in the gate, which runs at each change, and much in a soak run."""

from __future__ import annotations

import os

__all__ = ["SOAK"]

SOAK = os.environ.get("TSMEMORY_SOAK") == "1"
