"""Items of the Responses API to neutral messages and back."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tsmemory import InvalidInputError, Message, ToolCall, Window, open_store, to_openai
from tsmemory.engine.codec import decode_message, encode_message
from tsmemory.responses_format import from_items, to_items

TEXT = st.text(max_size=12)
IDS = st.integers(0, 9)


def prefixed(prefix: str) -> st.SearchStrategy[str]:
    return st.one_of(IDS.map(lambda n: f"{prefix}_{n}"), st.just("__fake_id__"))


def item(required: dict[str, Any], **optional: Any) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(required, optional=optional)


def parts(*kinds: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    return st.lists(st.one_of(*kinds), max_size=3)


STATUS = st.sampled_from(["completed", "in_progress"])
IMAGE = item(
    {"type": st.just("input_image")},
    image_url=st.sampled_from(["https://x/y.png", "data:image/png;base64,AAAA"]),
    file_id=st.just("file_1"),
    detail=st.sampled_from(["auto", "low"]),
)
FILE = item(
    {"type": st.just("input_file")},
    file_id=st.just("file_1"),
    file_url=st.just("https://x/y.pdf"),
    file_data=st.just("data:application/pdf;base64,AAAA"),
    filename=TEXT,
)
INPUT_TEXT = item({"type": st.just("input_text"), "text": TEXT})
NOTE = st.fixed_dictionaries(
    {"type": st.just("url_citation"), "url": TEXT, "title": TEXT, "start_index": IDS,
     "end_index": IDS}
)  # fmt: skip
OUTPUT_TEXT = item(
    {"type": st.just("output_text"), "text": TEXT},
    annotations=st.lists(st.one_of(NOTE, item({"type": st.just("file_citation")})), max_size=2),
    logprobs=st.just([]),
)
REFUSAL = item({"type": st.just("refusal"), "refusal": TEXT})
SAID = st.one_of(
    item(
        {"role": st.sampled_from(["user", "system", "developer"]),
         "content": st.one_of(TEXT, parts(INPUT_TEXT, IMAGE, FILE))},
        type=st.just("message"), id=prefixed("msg"), status=STATUS,
    ),
    item(
        {"role": st.just("assistant"), "content": st.one_of(TEXT, parts(OUTPUT_TEXT, REFUSAL))},
        type=st.just("message"), id=prefixed("msg"), status=STATUS, phase=st.just("commentary"),
    ),
)  # fmt: skip
THOUGHT = item(
    {"type": st.just("reasoning"),
     "summary": parts(item({"type": st.just("summary_text"), "text": TEXT}))},
    id=prefixed("rs"), encrypted_content=TEXT, status=STATUS,
    content=parts(item({"type": st.just("reasoning_text"), "text": TEXT})),
)  # fmt: skip
CALL = st.one_of(
    item(
        {"type": st.just("function_call"), "call_id": prefixed("call"), "name": TEXT,
         "arguments": st.sampled_from(["{}", '{"x": 1}', '{"x":1}', "not json", "[1]"])},
        id=prefixed("fc"), status=STATUS, namespace=TEXT,
    ),
    item(
        {"type": st.just("custom_tool_call"), "call_id": prefixed("call"), "name": TEXT,
         "input": st.sampled_from(["{}", "plain"])},
        id=prefixed("ctc"),
    ),
)  # fmt: skip
OUTPUT = item(
    {"type": st.sampled_from(["function_call_output", "custom_tool_call_output",
                              "shell_call_output", "computer_call_output",
                              "apply_patch_call_output"]),
     "call_id": prefixed("call"),
     "output": st.one_of(TEXT, st.none(), parts(INPUT_TEXT, IMAGE, FILE, item({"stdout": TEXT})),
                         item({"type": st.just("computer_screenshot"), "image_url": TEXT}))},
    id=prefixed("out"), status=STATUS,
)  # fmt: skip
OWN = item(
    {"type": st.sampled_from(["web_search_call", "file_search_call", "code_interpreter_call",
                              "computer_call", "local_shell_call", "mcp_call", "mcp_list_tools",
                              "mcp_approval_request", "mcp_approval_response", "compaction",
                              "image_generation_call", "item_reference", "of_next_year"])},
    id=prefixed("ws"), call_id=prefixed("call"), status=STATUS,
    action=st.fixed_dictionaries({"type": st.just("search"), "query": TEXT}),
)  # fmt: skip
ITEMS = st.lists(st.one_of(SAID, THOUGHT, CALL, OUTPUT, OWN), max_size=8)


def back(messages: list[Message]) -> list[dict[str, Any]]:
    return [item for message in messages for item in to_items(message)]


@given(ITEMS)
def test_there_and_back_is_exact(items: list[dict[str, Any]]) -> None:
    before = json.dumps(items)
    messages = from_items(items)
    stored = [decode_message(encode_message(m), m.message_id, 1) for m in messages]
    assert back(stored) == items
    assert json.dumps(items) == before
    for message in messages:
        to_openai(message)


def test_what_the_fields_say_is_not_kept_twice() -> None:
    items: list[dict[str, Any]] = [
        {"role": "user", "content": [{"type": "input_text", "text": "Ferry?"}]},
        {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAA"},
        {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed",
         "content": [{"type": "output_text", "text": "At 08:30.", "annotations": [],
                      "logprobs": []}]},
        {"type": "function_call_output", "call_id": "c1", "output": "08:30"},
    ]  # fmt: skip
    assert [message.extensions for message in from_items(items)] == [{}, {}, {}]


def test_what_a_model_gives_at_once_is_one_message() -> None:
    thought = {"type": "reasoning", "id": "rs_1", "summary": []}
    text = {"role": "assistant", "content": "Let me look."}
    call = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"}
    output = {"type": "function_call_output", "call_id": "c1", "output": "x"}
    search = {"type": "web_search_call", "id": "ws_1", "status": "completed"}
    for items, sizes in (
        ([thought, call, call, output, output], [3, 1, 1]),
        ([thought, text, call, output, text], [3, 1, 1]),
        ([text, text], [1, 1]),
        ([search, text, thought, text], [2, 2]),
        ([call, thought, call, output], [3, 1]),
    ):
        messages = from_items(items)
        assert [len(to_items(m)) for m in messages] == sizes
        assert back(messages) == items
        pieces = [m for m in messages if m.role == "assistant"]
        assert sum(len(m.tool_calls) for m in pieces) == items.count(call)


def test_the_neutral_form_is_the_truth() -> None:
    """Edited and cut messages are not given as they were."""
    call = {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "f", "arguments": "{}"}
    other = {**call, "id": "fc_2", "call_id": "c2"}
    thought = {"type": "reasoning", "id": "rs_1", "summary": []}
    (message,) = from_items([thought, call, other])
    first = msgspec.structs.replace(message, tool_calls=message.tool_calls[:1])
    assert to_items(first) == [thought, call]
    edited = msgspec.structs.replace(message, tool_calls=(ToolCall("c1", "g", {}),))
    assert to_items(edited) == [
        thought, {"type": "function_call", "call_id": "c1", "name": "g", "arguments": "{}"}
    ]  # fmt: skip
    said = {"type": "message", "id": "msg_1", "role": "assistant", "status": "incomplete",
            "content": [{"type": "output_text", "text": "a", "annotations": []}]}  # fmt: skip
    (answer,) = from_items([said])
    assert to_items(msgspec.structs.replace(answer, content="b")) == [
        {"role": "assistant", "content": "b"}
    ]


def test_a_window_gives_whole_calls_and_their_reasoning() -> None:
    call = {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "f", "arguments": "{}"}
    output = {"type": "function_call_output", "call_id": "c1", "output": "x"}
    lost = {**call, "id": "fc_2", "call_id": "c2"}
    thoughts = [{"type": "reasoning", "id": f"rs_{i}", "summary": []} for i in range(2)]
    question = {"role": "user", "content": "q"}
    with open_store("memory:") as store:
        chat = store.conversation("s")
        chat.append(from_items([question, thoughts[0], call, output, thoughts[1], lost, question]))
        assert back(chat.window(Window())) == [question, thoughts[0], call, output, question]


def test_what_others_wrote() -> None:
    message = Message.assistant(
        [
            {"type": "reasoning", "reasoning": "hm", "extras": {"signature": "s"}},
            {"type": "text", "text": "Let me "},
            {"type": "text", "text": "look."},
            {"type": "non_standard", "value": {"type": "redacted_thinking", "data": "x"}},
        ],
        tool_calls=[ToolCall("c1", "f", {"x": 1})],
    )
    assert to_items(message) == [
        {"role": "assistant", "content": "Let me look."},
        {"type": "function_call", "call_id": "c1", "name": "f", "arguments": '{"x": 1}'},
    ]
    tool = Message.tool([{"type": "image", "base64": "AA", "mime_type": "image/png"}],
                        tool_call_id="c1")  # fmt: skip
    assert to_items(tool)[0]["output"] == [
        {"type": "input_image", "image_url": "data:image/png;base64,AA", "detail": "auto"}
    ]


def test_odd_blocks_of_others_are_given_and_stay_as_they_are() -> None:
    call = {"type": "web_search_call", "role": "assistant", "content": "x"}
    blocks: list[Any] = [
        {"type": "non_standard", "value": call},
        {"type": "text", "text": "a"},
        {"type": "text", "text": "b", "id": "msg_1", "annotations": ["c", {"url": "u"}]},
    ]
    found, plain, message = to_items(Message.assistant(blocks))
    assert found == {"type": "web_search_call", "role": "assistant", "content": "x"}
    assert plain == {"role": "assistant", "content": "a"}
    assert message["content"][0]["annotations"] == [{"url": "u", "type": "url_citation"}]
    odd = [{"role": "user", "content": [{"type": ["input_text"]}]}]
    assert to_items(from_items(odd)[0]) == odd


def test_arguments_that_json_lacks() -> None:
    message = Message.assistant("", tool_calls=[ToolCall("c", "f", {"on": dt.date(2026, 1, 2)})])
    assert to_items(message)[0]["arguments"] == '{"on": "2026-01-02"}'
    (call,) = to_openai(message)["tool_calls"]
    assert call["function"]["arguments"] == '{"on": "2026-01-02"}'


@pytest.mark.parametrize(
    "odd",
    [5, None, "text", {"type": 5}, {"type": "message"}, {"role": "user", "content": 5},
     {"role": "user", "content": [5]}, {"type": "function_call", "call_id": "c"},
     {"type": "reasoning", "summary": 5},
     {"type": "function_call", "name": "f", "arguments": {(1, 2): 3}},
     {"type": "function_call_output", "call_id": "c", "output": [{(1, 2): 3}]}],
    ids=str,
)  # fmt: skip
def test_no_items(odd: Any) -> None:
    with pytest.raises(InvalidInputError):
        from_items([odd])
