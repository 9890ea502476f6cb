"""The page: who gets in, what it shows, and that nothing stored runs. Chromium where it is."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("starlette", reason="the web extra is not installed")
pytest.importorskip("httpx", reason="Starlette's test client needs it")

from starlette.testclient import TestClient

from tsmemory import Message, Store, ToolCall, Window, open_store
from tsmemory.web.app import create_app
from tsmemory.web.figures import draw

HOSTILE = (
    '<script>document.title="ran"</script><img src=x onerror="document.title=1">'
    "\x1b[31m\u202e\ud800"
)
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_store(f"sqlite:///{tmp_path}/a.db") as opened:
        chat = opened.conversation("trip <b>1</b>", user_id="ada & co")
        chat.append(Message.system("Be brief."))
        for i in range(12):
            chat.append(
                Message.user(f"question {i} about ferries"),
                Message.assistant("", tool_calls=[ToolCall(f"c{i}", "look", {"n": i})]),
                Message.tool("half full", tool_call_id=f"c{i}"),
                Message.assistant(f"answer {i}"),
            )
        chat.append(Message.user(HOSTILE))
        chat.append(Message.user([{"type": "image", "base64": "aGk=", "mime_type": "image/png"}]))
        yield opened


@pytest.fixture
def client(store: Store) -> TestClient:
    app = create_app(store, token="once", name="redis://ada:secret@host/0")
    return TestClient(app, base_url="http://127.0.0.1:8000")


def test_the_link_works_once(client: TestClient) -> None:
    assert client.get("/").status_code == 403
    assert client.get("/?token=wrong").status_code == 403
    assert client.get("/?token=once").status_code == 200
    assert "Sessions" in client.get("/").text  # by the cookie
    client.cookies.clear()
    assert client.get("/?token=once").status_code == 403


def test_only_loopback_and_only_reading(client: TestClient) -> None:
    client.get("/?token=once")
    assert client.get("/", headers={"host": "evil.example"}).status_code == 421
    assert client.get("/", headers={"host": "127.0.0.1.evil.example:8000"}).status_code == 421
    assert client.post("/").status_code == 405
    page = client.get("/")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert page.headers["cache-control"] == "no-store"


def test_sessions_a_session_and_a_search(client: TestClient) -> None:
    client.get("/?token=once")
    sessions = client.get("/").text
    assert "secret" not in sessions
    assert "trip &lt;b&gt;1&lt;/b&gt;" in sessions
    whose = {"user": "ada & co", "id": "trip <b>1</b>"}
    session = client.get("/session", params=whose | {"last": "8", "step": "4"})
    assert session.status_code == 200
    assert "not shown: " in session.text
    assert "Go to the start of the window" in session.text
    assert "Over max_tokens" not in session.text
    tight = client.get("/session", params=whose | {"last": "", "max_tokens": "1"}).text
    assert "Over max_tokens: the instructions, which a window always keeps, take" in tight
    assert "question 11" in session.text
    assert "<script>" not in session.text
    assert "\\x1b[31m\\u202e\\ud800" in session.text
    assert "data:image/png;base64,aGk=" in session.text
    found = client.get("/search", params={"q": '"question 3"', "user": "ada & co"}).text
    assert "<mark>question 3</mark>" in found
    assert client.get("/search", params={"q": "-x"}).status_code == 400
    assert client.get("/session", params={"id": "nowhere"}).status_code == 404
    assert client.get("/session", params=whose | {"last": "many"}).status_code == 400


def test_figures_count_what_a_cache_has_seen() -> None:
    messages = []
    for i in range(30):
        messages += [Message.user(f"question {i}"), Message.assistant(f"answer {i}")]
    sliding = draw(messages, Window(last=10))
    stepped = draw(messages, Window(last=10, step=20))
    whole = draw(messages, Window())
    assert sum(row.shown for row in sliding.rows) == 10
    assert whole.cached_share > stepped.cached_share > sliding.cached_share
    assert whole.tokens == whole.total


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_nothing_stored_runs_in_a_browser(store: Store, tmp_path: Path) -> None:
    url = f"sqlite:///{store.backend.path}"  # type: ignore[attr-defined]
    command = [sys.executable, "-m", "tsmemory", "web", "--store", url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            link = server.stdout.readline().strip()
            target = link.replace(
                "/?token=", "/session?user=ada+%26+co&id=trip+%3Cb%3E1%3C%2Fb%3E&token="
            )
            done = subprocess.run(
                [
                    str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
                    "--disable-background-networking", "--disable-component-update",
                    "--disable-sync", f"--user-data-dir={tmp_path}/profile", "--dump-dom", target,
                ],
                capture_output=True, text=True, timeout=120, check=True,
            )  # fmt: skip
        finally:
            server.terminate()
    assert "messages shown" in done.stdout
    assert "&lt;script&gt;document.title" in done.stdout
    assert "<title>trip" in done.stdout
