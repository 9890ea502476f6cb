"""URLs of stores: their options, read strictly, and what of them may be shown."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import SplitResult, parse_qsl, quote, urlencode, urlsplit

from tsmemory.errors import InvalidInputError

__all__ = ["MASK", "is_secret", "redact_url", "split_url"]

MASK = "***"
_SECRET_WORDS = frozenset({
    "ak", "apikey", "auth", "authorization", "credential", "credentials", "key", "pass", "passwd",
    "password", "pat", "pwd", "secret", "sig", "signature", "sk", "sts", "token",
})  # fmt: skip
_PUBLIC_WORDS = frozenset({"dir", "file", "path", "prefix", "space"})  # key_prefix is no key
_WORD = re.compile(r"[A-Z]?[a-z0-9]+|[A-Z]+")


def split_url(
    url: str, readers: Mapping[str, Callable[[str], Any]], options: Mapping[str, Any]
) -> tuple[SplitResult, dict[str, Any]]:
    """A URL in its parts, and the options: those of its query, read by `readers`, under `options`.

    Raises:
        InvalidInputError: an option that is unknown or does not read.
    """
    parts = urlsplit(url)
    known = ", ".join(sorted(readers)) or "none"
    found: dict[str, Any] = {}
    for name, text in parse_qsl(parts.query, keep_blank_values=True):
        if name not in readers:
            raise InvalidInputError(f"{parts.scheme}: has no option {name!r}; it knows {known}")
        try:
            found[name] = readers[name](text)
        except ValueError as error:
            raise InvalidInputError(f"{parts.scheme}: option {name!r}: {error}") from error
    for name in options:
        if name not in readers and name != "clock":
            raise InvalidInputError(f"{parts.scheme}: has no option {name!r}; it knows {known}")
    return parts, {**found, **options}


def redact_url(url: str) -> str:
    """`url` with `MASK` for every part that could be a secret; the same where there is none."""
    scheme, colon, _ = url.partition(":")
    try:
        parts = urlsplit(url)
        pairs = parse_qsl(parts.query, keep_blank_values=True)
    except ValueError:
        return f"{scheme}{colon}{MASK}"
    if parts.netloc and "@" in parts.path + parts.query + parts.fragment:
        # A password with an unescaped / ? or # in it ends up there: nothing of it is safe to show.
        return f"{parts.scheme}://{MASK}"
    user, at, host = parts.netloc.rpartition("@")
    if at:
        name, colon, _ = user.partition(":")
        user = f"{name}:{MASK}" if colon else MASK  # a lone user name may be a token
    shown = [(name, MASK if is_secret(name) and value else value) for name, value in pairs]
    query = parts.query
    if shown != pairs:
        query = urlencode(shown, quote_via=quote, safe="*/:")
    fragment = MASK if parts.fragment and parts.netloc else parts.fragment
    redacted = parts._replace(netloc=f"{user}{at}{host}", query=query, fragment=fragment)
    return url if redacted == parts else redacted.geturl()


def is_secret(name: str) -> bool:
    """Whether an option or variable of this name holds what must not be shown."""
    words = {word.lower() for word in _WORD.findall(name)}
    return bool(words & _SECRET_WORDS) and not words & _PUBLIC_WORDS
