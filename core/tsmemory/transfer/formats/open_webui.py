"""Open WebUI's export of chats (Settings, Chats, Export; or of all, by an administrator).

An array of chats with ``id``, ``user_id``, ``title``, ``created_at``, ``updated_at`` (seconds) and
``chat``, whose ``history`` is a tree: ``messages`` by id, with ``parentId``, and ``currentId``.
Older chats have only the list ``chat.messages`` (github.com/open-webui/open-webui).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tsmemory.errors import InvalidInputError
from tsmemory.model import Block, Message, Problem
from tsmemory.transfer.formats.tree import Branch, branches_of, read_branch, read_trees
from tsmemory.transfer.imported import Imported
from tsmemory.transfer.sources import Source, documents, mapping_of, micros_of, read_bytes

__all__ = ["read"]


def read(source: Source, *, user_id: str, branches: bool = False) -> Iterator[Imported | Problem]:
    """The chats of an export.

    Args:
        branches: also the branches that were not shown last, as sessions of their own.
    """
    texts = documents(read_bytes(source))
    return read_trees(texts, user_id, lambda raw: _chats(raw, user_id, branches))


def _chats(raw: Any, user_id: str, others: bool) -> list[Imported]:
    if isinstance(raw, ValueError):
        raise raw
    chat = raw.get("chat", raw)
    session_id = raw.get("id") or chat.get("id")
    if not isinstance(session_id, str):
        raise InvalidInputError("it has no id")
    history = chat.get("history")
    tree_nodes = history.get("messages") if isinstance(history, dict) else None
    if isinstance(tree_nodes, dict) and tree_nodes:
        nodes = {name: node for name, node in tree_nodes.items() if isinstance(node, dict)}
        current = history.get("currentId")
    else:
        nodes, current = _linear(chat), None
    tree = list(branches_of(nodes, _parent, current, others=others)) or [Branch("", [], True)]
    return [_branch(raw, chat, nodes, branch, session_id, user_id) for branch in tree]


def _linear(chat: Mapping[str, Any]) -> dict[str, Any]:
    """The nodes of a chat that is a list."""
    listed = chat.get("messages")
    if not isinstance(listed, list):
        raise InvalidInputError("it has neither a history nor messages")
    nodes: dict[str, Any] = {}
    previous: str | None = None
    for number, raw_message in enumerate(listed):
        node = raw_message if isinstance(raw_message, dict) else {"broken": raw_message}
        name = node["id"] if isinstance(node.get("id"), str) else f"{number}"
        nodes[name] = {**node, "parentId": previous}
        previous = name
    return nodes


def _parent(node: Mapping[str, Any]) -> str | None:
    parent = node.get("parentId")
    return parent if isinstance(parent, str) else None


def _branch(
    raw: Mapping[str, Any],
    chat: Mapping[str, Any],
    nodes: Mapping[str, Any],
    branch: Branch,
    session_id: str,
    user_id: str,
) -> Imported:
    session = branch.session_of(session_id)
    owner = raw.get("user_id")
    owner = owner if isinstance(owner, str) and owner else user_id

    def read(node_id: str) -> Iterator[tuple[str | None, Message]]:
        own_id = nodes[node_id].get("id")
        yield (own_id if isinstance(own_id, str) else None), _message(nodes[node_id])

    messages, ids, problems = read_branch(branch, owner, session, read)
    title = raw.get("title") or chat.get("title")
    metadata = branch.metadata_of(session_id)
    tags = chat.get("tags") or mapping_of(raw.get("meta")).get("tags")
    if isinstance(tags, list) and all(isinstance(tag, str) for tag in tags) and tags:
        metadata["tags"] = tags
    for key in ("archived", "pinned", "folder_id"):
        if raw.get(key):
            metadata[key] = raw[key]
    return Imported(
        session_id=session,
        user_id=owner,
        messages=messages,
        ids=ids,
        title=title if isinstance(title, str) else None,
        metadata=metadata,
        create_time=micros_of(raw.get("created_at") or chat.get("timestamp")),
        update_time=micros_of(raw.get("updated_at")),
        problems=problems,
    )


def _message(raw: Mapping[str, Any]) -> Message:
    role, text = raw.get("role"), raw.get("content")
    if not isinstance(role, str):
        raise InvalidInputError("it has no role")
    if not isinstance(text, (str, list)):
        raise InvalidInputError(f"its content is {text!r:.80}")
    blocks: list[Block] = []
    if isinstance(text, list):
        blocks += [
            {"type": "text", "text": part["text"]}
            if isinstance(part, dict) and isinstance(part.get("text"), str)
            else {"type": "non_standard", "value": part}
            for part in text
        ]
    elif text:
        blocks.append({"type": "text", "text": text})
    for file in raw.get("files") or ():
        if isinstance(file, dict) and file.get("type") == "image" and file.get("url"):
            blocks.append({"type": "image", "url": str(file["url"])})
        else:
            blocks.append({"type": "non_standard", "value": file})
    plain = isinstance(text, str) and len(blocks) <= 1 and not raw.get("files")
    metadata = {key: raw[key] for key in ("model", "modelName") if isinstance(raw.get(key), str)}
    return Message(
        role,
        text if plain and isinstance(text, str) else blocks,
        create_time=micros_of(raw.get("timestamp")),
        metadata=metadata,
    )
