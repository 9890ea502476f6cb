"""Searches over any backend, held to the evaluator: the same set of hits, whatever was done before.

Texts are generated of many scripts; messages are appended, edited, deleted and erased; then each
query is asked of the store, and of every message that the store still reads.
"""

from __future__ import annotations

import itertools
import os
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tsmemory import InvalidInputError, Message, Store, ToolCall
from tsmemory.engine.search import KINDS, SearchQuery, parse_query

__all__ = ["hold_to_the_evaluator"]

_WORDS = (
    "ferry", "ferries", "Ferry", "Bergen", "café", "cafe\u0301", "cafe", "Straße", "STRASSE",
    "İzmir", "izmir",
    "3.14", "14", "snake_case", "snake", "foo.bar()", "C++", "ＦＥＲＲＹ", "北京", "京都",
    "東京都", "ガイド", "ｶﾞｲﾄﾞ", "한국어", "한국", "ภาษาไทย", "ภาษา", "ខ្មែរ",
    "مُحَمَّد", "محمد", "العـربية", "שָׁלוֹם",
    "हिन्दी", "🎉", "👍🏽", "❤️", "\u200d", "Ꭰꭰ", "ǅ", "ﬁn", "fin", "x" * 70, "x" * 64, "AND", "NOT",
    "OR", "NEAR", "*", "'", '"', ":", "&", "|", "!", "<->", "\\", "%", "\ue000", "a\x01b",
)  # fmt: skip
_words = st.sampled_from(_WORDS) | st.text(max_size=4)
_texts = st.lists(st.tuples(_words, st.sampled_from(["", " ", "-", "_", "\n", "、", "'"]))).map(
    lambda parts: "".join(word + separator for word, separator in parts)
)
_terms = st.tuples(
    st.sampled_from(["", "", "", "-"]), st.lists(_words, min_size=1, max_size=3), st.booleans()
).map(
    lambda term: term[0] + (f'"{" ".join(term[1])}"' if len(term[1]) > 1 else term[1][0])
    + ("*" if term[2] else "")
)  # fmt: skip
_queries = st.tuples(
    st.lists(_terms, min_size=1, max_size=3).map(" ".join),
    st.sampled_from(["all", "any"]),
    st.sampled_from([("text",), ("text", "tool_calls"), KINDS]),
    st.sampled_from([None, 0]),
)
_where = st.integers(0, 1)  # one of two sessions
_roles = st.sampled_from(["user", "tool", "system", "call"])
_operations = st.lists(
    st.tuples(
        st.just("append"), _where, st.sampled_from(["user", "tool", "system", "call"]), _texts
    )
    | st.tuples(st.just("update"), _where, st.integers(0, 5), _texts)
    | st.tuples(st.just("delete"), _where, st.integers(0, 5))
    | st.tuples(st.just("truncate"), _where, st.integers(0, 3))
    | st.tuples(st.just("erase"), _where),
    min_size=1,
    max_size=10,
)
_numbers = itertools.count()


def _message(role: str, text: str) -> Message:
    if role == "tool":
        return Message.tool(text, tool_call_id="c")
    if role == "call":
        return Message.assistant(
            [{"type": "reasoning", "reasoning": text[::2]}, {"type": "text", "text": text[1::2]}],
            tool_calls=[ToolCall("c", "find", {"what": text})],
        )
    return Message.system(text) if role == "system" else Message.user(text)


def _apply(chat: Any, name: str, *arguments: Any) -> None:
    if name == "append":
        chat.append(_message(*arguments))
        return
    if name == "erase":
        chat.delete()
        return
    if name == "truncate":
        chat.truncate(arguments[0])
        return
    ids = [message.message_id for message in chat.iter_messages()]
    if not ids:
        return
    chosen = ids[arguments[0] % len(ids)]
    if name == "delete":
        chat.delete_message(chosen)
    else:
        chat.update_message(chosen, content=arguments[1])


def _found(store: Store, text: str, **arguments: Any) -> set[tuple[str, str]]:
    hits: list[tuple[str, str]] = []
    cursor: str | None = None
    while True:
        page = store.search_messages(text, limit=3, cursor=cursor, **arguments)
        hits += [(hit.session_id, hit.message.message_id) for hit in page]
        cursor = page.next_cursor
        if cursor is None:
            assert len(hits) == len(set(hits))
            return set(hits)


def hold_to_the_evaluator(store: Store, examples: int) -> None:
    """Generated conversations on `store`, a user for each; `examples` of them, in a soak run 50
    times as many."""
    bystander = store.conversation("s0", user_id="bystander")
    bystander.append([Message.user(word) for word in _WORDS])

    @settings(
        max_examples=examples * (50 if os.environ.get("TSMEMORY_SOAK") else 1),
        suppress_health_check=list(HealthCheck),
    )
    @given(_operations, st.lists(_queries, min_size=1, max_size=6))
    def check(operations: list[Any], queries: list[Any]) -> None:
        user = f"user{next(_numbers)}"
        chats = [store.conversation(f"s{i}", user_id=user) for i in range(2)]
        for name, where, *arguments in operations:
            _apply(chats[where], name, *arguments)
        for text, match, kinds, session in queries:
            try:
                query = SearchQuery(query=parse_query(text, match), kinds=kinds, limit=1)
            except InvalidInputError:
                continue
            searched = chats if session is None else chats[:1]
            matching = {
                (chat.session_id, message.message_id)
                for chat in searched
                for message in chat.iter_messages()
                if query.matches(message)
            }
            only = {} if session is None else {"session_id": "s0"}
            found = _found(store, text, user_id=user, match=match, kinds=kinds, **only)
            assert found == matching, (text, match, kinds, session)

    check()
