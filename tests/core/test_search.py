"""The meaning of a search: tokens, queries, spans, hits."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tsmemory import InvalidInputError, Message, ToolCall, open_store
from tsmemory.engine.search import (
    MAX_QUERY_CHARACTERS,
    MAX_TERMS,
    SEPARATOR,
    Text,
    index_text,
    index_texts,
    parse_query,
    spans,
)
from tsmemory.engine.tokens import tokenize

FINDS = [
    ("北京", "我昨天去了北京大学"),
    ("大学 昨天", "我昨天去了北京大学"),
    ("東京", "東京都に住んでいます"),
    ("すみません", "あの、すみませんが"),
    ("ガイド", "ｶﾞｲﾄﾞです"),
    ("한국", "한국어를 공부해요"),
    ("ภาษา", "ภาษาไทยง่ายมาก"),
    ("محمد", "كتب مُحَمَّد رسالة"),
    ("العربية", "العـربية"),
    ("שלום", "שָׁלוֹם לכולם"),
    ("हिन्दी", "यह हिन्दी है"),
    ("CAFÉ", "un cafe\u0301 noir"),
    ("strasse", "Lange Straße"),
    ("ΣΊΣΥΦΟΣ", "σίσυφος"),
    ("full width", "ｆｕｌｌ　ｗｉｄｔｈ"),
    ("🎉", "party 🎉!"),
    ("👍", "👍🏽 ok"),
    ("❤", "I ❤️ it"),
    ("snake_case", "a snake_case name"),
    ("snake", "a snake_case name"),
    ("getUserName", "call getusername()"),
    ("foo.bar", "x = foo.bar(1)"),
    ("3.14", "no 3.15, yes 3.14"),
    ("ABC-123", "order abc-123 is late"),
    ('"new york"', "in New\nYork"),
    ("lov*", "Ada Lovelace"),
    ('"ada lov*"', "Ada Lovelace"),
    ('"ada lov"*', "Ada Lovelace"),
    ("ada -byron", "ada lovelace"),
    ("C++", "written in C"),
    ('un"closed phrase', "an un closed phrase"),
]
MISSES = [
    ("京北", "我昨天去了北京大学"),
    ("北大", "我昨天去了北京大学"),
    ("京都", "東 京 の 都"),
    ("cafe", "un café noir"),
    ("case_snake", "a snake_case name"),
    ("love", "Ada Lovelace"),
    ('"york new"', "in New York"),
    ("ada -lovelace", "ada lovelace"),
    ('ada -"love lace"', "ada love lace"),
    ("3.14", "3 and 14 and 3.1.4"),
    ("🎉", "party 🎊!"),
    ("ada byron", "ada lovelace"),
]


@pytest.mark.parametrize(("query", "text"), FINDS)
def test_finds(query: str, text: str) -> None:
    assert parse_query(query).matches(index_text([text]))


@pytest.mark.parametrize(("query", "text"), MISSES)
def test_misses(query: str, text: str) -> None:
    assert not parse_query(query).matches(index_text([text]))


@pytest.mark.parametrize(("query", "text"), [f for f in FINDS if not f[0].startswith('un"')])
def test_spans_point_at_what_matched(query: str, text: str) -> None:
    parsed = parse_query(query)
    places = spans(text, parsed)
    assert places
    for start, end in places:
        part = index_text([text[start:end]])
        assert any(term.needle in part for term in parsed.required)


def test_no_phrase_reaches_across_blocks() -> None:
    assert not parse_query('"a b"').matches(index_text(["a", "b"]))
    assert parse_query("a b").matches(index_text(["a", "b"]))


def test_any_of_the_terms() -> None:
    query = parse_query("ada byron", "any")
    assert query.matches(index_text(["byron"]))
    assert not query.matches(index_text(["lovelace"]))


@pytest.mark.parametrize(
    "text", ["", " ", "...", "-", '""', "*", "-draft", '-"a b"', "\0", "\ud800", "***", SEPARATOR]
)
def test_nothing_to_look_for(text: str) -> None:
    with pytest.raises(InvalidInputError, match="nothing to look for"):
        parse_query(text)


def test_bounds_of_a_query() -> None:
    with pytest.raises(InvalidInputError, match="characters"):
        parse_query("x" * (MAX_QUERY_CHARACTERS + 1))
    with pytest.raises(InvalidInputError, match="terms"):
        parse_query(" ".join(f"w{i}" for i in range(MAX_TERMS + 1)))
    with pytest.raises(InvalidInputError, match="str"):
        parse_query(7)  # type: ignore[arg-type]


def test_kinds_of_a_message() -> None:
    message = Message.assistant(
        [{"type": "reasoning", "reasoning": "thought"}, {"type": "text", "text": "said"}],
        tool_calls=[ToolCall("1", "get_weather", {"city": "Ulm"})],
    )
    assert index_texts(message) == {
        "text": " said ",
        "reasoning": " thought ",
        "tool_calls": f" get weather {SEPARATOR} city ulm ",
    }
    assert index_texts(Message.system("be kind")) == {"instructions": " be kind "}
    assert index_texts(Message.tool("sunny", tool_call_id="1")) == {"tool_results": " sunny "}
    assert index_texts(Message.user("")) == {}


_words = st.text(min_size=1, max_size=12)


@given(st.lists(_words, min_size=1, max_size=6), st.data())
def test_every_part_of_a_text_is_found(words: list[str], data: st.DataObject) -> None:
    """Any run of whole words of a text finds the text, as a phrase."""
    text = " ".join(words)
    first = data.draw(st.integers(0, len(words) - 1))
    part = " ".join(words[first : data.draw(st.integers(first + 1, len(words)))])
    if tokenize(part) and '"' not in part:
        assert parse_query(f'"{part}"').matches(index_text([text]))


@given(st.text(max_size=200))
def test_tokens_are_stable_and_plain(text: str) -> None:
    tokens = tokenize(text)
    assert [token for token in tokens if " " in token or SEPARATOR in token] == []
    assert tokenize(" ".join(tokens)) == tokens


_few = st.text(st.sampled_from('aAbB1 .-*"éß京北🎉\u0301'), max_size=12)


@given(st.lists(_few, max_size=3), _few, st.sampled_from(["all", "any"]))
def test_the_quick_way_is_the_same(texts: list[str], query: str, match: Any) -> None:
    try:
        parsed = parse_query(query, match)
    except InvalidInputError:
        return
    counts = parsed.counts([Text(text) for text in texts])
    assert (counts is not None) == parsed.matches(index_text(texts))


@given(st.text(max_size=200), st.text(max_size=40))
def test_any_text_is_a_query_or_refused(text: str, query: str) -> None:
    try:
        parsed = parse_query(query)
    except InvalidInputError:
        return
    for start, end in spans(text, parsed):
        assert 0 <= start < end <= len(text)


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ("", {}),
        ("-a", {}),
        ("x" * 5000, {}),
        ("a", {"limit": 0}),
        ("a", {"around": -1}),
        ("a", {"kinds": "everything"}),
        ("a", {"kinds": ()}),
        ("a", {"order": "best"}),
        ("a", {"match": "some"}),
        ("a", {"cursor": "abc"}),
        ("a", {"cursor": "WyJzZWFyY2gtcmVjZW50IiwxXQ"}),
        ("a", {"user_id": None}),
        ("a", {"role": 7}),
        ("a", {"role": [7]}),
        ("a", {"created_from": "yesterday"}),
        ("a", {"where": 7}),
        ("a", {"on_error": "ignore"}),
    ],
)
def test_searches_that_are_refused(text: str, arguments: dict[str, Any]) -> None:
    with open_store("memory:") as store:
        store.conversation("s", user_id="u").append(Message.user("a"))
        with pytest.raises(InvalidInputError):
            store.search_messages(text, **arguments)
