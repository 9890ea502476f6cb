"""Answers in the shapes that each provider's integration leaves, written by one framework, read by
the other, and sent to every provider by that one's real integrations.

A cell of the table is a shape (source framework and provider) and a target (framework and provider
integration). In each the request is held to the API's documented rules, and must say all that was
said: the texts, the calls with their arguments, the results.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from llama_index.core.base.llms.types import (
    ChatMessage,
    CitationBlock,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)

from langchain_tsmemory import TSMemoryChatMessageHistory
from llamaindex_tsmemory import TSMemoryChatStore
from tests.adapters import _validators as validators
from tests.adapters.cross.test_providers import (
    anthropic,
    gemini,
    mistral,
    ollama,
    openai_chat,
    openai_responses,
)
from tsmemory import Store, open_store, to_openai

H, A = HumanMessage, AIMessage


@pytest.fixture
def store() -> Iterator[Store]:
    with open_store("memory:") as opened:
        yield opened


CALL: Any = {"name": "load", "args": {"ferry": 7}, "id": "call_1", "type": "tool_call"}
ANSWER = "Ferry 7 is half full."
SAID = ["How full is ferry 7?", "load", "ferry", "half", "And ferry 8?"]


def agent(
    caller: BaseMessage, answer: BaseMessage | None = None, call_id: str = "call_1"
) -> list[BaseMessage]:
    """A question, a call, its result, an answer, and what is asked now."""
    return [
        SystemMessage("You sell tickets."),
        H("How full is ferry 7?"),
        caller,
        ToolMessage("half", tool_call_id=call_id, name="load"),
        A(ANSWER) if answer is None else answer,
        H("And ferry 8?"),
    ]


def chat(answer: BaseMessage) -> list[BaseMessage]:
    return [H("Tell me about ferry 7."), answer, H("And ferry 8?")]


def using(content: Any, call_id: str = "call_1", **fields: Any) -> AIMessage:
    return A(content, tool_calls=[{**CALL, "id": call_id}], **fields)


# -- what LangChain's integrations leave -----------------------------------------------------------

_RAW_CALL: Any = {
    "id": "call_1", "type": "function",
    "function": {"name": "load", "arguments": '{"ferry": 7}'},
}  # fmt: skip
_ITEM: Any = {
    "type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "load",
    "arguments": '{"ferry": 7}', "status": "completed",
}  # fmt: skip
_REASONING: Any = {
    "type": "reasoning", "id": "rs_1", "encrypted_content": "gAAAA",
    "summary": [{"type": "summary_text", "text": "I look."}],
}  # fmt: skip
_TEXT_ITEM: Any = {
    "type": "text", "text": ANSWER, "id": "msg_1", "phase": "final_answer",
    "annotations": [{"type": "url_citation", "url": "https://x.example/7", "title": "Ferry 7",
                     "start_index": 0, "end_index": 7}],
}  # fmt: skip
_THINKING: Any = {"type": "thinking", "thinking": "I look.", "signature": "EqQB", "index": 0}
_CITED: list[Any] = [
    {"type": "text", "text": "Ferry 7"},
    {"type": "text", "text": " is half full.", "citations": [
        {"type": "char_location", "cited_text": "half", "document_index": 0, "start_char_index": 0,
         "end_char_index": 4, "document_title": "Ferries"},
        {"type": "web_search_result_location", "cited_text": "half", "encrypted_index": "Eo8",
         "url": "https://x.example/7", "title": "Ferry 7"},
    ]},
]  # fmt: skip
_SEARCHED: list[Any] = [
    {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "7"}},
    {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": [
        {"type": "web_search_result", "url": "https://x.example/7", "title": "Ferry 7",
         "encrypted_content": "Eo8"}]},
]  # fmt: skip
_RAN: list[Any] = [
    {"type": "server_tool_use", "id": "srvtoolu_2", "name": "code_execution",
     "input": {"code": "1/2"}},
    {"type": "code_execution_tool_result", "tool_use_id": "srvtoolu_2", "content": {
        "type": "code_execution_result", "stdout": "0.5", "stderr": "", "return_code": 0}},
]  # fmt: skip
_FROM: dict[str, Any] = {
    "openai": {"model_provider": "openai", "model_name": "gpt-5", "finish_reason": "stop"},
    "anthropic": {"model_provider": "anthropic", "stop_reason": "tool_use"},
    "gemini": {"model_provider": "google_genai", "finish_reason": "STOP"},
    "mistral": {"model_provider": "mistralai"},
    "ollama": {"model_provider": "ollama", "done": True},
    "bedrock": {"model_provider": "bedrock_converse", "stopReason": "tool_use"},
}
_GEMINI_SIGNATURES = "__gemini_function_call_thought_signatures__"


def _use(arguments: Any, **more: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": "call_1", "name": "load", "input": arguments, **more}


def _note(provider: str) -> dict[str, Any]:
    return {"response_metadata": dict(_FROM[provider])}


LANGCHAIN: dict[str, list[BaseMessage]] = {
    "openai-chat": agent(using("", additional_kwargs={"tool_calls": [_RAW_CALL], "refusal": None},
                               **_note("openai"))),
    "openai-refusal": chat(A("", additional_kwargs={"refusal": ANSWER}, **_note("openai"))),
    "openai-audio": chat(A("", additional_kwargs={"audio": {
        "id": "audio_1", "data": "UklGRg==", "transcript": ANSWER, "expires_at": 1}},
        **_note("openai"))),
    "openai-legacy": [
        H("Tell me about ferry 7."),
        A("", additional_kwargs={"function_call": {"name": "load", "arguments": '{"ferry": 7}'}}),
        H("half"), A(ANSWER), H("And ferry 8?"),
    ],
    "openai-parsed": chat(A(ANSWER, additional_kwargs={"parsed": {"full": 0.5}, "refusal": None})),
    "deepseek": agent(using("", additional_kwargs={"reasoning_content": "I look."})),
    "openai-responses": agent(using([_REASONING, _ITEM], **_note("openai")),
                              A([{**_REASONING, "id": "rs_2"}, _TEXT_ITEM], **_note("openai"))),
    "openai-responses-refusal": chat(A([{"type": "refusal", "refusal": ANSWER, "id": "msg_1"}],
                                       **_note("openai"))),
    "openai-responses-tools": chat(A([
        {"type": "web_search_call", "id": "ws_1", "status": "completed",
         "action": {"type": "search", "query": "7"}},
        {"type": "code_interpreter_call", "id": "ci_1", "code": "1/2", "container_id": "cntr_1",
         "outputs": None, "status": "completed"},
        {"type": "mcp_call", "id": "mcp_1", "name": "load", "arguments": "{}", "output": "half",
         "server_label": "s"},
        _TEXT_ITEM], **_note("openai"))),
    "openai-responses-image": chat(A([
        {"type": "image_generation_call", "id": "ig_1", "result": "AAAA", "status": "completed"},
        _TEXT_ITEM], **_note("openai"))),
    "openai-v1": agent(A([{"type": "reasoning", "id": "rs_1", "reasoning": "I look."}, CALL],
                         tool_calls=[CALL],
                         response_metadata={**_FROM["openai"], "output_version": "v1"})),
    "anthropic-call": agent(using([{"type": "text", "text": "One moment."}, _use({"ferry": 7})],
                                  **_note("anthropic"))),
    "anthropic-thinking": agent(using([_THINKING, {"type": "text", "text": "One moment."},
                                       _use({"ferry": 7})], **_note("anthropic")),
                                A([_THINKING, {"type": "text", "text": ANSWER}],
                                  **_note("anthropic"))),
    "anthropic-redacted": agent(using([{"type": "redacted_thinking", "data": "EmwK"},
                                       _use({"ferry": 7})], **_note("anthropic"))),
    "anthropic-streamed": agent(using([_THINKING, _use({}, index=1, partial_json='{"ferry": 7}')],
                                      **_note("anthropic"))),
    "anthropic-streamed-text": agent(using([_use('{"ferry": 7}', index=0)], **_note("anthropic"))),
    "anthropic-citations": chat(A(_CITED, **_note("anthropic"))),
    "anthropic-server-tools": chat(A([*_SEARCHED, *_RAN, *_CITED], **_note("anthropic"))),
    "anthropic-thinking-only": [H("Tell me about ferry 7."), A([_THINKING], **_note("anthropic")),
                                H("?"), A(ANSWER), H("And ferry 8?")],
    "gemini": agent(using("", additional_kwargs={
        "function_call": {"name": "load", "arguments": '{"ferry": 7}'},
        _GEMINI_SIGNATURES: {"call_1": "Q2lR"}}, **_note("gemini"))),
    "gemini-thinking": agent(using([{"type": "thinking", "thinking": "I look.",
                                     "signature": "Q2lR"}], **_note("gemini")),
                             A([{"type": "text", "text": ANSWER,
                                 "extras": {"signature": "Q2lR"}}], **_note("gemini"))),
    "gemini-code": chat(A([{"type": "executable_code", "executable_code": "1/2", "language": 1},
                           {"type": "code_execution_result", "code_execution_result": "0.5",
                            "outcome": 1},
                           ANSWER], **_note("gemini"))),
    "mistral": agent(using("", additional_kwargs={"tool_calls": [_RAW_CALL]}, **_note("mistral"))),
    "mistral-thinking": chat(A([{"type": "thinking", "thinking": [
        {"type": "text", "text": "I look."}]}, {"type": "text", "text": ANSWER}],
        **_note("mistral"))),
    "mistral-references": chat(A([{"type": "text", "text": ANSWER},
                                  {"type": "reference", "reference_ids": [0]}],
                                 **_note("mistral"))),
    "ollama": agent(using("", additional_kwargs={"reasoning_content": "I look."},
                          **_note("ollama"))),
    "bedrock": agent(using([{"type": "reasoning_content", "reasoning_content": {
        "text": "I look.", "signature": "EqQB"}}, {"type": "text", "text": "One moment."},
        _use({"ferry": 7})], **_note("bedrock"))),
    "bedrock-raw": agent(using([{"text": "One moment."}, {"toolUse": {
        "toolUseId": "call_1", "name": "load", "input": {"ferry": 7}}}], **_note("bedrock"))),
}  # fmt: skip

# -- what LlamaIndex's integrations leave ----------------------------------------------------------


def li(role: str, content: Any, **kwargs: Any) -> ChatMessage:
    if isinstance(content, list):
        return ChatMessage(role=role, blocks=content, additional_kwargs=kwargs)
    return ChatMessage(role=role, content=content, additional_kwargs=kwargs)


def li_agent(caller: ChatMessage, answer: ChatMessage | None = None) -> list[ChatMessage]:
    return [
        li("system", "You sell tickets."),
        li("user", "How full is ferry 7?"),
        caller,
        li("tool", "half", tool_call_id="call_1", name="load"),
        answer or li("assistant", ANSWER),
        li("user", "And ferry 8?"),
    ]


def li_chat(answer: ChatMessage) -> list[ChatMessage]:
    return [li("user", "Tell me about ferry 7."), answer, li("user", "And ferry 8?")]


def _block(arguments: Any = None) -> ToolCallBlock:
    given = {"ferry": 7} if arguments is None else arguments
    return ToolCallBlock(tool_call_id="call_1", tool_name="load", tool_kwargs=given)


def _thought(**about: Any) -> ThinkingBlock:
    return ThinkingBlock(content="I look.", additional_information=about)


def sdk_call() -> Any:
    types = pytest.importorskip("openai.types.chat.chat_completion_message_tool_call")
    function = types.Function(name="load", arguments='{"ferry": 7}')
    return types.ChatCompletionMessageToolCall(id="call_1", type="function", function=function)


LLAMAINDEX: dict[str, Callable[[], list[ChatMessage]]] = {
    "openai-chat": lambda: li_agent(li("assistant", [_block('{"ferry": 7}')])),
    "openai-sdk": lambda: li_agent(li("assistant", None, tool_calls=[sdk_call()])),
    "openai-both": lambda: li_agent(li("assistant", [_block('{"ferry": 7}')],
                                       tool_calls=[sdk_call()])),
    "openai-responses": lambda: li_agent(
        li("assistant", [_thought(id="rs_1", type="reasoning", summary=[]), _block()],
           built_in_tool_calls=[]),
        li("assistant", [_thought(id="rs_2"), TextBlock(text=ANSWER)],
           annotations=[{"type": "url_citation", "url": "https://x.example/7"}])),
    "anthropic": lambda: li_agent(
        li("assistant", [_thought(signature="EqQB"), TextBlock(text="One moment."), _block()]),
        li("assistant", [_thought(signature="EqQC"), TextBlock(text=ANSWER)])),
    "anthropic-call": lambda: li_agent(li("assistant", [_thought(signature="EqQB"), _block()])),
    "anthropic-citations": lambda: li_chat(li("assistant", [
        TextBlock(text=ANSWER),
        CitationBlock(cited_content=TextBlock(text="half"), source="7", title="Ferries",
                      additional_location_info={"start_char_index": 0})], citations=[{}])),
    "gemini": lambda: li_agent(
        li("assistant", [_thought(thought_signature=b"\x0a\x24"), _block()],
           thought_signatures=[b"\x0a\x24", None])),
    "mistral": lambda: li_agent(
        li("assistant", "One moment.", tool_calls=[sdk_call()]),
        li("assistant", [_thought(), TextBlock(text=ANSWER)])),
    "ollama": lambda: li_agent(li("assistant", [_thought(), TextBlock(text=""), _block()])),
    "bedrock": lambda: li_agent(li("assistant", [_thought(signature="EqQB"), _block()],
                                   tool_calls=[{"toolUseId": "call_1", "name": "load",
                                                "input": {"ferry": 7}}])),
}  # fmt: skip


# -- the other side's integrations -----------------------------------------------------------------


class Request(NamedTuple):
    sent: Any
    faults: list[str]


def _recording(build: Callable[[], Callable[[list[Any]], list[str]]], name: str) -> Any:
    """A builder of `test_providers` that also gives what it has sent to the validator."""

    def request(messages: list[Any], patch: pytest.MonkeyPatch) -> Request:
        check, sent = getattr(validators, name), []

        def recording(payload: Any, **options: Any) -> list[str]:
            sent.append(payload)
            faults: list[str] = check(payload, **options)
            return faults

        patch.setattr(validators, name, recording)
        return Request(sent, build()(messages))

    return request


def _llama_openai(messages: list[Any], *, responses: bool) -> Request:
    module = pytest.importorskip("llama_index.llms.openai.utils")
    sent = module.to_openai_message_dicts(messages, model="gpt-5", is_responses_api=responses)
    check = validators.openai_responses if responses else validators.openai_chat
    return Request(sent, check(sent))


def _llama_anthropic(messages: list[Any], patch: pytest.MonkeyPatch) -> Request:
    module = pytest.importorskip("llama_index.llms.anthropic.utils")
    # A union of dict types since anthropic 2, which this integration cannot call.
    patch.setattr(module, "MessageParam", dict)
    sent, _ = module.messages_to_anthropic_messages(messages)
    return Request(sent, validators.anthropic({"messages": sent}))


TO_LANGCHAIN: dict[str, Any] = {
    "openai_chat": _recording(openai_chat, "openai_chat"),
    "openai_responses": _recording(openai_responses, "openai_responses"),
    "anthropic": _recording(anthropic, "anthropic"),
    "gemini": _recording(gemini, "gemini"),
    "mistral": _recording(mistral, "mistral"),
    "ollama": _recording(ollama, "ollama"),
}
TO_LLAMAINDEX: dict[str, Any] = {
    "openai_chat": lambda messages, _: _llama_openai(messages, responses=False),
    "openai_responses": lambda messages, _: _llama_openai(messages, responses=True),
    "anthropic": _llama_anthropic,
}


def faults_of(request: Request, said: list[str]) -> list[str]:
    text = json.dumps(request.sent, default=str, ensure_ascii=False).replace("\\", "")
    return request.faults + [f"lost: {what}" for what in said if what not in text]


def said_in(messages: list[Any], called: bool) -> list[str]:
    said = SAID if called else ["Tell me about ferry 7.", "And ferry 8?"]
    pieces = ["Ferry 7", "is half full."]
    moment = ["One moment."] if "One moment." in repr(messages) else []
    return [*said, *pieces, *moment]


@pytest.mark.parametrize("integration", TO_LLAMAINDEX)
@pytest.mark.parametrize("shape", LANGCHAIN)
def test_langchain_to_llamaindex(
    store: Store, shape: str, integration: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = LANGCHAIN[shape]
    TSMemoryChatMessageHistory("s", store=store).add_messages(written)
    read = TSMemoryChatStore(store, window=50).get_messages("s")
    assert len(read) == len(written) - (shape == "anthropic-thinking-only")
    request = TO_LLAMAINDEX[integration](read, monkeypatch)
    called = any(m.type == "tool" for m in written)
    assert faults_of(request, said_in(written, called)) == []
    home = TSMemoryChatMessageHistory("s", store=store).messages
    assert home == written


@pytest.mark.parametrize("integration", TO_LANGCHAIN)
@pytest.mark.parametrize("shape", LLAMAINDEX)
def test_llamaindex_to_langchain(
    store: Store, shape: str, integration: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = LLAMAINDEX[shape]()
    TSMemoryChatStore(store).set_messages("s", written)
    read = TSMemoryChatMessageHistory("s", store=store, window=50).messages
    assert len(read) == len(written)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of integrations
        request = TO_LANGCHAIN[integration](read, monkeypatch)
    called = any(m.role.value == "tool" for m in written)
    said = said_in(written, called)
    if integration == "mistral" and called:
        # langchain-mistralai sends no text beside calls, not of its own messages either.
        said = [text for text in said if text != "One moment."]
    assert faults_of(request, said) == []
    assert TSMemoryChatStore(store).get_messages("s") == written


@pytest.mark.parametrize("shape", [*LANGCHAIN, *(f"llamaindex-{name}" for name in LLAMAINDEX)])
def test_as_openai_messages(store: Store, shape: str) -> None:
    if shape in LANGCHAIN:
        written: list[Any] = LANGCHAIN[shape]
        TSMemoryChatMessageHistory("s", store=store).add_messages(written)
        called = any(m.type == "tool" for m in written)
    else:
        written = LLAMAINDEX[shape.removeprefix("llamaindex-")]()
        TSMemoryChatStore(store).set_messages("s", written)
        called = any(m.role.value == "tool" for m in written)
    sent = [to_openai(message) for message in store.conversation("s").window(50)]
    request = Request(sent, validators.openai_chat(sent))
    assert faults_of(request, said_in(written, called)) == []
