"""Records in and out as JSON, for web handlers, data frames and files."""

from __future__ import annotations

import datetime as dt
import json
import math
import uuid
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, TypeAdapter, ValidationError

from tsmemory import (
    InvalidInputError,
    Message,
    MessageList,
    Page,
    SearchHit,
    Session,
    SessionHit,
    Stats,
    ToolCall,
    Window,
    WindowReport,
    open_store,
)

_NOON = dt.datetime(2026, 1, 31, 12, tzinfo=dt.timezone.utc)
_MESSAGE = Message.assistant(
    [{"type": "text", "text": "hi \ud800"}],
    message_id="m",
    create_time=_NOON,
    tool_calls=[ToolCall("c", "add", {"when": _NOON, "ids": (1, 2)})],
    metadata={"raw": b"\0\xff", "score": math.inf, "$odd": {"k": [None, True]}},
    extensions={"x": {"id": uuid.UUID(int=1)}},
)
_SESSION = Session(
    user_id="u", session_id="s", create_time=1, update_time=2_000_000, version=3, message_count=4,
    title="t", ttl=1.5, expires_at=9, metadata={"b": b"\0"},
)  # fmt: skip


@pytest.mark.parametrize(
    "record",
    [
        _MESSAGE,
        Message.user("x"),
        _SESSION,
        ToolCall("i", "f", "{"),
        Stats(users=1, sessions=2, messages=3),
    ],
    ids=lambda record: type(record).__name__,
)
def test_there_and_back(record: Any) -> None:
    kind = type(record)
    plain = record.to_dict()
    assert list(plain) == list(kind.__struct_fields__)
    assert kind.from_dict(plain) == record
    assert json.loads(record.to_json()) == json.loads(json.dumps(plain))
    assert kind.from_dict(json.loads(record.to_json())) == record


def test_the_form_is_stable() -> None:
    message = Message.tool("3", tool_call_id="c", message_id="m", metadata={"b": b"hi"})
    assert message.to_dict() == {
        "role": "tool",
        "content": "3",
        "message_id": "m",
        "create_time": None,
        "name": None,
        "tool_calls": [],
        "tool_call_id": "c",
        "metadata": {"b": {"$bytes": "aGk="}},
        "extensions": {},
    }
    assert Message.from_dict({"role": "user", "content": "x", "later": 1}).text == "x"


def test_pages_and_windows() -> None:
    with open_store("memory:") as store:
        chat = store.conversation("s")
        chat.append(*(Message.user(str(i), metadata={"i": i}) for i in range(5)))
        page = chat.list_messages(limit=2)
        assert Page.from_dict(json.loads(page.to_json())) == page
        sessions = store.list_sessions()
        assert Page.from_dict(sessions.to_dict()) == sessions
        assert Page.from_dict(Page([]).to_dict()) == Page([])
        for around in (0, 1):
            hits = store.search_messages("3", around=around)
            assert hits.items
            assert Page.from_dict(json.loads(hits.to_json())) == hits
            assert type(SearchHit.from_dict(hits.items[0].to_dict()).around) is MessageList
        chat.update_session(title="Numbers", metadata={"raw": b"x"})
        found = store.search_sessions("numbers")
        assert found.items
        assert Page.from_dict(json.loads(found.to_json())) == found
        report = chat.window(Window(last=2), explain=True)
        assert report.left_out
        again = WindowReport.from_dict(json.loads(report.to_json()))
        assert again == report
        assert type(again.messages) is type(report.messages)
        assert store.stats().to_dict()["messages"] == 5


@pytest.mark.parametrize(
    "data",
    [
        None,
        7,
        [],
        {},
        {"role": 7},
        {"role": "user", "content": 7},
        {"role": "user", "tool_calls": [7]},
        {"role": "user", "metadata": {"x": {"$bytes": "?"}}},
        {"role": "user", "content": [7]},
    ],
    ids=str,
)
@pytest.mark.parametrize(
    "kind", [Message, Session, Page, SearchHit, SessionHit, WindowReport, Stats]
)
def test_other_shapes_are_refused(kind: Any, data: Any) -> None:
    with pytest.raises(InvalidInputError):
        kind.from_dict(data)


def test_datetime_views() -> None:
    assert _MESSAGE.created_at == _NOON
    assert Message.user("x").created_at is None
    assert _SESSION.updated_at == dt.datetime(1970, 1, 1, 0, 0, 2, tzinfo=dt.timezone.utc)
    assert Message("user", create_time=2**62).created_at is None  # after the year 9999


_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False)
    | st.text() | st.binary(max_size=9),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.text(max_size=5), _values, max_size=3), st.text())
def test_any_metadata_there_and_back(metadata: dict[str, Any], text: str) -> None:
    message = Message.user(text, metadata=metadata)
    assert Message.from_dict(json.loads(message.to_json())) == message


def test_pydantic_takes_and_gives_records() -> None:
    class Answer(BaseModel):
        message: Message
        sessions: Page[Session]

    answer = Answer(message=_MESSAGE, sessions=Page([_SESSION]))
    assert answer.model_dump()["message"] == _MESSAGE.to_dict()
    again = Answer.model_validate(json.loads(json.dumps(answer.model_dump())))
    assert (again.message, list(again.sessions)) == (_MESSAGE, [_SESSION])
    schema = TypeAdapter(Message)
    assert schema.validate_python({"role": "user", "content": "x"}).text == "x"
    assert schema.json_schema(mode="validation")["type"] == "object"
    assert schema.json_schema(mode="serialization")["type"] == "object"
    with pytest.raises(ValidationError):
        schema.validate_python({"role": 7})


def test_a_web_handler_returns_records() -> None:
    fastapi = pytest.importorskip("fastapi")
    client = pytest.importorskip("fastapi.testclient")
    app, body = fastapi.FastAPI(), fastapi.Body()
    store = open_store("memory:")
    store.conversation("s").append(Message.user("hi"))

    @app.get("/page")
    def page() -> Page[Message]:
        return store.conversation("s").list_messages()

    @app.get("/window")
    def window() -> WindowReport:
        return store.conversation("s").window(5, explain=True)

    @app.post("/message")
    def message(sent: Message = body) -> Message:
        return sent

    with client.TestClient(app) as browser:
        assert browser.get("/page").json()["items"][0]["content"] == "hi"
        assert browser.get("/window").json()["messages"][0]["role"] == "user"
        sent = Message.user("x", metadata={"b": b"\0"})
        assert Message.from_dict(browser.post("/message", json=sent.to_dict()).json()) == sent
        assert browser.get("/openapi.json").status_code == 200


def test_a_data_frame_has_a_column_for_each_field() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame([_MESSAGE.to_dict(), Message.user("x").to_dict()])
    assert list(frame.columns) == list(Message.__struct_fields__)
    assert list(frame["role"]) == ["assistant", "user"]
