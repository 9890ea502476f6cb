"""The account export of ChatGPT: ``conversations.json``, alone or in the zip.

A conversation has ``mapping``, a tree of nodes with ``id``, ``parent`` and ``message`` (null for
the root), and ``current_node``, the one shown last. Times are seconds since the epoch. A message
has ``author.role``, ``content`` with a ``content_type``, and ``recipient``: ``all``, or the tool
that an assistant's message is for. There is no published schema; this is the form of the exports of
2023 to 2026.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tsmemory.errors import InvalidInputError
from tsmemory.model import Block, Message, Problem, ToolCall
from tsmemory.transfer.formats.openai_chat import arguments_of
from tsmemory.transfer.formats.tree import Branch, branches_of, read_branch, read_trees
from tsmemory.transfer.imported import Imported
from tsmemory.transfer.sources import Source, documents, mapping_of, micros_of, read_bytes

__all__ = ["read"]

_HIDDEN = frozenset({"user_editable_context", "model_editable_context"})
"""Custom instructions and memories, which are no turns of the conversation."""


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
    if not isinstance(raw, dict) or not isinstance(raw.get("mapping"), dict):
        raise InvalidInputError('not a conversation with a "mapping"')
    nodes = {name: node for name, node in raw["mapping"].items() if isinstance(node, dict)}
    session_id = raw.get("conversation_id") or raw.get("id")
    if not isinstance(session_id, str):
        raise InvalidInputError("it has no id")
    tree = branches_of(nodes, _parent, raw.get("current_node"), others=others)
    return [_branch(raw, nodes, branch, session_id, user_id) for branch in tree]


def _parent(node: Mapping[str, Any]) -> str | None:
    parent = node.get("parent")
    return parent if isinstance(parent, str) else None


def _branch(
    raw: Mapping[str, Any],
    nodes: Mapping[str, Any],
    branch: Branch,
    session_id: str,
    user_id: str,
) -> Imported:
    session = branch.session_of(session_id)
    waiting: dict[str, str] = {}  # by tool: the call that it has to answer

    def read(node_id: str) -> Iterator[tuple[str | None, Message]]:
        message = _message(nodes[node_id].get("message"), waiting)
        if message is not None:
            own_id = nodes[node_id]["message"].get("id")
            yield (own_id if isinstance(own_id, str) else node_id), message

    messages, ids, problems = read_branch(branch, user_id, session, read)
    title = raw.get("title")
    metadata = branch.metadata_of(session_id)
    for key in ("gizmo_id", "default_model_slug", "is_archived", "is_starred"):
        if isinstance(raw.get(key), (str, bool)):
            metadata[key] = raw[key]
    return Imported(
        session_id=session,
        user_id=user_id,
        messages=messages,
        ids=ids,
        title=title if isinstance(title, str) else None,
        metadata=metadata,
        create_time=micros_of(raw.get("create_time")),
        update_time=micros_of(raw.get("update_time")),
        problems=problems,
    )


def _message(raw: Any, waiting: dict[str, str]) -> Message | None:
    """A message; None for one that was never part of the conversation."""
    if raw is None:
        return None
    if not isinstance(raw, dict):
        raise InvalidInputError(f"not a message: {raw!r:.80}")
    author = mapping_of(raw.get("author"))
    role = author.get("role")
    if not isinstance(role, str):
        raise InvalidInputError("it has no role")
    content, about = mapping_of(raw.get("content")), mapping_of(raw.get("metadata"))
    if about.get("is_visually_hidden_from_conversation") or content.get("content_type") in _HIDDEN:
        return None
    blocks = _blocks(content)
    recipient = raw.get("recipient")
    calls: tuple[ToolCall, ...] = ()
    tool_call_id = None
    if role == "assistant" and isinstance(recipient, str) and recipient not in ("all", ""):
        call_id = str(raw.get("id") or f"{recipient}-call")
        text = "".join(str(block.get("text", "")) for block in blocks)
        calls = (ToolCall(call_id, recipient, arguments_of(text)),)
        waiting[recipient.partition(".")[0]] = call_id
        blocks = []
    elif role == "tool":
        tool_call_id = waiting.get(str(author.get("name") or "").partition(".")[0])
    if not blocks and not calls:
        return None  # the root's empty system message, or a step without output
    plain = len(blocks) == 1 and blocks[0].get("type") == "text"
    metadata = {
        ours: about[theirs]
        for ours, theirs in (("model", "model_slug"), ("finish", "finish_details"))
        if isinstance(about.get(theirs), str)
    }
    return Message(
        role,
        str(blocks[0]["text"]) if plain else blocks or "",
        create_time=micros_of(raw.get("create_time")),
        name=author.get("name") if isinstance(author.get("name"), str) else None,
        tool_calls=calls,
        tool_call_id=tool_call_id,
        metadata=metadata,
    )


def _blocks(content: Mapping[str, Any]) -> list[Block]:
    kind = content.get("content_type")
    if kind == "thoughts":
        thoughts = content.get("thoughts") or ()
        texts = [str(t.get("content") or t.get("summary") or "") for t in thoughts]
        return [{"type": "reasoning", "reasoning": text} for text in texts if text]
    if kind == "reasoning_recap":
        recap = content.get("content")
        return [{"type": "reasoning", "reasoning": recap}] if isinstance(recap, str) else []
    parts = content.get("parts")
    if not isinstance(parts, list):
        text = next(
            (content[k] for k in ("text", "result") if isinstance(content.get(k), str)), None
        )
        if text is None and kind is not None:
            return [{"type": "non_standard", "value": dict(content)}]
        return [{"type": "text", "text": text}] if text else []
    blocks: list[Block] = []
    for part in parts:
        if isinstance(part, str):
            if part:
                blocks.append({"type": "text", "text": part})
        elif isinstance(part, dict) and part.get("content_type") == "audio_transcription":
            blocks.append({"type": "text", "text": str(part.get("text", ""))})
        elif isinstance(part, dict) and isinstance(part.get("asset_pointer"), str):
            blocks.append({"type": "image", "file_id": part["asset_pointer"]})
        elif part is not None:
            blocks.append({"type": "non_standard", "value": part})
    return blocks
