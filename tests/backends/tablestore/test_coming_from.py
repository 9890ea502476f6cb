"""docs/coming-from-agent-memory.md runs, and its tables name calls that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tablestore_for_agent_memory.memory.memory_store import MemoryStore

from tsmemory.testing.servers.tablestore import TablestoreProcess

_PAGE = Path(__file__).parents[3] / "docs" / "coming-from-agent-memory.md"


def test_the_page_runs(server: TablestoreProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TABLESTORE_ENDPOINT", server.endpoint)
    monkeypatch.setenv("TABLESTORE_INSTANCE_NAME", server.instance_name)
    monkeypatch.setenv("TABLESTORE_ACCESS_KEY_ID", server.access_key_id)
    monkeypatch.setenv("TABLESTORE_ACCESS_KEY_SECRET", server.access_key_secret)
    blocks = re.findall(r"^```python\n(.*?)^```", _PAGE.read_text(encoding="utf-8"), re.M | re.S)
    assert len(blocks) == 7
    namespace: dict[str, object] = {}
    for block in blocks:
        exec(block, namespace)  # the page's own code


_NOTEBOOK = {
    "init_table", "_delete_table", "put_session", "get_session", "update_session",
    "delete_session", "list_recent_sessions", "list_all_sessions", "delete_all_sessions",
    "put_message", "get_message", "update_message", "delete_message", "get_messages",
    "get_all_messages", "delete_messages", "delete_all_messages",
}  # fmt: skip
_GO = """
InitTable PutSession UpdateSession GetSession DeleteSession ListSessions ListAllSessions PutMessage
UpdateMessage GetMessage DeleteMessage ListMessages ListAllMessages ListRecentSessionsPaginated
ListMessagesWithFilter ListMessagesPaginated SetMetadata
"""


def test_every_call_of_theirs_is_on_the_page() -> None:
    page = _PAGE.read_text(encoding="utf-8")
    named = set(re.findall(r"memory_store\.(\w+)\(", page))
    today = {name for name in vars(MemoryStore) if re.match(r"[a-z]+_", name)} - {"model_config"}
    assert today | _NOTEBOOK == named
    assert [name for name in _GO.split() if name not in page] == []
