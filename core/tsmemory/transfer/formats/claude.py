"""The account export of Claude: ``conversations.json``, alone or in the zip.

A conversation has ``uuid``, ``name``, ``summary``, times in ISO 8601, and ``chat_messages``, each
with ``uuid``, ``sender`` (``human`` or ``assistant``), ``text``, and in newer exports ``content``
blocks and ``parent_message_uuid``. A tool's result is a block inside the assistant's message; here
it is a message of its own. Attachments come with the text that was extracted from them. There is
no published schema; this is what exports of 2023 to 2026 hold.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tsmemory.errors import InvalidInputError
from tsmemory.model import Block, Message, Problem, ToolCall
from tsmemory.transfer.formats.openai_chat import arguments_of
from tsmemory.transfer.formats.tree import Branch, branches_of, read_branch, read_trees
from tsmemory.transfer.imported import Imported
from tsmemory.transfer.sources import Source, documents, micros_of, read_bytes

__all__ = ["read"]

_ROLES = {"human": "user", "user": "user", "assistant": "assistant", "system": "system"}


def read(source: Source, *, user_id: str, branches: bool = False) -> Iterator[Imported | Problem]:
    """The conversations of an export.

    Args:
        branches: also the branches that were not shown last, as sessions of their own.
    """
    texts = documents(read_bytes(source, inside="conversations.json"))
    return read_trees(texts, user_id, lambda raw: _conversations(raw, user_id, branches))


def _conversations(raw: Any, user_id: str, others: bool) -> list[Imported]:
    if isinstance(raw, ValueError):
        raise raw
    if not isinstance(raw, dict) or not isinstance(raw.get("chat_messages"), list):
        raise InvalidInputError('not a conversation with "chat_messages"')
    session_id = raw.get("uuid")
    if not isinstance(session_id, str):
        raise InvalidInputError("it has no uuid")
    nodes: dict[str, Any] = {}
    previous: str | None = None
    for number, raw_message in enumerate(raw["chat_messages"]):
        has_id = isinstance(raw_message, dict) and isinstance(raw_message.get("uuid"), str)
        name = raw_message["uuid"] if has_id else f"#{number}"
        parent = (
            raw_message.get("parent_message_uuid", previous)
            if isinstance(raw_message, dict)
            else previous
        )
        nodes[name] = (parent, raw_message)
        previous = name
    current = raw.get("current_leaf_message_uuid")
    tree = branches_of(nodes, lambda node: node[0], current, others=others)
    return [_branch(raw, nodes, branch, session_id, user_id) for branch in tree] or [
        _branch(raw, nodes, Branch("", [], True), session_id, user_id)
    ]


def _branch(
    raw: Mapping[str, Any],
    nodes: Mapping[str, Any],
    branch: Branch,
    session_id: str,
    user_id: str,
) -> Imported:
    session = branch.session_of(session_id)

    def read(node_id: str) -> Iterator[tuple[str | None, Message]]:
        for number, message in enumerate(_messages(node_id, nodes[node_id][1])):
            yield (f"{node_id}:{number}" if number else node_id), message

    messages, ids, problems = read_branch(branch, user_id, session, read)
    title, summary = raw.get("name"), raw.get("summary")
    return Imported(
        session_id=session,
        user_id=user_id,
        messages=messages,
        ids=ids,
        title=title if isinstance(title, str) and title else None,
        summary=summary if isinstance(summary, str) and summary else None,
        metadata=branch.metadata_of(session_id),
        create_time=micros_of(raw.get("created_at")),
        update_time=micros_of(raw.get("updated_at")),
        problems=problems,
    )


def _messages(node_id: str, raw: Any) -> list[Message]:
    """A message of theirs: one of ours, or several around the results of tools."""
    if not isinstance(raw, dict):
        raise InvalidInputError(f"not a message: {raw!r:.80}")
    role = _ROLES.get(str(raw.get("sender")))
    if role is None:
        raise InvalidInputError(f"nobody is called {raw.get('sender')!r:.80}")
    turn = _Turn(node_id, role, micros_of(raw.get("created_at")), _files(raw))
    content = raw.get("content")
    if not isinstance(content, list) or not content:
        content = [{"type": "text", "text": raw.get("text") or ""}]
    for number, part in enumerate(content):
        turn.add(number, part)
    for attachment in raw.get("attachments") or ():
        text = attachment.get("extracted_content")
        if isinstance(text, str) and text:
            title = str(attachment.get("file_name") or "")
            turn.blocks.append({"type": "text-plain", "text": text, "title": title})
    turn.finish_message()
    return turn.messages


def _files(raw: Mapping[str, Any]) -> dict[str, Any]:
    """The metadata that name the files of a message."""
    names = [file.get("file_name") for file in raw.get("files") or () if isinstance(file, dict)]
    files = [name for name in names if isinstance(name, str)]
    return {"files": files} if files else {}


class _Turn:
    """The messages that one of theirs becomes: a tool's result ends one, and is one itself."""

    def __init__(self, node_id: str, role: str, time: int | None, metadata: dict[str, Any]) -> None:
        self._node_id = node_id
        self._role = role
        self._time = time
        self._metadata = metadata
        self._calls: list[ToolCall] = []
        self._unanswered: list[str] = []
        self.blocks: list[Block] = []
        self.messages: list[Message] = []

    def add(self, number: int, part: Mapping[str, Any]) -> None:
        """Add the `number`-th block of theirs."""
        kind = part.get("type")
        if kind == "tool_use":
            call_id = str(part.get("id") or f"{self._node_id}:call:{number}")
            arguments = arguments_of(part.get("input"))
            self._calls.append(ToolCall(call_id, str(part.get("name")), arguments))
            self._unanswered.append(call_id)
        elif kind == "tool_result":
            self.finish_message()
            self._add_result(part)
        elif kind in ("text", None):
            if part.get("text"):
                self.blocks.append({"type": "text", "text": str(part["text"])})
        elif kind == "thinking":
            self.blocks.append({"type": "reasoning", "reasoning": str(part.get("thinking", ""))})
        elif kind not in ("token_budget", "flag"):
            self.blocks.append({"type": "non_standard", "value": part})

    def _add_result(self, part: Mapping[str, Any]) -> None:
        call_id = part.get("tool_use_id")
        if call_id is None and self._unanswered:
            call_id = self._unanswered[0]
        if call_id in self._unanswered:
            self._unanswered.remove(call_id)
        self.messages.append(
            Message(
                "tool",
                _result(part.get("content")),
                create_time=self._time,
                name=part["name"] if isinstance(part.get("name"), str) else None,
                tool_call_id=None if call_id is None else str(call_id),
            )
        )

    def finish_message(self) -> None:
        """End the message that is being read, if anything is in it."""
        if not self.blocks and not self._calls:
            return
        content = _content(self.blocks)
        self.messages.append(
            Message(
                self._role,
                content,
                create_time=self._time,
                tool_calls=tuple(self._calls),
                metadata=self._metadata,
            )
        )
        self.blocks = []
        self._calls = []


def _content(blocks: list[Block]) -> str | list[Block]:
    """One text as text; "" where there is nothing."""
    if len(blocks) == 1 and blocks[0].get("type") == "text":
        return str(blocks[0]["text"])
    return blocks or ""


def _result(content: Any) -> str | list[Block]:
    if isinstance(content, str):
        return content
    blocks: list[Block] = []
    for part in content if isinstance(content, list) else ():
        if isinstance(part, dict) and isinstance(part.get("text"), str):
            blocks.append({"type": "text", "text": part["text"]})
        elif part is not None:
            blocks.append({"type": "non_standard", "value": part})
    return _content(blocks)
