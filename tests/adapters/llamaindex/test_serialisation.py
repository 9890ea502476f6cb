"""`to_dict`, JSON, pickle, ``repr``: reconnecting by URL, and never a secret."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path

import pytest
from llama_index.core.llms import ChatMessage
from llama_index.core.memory import ChatMemoryBuffer

from llamaindex_tsmemory import TSMemoryChatStore
from llamaindex_tsmemory.chat_store import URL_VARIABLE
from tsmemory import InvalidInputError, Message, ToolCall, Window, open_store, redact_url

SECRET = "s3cr3t"


@pytest.fixture(autouse=True)
def _no_url_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(URL_VARIABLE, raising=False)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/chat.db"


def test_it_reconnects_by_url(url: str) -> None:
    window = Window(last=5, summary=True)
    with TSMemoryChatStore.from_url(url, user_id="ada", window=window, ttl=60) as chats:
        chats.add_message("k", ChatMessage(content="hi"))
        wire = json.loads(chats.to_json())
        assert wire == {
            "class_name": "TSMemoryChatStore",
            "url": url,
            "user_id": "ada",
            "window": {"last": 5, "summary": True},
            "ttl": 60.0,
            "options": [],
        }
        for again in (
            TSMemoryChatStore.from_dict(chats.to_dict()),
            TSMemoryChatStore.from_dict(wire),
            TSMemoryChatStore.from_json(chats.to_json()),
            TSMemoryChatStore.model_validate({k: wire[k] for k in wire if k != "class_name"}),
            pickle.loads(pickle.dumps(chats)),
        ):
            with again:
                assert again.get_messages("k") == chats.get_messages("k")
                assert (again.user_id, again.window, again.ttl) == ("ada", window, 60)


def test_copies_share_the_store(url: str) -> None:
    with TSMemoryChatStore(url, window=3) as chats:
        for other in (copy.copy(chats), copy.deepcopy(chats), chats.model_copy(deep=True)):
            assert other.store is chats.store
            assert other.to_dict() == chats.to_dict()
            other.close()  # not theirs to close
        chats.add_message("k", ChatMessage(content="hi"))


@pytest.mark.parametrize(
    "secret",
    [
        f"redis://:{SECRET}@host:6379/0",
        f"redis://ada:{SECRET}@host/0",
        f"rediss://{SECRET}@host/0",
        f"redis://:{SECRET[:3]}#{SECRET}@host",
        f"redis://:{SECRET[:3]}/{SECRET}@host",
        f"redis://:{SECRET[:3]}?{SECRET}@host",
        f"zerodb://api.host/p?api_key={SECRET}&db=chat",
        f"zerodb://api.host/p?apiKey={SECRET}",
        f"tablestore+https://i.region/?access_key_id={SECRET}&access_key_secret={SECRET}",
        f"tablestore+https://i.region/?sts_token={SECRET}",
        f"x://host/?PASSWORD={SECRET}",
        f"x://host/#{SECRET}",
        f"x://[{SECRET}",
    ],
)
def test_no_secret_is_shown_or_written(secret: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = redact_url(secret)
    assert SECRET not in shown
    assert "***" in shown
    with TSMemoryChatStore("memory:") as chats:
        chats.url = shown  # as a store of that URL has it; its engine need not be here
        for written in (chats.to_json(), repr(chats), str(chats), repr(pickle.dumps(chats))):
            assert SECRET not in written
        data = chats.to_dict()
    with pytest.raises(InvalidInputError, match=URL_VARIABLE) as raised:
        TSMemoryChatStore.from_dict(data)
    assert "without its secrets" in str(raised.value)
    assert SECRET not in str(raised.value)
    with pytest.raises(InvalidInputError, match=URL_VARIABLE):
        ChatMemoryBuffer.from_dict({"chat_store": data, "token_limit": 9, "tokenizer_fn": str})
    monkeypatch.setenv(URL_VARIABLE, "memory:")
    with TSMemoryChatStore.from_dict(data) as again:
        assert again.url == "memory:"


@pytest.mark.parametrize(
    "harmless",
    [
        "memory:",
        "sqlite:///a.db?durability=normal",
        "sqlite:////home/me@host/chat.db",
        "redis://host:6379/0?key_prefix=chat:",
        "redis+cluster://a:1,b:2/?prefix=p",
        "tablestore+https://i.region/?instance=i",
    ],
)
def test_a_url_without_secrets_is_left_alone(harmless: str) -> None:
    assert redact_url(harmless) == harmless


def test_the_real_url_is_opened_and_only_the_shown_one_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []

    def opening(url: str, **options: object) -> object:
        opened.append(url)
        return open_store("memory:")

    for module in ("tsmemory.adapters", "llamaindex_tsmemory._serialisation"):
        monkeypatch.setattr(f"{module}.open_store", opening)
    secret = f"redis://:{SECRET}@host/0"
    for chats in (
        TSMemoryChatStore(secret),
        TSMemoryChatStore(url=secret),
        TSMemoryChatStore.from_url(secret),
    ):
        assert opened.pop() == secret
        assert chats.url == "redis://:***@host/0"
        assert SECRET not in repr(chats.__dict__)
    chats = TSMemoryChatStore.from_url("memory:", password=SECRET)
    assert chats.options == ("password",)
    assert SECRET not in chats.to_json()
    with pytest.raises(InvalidInputError, match="password"):
        TSMemoryChatStore.from_dict(chats.to_dict())


def test_a_store_that_was_given_must_be_given_again(monkeypatch: pytest.MonkeyPatch) -> None:
    with open_store("memory:") as store:
        chats = TSMemoryChatStore.from_store(store, user_id="ada")
        store.conversation("k", user_id="ada").append(Message.user("hi"))
        assert chats.url is None
        with pytest.raises(InvalidInputError, match="no URL"):
            TSMemoryChatStore.from_dict(chats.to_dict())
        again = TSMemoryChatStore.from_dict(chats.to_dict(), store=store)
        assert [m.content for m in again.get_messages("k")] == ["hi"]
        chats.close()
        again.close()
        assert again.get_keys() == ["k"]  # still open: it was not theirs
    with pytest.raises(InvalidInputError, match="no URL"):
        TSMemoryChatStore()
    with pytest.raises(InvalidInputError, match=r"tsmemory\.Store"):
        TSMemoryChatStore.from_store("memory:")  # type: ignore[arg-type]


def test_every_choice_of_a_window_is_written() -> None:
    window = Window(
        last=4,
        step=8,
        max_tokens=900,
        reserve=100,
        system="lead",
        summary=True,
        start="any",
        unanswered="error",
        tool_results=2,
        merge_roles=True,
    )
    fields = {name for name in window.__struct_fields__ if name != "token_counter"}
    assert all(getattr(window, name) != getattr(Window(), name) for name in fields)
    with open_store("memory:") as store:
        wire = json.loads(TSMemoryChatStore(store, window=window).to_json())
        assert set(wire["window"]) == fields
        assert TSMemoryChatStore.from_dict(wire, store=store).window == window


def test_what_a_stepped_window_shows_is_given_back_unchanged() -> None:
    """As ChatMemoryBuffer does: what is shown in another form is not written in that form."""
    with open_store("memory:") as store:
        chat = store.conversation("s", user_id="default")
        chat.append(
            Message.system("rules"),
            Message.user("q0"),
            Message.system("in the middle"),
            Message.assistant("", tool_calls=[ToolCall("c", "f", {})]),
            Message.tool("row " * 200, tool_call_id="c"),
            Message.user("q1"),
        )
        before = list(chat.iter_messages())
        for window in (
            Window(last=20, step=4, tool_results=0, merge_roles=True),
            Window(last=2, step=4),
            Window(max_tokens=60),
        ):
            chats = TSMemoryChatStore(store, window=window)
            shown = chats.get_messages("s")
            chats.set_messages("s", [*shown, ChatMessage(role="user", content="new")])
            after = list(chat.iter_messages())
            assert after[:-1] == before
            assert after[-1].text == "new"
            before = after


def test_a_token_counter_is_code_and_must_be_given_again() -> None:
    window = Window(max_tokens=100, token_counter=lambda message: len(message.text))
    with TSMemoryChatStore("memory:", window=window) as chats:
        data = json.loads(chats.to_json())
        with pytest.raises(InvalidInputError, match="token_counter"):
            TSMemoryChatStore.from_dict(data)
        with TSMemoryChatStore.from_dict(data, window=window) as again:
            assert again.window == window
