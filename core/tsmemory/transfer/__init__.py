"""Moving conversations: from store to store, to files and back, and from what people used before.

from tsmemory.transfer import copy, import_from

with open_store("sqlite:///chat.db") as old, open_store("redis://localhost") as new:
    report = copy(old, new)
    import_from(new, "conversations.json", format="chatgpt")

Everything here may be run again: what is there already is left as it is, so that a run that was
killed is finished by the next one, and nothing is ever there twice. See docs/moving.md.
"""

from __future__ import annotations

from tsmemory.transfer.archive import EXPORT_FORMAT, export_jsonl, import_jsonl
from tsmemory.transfer.chat_files import export_openai, import_openai
from tsmemory.transfer.copying import Progress, Report, acopy, copy
from tsmemory.transfer.formats import FORMATS, Format, import_from
from tsmemory.transfer.formats.picoclaw import migrate_json_sessions
from tsmemory.transfer.imported import Imported
from tsmemory.transfer.markdown import export_markdown
from tsmemory.transfer.merging import import_sessions

__all__ = [
    "EXPORT_FORMAT",
    "FORMATS",
    "Format",
    "Imported",
    "Progress",
    "Report",
    "acopy",
    "copy",
    "export_jsonl",
    "export_markdown",
    "export_openai",
    "import_from",
    "import_jsonl",
    "import_openai",
    "import_sessions",
    "migrate_json_sessions",
]
