"""URLs of stores: read strictly, and no error, repr or traceback shows a secret."""

from __future__ import annotations

import itertools
import traceback

import pytest

from tsmemory import InvalidInputError, TSMemoryError, open_store, redact_url
from tsmemory.engine.urls import parse_url, split_url
from tsmemory.registry import SCHEMES

_SECRET = ("hunter", "twenty2")
"""The parts of a password around a character that a URL parser may cut it at."""
_BETWEEN = [
    "", "?", "/", "#", ":", "@", "&", "=", "%", "%2", "%zz", "[", "]", "[::1]", "\\", " ", "\n",
    "\t", "\0", ",", ";", "+", "??", "//", "?a=", "?db=", "?timeout=", "\uff1f", "\uff20",
    "\uff0f", "\uff1a", "\uff03", "\u2100", "é", "\ud800", "日本",
]  # fmt: skip
_FORMS = [
    "{scheme}://:{secret}@host",
    "{scheme}://user:{secret}@host:6379/0",
    "{scheme}://user:{secret}@host:port/0",
    "{scheme}://user:{secret}@host:99999/",
    "{scheme}://{secret}@host/",
    "{scheme}://user:{secret}@",
    "{scheme}://user:{secret}",
    "{scheme}://:{secret}",
    "{scheme}:{secret}@host",
    "{scheme}://host/?password={secret}",
    "{scheme}://host/?access_key_secret={secret}&nonsense=1",
    "{scheme}://host/?nonsense=1&api_key={secret}",
    "{scheme}://user:{secret}@host/?nonsense=1&token={secret}",
    "{scheme}://user:{secret}@a:1,b:2,c:x/",
    "{scheme}://user:{secret}@[::1/",
    "{scheme}://us:er:{secret}@host/deep/path/here",
]


_ONE_PER_BACKEND = {backend: scheme for scheme, backend in SCHEMES.items()}


@pytest.mark.parametrize("scheme", [*_ONE_PER_BACKEND.values(), "redis+sentinel", "nowhere", "a b"])
def test_no_form_of_a_url_shows_its_secret(scheme: str) -> None:
    if scheme in SCHEMES:  # whose driver may not be installed
        pytest.importorskip(SCHEMES[scheme][0])
    known = scheme in SCHEMES  # for another, entry points are read each time
    for form, between in itertools.product(_FORMS, _BETWEEN if known else _BETWEEN[:4]):
        user_and_password = form == "{scheme}://{secret}@host/" and ":" in between
        if user_and_password or (between == "@" and "host" not in form):
            continue  # a clear URL of another meaning: a user and a host, which are shown
        url = form.format(scheme=scheme, secret=between.join(_SECRET))
        texts = [redact_url(url)]
        try:
            store = open_store(url)
        except TSMemoryError as error:
            texts += [str(error), repr(error), "".join(traceback.format_exception(error))]
        else:
            texts += [repr(store), str(store), repr(store.backend)]
            store.close()
        for text, part in itertools.product(texts, _SECRET):
            assert part not in text, (url, text)


def test_a_password_of_any_characters_is_read_where_the_url_is_clear() -> None:
    parts = parse_url("redis://me:p@ss\uff1f日本@HOST:6380/1?db=2")
    assert (parts.username, parts.password) == ("me", "p%40ss\uff1f日本")
    assert (parts.hostname, parts.port, parts.path, parts.query) == ("host", 6380, "/1", "db=2")
    assert parse_url("x://[::1]:5,b,c:7/").hosts == [("::1", 5), ("b", None), ("c", 7)]
    assert parse_url("sqlite:////home/a@b/c.db").path == "//home/a@b/c.db"
    assert parse_url("memory:").hostname is None
    assert "secret" not in repr(parse_url("redis://:secret@h"))


def test_options_are_read_strictly() -> None:
    readers = {"size": int, "name": str}
    parts, options = split_url("x://h/?size=3", readers, {"name": "n"})
    assert (parts.scheme, options) == ("x", {"size": 3, "name": "n"})
    with pytest.raises(InvalidInputError, match=r"no option 'sise'; it has name, size"):
        split_url("x://h/?sise=3", readers, {})
    with pytest.raises(InvalidInputError, match="no option 'sise'"):
        split_url("x://h/", readers, {"sise": 3})
    with pytest.raises(InvalidInputError, match=r"option 'size': .*'three'"):
        split_url("x://h/?size=three", readers, {})
    with pytest.raises(InvalidInputError, match="'nowhere'"):
        open_store("nowhere://host")
