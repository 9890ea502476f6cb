"""Moving conversations: from store to store, to files and back, and from what people used before.

from tsmemory.transfer import copy

with open_store("sqlite:///chat.db") as old, open_store("redis://localhost") as new:
    report = copy(old, new)

Everything here may be run again: what is there already is left as it is, so that a run that was
killed is finished by the next one, and nothing is ever there twice. See docs/moving.md.
"""

from __future__ import annotations

from tsmemory.transfer._copy import Progress, Report, acopy, copy
from tsmemory.transfer._export import EXPORT_FORMAT, export_jsonl, import_jsonl
from tsmemory.transfer._imports import Imported, import_sessions, numbered
from tsmemory.transfer._openai import export_openai, import_openai
from tsmemory.transfer._picoclaw import import_jsonl_store, migrate_json_sessions

__all__ = [
    "EXPORT_FORMAT",
    "Imported",
    "Progress",
    "Report",
    "acopy",
    "copy",
    "export_jsonl",
    "export_openai",
    "import_jsonl",
    "import_jsonl_store",
    "import_openai",
    "import_sessions",
    "migrate_json_sessions",
    "numbered",
]
