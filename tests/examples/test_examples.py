"""The example programs run, without a network or a key."""

from __future__ import annotations

import importlib.util
import re
import sqlite3
import types
from pathlib import Path

import pytest

from tests.adapters._python import CONFIGURED_IN_ASYNCIO
from tsmemory import open_store

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(autouse=True)
def a_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TSMEMORY_URL", f"sqlite:///{tmp_path / 'chat.db'}")
    monkeypatch.delenv("MODEL", raising=False)


def example(name: str) -> types.ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_readme_names_every_example() -> None:
    readme = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"\]\(([\w.-]+)\)", readme))
    assert named == {path.name for path in EXAMPLES.iterdir() if path.name[0] not in "_."} - {
        "README.md"
    }


def test_a_chain_and_a_chat_engine_share_a_conversation(
    capsys: pytest.CaptureFixture[str],
) -> None:
    example("chain").main(["My name is Ada.", "What is my name?"])
    example("chat_engine").main(["And now?"])
    assert capsys.readouterr().out.splitlines() == [
        "My name is Ada. → I was shown 2 messages.",  # the instruction, the question
        "What is my name? → I was shown 4 messages.",
        "And now? → I was shown 5 messages.",
    ]


def test_an_agent_of_the_agents_sdk(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("agents", reason="pip install openai-agents")
    example("openai_agent").main(["I am Ada.", "Who am I?"])
    assert capsys.readouterr().out.splitlines() == [
        "I am Ada. → I was shown 1 items.",
        "Who am I? → I was shown 3 items.",
    ]


@CONFIGURED_IN_ASYNCIO
def test_an_agent_for_two_users(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("httpx")
    from fastapi.testclient import TestClient

    ada, bob = ({"Authorization": f"Bearer {name}"} for name in ("ada", "bob"))
    path = "/sessions/trip/messages"
    with TestClient(example("fastapi_agent").app) as client:
        question = {"text": "Which ferry goes to Bergen?", "id": "q1"}
        assert client.post(path, json=question, headers=ada).json() == {
            "answer": "It goes at 08:30."
        }
        client.post(path, json={"text": "I am Bob."}, headers=bob)
        roles = [m["role"] for m in client.get(path, headers=ada).json()["messages"]]
        assert roles == ["user", "assistant", "tool", "assistant"]
        assert len(client.get(path, headers=bob).json()["messages"]) == 2
        (session,) = client.get("/sessions", headers=ada).json()["sessions"]
        assert session["message_count"] == 4
        found = client.get("/search", params={"q": "bergen"}, headers=ada).json()
        assert [hit["session_id"] for hit in found] == ["trip"]
        assert client.get("/search", params={"q": "bergen"}, headers=bob).json() == []
        assert client.get("/search", params={"q": "…"}, headers=bob).status_code == 422
        assert client.get(path).status_code == 401
        assert client.delete("/me", headers=ada).json() == {"sessions": 1, "messages": 4}
        assert client.get("/sessions", headers=ada).json()["sessions"] == []
        assert len(client.get(path, headers=bob).json()["messages"]) == 2


def test_a_migration_that_is_run_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, new = tmp_path / "old.db", f"sqlite:///{tmp_path / 'new.db'}"
    insert = "INSERT INTO message_store (session_id, message) VALUES ('s', ?)"
    said = '{{"type": "human", "data": {{"content": "{}", "type": "human"}}}}'
    with sqlite3.connect(old) as db:
        db.execute(
            "CREATE TABLE message_store (id INTEGER PRIMARY KEY, session_id TEXT, message TEXT)"
        )
        db.execute(insert, (said.format("Hi"),))
    assert example("migration").main([str(old), new]) == 0
    with sqlite3.connect(old) as db:
        db.execute(insert, (said.format("And more"),))
    db.close()
    assert example("migration").main([str(old), new]) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith("1 written")
    with open_store(new) as store:
        texts = [m.text for m in store.conversation("s", user_id="ada").iter_messages()]
    assert texts == ["Hi", "And more"]


def test_a_page_with_two_conversations() -> None:
    testing = pytest.importorskip("streamlit.testing.v1", reason="Streamlit is not installed")
    page = testing.AppTest.from_file(str(EXAMPLES / "streamlit_chat.py"), default_timeout=120).run()
    page.chat_input[0].set_value("My name is Ada.").run()
    assert not page.exception
    assert [m.markdown[0].value for m in page.chat_message] == [
        "My name is Ada.",
        "I was shown 1 messages.",
    ]
    page.sidebar.button[0].click().run()  # a new conversation
    assert not page.chat_message
    page.sidebar.text_input[0].set_value("ada").run()
    page.sidebar.button[1].click().run()  # the hit leads back
    assert page.chat_message[0].markdown[0].value == "My name is Ada."
