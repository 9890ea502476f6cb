"""Run the benchmarks: ``python -m benchmarks [NAME …]``; without a name, all of them."""

from __future__ import annotations

import importlib
import sys

NAMES = (
    "sqlite", "postgres", "jsonl_memory", "redis_memory", "redis_costs",
    "tablestore_requests", "integrations", "windows",
    "turns",
)  # fmt: skip

for name in sys.argv[1:] or NAMES:
    if name not in NAMES:
        raise SystemExit(f"no benchmark {name!r}; one of {', '.join(NAMES)}")
    importlib.import_module(f"benchmarks.{name}").main()
