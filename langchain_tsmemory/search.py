"""Searches of a user's sessions for LangChain: a retriever, and a tool for agents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.callbacks import (
    AsyncCallbackManagerForRetrieverRun,
    CallbackManagerForRetrieverRun,
)
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import BaseTool, StructuredTool
from pydantic import ConfigDict, Field

from langchain_tsmemory._identity import DEFAULT_USER, USER_NAMES, Identity, named
from tsmemory import InvalidInputError, Message, SearchHit, Steps, Store
from tsmemory.adapters import recall
from tsmemory.times import minute

__all__ = ["TSMemoryRetriever", "search_tool"]

_RUNTIME = "__pregel_runtime"  # langgraph._internal._constants.CONFIG_KEY_RUNTIME
_MAX_TEXT = 2_000  # characters of one message that the tool shows a model


class TSMemoryRetriever(BaseRetriever):
    """A retriever over what was said in a user's sessions.

    Any word of the question may match, rare ones count for more; a question is never a syntax
    error. It reads, and never writes.

    Args:
        store: a store, which stays yours to close.
        user_id: whose sessions.
        session_id: only this session's messages; None for all of the user's.
        k: how many documents.
        kinds: what of a message is searched, as in `Store.search_messages`.
        around: also up to so many messages on each side of a hit, in the document's text.

    A document's text is the message's; its id is the message's id; its metadata are ``user_id``,
    ``session_id``, ``message_id``, ``role``, ``create_time`` (µs since the epoch), ``score``.

    Raises:
        InvalidInputError: an argument is wrong.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    store: Store = Field(exclude=True, repr=False)
    user_id: str
    session_id: str | None = None
    k: int = 4
    kinds: Sequence[str] = ("text",)
    around: int = 0

    def _search(self, query: str) -> Steps[list[Document]]:
        hits = yield from recall(
            self.store,
            query,
            user_id=self.user_id,
            session_id=self.session_id,
            limit=self.k,
            kinds=self.kinds,  # type: ignore[arg-type]  # the search checks them
            around=self.around,
        )
        return [_document(hit) for hit in hits]

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun
    ) -> list[Document]:
        return self.store.run(self._search(query))

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun
    ) -> list[Document]:
        return await self.store.arun(self._search(query))


def _document(hit: SearchHit) -> Document:
    lines = [f"{m.role}: {m.text}" for m in hit.around if m.text]
    return Document(
        page_content="\n".join(lines) if lines else hit.message.text or hit.snippet,
        id=hit.message.message_id,
        metadata=_place(hit),
    )


def _place(hit: SearchHit) -> dict[str, Any]:
    return {
        "user_id": hit.user_id,
        "session_id": hit.session_id,
        "message_id": hit.message.message_id,
        "role": hit.message.role,
        "create_time": hit.message.create_time,
        "score": hit.score,
    }


_DESCRIPTION = """Search what was said in earlier conversations with this user.

Give it the few words that matter, names above all. It answers with the messages that match best, \
each with its date and its neighbours."""


def search_tool(
    store: Store,
    *,
    user_id: Identity | None = None,
    k: int = 5,
    around: int = 1,
    name: str = "search_conversations",
    description: str = _DESCRIPTION,
) -> BaseTool:
    """A tool with which an agent searches the sessions of the user that it talks to.

    The model gives the words; whose sessions are searched comes from the run alone, as in
    `TSMemoryMiddleware`.

    Args:
        store: a store, which stays yours to close.
        user_id: whose; or a function of the run's context and ``config["configurable"]``; None for
            the run's ``user_id`` in one of these, and ``"default"`` where there is none.
        k: how many hits.
        around: messages on each side of a hit that are shown with it.
        name: the tool's, for the model.
        description: what the model reads about it.

    Returns:
        A tool with one argument, ``query``. Its answer is text; its artifact a list of dicts, one
        per hit, with the metadata of `TSMemoryRetriever` and the ``text``.

    Raises:
        InvalidInputError: an argument is wrong.
    """
    if not isinstance(store, Store):
        raise InvalidInputError(
            f"store is a tsmemory.Store, not a {type(store).__name__}; "
            "open one with tsmemory.open_store"
        )

    def steps(query: str, config: RunnableConfig) -> Steps[tuple[str, list[dict[str, Any]]]]:
        hits = yield from recall(
            store, query, user_id=_user(config, user_id), limit=k, around=around
        )
        records = [{**_place(hit), "text": hit.message.text} for hit in hits]
        return "\n\n".join(map(_shown, hits)) or "Nothing matches.", records

    def search(query: str, config: RunnableConfig) -> tuple[str, list[dict[str, Any]]]:
        return store.run(steps(query, config))

    async def asearch(query: str, config: RunnableConfig) -> tuple[str, list[dict[str, Any]]]:
        return await store.arun(steps(query, config))

    return StructuredTool.from_function(
        func=search,
        coroutine=asearch,
        name=name,
        description=description,
        response_format="content_and_artifact",
    )


def _user(config: RunnableConfig, user_id: Identity | None) -> str:
    configurable: Mapping[str, Any] = config.get("configurable") or {}
    context = getattr(configurable.get(_RUNTIME), "context", None)
    user, _ = named(user_id, USER_NAMES, context, configurable)
    return DEFAULT_USER if user is None else user


def _shown(hit: SearchHit) -> str:
    """A hit as a model reads it: where and when, then who said what."""
    lines = [f"[session {hit.session_id}, {minute(hit.message.create_time)}]"]
    messages: Sequence[Message] = hit.around or [hit.message]
    for message in messages:
        text = message.text if message.message_id != hit.message.message_id else _best_part(hit)
        if text:
            lines.append(f"{message.role}: {text[:_MAX_TEXT]}")
    return "\n".join(lines)


def _best_part(hit: SearchHit) -> str:
    text = hit.message.text
    return text if 0 < len(text) <= _MAX_TEXT else hit.snippet
