"""Requests that the real integrations build of views, held to each API's documented rules.

Conversations with every kind of call, cut off behind every message, and with every single message
lost: what a crash, a stopped run or a second writer leaves.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.messages import (
    AIMessage,
    AnyMessage,
    FunctionMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)

from langchain_tsmemory import from_neutral, to_neutral
from tests._conversations import conversations as generated
from tests.adapters import _validators as validators
from tsmemory import Message, Window
from tsmemory.window import cut

H, A, S = HumanMessage, AIMessage, SystemMessage

WINDOWS = {
    "everything": Window(last=100),
    "two": Window(last=2),
    "stepped": Window(last=3, step=4),
    "budget": Window(max_tokens=120),
    "stubs": Window(last=100, tool_results=0),
    "errors": Window(last=100, unanswered="error"),
    "alternating": Window(last=5, step=3, merge_roles=True),
}


def call(*ids: str) -> list[dict[str, Any]]:
    return [{"name": "load", "args": {"ferry": 7}, "id": name} for name in ids]


def tool(name: str) -> ToolMessage:
    return ToolMessage("full", tool_call_id=name, name="load")


# -- conversations, as each provider's integration gives them --------------------------------------

NEUTRAL: list[AnyMessage] = [
    S("You sell tickets."),
    H("Hi"),
    A("Hello!"),
    H("How full is ferry 7?"),
    A("", tool_calls=call("c1")),
    tool("c1"),
    A("I look again.", tool_calls=call("c2", "c3")),
    tool("c3"),
    tool("c2"),
    A("It is full."),
    S("The customer is a child."),
    A(""),
    H(" "),
    H("And 8?"),
    A("hm", invalid_tool_calls=[
        {"name": "load", "args": "{", "id": "c4", "error": "no JSON", "type": "invalid_tool_call"}
    ]),
    tool("c4"),
    A("Empty."),
]  # fmt: skip


def anthropic_conversation() -> list[AnyMessage]:
    def thinking(text: str) -> dict[str, Any]:
        return {"type": "thinking", "thinking": text, "signature": "EqQB"}

    def use(name: str) -> dict[str, Any]:
        return {"type": "tool_use", "id": name, "name": "load", "input": {"ferry": 7}}

    search = {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {"query": "x"}}
    found = {"type": "web_search_tool_result", "tool_use_id": "s1", "content": []}
    return [
        S("You sell tickets."),
        H("How full is ferry 7?"),
        A([thinking("a"), use("t1")], tool_calls=call("t1")),
        tool("t1"),
        A([thinking("b"), {"type": "text", "text": "Two."}, use("t2"), use("t3")],
          tool_calls=call("t2", "t3")),
        tool("t2"),
        tool("t3"),
        A([thinking("c"), {"type": "text", "text": "Full."}]),
        H("Search."),
        A([thinking("d"), search]),
        H("Well?"),
        A([thinking("e"), search, found, {"type": "text", "text": "Found."}]),
        A([thinking("f"), {"type": "redacted_thinking", "data": "x"}]),
        S("Be brief."),
        H("Thanks"),
        A([{"type": "text", "text": "  "}, {"type": "text", "text": "You are welcome."}]),
    ]  # fmt: skip


def responses_conversation() -> list[AnyMessage]:
    count = itertools.count()

    def reasoning() -> dict[str, Any]:
        return {"type": "reasoning", "id": f"rs_{next(count)}", "summary": []}

    def text(what: str) -> dict[str, Any]:
        return {"type": "text", "text": what, "id": f"msg_{next(count)}", "annotations": []}

    def function(name: str) -> dict[str, Any]:
        return {"type": "function_call", "name": "load", "arguments": "{}", "call_id": name,
                "id": f"fc_{name}"}  # fmt: skip

    shot = [{"type": "input_image", "image_url": "data:image/png;base64,AAAA"}]
    patch = {"type": "apply_patch_call", "call_id": "p1", "id": "ap_1", "status": "completed",
             "operation": {"type": "delete_file", "path": "a"}}  # fmt: skip
    patched = {"type": "apply_patch_call_output", "call_id": "p1", "status": "completed"}
    return [
        S("You sell tickets."),
        H("How full is ferry 7?"),
        A([reasoning(), function("f1")], tool_calls=call("f1")),
        tool("f1"),
        A([reasoning(), text("Two."), function("f2"), function("f3")],
          tool_calls=call("f2", "f3")),
        tool("f2"),
        tool("f3"),
        A([reasoning(), text("Full.")]),
        H("Click there."),
        A([reasoning(), {"type": "computer_call", "id": "cu_1", "call_id": "u1", "status":
           "completed", "action": {"type": "click", "x": 1, "y": 2}, "pending_safety_checks": []}]),
        ToolMessage(shot, tool_call_id="u1", additional_kwargs={"type": "computer_call_output"}),
        A([reasoning(), {"type": "web_search_call", "id": "ws_1", "status": "completed"},
           text("Clicked.")]),
        H("Delete a."),
        A([reasoning(), patch]),
        H([patched]),
        A([text("Deleted.")]),
        H("Run it."),
        A([reasoning(), {"type": "custom_tool_call", "id": "ct_1", "call_id": "x1", "name": "load",
           "input": "1"}], tool_calls=call("x1")),
        ToolMessage([{"type": "custom_tool_call_output", "output": "1"}], tool_call_id="x1"),
        A([reasoning(), text("Done.")]),
    ]  # fmt: skip


LEGACY: list[AnyMessage] = [
    H("How full?"),
    A("", additional_kwargs={"function_call": {"name": "load", "arguments": "{}"}}),
    FunctionMessage("full", name="load"),
    A("It is full."),
    H("And 8?"),
    A("I look.", additional_kwargs={"function_call": {"name": "find", "arguments": "{}"}}),
    FunctionMessage("empty", name="find"),
    A("Empty."),
]


def interrupted(conversation: Sequence[AnyMessage]) -> Iterator[list[Message]]:
    """Every beginning of it, and every one with one message lost, and then a question."""
    asked = to_neutral(HumanMessage("Are you there?"))
    whole = [to_neutral(m) for m in conversation]
    for end in range(len(whole) + 1):
        yield [*whole[:end], asked]
    for lost in range(len(whole)):
        yield [*whole[:lost], *whole[lost + 1 :], asked]
    yield from ([*whole[:at], asked, *whole[at:], asked] for at in range(1, len(whole), 2))


def faults_of(
    conversation: Sequence[AnyMessage],
    build: Callable[[list[Any]], list[str]],
    window: Window,
    read: Callable[[Message], Any] = from_neutral,
) -> tuple[int, list[Any]]:
    requests, faults = 0, []
    for transcript in interrupted(conversation):
        unique = [
            Message(m.role, m.content, f"{m.message_id[:40]}:{i}", i, m.name, m.tool_calls,
                    m.tool_call_id, m.metadata, m.extensions)
            for i, m in enumerate(transcript)
        ]  # fmt: skip
        report = cut(unique, [], window, complete=True)
        assert report is not None
        requests += 1
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = build([read(m) for m in report.messages])
        if found:
            faults.append((found, [(m.role, m.content) for m in report.messages]))
    return requests, faults


# -- integrations ----------------------------------------------------------------------------------


def openai_chat() -> Callable[[list[Any]], list[str]]:
    module = pytest.importorskip("langchain_openai")
    model = module.ChatOpenAI(model="gpt-5", api_key="x")
    return lambda ms: validators.openai_chat(model._get_request_payload(ms)["messages"])


def openai_responses() -> Callable[[list[Any]], list[str]]:
    module = pytest.importorskip("langchain_openai")
    model = module.ChatOpenAI(model="gpt-5", api_key="x", use_responses_api=True)
    return lambda ms: validators.openai_responses(model._get_request_payload(ms)["input"])


def anthropic() -> Callable[[list[Any]], list[str]]:
    module = pytest.importorskip("langchain_anthropic")
    model = module.ChatAnthropic(
        model="claude-sonnet-4-5",
        api_key="x",
        max_tokens=4000,
        thinking={"type": "enabled", "budget_tokens": 2000},
    )
    return lambda ms: validators.anthropic(model._get_request_payload(ms))


def gemini() -> Callable[[list[Any]], list[str]]:
    module = pytest.importorskip("langchain_google_genai.chat_models")

    def build(messages: list[Any]) -> list[str]:
        _, contents = module._parse_chat_history(messages, model="gemini-2.5-pro")
        return validators.gemini([c.model_dump(exclude_none=True) for c in contents])

    return build


def mistral() -> Callable[[list[Any]], list[str]]:
    module = pytest.importorskip("langchain_mistralai.chat_models")

    def build(messages: list[Any]) -> list[str]:
        sent = [module._convert_message_to_mistral_chat_message(m) for m in messages]
        return validators.mistral(sent)

    return build


def ollama() -> Callable[[list[Any]], list[str]]:
    module = pytest.importorskip("langchain_ollama")
    model = module.ChatOllama(model="x")
    return lambda ms: validators.ollama(model._convert_messages_to_ollama_messages(ms))


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize(
    ("integration", "conversation"),
    [
        (openai_chat, NEUTRAL),
        (openai_chat, LEGACY),
        (openai_responses, NEUTRAL),
        (openai_responses, responses_conversation()),
        (anthropic, NEUTRAL),
        (anthropic, anthropic_conversation()),
        (ollama, NEUTRAL),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_langchain_requests(integration: Any, conversation: list[AnyMessage], window: str) -> None:
    requests, faults = faults_of(conversation, integration(), WINDOWS[window])
    assert faults == []
    assert requests > 15


@pytest.mark.parametrize("integration", [gemini, mistral])
def test_langchain_requests_to_models_that_want_turns_to_alternate(integration: Any) -> None:
    for window in (
        Window(last=100, merge_roles=True),
        Window(last=2, merge_roles=True),
        WINDOWS["alternating"],
    ):
        _, faults = faults_of(NEUTRAL, integration(), window)
        assert faults == []


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("api", ["chat", "responses", "anthropic"])
def test_llamaindex_requests(api: str, window: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from llamaindex_tsmemory import from_neutral as read

    if api == "anthropic":
        module = pytest.importorskip("llama_index.llms.anthropic.utils")
        # A union of dict types since anthropic 2, which this integration cannot call.
        monkeypatch.setattr(module, "MessageParam", dict)

        def build(messages: list[Any]) -> list[str]:
            sent, _ = module.messages_to_anthropic_messages(messages)
            return validators.anthropic({"messages": sent})

    else:
        module = pytest.importorskip("llama_index.llms.openai.utils")

        def build(messages: list[Any]) -> list[str]:
            sent = module.to_openai_message_dicts(
                messages, model="gpt-5", is_responses_api=api == "responses"
            )
            if isinstance(sent, str):  # one question alone
                return []
            check = validators.openai_responses if api == "responses" else validators.openai_chat
            return check(sent)

    _, faults = faults_of(NEUTRAL, build, WINDOWS[window], read)
    assert faults == []


@settings(max_examples=20, deadline=None)
@given(generated(size=16), st.integers(1, 6), st.integers(1, 5))
def test_both_frameworks_render_a_prefix_between_moves(
    transcript: list[Message], last: int, step: int
) -> None:
    from llamaindex_tsmemory import from_neutral as read

    window = Window(last=last, step=step)
    renders = (
        lambda m: from_neutral(m).model_dump_json(),
        lambda m: read(m).model_dump_json(),
    )
    before: list[list[str]] = [[], []]
    for n in range(1, len(transcript) + 1):
        report = cut(transcript[:n], [], window, complete=True)
        assert report is not None
        if not any(m.role == "user" and m.text.strip() for m in transcript[:n]):
            continue
        now = [[render(m) for m in report.messages] for render in renders]
        first = next((i for i, m in enumerate(report.messages) if m.role == "user"), 0)
        for old, new in zip(before, now, strict=True):
            if old and new[first] == old[min(first, len(old) - 1)]:
                assert new[: len(old)] == old
        before = now
