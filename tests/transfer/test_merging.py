"""Importing is a merge: of a source that changed in between nothing is lost and nothing doubled."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tsmemory import BackendError, InvalidInputError, Message, Problem, Store, open_store
from tsmemory.transfer import Imported, Report, import_from, import_sessions
from tsmemory.transfer.alignment import align
from tsmemory.transfer.imported import mark_of


@pytest.fixture
def store() -> Iterator[Store]:
    with open_store("memory:") as store:
        yield store


def bring(store: Store, texts: list[str], **fields: object) -> Report:
    messages = [Message.user(text) for text in texts]
    return import_sessions(store, [Imported(session_id="s", messages=messages, **fields)])


def texts(store: Store, session: str = "s") -> list[str]:
    return [m.text for m in store.conversation(session).iter_messages()]


@pytest.mark.parametrize(
    ("first", "second", "expected", "lost"),
    [
        ("abcd", "abcd", "abcd", 0),
        ("abcd", "abcdef", "abcdef", 0),
        ("abcd", "cdef", "abcdef", 2),  # trimmed
        ("abcd", "xy", "abcdxy", 4),  # cleared
        ("abcd", "aXcdY", "abcdXY", 1),  # rewritten
        ("yny", "nyy", "ynyy", 1),  # trimmed, and another "yes"
        ("yy", "yyy", "yyy", 0),
        ("yyy", "y", "yyy", 2),
        ("abc", "bac", "abc", 0),  # moved
        ("", "ab", "ab", 0),
        ("ab", "", "ab", 2),
    ],
)
def test_a_source_that_changed(
    store: Store, first: str, second: str, expected: str, lost: int
) -> None:
    bring(store, list(first))
    report = bring(store, list(second))
    assert "".join(texts(store)) == expected
    assert report.written == len(expected) - len(first)
    assert [p.what.split()[0] for p in report.problems] == ([str(lost)] if lost else [])
    again = bring(store, list(second))
    assert again.written == 0
    assert "".join(texts(store)) == expected


class Chat:
    """A source as people use it: it grows, is trimmed, and is cleared."""

    def __init__(self) -> None:
        self.everything: list[str] = []
        self.left: list[str] = []

    def say(self, word: str) -> None:
        self.everything.append(word)
        self.left.append(word)


steps = st.lists(
    st.one_of(
        st.sampled_from("abcdefgh").map(lambda word: ("say", word)),
        st.integers(1, 3).map(lambda count: ("trim", count)),
        st.just(("import", 0)),
    ),
    max_size=40,
)


@given(steps)
@example([("say", "a"), ("say", "b"), ("import", 0), ("trim", 1), ("say", "a"), ("import", 0)])
def test_a_source_that_is_trimmed_loses_nothing(course: list[tuple[str, object]]) -> None:
    """Distinct words: then the right answer is known whatever the course."""
    chat, number = Chat(), 0
    with open_store("memory:") as store:
        brought: list[str] = []
        for kind, value in [*course, ("import", 0)]:
            if kind == "say":
                number += 1
                chat.say(f"{value}{number}")
            elif kind == "trim":
                chat.left = chat.left[int(str(value)) :]
            else:
                report = bring(store, chat.left)
                fresh = [word for word in chat.left if word not in brought]
                brought += fresh
                assert report.written == len(fresh)
                assert texts(store) == brought


words = st.lists(st.sampled_from("ab"), max_size=12).map("".join)


@given(words, words)
def test_an_alignment_pairs_equals_once(old: str, new: str) -> None:
    pairs = align(old, new)
    assert len(set(pairs.values())) == len(pairs)
    assert all(new[j] == old[k] for j, k in pairs.items())
    # What is appended to an unchanged source is new, however often it was said before.
    assert align(old, old + new) == {i: i for i in range(len(old))}
    # All that the source has is stored afterwards, as often as it has it.
    left = Counter(new[j] for j in range(len(new)) if j not in pairs)
    assert not Counter(new) - (Counter(old) + left)


def test_a_long_source_is_aligned_in_linear_time() -> None:
    old = [str(i % 7) for i in range(30_000)]
    pairs = align(old, [*old[10_000:], "new"])
    assert len(pairs) == 20_000


def test_messages_with_ids_of_their_own(store: Store) -> None:
    def bring_ids(items: list[tuple[str | None, str]]) -> Report:
        messages = [Message.user(text) for _, text in items]
        ids = [own for own, _ in items]
        return import_sessions(store, [Imported(session_id="s", messages=messages, ids=ids)])

    assert bring_ids([("1", "a"), ("2", "b"), (None, "c"), ("1", "other")]).problems == []
    assert texts(store) == ["a", "b", "c", "other"]
    assert [m.message_id for m in store.conversation("s").iter_messages()][:2] == ["1", "2"]
    report = bring_ids([("2", "B"), (None, "c"), ("1", "a"), ("1", "other"), ("3", "d")])
    assert texts(store) == ["a", "b", "c", "other", "B", "d"]
    assert [(p.message_id, p.what.split(";")[0]) for p in report.problems] == [
        ("2", "differs from the source")
    ]
    # The first of two with one id is gone over there: the other is still known, and a new message
    # under an id that was used before is not lost.
    report = bring_ids([("2", "B"), (None, "c"), ("1", "other"), ("3", "d")])
    assert report.written == 0
    assert bring_ids([("1", "and another")]).written == 1
    # Changed here: the source's text does not come again.
    store.conversation("s").update_message("3", content="edited here")
    report = bring_ids([("3", "d")])
    assert report.written == 0
    assert report.problems[0][2:] == ("3", "was changed here since it was brought in; it stays")
    long, bad = "x" * 300, "\ud800"
    assert bring_ids([(long, "long"), ("", "empty"), (bad, "bad")]).written == 3
    assert texts(store)[-3:] == ["long", "empty", "bad"]


def test_what_lived_on_here_stays(store: Store) -> None:
    bring(store, ["a", "yes"], title="theirs", ttl=500.0)
    chat = store.conversation("s")
    assert chat.session().title == "theirs"
    chat.append(Message.user("yes"), Message.user("mine"))
    chat.update_session(title="ours")
    first = chat.list_messages().items[0]
    chat.update_message(first.message_id, content="edited here")
    report = bring(store, ["a", "yes", "yes"], title="theirs again")
    assert report.written == 1  # their second "yes" is not ours
    assert texts(store) == ["edited here", "yes", "yes", "mine", "yes"]
    assert chat.session().title == "ours"
    assert [p.message_id for p in report.problems] == [first.message_id]


def test_times_of_the_source(store: Store) -> None:
    def bring_timed(items: list[tuple[str, int | None]]) -> Report:
        messages = [Message.user(text, create_time=time) for text, time in items]
        return import_sessions(store, [Imported(session_id="s", messages=messages)])

    bring_timed([("a", 100), ("b", None), ("c", 90), ("d", 500)])
    chat = store.conversation("s")
    assert [(m.text, m.create_time) for m in chat.iter_messages()] == [
        ("a", 100), ("b", 101), ("c", 102), ("d", 500),
    ]  # fmt: skip
    assert (chat.session().create_time, chat.session().update_time) == (90, 500)
    chat.append(Message.user("now"))
    assert bring_timed([("c", 90), ("d", 500), ("e", 600)]).written == 1
    assert texts(store) == ["a", "b", "c", "d", "e", "now"]


def test_one_bad_record_does_not_take_the_others_along(store: Store) -> None:
    deep: dict[str, object] = {}
    for _ in range(200):
        deep = {"k": deep}
    sessions = [
        Imported(session_id="", messages=[Message.user("x")]),
        Imported(session_id="x" * 300, messages=[Message.user("x")]),
        Problem("u", "s", None, "could not be read"),
        Imported(
            session_id="s",
            messages=[Message.user("a"), Message.user("b", metadata=deep), Message.user("c")],
            problems=[Problem("u", "s", None, "line 4")],
        ),
        Imported(session_id="bad metadata", messages=[Message.user("x")], metadata={"k": object()}),
        Imported(session_id="last", messages=[Message.user("x")]),
    ]
    report = import_sessions(store, sessions)
    assert len(report.problems) == 6
    assert texts(store) == ["a", "c"]
    assert texts(store, "last") == ["x"]


def test_only_errors_of_the_tree(store: Store) -> None:
    class DriverError(Exception):
        pass

    def broken() -> Iterator[Imported]:
        yield Imported(session_id="s", messages=[Message.user("before")])
        raise DriverError("no route to db://user:hunter2@host")

    with pytest.raises(BackendError, match="cannot be read") as caught:
        import_sessions(store, broken())
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert texts(store) == ["before"]
    for bad in ("", "a:b"):
        with pytest.raises(InvalidInputError):
            import_sessions(store, [], origin=bad)
    with pytest.raises(InvalidInputError, match="one of ai-kit"):
        import_from(store, "x", format="nothing")
    with pytest.raises(InvalidInputError, match="its options are branches"):
        import_from(store, "x", format="chatgpt", wrong=1)
    with pytest.raises(InvalidInputError, match="no options"):
        import_from(store, "x", format="openai", wrong=1)


def test_a_mark_is_what_a_message_says() -> None:
    plain = Message.user("x", metadata={"k": 1}, extensions={"f": 1}, create_time=5)
    assert mark_of(plain) == mark_of(Message.user([{"type": "text", "text": "x"}]))
    image = {"type": "image", "url": "http://h/i.png"}
    different = [
        Message.user("y"),
        Message.assistant("x"),
        Message("user", "x", name="ada"),
        Message("tool", "x", tool_call_id="c"),
        Message.user([{"type": "text", "text": "x"}, image]),
        Message.user([{"type": "text", "text": "x"}, {**image, "url": "http://h/j.png"}]),
    ]
    assert len({mark_of(message) for message in (plain, *different)}) == len(different) + 1
