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
from tsmemory.transfer.formats.tree import Branch, branches_of, read_trees
from tsmemory.transfer.imported import Imported
from tsmemory.transfer.sources import Source, attempt, documents, micros_of, read_bytes

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
        name = raw_message["uuid"] if has_id else f"message {number}"
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
    name = session_id if branch.active else f"{session_id}#{branch.leaf}"
    messages: list[Message] = []
    ids: list[str | None] = []
    problems: list[Problem] = []
    for node_id in branch.path:
        problem = Problem(user_id, name, None, node_id)
        turn = attempt(lambda: _messages(node_id, nodes[node_id][1]), problem)  # noqa: B023
        if isinstance(turn, Problem):
            problems.append(turn)
            continue
        messages += turn
        ids += [node_id if i == 0 else f"{node_id}:{i}" for i in range(len(turn))]
    title, summary = raw.get("name"), raw.get("summary")
    return Imported(
        session_id=name,
        user_id=user_id,
        messages=messages,
        ids=ids,
        title=title if isinstance(title, str) and title else None,
        summary=summary if isinstance(summary, str) and summary else None,
        metadata={} if branch.active else {"branch_of": session_id},
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
    time = micros_of(raw.get("created_at"))
    metadata: dict[str, Any] = {}
    names = [f.get("file_name") for f in raw.get("files") or () if isinstance(f, dict)]
    if any(isinstance(name, str) for name in names):
        metadata["files"] = [name for name in names if isinstance(name, str)]
    blocks: list[Block] = []
    calls: list[ToolCall] = []
    open_calls: list[str] = []
    messages: list[Message] = []

    def finish() -> None:
        if blocks or calls:
            plain = len(blocks) == 1 and blocks[0].get("type") == "text"
            content = str(blocks[0]["text"]) if plain else list(blocks) or ""
            messages.append(
                Message(role, content, create_time=time, tool_calls=tuple(calls), metadata=metadata)
            )
            blocks.clear()
            calls.clear()

    content = raw.get("content")
    parts = (
        content
        if isinstance(content, list) and content
        else [{"type": "text", "text": raw.get("text") or ""}]
    )
    for number, part in enumerate(parts):
        kind = part.get("type")
        if kind == "tool_use":
            call_id = str(part.get("id") or f"{node_id}:call:{number}")
            calls.append(ToolCall(call_id, str(part.get("name")), arguments_of(part.get("input"))))
            open_calls.append(call_id)
        elif kind == "tool_result":
            finish()
            answered = part.get("tool_use_id")
            if answered is None and open_calls:
                answered = open_calls[0]
            if answered in open_calls:
                open_calls.remove(answered)
            messages.append(
                Message(
                    "tool",
                    _result(part.get("content")),
                    create_time=time,
                    name=part["name"] if isinstance(part.get("name"), str) else None,
                    tool_call_id=None if answered is None else str(answered),
                )
            )
        elif kind in ("text", None):
            if part.get("text"):
                blocks.append({"type": "text", "text": str(part["text"])})
        elif kind == "thinking":
            blocks.append({"type": "reasoning", "reasoning": str(part.get("thinking", ""))})
        elif kind not in ("token_budget", "flag"):
            blocks.append({"type": "non_standard", "value": part})
    for attachment in raw.get("attachments") or ():
        text = attachment.get("extracted_content")
        if isinstance(text, str) and text:
            title = str(attachment.get("file_name") or "")
            blocks.append({"type": "text-plain", "text": text, "title": title})
    finish()
    return messages


def _result(content: Any) -> str | list[Block]:
    if isinstance(content, str):
        return content
    blocks: list[Block] = []
    for part in content if isinstance(content, list) else ():
        if isinstance(part, dict) and isinstance(part.get("text"), str):
            blocks.append({"type": "text", "text": part["text"]})
        elif part is not None:
            blocks.append({"type": "non_standard", "value": part})
    if len(blocks) == 1 and blocks[0]["type"] == "text":
        return str(blocks[0]["text"])
    return blocks or ""
