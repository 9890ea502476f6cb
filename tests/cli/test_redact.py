"""URLs as the command shows them."""

from __future__ import annotations

import pytest

from tsmemory import redact_url
from tsmemory.cli.output import clean
from tsmemory.cli.redact import scrub, secrets


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("sqlite:///chat.db", "sqlite:///chat.db"),
        ("redis://:hunter22@host:6379/0", "redis://:***@host:6379/0"),
        ("rediss://me:hunter22@host", "rediss://me:***@host"),
        ("redis://hunter22@host", "redis://***@host"),
        ("redis://me:hunt/er22@host", "redis://***"),
        ("zerodb://project?api_key=hunter22", "zerodb://project?api_key=***"),
        ("zerodb://project#hunter22", "zerodb://project#***"),
        ("redis://host?key_prefix=mine&socket_timeout=3",
         "redis://host?key_prefix=mine&socket_timeout=3"),
        ("tablestore+https://h/?access_key_secret=hunter22&x=1",
         "tablestore+https://h/?access_key_secret=***&x=1"),
        ("http://[hunter22", "http:***"),
    ],
)  # fmt: skip
def test_redact(url: str, shown: str) -> None:
    assert redact_url(url) == shown
    assert "hunter22" not in redact_url(url)


def test_every_spelling_is_scrubbed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TSMEMORY_URL", "redis://:from%2Fenv@host")
    monkeypatch.setenv("ZERODB_API_KEY", "zdb-key-1")
    hidden = secrets(["copy", "--store=redis://a:pass%40word@h", "zerodb://p?api_key=to/ken"])
    line = "from%2Fenv from/env zdb-key-1 pass%40word pass@word to/ken to%2Fken kept"
    assert scrub(line, hidden) == "*** *** *** *** *** *** *** kept"


def test_the_working_directory_is_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PWD", "/srv/shop")
    monkeypatch.setenv("OLDPWD", "/srv/old")
    assert scrub("no store at /srv/shop/chat.db", secrets([])) == "no store at /srv/shop/chat.db"


def test_clean() -> None:
    assert clean("a\x1b[2J\u202e\ud800\t日本語 👩\u200d🚀\n") == (
        "a\\x1b[2J\\u202e\\ud800    日本語 👩\u200d🚀\n"
    )
