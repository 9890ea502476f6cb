"""What a search finds, over any backend: the same set of hits, whatever index there is."""

from __future__ import annotations

import random
from typing import Any

from tsmemory import Message, SearchHit, ToolCall
from tsmemory.engine.search import SearchQuery, parse_query

__all__ = ["SearchConformance"]

_WORDS = ("ferry", "ferries", "Bergen", "北京", "京都", "café", "cafe", "snake_case", "3.14", "🎉")
_QUERIES = (
    "ferry",
    "FERRY bergen",
    '"ferry bergen"',
    "ferr*",
    "京",
    "北京",
    "京都",
    "café",
    "cafe",
    "snake_case",
    '"3.14 🎉"',
    "🎉",
    "ferry -bergen",
    'bergen -"京都 café"',
    "nowhere",
)


def _hits(results: Any) -> list[tuple[str, str, str]]:
    return sorted((hit.user_id, hit.session_id, hit.message.message_id) for hit in results)


class SearchConformance:
    """A part of `BackendConformance`."""

    def search_all(self, raw: Any, text: str, **arguments: Any) -> list[SearchHit]:
        """Every page of a search, each hit once."""
        hits: list[SearchHit] = []
        cursor: str | None = None
        while True:
            page = raw.search_messages(text, cursor=cursor, **arguments)
            hits += page.items
            cursor = page.next_cursor
            if cursor is None:
                assert len(set(_hits(hits))) == len(hits)
                return hits

    def test_search_finds_what_matches(self, store: Any) -> None:
        dice = random.Random(7)  # the same texts in every run
        query_of = {text: SearchQuery(query=parse_query(text), limit=1) for text in _QUERIES}
        stored: list[tuple[str, str, Message]] = []
        for user in ("ada", "bob"):
            for session in ("one", "two"):
                texts = [" ".join(dice.choices(_WORDS, k=dice.randint(1, 4))) for _ in range(12)]
                messages = store.conversation(session, user_id=user).append(
                    *(Message.user(t, message_id=f"{i}") for i, t in enumerate(texts))
                )
                stored += [(user, session, message) for message in messages]
        for text, query in query_of.items():
            for whom in ("ada", "bob", None):
                whose = {} if whom is None else {"user_id": whom}
                expected = sorted(
                    (user, session, message.message_id)
                    for user, session, message in stored
                    if whom in (None, user) and query.matches(message)
                )
                hits = self.search_all(store, text, limit=9, **whose)
                assert _hits(hits) == expected, (text, whom)
        for hit in self.search_all(store, "ferr*", user_id="ada"):
            for start, end in hit.spans:
                assert hit.snippet[start:end].lower().startswith("ferr")
            assert hit.score > 0

    def test_search_by_kind_role_time_and_metadata(self, store: Any) -> None:
        chat = store.conversation("s", user_id="ada")
        first, *_ = chat.append(
            Message.user("needle", metadata={"n": 1}),
            Message.assistant(
                [{"type": "reasoning", "reasoning": "needle?"}],
                tool_calls=[ToolCall("c", "find", {"what": "needle"})],
            ),
            Message.tool("a needle", tool_call_id="c"),
            Message.assistant("here is the needle"),
            Message.system("needles matter"),
        )

        def roles(**arguments: Any) -> list[str]:
            return sorted(hit.message.role for hit in chat.search("needle", **arguments))

        assert roles() == ["assistant", "user"]
        assert roles(role="user") == ["user"]
        assert roles(role=["user", "tool"], kinds=["text", "tool_results"]) == ["tool", "user"]
        assert roles(kinds="reasoning") == ["assistant"]
        assert roles(kinds="tool_calls") == ["assistant"]
        assert roles(kinds="instructions") == []
        assert roles(where={"n": 1}) == ["user"]
        assert roles(created_to=first.create_time) == ["user"]
        assert roles(created_from=first.create_time + 1) == ["assistant"]
        (hit,) = chat.search("needle", kinds="tool_results", around=1)
        assert [m.role for m in hit.around] == ["assistant", "tool", "assistant"]

    def test_what_is_gone_is_not_found(self, store: Any) -> None:
        chat = store.conversation("s", user_id="ada")
        for i in range(6):
            chat.append(Message.user(f"needle {i}", message_id=f"{i}"))
        chat.update_message("0", content="changed")
        chat.delete_message("1")
        assert _hits(chat.search("needle")) == [("ada", "s", f"{i}") for i in (2, 3, 4, 5)]
        assert _hits(chat.search("changed")) == [("ada", "s", "0")]
        chat.truncate(2)
        assert _hits(chat.search("needle")) == [("ada", "s", "4"), ("ada", "s", "5")]
        chat.replace([Message.user("another", message_id="4")])
        assert not len(chat.search("needle"))
        assert _hits(chat.search("another")) == [("ada", "s", "4")]
        store.erase_user("ada")
        assert not len(store.search_messages("another"))
        chat.append(Message.user("another", message_id="4"))
        assert len(store.search_messages("another", user_id="ada")) == 1
        assert not len(store.search_messages("another", user_id="ad"))

    def test_search_pages_while_others_write(self, store: Any) -> None:
        chat = store.conversation("s", user_id="ada")
        for i in range(10):
            chat.append(Message.user(f"needle {i}", message_id=f"{i}"))
        hits: list[SearchHit] = []
        cursor: str | None = None
        pages = 0
        while pages == 0 or cursor is not None:
            page = store.search_messages("needle", user_id="ada", limit=3, cursor=cursor)
            hits += page.items
            cursor, pages = page.next_cursor, pages + 1
            chat.append(Message.user("needle, later"))
        numbered_ids = [hit.message.message_id for hit in hits if hit.message.text[-1].isdigit()]
        assert sorted(numbered_ids) == [str(i) for i in range(10)]

    def test_search_by_relevance(self, store: Any) -> None:
        chat = store.conversation("s", user_id="ada")
        chat.append(
            Message.user("once a needle " + "hay " * 50, message_id="weak"),
            Message.user("needle needle needle", message_id="strong"),
            Message.user("hay", message_id="none"),
        )
        pages = self.search_all(store, "needle", user_id="ada", order="relevance", limit=1)
        assert [hit.message.message_id for hit in pages] == ["strong", "weak"]
        either = self.search_all(
            store, "needle hay", match="any", user_id="ada", order="relevance", limit=2
        )
        assert len(either) == 3

    def test_search_sessions(self, store: Any) -> None:
        for i in range(5):
            chat = store.conversation(f"s{i}", user_id="ada")
            chat.update_session(title=f"Trip {i}", summary="北京", metadata={"tags": [f"t{i}"]})
        store.conversation("s9", user_id="bob").update_session(title="Trip 9")

        def found(text: str, **arguments: Any) -> list[str]:
            page = store.search_sessions(text, **arguments)
            return [hit.session.session_id for hit in page]

        assert found("trip", user_id="ada", limit=9) == ["s4", "s3", "s2", "s1", "s0"]
        assert found("北京 t3", user_id="ada") == ["s3"]
        assert found("trip -t3", user_id="bob") == ["s9"]
        page = store.search_sessions("trip", user_id="ada", limit=2)
        next_page = store.search_sessions("trip", user_id="ada", limit=9, cursor=page.next_cursor)
        assert [h.session.session_id for h in (*page, *next_page)] == ["s4", "s3", "s2", "s1", "s0"]
