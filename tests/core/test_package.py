"""The package as a whole: what importing it costs, what it promises, what it shows."""

from __future__ import annotations

import inspect
import subprocess
import sys
import types
from pathlib import Path

import pytest

import tsmemory
from tsmemory import (
    Conversation,
    InvalidInputError,
    Message,
    Page,
    Session,
    Store,
    ToolCall,
    Window,
    errors,
    open_store,
)

HEAVY = (
    "langchain_core",
    "llama_index",
    "redis",
    "tablestore",
    "httpx",
    "typer",
    "rich",
    "pydantic",
    "pytest",
    "hypothesis",
    "asyncio.unix_events",
)


def run(script: str) -> str:
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_loads_no_framework_no_driver_no_cli() -> None:
    loaded = run("import sys, tsmemory; print(*sys.modules)").split()
    assert not [m for m in loaded if m.startswith(HEAVY)]
    assert "sqlite3" not in loaded
    loaded = run(
        "import sys, tsmemory; tsmemory.open_store('memory:'); print(*sys.modules)"
    ).split()
    assert "sqlite3" not in loaded


def test_public_names_are_sorted_and_there() -> None:
    names = tsmemory.__all__
    assert names == sorted(names, key=lambda n: (not n.isupper(), not n[0].isupper(), n))
    assert all(hasattr(tsmemory, name) for name in names)
    for name in names:
        public = getattr(tsmemory, name)
        alias = isinstance(public, types.GenericAlias)  # a class to Python 3.10
        if (inspect.isclass(public) and not alias) or inspect.isfunction(public):
            assert (public.__doc__ or "").strip(), f"{name} has no docstring"


def test_every_error_is_public_and_in_the_tree() -> None:
    for name in errors.__all__:
        assert issubclass(getattr(errors, name), errors.TSMemoryError)
        assert name in tsmemory.__all__
        assert name in errors.__doc__
    assert issubclass(errors.InvalidInputError, ValueError)
    assert issubclass(errors.MessageTooLargeError, errors.InvalidInputError)
    assert issubclass(errors.NotFoundError, LookupError)
    assert issubclass(errors.TimeoutError, TimeoutError)
    assert issubclass(errors.MissingDependencyError, ImportError)


@pytest.mark.parametrize("kind", [Store, Conversation])
def test_every_operation_has_its_twin(kind: type) -> None:
    without_io = {"conversation"}
    public = {
        name: member
        for name, member in inspect.getmembers(kind, inspect.isfunction)
        if not name.startswith("_") and name not in without_io
    }
    plain = {n for n in public if f"a{n}" in public}
    assert {f"a{n}" for n in plain} | plain == set(public)
    for name in plain:
        sync, async_ = inspect.signature(public[name]), inspect.signature(public[f"a{name}"])
        assert sync.parameters == async_.parameters, name
        assert public[name].__doc__, name
        assert public[f"a{name}"].__doc__, name


@pytest.mark.parametrize(
    "url",
    ["", "chat.db", "nosql://user:secret@host/db", "SQLITE-FILE", "/srv/x.db", "http://x"],
)
def test_unknown_schemes_are_named_without_the_url(url: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        open_store(url)
    assert "secret" not in str(caught.value)
    assert "sqlite" in str(caught.value)


def test_open_store_wants_a_url() -> None:
    with pytest.raises(InvalidInputError, match=r"PosixPath|WindowsPath"):
        open_store(Path("chat.db"))
    with pytest.raises(InvalidInputError, match="max_session"):
        open_store("memory:?max_session=3")
    with pytest.raises(InvalidInputError, match="max_sessions"):
        open_store("memory:", max_sessions=0)
    with pytest.raises(InvalidInputError):
        open_store("memory:", ttl=0)


def test_a_handle_leaves_its_store_open(tmp_path: Path) -> None:
    with open_store(f"sqlite:///{tmp_path / 'x.db'}") as store:
        with store.conversation("s") as chat:
            chat.append(Message.user("x"))
        assert chat.count() == 1


def test_records_are_frozen() -> None:
    message = Message.user("x")
    with pytest.raises(AttributeError):
        message.content = "y"
    assert Message.user("x").message_id != message.message_id
    assert Message.assistant(tool_calls=[ToolCall("a", "f", {})]).tool_calls[0].id == "a"


# -- notebooks --------------------------------------------------------------------------------

EVIL = "<script>alert(1)</script><img src=x onerror=alert(1)>\"'&\0\ud800"


def shows(thing: object) -> str:
    html = thing._repr_html_()
    html.encode()  # a notebook is UTF-8
    assert "<script>" not in html
    assert "<img" not in html
    assert "onerror=alert(1)>" not in html
    return html


def test_everything_shows_itself_safely() -> None:
    store = open_store("memory:")
    chat = store.conversation(EVIL.replace("\ud800", ""), user_id="<b>u</b>")
    assert "of user <b>&lt;b&gt;u&lt;/b&gt;</b>" in shows(chat)
    appended = chat.append(
        Message.system(EVIL),
        Message(EVIL, EVIL, name=EVIL),
        Message.user([{"type": "text", "text": EVIL}, {"type": "image", "url": EVIL}]),
        Message.user([{"type": "reasoning", "reasoning": EVIL}, {"type": EVIL}]),
        Message.assistant(tool_calls=[ToolCall(EVIL, EVIL, {EVIL: EVIL})]),
        Message.tool(EVIL, tool_call_id=EVIL),
        Message.tool("orphan", tool_call_id="nobody"),
    )
    chat.update_session(title=EVIL, metadata={EVIL: EVIL})
    assert "&lt;script&gt;" in shows(appended)
    shows(chat.session())
    shows(chat.window(3))
    report = chat.window(Window(last=3, max_tokens=10_000), explain=True)
    assert "left out" in shows(report)
    assert "without its call" in shows(report)
    shows(chat.list_messages())
    assert "next_cursor" in shows(chat.list_messages(limit=1))
    shows(store.list_sessions())
    shows(chat.list_messages().items[0])
    assert "no messages" in shows(chat.window(0))
    assert "<td>7</td>" in shows(store.list_sessions())
    shows(Page([]))
    found = store.search_messages("script", limit=1)
    assert "<mark>script</mark>" in shows(found)
    assert "next_cursor" in shows(found)
    shows(found.items[0])
    sessions = store.search_sessions("script")
    assert "<mark>script</mark>" in shows(sessions)
    shows(sessions.items[0])


def test_what_is_long_is_cut() -> None:
    chat = open_store("memory:").conversation("s")
    chat.append(Message.user("x" * 100_000), *(Message.user(str(i)) for i in range(500)))
    assert len(shows(chat.window(None))) < 100_000
    assert "301 earlier messages not shown" in shows(chat.window(None))
    assert "100,000 characters" in shows(chat.list_messages().items[0])


def test_a_handle_shows_itself_without_its_store() -> None:
    store = open_store("redis://nobody:secret@127.0.0.1:1/0", retry_for=30)
    chat = store.conversation("s", user_id="ada")
    assert "ada" in repr(chat)
    assert "ada" in shows(chat)
    assert "secret" not in shows(chat) + repr(store)


def test_a_picture_is_shown_where_its_bytes_are_here() -> None:
    def html(**block: str) -> str:
        return Message.user([{"type": "image", **block}])._repr_html_()

    assert 'src="data:image/png;base64,aGk="' in html(base64="aGk=", mime_type="image/png")
    assert "<img" not in html(url="https://example.org/tracks-you.png", mime_type="image/png")
    assert "<img" not in html(base64="aGk=", mime_type="image/svg+xml")
    assert "<img" not in html(base64='aGk=" onerror="x', mime_type="image/png")


def test_times_that_no_calendar_holds() -> None:
    shows(Message.user("x", create_time=2**63 - 2))
    shows(
        Session(
            user_id="u",
            session_id="s",
            create_time=0,
            update_time=2**63 - 2,
            version=1,
            message_count=0,
        )
    )
