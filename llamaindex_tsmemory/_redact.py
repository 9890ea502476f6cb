"""URLs as they may be shown and written: without what could be a secret."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

__all__ = ["MASK", "redact"]

MASK = "***"
_SECRET_WORDS = frozenset({
    "ak", "apikey", "auth", "authorization", "credential", "credentials", "key", "pass", "passwd",
    "password", "pat", "pwd", "secret", "sig", "signature", "sk", "sts", "token",
})  # fmt: skip
_PUBLIC_WORDS = frozenset({"dir", "file", "path", "prefix", "space"})  # key_prefix is no key
_WORD = re.compile(r"[A-Z]?[a-z0-9]+|[A-Z]+")


def redact(url: str) -> str:
    """`url` with `MASK` for every part that could be a secret: the same where there is none."""
    scheme, colon, _ = url.partition(":")
    try:
        parts = urlsplit(url)
    except ValueError:
        return f"{scheme}{colon}{MASK}"
    rest = parts.path + parts.query + parts.fragment
    if parts.netloc and "@" in rest:
        # A password with an unescaped / ? or # in it ends up there: nothing of it is safe to show.
        return f"{parts.scheme}://{MASK}"
    user, at, host = parts.netloc.rpartition("@")
    if at:
        name, colon, _ = user.partition(":")
        user = f"{name}:{MASK}" if colon else MASK  # a lone user name may be a token
    query = parts.query
    pairs = parse_qsl(query, keep_blank_values=True)
    shown = [(name, MASK if _is_secret(name) and value else value) for name, value in pairs]
    if shown != pairs:
        query = urlencode(shown, quote_via=quote, safe="*/:")
    fragment = MASK if parts.fragment else ""
    redacted = parts._replace(netloc=f"{user}{at}{host}", query=query, fragment=fragment)
    return url if redacted == parts else redacted.geturl()


def _is_secret(name: str) -> bool:
    words = {word.lower() for word in _WORD.findall(name)}
    return bool(words & _SECRET_WORDS) and not words & _PUBLIC_WORDS
