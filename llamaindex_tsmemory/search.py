"""Searches of a user's sessions for LlamaIndex: a memory block that recalls, and a retriever."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.callbacks import CallbackManager
from llama_index.core.memory import BaseMemoryBlock
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
from pydantic import Field

from tsmemory import InvalidInputError, SearchHit, Steps, Store
from tsmemory.adapters import recall
from tsmemory.search import Kind
from tsmemory.times import minute

__all__ = ["TSMemoryRecallBlock", "TSMemoryRetriever"]

_CHARACTERS_PER_TOKEN = 4  # of English text, roughly; only for how much a truncation cuts off


class TSMemoryRetriever(BaseRetriever):
    """A retriever over what was said in a user's sessions.

    Any word of the question may match, rare ones count for more; a question is never a syntax
    error. It reads, and never writes.

    Args:
        store: a store, which stays yours to close.
        user_id: whose sessions.
        session_id: only this session's messages; None for all of the user's.
        similarity_top_k: how many nodes.
        kinds: what of a message is searched, as in `Store.search_messages`.
        around: also up to so many messages on each side of a hit, in the node's text.
        callback_manager: LlamaIndex's.

    A node's text is the message's; its metadata are ``user_id``, ``session_id``, ``message_id``,
    ``role`` and ``create_time`` (µs since the epoch), which are not shown to models.

    Raises:
        InvalidInputError: an argument is wrong.
    """

    def __init__(
        self,
        store: Store,
        *,
        user_id: str,
        session_id: str | None = None,
        similarity_top_k: int = 4,
        kinds: Kind | Iterable[Kind] = ("text",),
        around: int = 0,
        callback_manager: CallbackManager | None = None,
    ) -> None:
        super().__init__(callback_manager=callback_manager)
        _check(store)
        self._store = store
        self._arguments: dict[str, Any] = {
            "user_id": user_id,
            "session_id": session_id,
            "limit": similarity_top_k,
            "kinds": kinds if isinstance(kinds, str) else tuple(kinds),
            "around": around,
        }

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return self._store.run(self._search(query_bundle.query_str))

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return await self._store.arun(self._search(query_bundle.query_str))

    def _search(self, question: str) -> Steps[list[NodeWithScore]]:
        hits = yield from recall(self._store, question, **self._arguments)
        return [NodeWithScore(node=_node(hit), score=hit.score) for hit in hits]


def _node(hit: SearchHit) -> TextNode:
    lines = [f"{m.role}: {m.text}" for m in hit.around if m.text]
    metadata = {
        "user_id": hit.user_id,
        "session_id": hit.session_id,
        "message_id": hit.message.message_id,
        "role": hit.message.role,
        "create_time": hit.message.create_time,
    }
    return TextNode(
        id_=f"{hit.user_id}/{hit.session_id}/{hit.message.message_id}",
        text="\n".join(lines) if lines else hit.message.text or hit.snippet,
        metadata=metadata,
        excluded_llm_metadata_keys=list(metadata),
        excluded_embed_metadata_keys=list(metadata),
    )


class TSMemoryRecallBlock(BaseMemoryBlock[str]):
    """A memory block that recalls from the transcript what the newest user message is about.

    The transcript has everything already, so the block stores nothing: what leaves the short-term
    memory is still found. Messages that the memory shows anyway are not repeated.

    Args:
        store: a store, which stays yours to close.
        user_id: whose sessions.
        session_id: only this session's messages; None for all of the user's.
        limit: messages that are recalled, at most.
        max_characters: of all of them together, at most.
        name: the block's, by which the memory's template tells blocks apart.
        priority: as for every block: 0 is never truncated.

    Raises:
        InvalidInputError: an argument is wrong.
    """

    name: str = "recalled_messages"
    priority: int = 1
    store: Store = Field(exclude=True, repr=False)
    user_id: str
    session_id: str | None = None
    limit: int = 5
    max_characters: int = 4_000

    async def _aget(self, messages: list[ChatMessage] | None = None, **block_kwargs: Any) -> str:
        question = next((m.content for m in reversed(messages or ()) if m.role == "user"), None)
        if not question:
            return ""
        in_prompt = {(m.role.value, m.content) for m in messages or ()}
        # As many more as may be shown already, so that `limit` others are left.
        hits = await self.store.arun(
            recall(
                self.store,
                question,
                user_id=self.user_id,
                session_id=self.session_id,
                limit=self.limit + len(in_prompt),
            )
        )
        lines = [
            _line(hit) for hit in hits if (hit.message.role, hit.message.text) not in in_prompt
        ]
        return _within(lines[: self.limit], self.max_characters)

    async def _aput(self, messages: list[ChatMessage]) -> None:
        """Nothing: the chat store has the messages."""

    async def atruncate(self, content: str, tokens_to_truncate: int) -> str | None:
        """The content without its least relevant messages; None where none is left."""
        most = len(content) - tokens_to_truncate * _CHARACTERS_PER_TOKEN
        return _within(content.split("\n"), most) or None


def _line(hit: SearchHit) -> str:
    text = " ".join(hit.message.text.split()) or hit.snippet
    return f"[{minute(hit.message.create_time)}] {hit.message.role}: {text}"


def _within(lines: Sequence[str], characters: int) -> str:
    """The first lines, as many as fit."""
    shown: list[str] = []
    for line in lines:
        characters -= len(line) + 1
        if characters < 0:
            break
        shown.append(line)
    return "\n".join(shown)


def _check(store: Any) -> None:
    if not isinstance(store, Store):
        raise InvalidInputError(
            f"store is a tsmemory.Store, not a {type(store).__name__}; "
            "open one with tsmemory.open_store"
        )
