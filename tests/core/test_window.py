"""Windows: what a model is shown is always what a chat API accepts."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests._chat_api import conversations, first_other, refusal
from tsmemory import (
    InvalidInputError,
    Message,
    ToolCall,
    Window,
    count_tokens,
    from_openai,
    open_store,
)
from tsmemory.model import is_pinned
from tsmemory.window import ORPHAN_REACH, cut


def chat(*messages: Message):
    found = open_store("memory:").conversation("s")
    found.append(*messages)
    return found


def call(*ids: str, text: str = "", **fields) -> Message:
    return Message.assistant(text, tool_calls=[ToolCall(i, "f", {}) for i in ids], **fields)


def result(call_id: str, text: str = "ok") -> Message:
    return Message.tool(text, tool_call_id=call_id)


def texts(messages) -> list[str]:
    return [m.text or "+".join(c.id for c in m.tool_calls) for m in messages]


U, A, S = Message.user, Message.assistant, Message.system


def check(transcript: list[Message], last: int, shown: list[Message]) -> None:
    """The promises that hold for any transcript."""
    assert refusal(shown) is None
    if last == 0:
        assert shown == []
        return
    ids = [m.message_id for m in shown]
    assert len(set(ids)) == len(ids)
    by_id = {m.message_id: m for m in transcript}
    ids = [mid.partition("#")[0] for mid in ids]  # a result that came late has its call again
    assert set(ids) <= set(by_id)
    pinned = [m.message_id for m in transcript if is_pinned(m.role)]
    assert [mid for mid in ids if is_pinned(by_id[mid].role)] == pinned

    fully_shown = cut(transcript, [], Window(start="any"), complete=True).messages
    sendable = [m for m in fully_shown if not is_pinned(m.role)]
    others = [m for m in shown if not is_pinned(m.role)]
    # What is shown is a run of the newest that can be shown at all, nothing in it is missing.
    assert others == sendable[len(sendable) - len(others) :]
    users = [m for m in sendable if m.role == "user"]
    if users:
        assert others[0].role == "user"
    newest = {m.message_id for m in transcript[-last:]}
    wanted = [m for m in sendable if m.message_id in newest]
    if users:  # a greeting before the first user message is no place to start from
        wanted = [m for m in wanted if sendable.index(m) >= sendable.index(users[0])]
    assert all(m.message_id in ids for m in wanted)


# -- real and generated conversations ---------------------------------------------------------


@pytest.mark.parametrize("engine", ["memory", "sqlite"])
def test_every_window_of_every_prefix_of_the_real_conversations(
    engine: str, tmp_path: Path
) -> None:
    url = "memory:" if engine == "memory" else f"sqlite:///{tmp_path / 'w.db'}?durability=normal"
    windows = 0
    with open_store(url) as store:
        real = list(conversations().items())
        for name, raws in real if engine == "memory" else real[:5]:
            transcript: list[Message] = []
            session = store.conversation(name)
            for raw in raws:
                transcript += session.append(from_openai(raw))
                for last in (0, 1, 2, 7, 20):
                    shown = session.window(last)
                    assert refusal(shown) is None
                    if last == 0:
                        assert shown == []
                        continue
                    assert shown[0] == transcript[0]  # the system prompt
                    if len(transcript) > 1:
                        assert first_other(shown) == "user"
                    # The newest are there; only a call that has no result yet is held back.
                    newest = transcript[-last:]
                    if newest[-1].tool_calls:
                        newest.pop()
                    assert shown[len(shown) - len(newest) :] == newest
                    windows += 1
    assert windows > (4_000 if engine == "memory" else 400)


_roles = st.sampled_from(["user", "assistant", "call", "call", "result", "result", "system"])


@st.composite
def transcripts(draw: st.DrawFn) -> list[Message]:
    """Parallel calls, interrupted calls, results out of place, consecutive assistants, loops,
    ids used again, no user at all."""
    messages: list[Message] = []
    pending: list[str] = []
    used: list[str] = []
    without_user = draw(st.booleans())
    for i in range(draw(st.integers(0, 40))):
        role = draw(_roles)
        if role == "user" and without_user:
            role = "assistant"
        if role == "call":
            again = draw(st.booleans()) and used
            ids = [draw(st.sampled_from(used))] if again else [f"c{i}", f"d{i}"]
            ids = ids[: draw(st.integers(1, 2))]
            used += ids
            pending += ids
            messages.append(call(*ids, text=draw(st.sampled_from(["", "let me see"]))))
        elif role == "result":
            known = pending + used[:3]
            mid = draw(st.sampled_from(known)) if known else "nobody"
            if mid in pending:
                pending.remove(mid)
            messages.append(result(mid, f"r{i}"))
        else:
            messages.append(Message(role, f"{role}{i}"))
    return [
        msgspec.structs.replace(m, create_time=i, message_id=f"m{i}")
        for i, m in enumerate(messages)
    ]


@settings(max_examples=150, deadline=None)
@given(transcripts(), st.integers(0, 45))
def test_every_window_of_generated_conversations(transcript: list[Message], last: int) -> None:
    shown = cut(transcript, [], Window(last=last), complete=True)
    assert shown is not None
    check(transcript, last, shown.messages)


@settings(max_examples=150, deadline=None)
@given(transcripts(), st.integers(0, 45))
def test_reading_in_parts_shows_the_same(transcript: list[Message], last: int) -> None:
    session = open_store("memory:").conversation("s")
    session.put_messages(transcript)
    whole = cut(transcript, [], Window(last=last), complete=True)
    assert whole is not None
    assert session.window(last) == whole.messages


@settings(max_examples=100, deadline=None)
@given(transcripts(), st.integers(1, 45), st.one_of(st.none(), st.integers(1, 8)), st.booleans())
def test_the_short_way_shows_what_the_long_way_shows(
    transcript: list[Message], last: int, step: int | None, any_start: bool
) -> None:
    policy = Window(last=last, step=step, start="any" if any_start else "user")
    explained = cut(transcript, [], policy, complete=True, explain=True)
    report = cut(transcript, [], policy, complete=True, explain=False)
    assert explained is not None
    assert report is not None
    assert report.messages == explained.messages
    assert (report.older, report.stable) == (explained.older, explained.stable)


@pytest.mark.parametrize(
    "url", ["sqlite:///{}/w.db?durability=normal", "memory:", "jsonl:///{}?durability=normal"]
)
@pytest.mark.parametrize("system", ["keep", "drop"])
@pytest.mark.parametrize("step", [None, 5])
def test_a_read_that_ends_early_shows_the_same(
    tmp_path: Path, url: str, system: str, step: int | None
) -> None:
    policy = Window(last=6, step=step, system=system)
    transcript: list[Message] = []
    with open_store(url.format(tmp_path)) as store:
        early = store.conversation("s")
        for i in range(40):
            turn = [S(f"rule {i}")] if i % 9 == 0 else []
            turn += [U(f"q{i}"), call(f"c{i}"), result(f"c{i}"), A(f"a{i}")]
            transcript += early.append(turn[: 1 + i % 5])
            whole = cut(transcript, [], policy, complete=True)
            assert early.window(policy) == whole.messages


@given(transcripts(), st.integers(0, 400), st.one_of(st.none(), st.integers(1, 20)))
def test_token_windows_of_generated_conversations(
    transcript: list[Message], budget: int, last: int | None
) -> None:
    policy = Window(last=last, max_tokens=budget)
    report = cut(transcript, [], policy, complete=True)
    assert report is not None
    assert refusal(report.messages) is None
    assert report.tokens == sum(map(count_tokens, report.messages))
    others = [m for m in report.messages if not is_pinned(m.role)]
    sendable = [
        m
        for m in cut(transcript, [], Window(start="any"), complete=True).messages
        if not is_pinned(m.role)
    ]
    assert bool(others) == bool(sendable), "never cut to nothing"
    if any(m.role == "user" for m in sendable):
        assert others[0].role == "user"
    if report.tokens > budget and others:
        # Over the budget only where not even the newest turn's ends fit.
        users = [m for m in others if m.role == "user"]
        assert len(users) <= 1
    session = open_store("memory:").conversation("s")
    session.put_messages(transcript)
    assert session.window(policy) == report.messages


def test_a_loop_of_200_calls_is_not_cut_to_nothing() -> None:
    loop = [m for i in range(200) for m in (call(f"c{i}"), result(f"c{i}"))]
    session = chat(S("rules"), U("old"), A("answer"), U("go"), *loop)
    for last in (1, 2, 19, 20, 399, 400, 401):
        shown = session.window(last)
        assert refusal(shown) is None
        assert texts(shown[:2]) == ["rules", "go"]
        assert len(shown) == 402


# -- rule by rule -----------------------------------------------------------------------------


def test_results_follow_their_call_whatever_came_between() -> None:
    # Two runs of one session at once: the store keeps what happened, the view puts it right.
    session = chat(U("A"), call("a"), U("B"), call("b"), result("a", "ra"), result("b", "rb"))
    assert texts(session.window(None)) == ["A", "B", "a", "ra", "b", "rb"]
    assert texts(session.window(2)) == ["B", "a", "ra", "b", "rb"]
    assert texts(session.list_messages()) == ["A", "a", "B", "b", "ra", "rb"]


def test_a_partly_answered_call_keeps_its_answered_part() -> None:
    session = chat(U("u"), call("a", "b", text="look"), result("b"), U("v"))
    report = session.window(None, explain=True)
    assert [c.id for c in report.messages[1].tool_calls] == ["b"]
    assert refusal(report.messages) is None
    ((message, reason),) = report.left_out
    assert (message.text, reason) == ("look", "1 of its tool calls never got a result")
    assert len(session.list_messages().items[1].tool_calls) == 2


def test_a_call_in_the_content_goes_with_the_call() -> None:
    blocks = [
        {"type": "text", "text": "look"},
        {"type": "tool_call", "id": "a", "name": "f", "args": {}},
    ]
    session = chat(U("u"), Message.assistant(blocks, tool_calls=[ToolCall("a", "f", {})]), U("v"))
    shown = session.window(None)
    assert shown[1].content == blocks[:1]
    assert shown[1].tool_calls == ()
    blocks[1]["id"] = None
    session = chat(U("u"), Message.assistant(blocks, tool_calls=[ToolCall(None, "f", {})]), U("v"))
    assert session.window(None)[1].content == blocks[:1]


def test_a_message_of_empty_text_says_nothing() -> None:
    blocks = [{"type": "text", "text": ""}, {"type": "tool_call", "id": "a", "name": "f"}]
    session = chat(U("u"), Message.assistant(blocks, tool_calls=[ToolCall("a", "f", {})]), U("v"))
    assert texts(session.window(None)) == ["u", "v"]


def test_one_id_on_two_calls_with_one_result() -> None:
    blocks = [{"type": "tool_call", "id": "a", "name": name} for name in "fg"]
    calls = [ToolCall("a", name, {}) for name in "fg"]
    session = chat(U("u"), Message.assistant(blocks, tool_calls=calls), result("a"), U("v"))
    shown = session.window(None)
    assert refusal(shown) is None
    assert ([c.name for c in shown[1].tool_calls], shown[1].content) == (["f"], blocks[:1])


def test_an_unanswered_call_can_be_answered_with_an_error() -> None:
    session = chat(U("u"), call("a", "b"), result("a"), U("v"))
    shown = session.window(Window(unanswered="error"))
    assert refusal(shown) is None
    assert [m.tool_call_id for m in shown] == [None, None, "a", "b", None]
    assert "interrupted" in shown[3].text
    assert session.count() == 4


def test_an_orphan_is_left_out_and_named() -> None:
    session = chat(U("u"), result("nobody"), A("a"))
    report = session.window(5, explain=True)
    assert texts(report.messages) == ["u", "a"]
    assert [reason for _, reason in report.left_out] == ["a tool result without its call"]


def test_the_second_result_of_a_call_is_an_orphan() -> None:
    session = chat(U("u"), call("a"), result("a", "one"), result("a", "two"))
    assert texts(session.window(None)) == ["u", "a", "one"]


def test_ids_used_again_go_to_the_nearest_call() -> None:
    session = chat(
        U("1"),
        call("x"),
        U("2"),
        call("x"),
        result("x", "two"),
        U("3"),
        call("x"),
        result("x", "3"),
    )
    shown = session.window(None)
    assert refusal(shown) is None
    assert texts(shown) == ["1", "2", "x", "two", "3", "x", "3"]


def test_a_greeting_is_no_start() -> None:
    session = chat(A("Welcome!"), U("hi"), A("hello"))
    assert texts(session.window(10)) == ["hi", "hello"]
    assert texts(session.window(Window(last=10, start="any"))) == ["Welcome!", "hi", "hello"]
    assert texts(session.window(None)) == ["Welcome!", "hi", "hello"]


def test_without_a_user_it_starts_at_the_group() -> None:
    session = chat(A("one"), call("a"), result("a"), A("two"), A("three"))
    assert texts(session.window(1)) == ["three"]
    assert texts(session.window(3)) == ["a", "ok", "two", "three"]


def test_start_any_does_not_walk_back() -> None:
    session = chat(U("u"), A("a"), A("b"), A("c"))
    assert texts(session.window(Window(last=2, start="any"))) == ["b", "c"]
    session.append(call("x"), result("x"))
    assert texts(session.window(Window(last=1, start="any"))) == ["x", "ok"]


def test_a_true_orphan_costs_a_bounded_read() -> None:
    session = chat(*(U(str(i)) for i in range(3 * ORPHAN_REACH)), result("nobody"))
    report = session.window(2, explain=True)
    assert texts(report.messages) == [str(3 * ORPHAN_REACH - 1)]
    assert report.older
    assert len(report.left_out) < 2 * ORPHAN_REACH


def test_instructions_and_summary() -> None:
    session = chat(S("s1"), *(U(str(i)) for i in range(50)), Message.developer("d"), U("end"))
    session.update_session(summary="They count.")
    assert texts(session.window(2)) == ["s1", "d", "49", "end"]
    in_place = session.window(Window(last=2, system="in_place"))
    assert texts(in_place) == ["s1", "49", "d", "end"]
    assert [m.role for m in in_place] == ["system", "user", "developer", "user"]
    with_summary = session.window(Window(last=1, summary=True))
    assert [m.role for m in with_summary] == ["system", "developer", "system", "user"]
    assert with_summary[2].text.endswith("They count.")
    assert texts(session.window(Window(last=2, system="drop"))) == ["49", "end"]


def test_max_tokens() -> None:
    def length(message: Message) -> int:
        return len(message.text)

    session = chat(S("ss"), U("aaaa"), A("bbbb"), U("cccc"), A("dddd"))

    def window(limit: int, **more) -> list[str]:
        return texts(session.window(Window(max_tokens=limit, token_counter=length, **more)))

    assert window(18) == ["ss", "aaaa", "bbbb", "cccc", "dddd"]
    assert window(17) == window(10) == ["ss", "cccc", "dddd"]
    assert window(18, last=2) == ["ss", "cccc", "dddd"]
    # The newest turn stays, whatever the budget: its user message and its newest group.
    assert window(3) == window(0) == ["ss", "cccc", "dddd"]
    report = session.window(Window(max_tokens=10, token_counter=length), explain=True)
    assert report.tokens == 10
    assert {reason for _, reason in report.left_out} == {"before the window"}


def test_max_tokens_keeps_both_ends_of_a_long_turn() -> None:
    loop = [m for i in range(50) for m in (call(f"c{i}"), result(f"c{i}", "x" * 400))]
    session = chat(U("old"), A("old"), U("go"), *loop)
    report = session.window(Window(max_tokens=1000), explain=True)
    shown = report.messages
    assert refusal(shown) is None
    assert shown[0].text == "go"
    assert shown[-1] == session.list_messages(order="desc", limit=1).items[0]
    assert 3 <= len(shown) < 30
    assert report.tokens <= 1000
    assert "over max_tokens" in {reason for _, reason in report.left_out}


def test_sizes() -> None:
    session = chat(U("u"))
    assert session.window(0) == []
    assert session.window(Window(max_tokens=0)) == session.window(1)
    for bad in (
        {"last": -1},
        {"last": True},
        {"last": 1.0},
        {"max_tokens": -5},
        {"system": "hide"},
        {"start": "assistant"},
        {"unanswered": "ignore"},
        {"token_counter": 5},
    ):
        with pytest.raises(InvalidInputError, match=next(iter(bad))):
            Window(**bad)
