"""Windows that move in steps: between two moves, a view is the previous one and what is new."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests._chat_api import refusal
from tests._conversations import conversations
from tsmemory import Message, Store, ToolCall, Window, WindowReport, open_store
from tsmemory.window import cut

SOAK = 50 if os.environ.get("TSMEMORY_SOAK") else 1

U, A, S = Message.user, Message.assistant, Message.system


def view(messages: list[Message], window: Window) -> WindowReport:
    report = cut(messages, [], window, complete=True)
    assert report is not None
    return report


def first_body(messages: list[Message]) -> str | None:
    return next((m.message_id for m in messages if m.role not in ("system", "developer")), None)


@settings(max_examples=60 * SOAK, deadline=None)
@given(conversations(), st.integers(1, 12), st.integers(1, 8), st.booleans())
def test_between_moves_a_view_is_a_prefix_of_the_next(
    transcript: list[Message], last: int, step: int, in_place: bool
) -> None:
    window = Window(last=last, step=step, system="in_place" if in_place else "keep")
    previous: list[Message] = []
    moves: list[int] = []
    for n in range(1, len(transcript) + 1):
        report = view(transcript[:n], window)
        shown = list(report.messages)
        assert report.stable == len(shown)
        if not any(m.role == "user" and m.text.strip() for m in transcript[:n]):
            continue  # there is nothing to begin with yet
        if previous and first_body(shown) != first_body(previous):
            moves.append(n)
        elif previous:
            assert shown[: len(previous)] == previous
        previous = shown
    # The first is the opening question's; each other one belongs to a point of the grid.
    points = [max(0, n - last) // step for n in moves]
    assert len(set(points)) == len(points)
    assert all(b - a > 0 for a, b in itertools.pairwise(points))


@settings(max_examples=60 * SOAK, deadline=None)
@given(conversations(), st.integers(1, 12), st.integers(1, 8))
def test_as_many_as_asked_for(transcript: list[Message], last: int, step: int) -> None:
    shown = {m.message_id for m in view(transcript, Window(last=last, step=step)).messages}
    least = {m.message_id for m in view(transcript, Window(last=last)).messages}
    most = {m.message_id for m in view(transcript, Window(last=last + step - 1)).messages}
    assert least <= shown <= most


def test_how_many() -> None:
    transcript = [U("q") if i % 2 == 0 else A("a") for i in range(60)]
    lengths = [
        len(view(transcript[:n], Window(last=10, step=8, start="any")).messages)
        for n in range(1, 60)
    ]
    assert lengths[:17] == list(range(1, 18))  # the whole, until 17 = last + step - 1
    assert lengths[17:33] == [*range(10, 18), *range(10, 18)]


class Counted:
    """Which reads a store does."""

    def __init__(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        self.limits: list[int | None] = []
        inner = store.backend.read

        def read(key, query):
            self.limits.append(query.limit)
            return inner(key, query)

        monkeypatch.setattr(store.backend, "read", read)


@pytest.mark.parametrize("engine", ["memory", "sqlite", "jsonl"])
def test_every_backend_shows_the_same_with_one_read(
    engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = {
        "memory": "memory:",
        "sqlite": f"sqlite:///{tmp_path / 'w.db'}?durability=normal",
        "jsonl": f"jsonl:///{tmp_path / 'j'}?durability=normal",
    }[engine]
    transcript: list[Message] = []
    window = Window(last=20, step=20)
    with open_store(url) as store:
        chat = store.conversation("s")
        counted = Counted(store, monkeypatch)
        for i in range(60):
            turn = [U(f"q{i}"), A("", tool_calls=[ToolCall(f"c{i}", "f", {})])]
            turn += [Message.tool("r", tool_call_id=f"c{i}"), A(f"a{i}")]
            transcript += chat.append(turn)
            counted.limits.clear()
            assert chat.window(window) == view(transcript, window).messages
            assert counted.limits == [20 + 20 - 1 + 8]


def test_a_deletion_shifts_the_grid() -> None:
    chat = open_store("memory:").conversation("s")
    chat.append([U(f"q{i}") for i in range(25)])
    window = Window(last=10, step=10)
    assert chat.window(window)[0].text == "q10"
    chat.delete_message(chat.list_messages().items[0].message_id)
    assert chat.window(window)[0].text == "q11"
    assert len(chat.window(window)) == 14


def test_an_instruction_in_the_middle_keeps_the_prompt() -> None:
    chat = open_store("memory:").conversation("s")
    chat.append(S("rules"), U("q1"), A("a1"))
    before = chat.window(Window(last=10, step=10))
    chat.append(S("be brief"), U("q2"))
    after = chat.window(Window(last=10, step=10))
    assert after[:3] == before
    assert [(m.role, m.text) for m in after[3:]] == [
        ("user", "<system>\nbe brief\n</system>"),
        ("user", "q2"),
    ]
    lead = chat.window(Window(last=10, step=10, system="lead"))
    assert [m.text for m in lead] == ["rules", "be brief", "q1", "a1", "q2"]


# -- budgets --------------------------------------------------------------------------------------


def one(message: Message) -> int:
    return 1 + len(message.text) // 10


@settings(max_examples=60 * SOAK, deadline=None)
@given(conversations(), st.integers(3, 30), st.integers(1, 8))
def test_a_budget_holds_and_its_start_is_on_the_grid(
    transcript: list[Message], budget: int, step: int
) -> None:
    window = Window(max_tokens=budget, step=step, token_counter=one)
    report = view(transcript, window)
    assert refusal(report.messages) is None
    assert report.tokens == sum(map(one, report.messages))
    bodies = [m for m in report.messages if m.role not in ("system", "developer")]
    if report.tokens > budget:
        # Only where instructions and one group at the least do not fit.
        turn = [m for m in bodies if not m.text.startswith("<system>")]
        assert len({m.role for m in turn}) <= 3
        assert sum(m.role == "user" for m in turn) <= 1
    chat = open_store("memory:").conversation("s")
    chat.put_messages(transcript)
    assert chat.window(window) == report.messages


def test_a_budget_moves_in_steps() -> None:
    transcript = [U("x" * 9) if i % 2 == 0 else A("y" * 9) for i in range(200)]
    starts = []
    for n in range(1, 200):
        shown = view(transcript[:n], Window(max_tokens=40, step=10, token_counter=one)).messages
        assert len(shown) <= 40
        starts.append(transcript.index(shown[0]))
    assert all(start % 10 == 0 for start in starts)
    assert len(set(starts)) == 17  # of 199 calls, one in ten pays for its whole prompt
    assert min(n - s for n, s in enumerate(starts, 1) if s) > 30


def test_a_huge_result_is_shortened_rather_than_over_budget() -> None:
    chat = open_store("memory:").conversation("s")
    call = A("", tool_calls=[ToolCall("c", "f", {}), ToolCall("d", "f", {})])
    results = [Message.tool("word " * 8000, tool_call_id=c) for c in "cd"]
    chat.append(U("old"), A("old"), U("go"), call, *results)
    report = chat.window(Window(max_tokens=1000), explain=True)
    assert [m.role for m in report.messages] == ["user", "assistant", "tool", "tool"]
    assert 800 < (report.tokens or 0) <= 1000
    assert "more characters: message " in report.messages[-1].text


def test_reserve() -> None:
    transcript = [U("x" * 9) for _ in range(30)]
    whole = view(transcript, Window(max_tokens=20, token_counter=one))
    less = view(transcript, Window(max_tokens=20, reserve=8, token_counter=one))
    assert (len(whole.messages), len(less.messages)) == (20, 12)


def test_the_usage_that_a_provider_reported_corrects_the_estimate() -> None:
    def said(tokens: int) -> Message:
        usage = {"usage_metadata": {"input_tokens": 9, "output_tokens": tokens}}
        return A("yes and no " * 30, extensions={"langchain": usage})

    def shown(tokens: int) -> int:
        transcript = [m for _ in range(40) for m in (U("and then? " * 30), said(tokens))]
        return len(view(transcript, Window(max_tokens=4000)).messages)

    assert shown(90) == shown(0)  # less than the estimate: left alone
    assert shown(140) < 0.8 * shown(90)


# -- tool results as stubs ------------------------------------------------------------------------


def test_old_results_are_stubs_that_move_in_steps() -> None:
    transcript: list[Message] = [U("go")]
    for i in range(40):
        transcript += [
            A("", tool_calls=[ToolCall(f"c{i}", "f", {})], message_id=f"a{i}"),
            Message.tool("row " * 100, tool_call_id=f"c{i}", message_id=f"r{i}"),
        ]
    window = Window(last=20, step=10, tool_results=3)
    changes = 0
    previous: list[Message] = []
    for n in range(3, len(transcript), 2):
        shown = view(transcript[:n], window).messages
        whole = [m for m in shown if m.role == "tool" and m.text.startswith("row")]
        assert 3 <= len(whole) <= 3 + 10 or n < 8
        changes += shown[: len(previous)] != previous
        previous = shown
    assert changes == 6  # at 20, 30 … 70 messages
    assert previous[2].text == "[Result of 400 characters, not repeated here: message r0]"
    assert view(transcript, Window(tool_results=0)).messages[2].text.startswith("[Result")


# -- roles ----------------------------------------------------------------------------------------


@settings(max_examples=60 * SOAK, deadline=None)
@given(conversations(), st.integers(1, 20))
def test_merged_roles_alternate(transcript: list[Message], last: int) -> None:
    shown = view(transcript, Window(last=last, merge_roles=True)).messages
    assert refusal(shown) is None
    pairs = list(itertools.pairwise(shown))
    assert not any(a.role == b.role and a.role != "tool" and not a.tool_calls for a, b in pairs)
    assert not any(a.role == "tool" and b.role == "user" for a, b in pairs)


def test_what_is_merged() -> None:
    chat = open_store("memory:").conversation("s")
    blocks = [{"type": "text", "text": "b"}]
    chat.append(S("one"), S("two"), U("a"), U(blocks), A("x"), A("y"), U("end"))
    shown = chat.window(Window(merge_roles=True))
    assert [(m.role, m.content) for m in shown] == [
        ("system", "one\n\ntwo"),
        ("user", [{"type": "text", "text": "a"}, *blocks]),
        ("assistant", "x\n\ny"),
        ("user", "end"),
    ]


# -- calls of every kind --------------------------------------------------------------------------


def own(kind: str, call: str, **more) -> dict:
    return {"type": "non_standard", "value": {"type": kind, "call_id": call, **more}}


@pytest.mark.parametrize("kind", ["computer_call", "apply_patch_call", "custom_tool_call"])
def test_a_provider_s_own_call_is_followed_by_its_result(kind: str) -> None:
    asked = A([{"type": "reasoning", "reasoning": "hm", "id": "rs"}, own(kind, "p1")])
    chat = open_store("memory:").conversation("s")
    chat.append(U("q"), asked, Message.tool("done", tool_call_id="p1"), U("next"))
    assert [m.role for m in chat.window(20)] == ["user", "assistant", "tool", "user"]
    chat.append(asked.__class__("assistant", asked.content), U("again"))
    report = chat.window(20, explain=True)  # the second call was interrupted
    assert [m.text for m in report.messages][-2:] == ["next", "again"]
    assert len(report.left_out) == 1


def test_a_result_in_a_user_message_belongs_to_its_call() -> None:
    answer = U([own("apply_patch_call_output", "p1", status="completed")])
    chat = open_store("memory:").conversation("s")
    chat.append(U("q"), A([own("apply_patch_call", "p1")]), answer, A("patched"))
    assert len(chat.window(1)) == 4
    chat.delete_message(chat.list_messages().items[1].message_id)
    assert [m.text for m in chat.window(20)] == ["q", "patched"]


def test_a_legacy_function_call() -> None:
    kwargs = {"additional_kwargs": {"function_call": {"name": "f", "arguments": "{}"}}}
    chat = open_store("memory:").conversation("s")
    asked = A("", extensions={"langchain": kwargs})
    chat.append(U("q"), asked, Message("function", "4", name="f"), A("It is 4."))
    assert [m.role for m in chat.window(2)] == ["user", "assistant", "function", "assistant"]
    chat.append(U("again"), A("", extensions={"langchain": kwargs}), U("hello?"))
    assert [m.text for m in chat.window(2)] == ["again", "hello?"]


def test_reasoning_is_hidden_with_its_call() -> None:
    blocks = [
        {"type": "text", "text": "I look it up."},
        {"type": "reasoning", "reasoning": "hm"},
        {"type": "tool_call", "id": "c", "name": "f", "args": {}},
    ]
    chat = open_store("memory:").conversation("s")
    chat.append(U("q"), A(blocks, tool_calls=[ToolCall("c", "f", {})]), U("still there?"))
    assert chat.window(20)[1].content == blocks[:1]
    chat.append(A(blocks[1:], tool_calls=[ToolCall("c", "f", {})]), U("?"))
    assert [m.role for m in chat.window(20)] == ["user", "assistant", "user", "user"]


def test_a_provider_s_search_without_its_result_is_hidden() -> None:
    search = {"type": "server_tool_call", "id": "s", "name": "web_search", "args": {}}
    found = {"type": "server_tool_result", "tool_call_id": "s", "output": []}
    text = {"type": "text", "text": "I found it."}
    thought = {"type": "reasoning", "reasoning": "hm"}
    chat = open_store("memory:").conversation("s")
    chat.append(U("q"), A([thought, search]), U("r"), A([thought, search, found, text]), U("s"))
    chat.append(A([text, found]), U("t"))
    assert [m.content for m in chat.window(20)] == [
        "q",
        "r",
        [thought, search, found, text],
        "s",
        [text],
        "t",
    ]


def test_late_results_come_with_their_call() -> None:
    call = A("both", tool_calls=[ToolCall(c, "f", {}) for c in "ab"], message_id="x")
    chat = open_store("memory:").conversation("s")
    chat.append(U("q"), call, Message.tool("ra", tool_call_id="a"))
    assert [m.text for m in chat.window(20)] == ["q"]  # it waits
    chat.append(U("meanwhile"))
    assert [m.text for m in chat.window(20)] == ["q", "both", "ra", "meanwhile"]
    chat.append(Message.tool("rb", tool_call_id="b"))
    shown = chat.window(20)
    assert [m.text for m in shown] == ["q", "both", "ra", "meanwhile", "", "rb"]
    assert [c.id for c in shown[4].tool_calls] == ["b"]


def test_hidden_messages_are_read_past() -> None:
    transcript = [U(f"q{i}", message_id=f"m{i}") for i in range(40)]
    chat = open_store("memory:").conversation("s")
    chat.append(transcript)
    hidden = {f"m{i}" for i in range(20, 40)}
    steps = chat.steps.window(Window(last=5), hide=lambda messages: hidden)
    assert [m.message_id for m in chat.store.run(steps).messages] == [
        f"m{i}" for i in range(15, 20)
    ]
