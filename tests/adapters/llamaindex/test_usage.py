"""Where real integrations put token usage: asked of a local server with the providers' answers.

Only what an integration puts into the *message* reaches a memory. This test names those that do, so
that the documentation (docs/observability.md) can; it fails once another one does.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from llama_index.core.llms import ChatMessage, ChatResponse

from llamaindex_tsmemory import to_neutral
from tsmemory.usage import token_usage

_COMPLETION = {
    "id": "c", "object": "chat.completion", "created": 1, "model": "gpt-4o-mini",
    "choices": [
        {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Hi"}}
    ],
    "usage": {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9},
}  # fmt: skip
_RESPONSE = {
    "id": "r", "object": "response", "created_at": 1, "model": "gpt-4o-mini", "status": "completed",
    "parallel_tool_calls": True, "tool_choice": "auto", "tools": [],
    "output": [
        {
            "type": "message", "id": "m", "role": "assistant", "status": "completed",
            "content": [{"type": "output_text", "text": "Hi", "annotations": []}],
        }
    ],
    "usage": {
        "input_tokens": 7, "output_tokens": 2, "total_tokens": 9,
        "input_tokens_details": {"cached_tokens": 3},
        "output_tokens_details": {"reasoning_tokens": 1},
    },
}  # fmt: skip
_MESSAGE = {
    "id": "m", "type": "message", "role": "assistant", "model": "claude-haiku-5-5",
    "content": [{"type": "text", "text": "Hi"}], "stop_reason": "end_turn", "stop_sequence": None,
    "usage": {"input_tokens": 7, "output_tokens": 2},
}  # fmt: skip
_EVENTS = (
    {"type": "message_start", "message": {**_MESSAGE, "content": []}},
    {
        "type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""},
    },
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hi"}},
    {"type": "content_block_stop", "index": 0},
    {
        "type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None},
        "usage": {"input_tokens": 7, "output_tokens": 2},
    },
    {"type": "message_stop"},
)  # fmt: skip


class _Answers(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        size = int(self.headers["content-length"])
        streamed = json.loads(self.rfile.read(size)).get("stream", False)
        if streamed:
            lines = (f"event: {e['type']}\ndata: {json.dumps(e)}\n\n" for e in _EVENTS)
            kind, content = "text/event-stream", "".join(lines).encode()
        else:
            answers = {"/chat/completions": _COMPLETION, "/responses": _RESPONSE}
            kind = "application/json"
            content = json.dumps(answers.get(self.path, _MESSAGE)).encode()
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def base() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), _Answers) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def _tokens(response: ChatResponse) -> tuple[int, int] | None:
    usage = token_usage(to_neutral(response.message))
    return None if usage is None else (usage.input_tokens, usage.output_tokens)


def test_answers_of_openai_say_it_beside_the_message(base: str) -> None:
    openai = pytest.importorskip("llama_index.llms.openai", reason="llama-index-llms-openai")
    options: dict[str, Any] = {"model": "gpt-4o-mini", "api_key": "x", "api_base": base}
    question = [ChatMessage(content="Hello")]
    response = openai.OpenAI(**options).chat(question)
    assert response.additional_kwargs["prompt_tokens"] == 7
    assert _tokens(response) is None
    response = openai.OpenAIResponses(**options).chat(question)
    assert response.additional_kwargs["usage"].total_tokens == 9
    assert _tokens(response) is None


def test_streamed_answers_of_anthropic_have_it(base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Imported here: its SDK takes two seconds, in every worker.
    anthropic = pytest.importorskip(
        "llama_index.llms.anthropic", reason="llama-index-llms-anthropic"
    )
    # With anthropic 2 the integration calls a union; and only models without a temperature work.
    monkeypatch.setattr(anthropic.utils, "MessageParam", dict)
    model = anthropic.Anthropic(model="claude-haiku-5-5", api_key="x", base_url=base)
    question = [ChatMessage(content="Hello")]
    assert _tokens(model.chat(question)) is None  # in `raw` alone
    *_, last = model.stream_chat(question)
    assert last.message.content == "Hi"
    assert _tokens(last) == (7, 2)
