"""What may be a secret in a command line, and how it stays off the screen."""

from __future__ import annotations

import os
from collections.abc import Iterable
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from tsmemory.engine.urls import MASK, is_secret

__all__ = ["scrub", "secrets"]

_DIRECTORIES = frozenset({"PWD", "OLDPWD"})
"""The shell's working directories: "pwd" is a password in a URL's options alone."""

_SHORTEST = 4  # characters; blanking every "a" of an answer would hide the answer, not the secret


def secrets(arguments: Iterable[str]) -> set[str]:
    """Every text that must not be shown: of the URLs in `arguments`, and of the environment."""
    found: set[str] = set()
    for text in (*arguments, os.environ.get("TSMEMORY_URL", "")):
        url = text.partition("=")[2] if text.startswith("--") else text
        found |= _of_url(url)
    found |= {
        value
        for name, value in os.environ.items()
        if is_secret(name.lower()) and name not in _DIRECTORIES
    }
    return {secret for secret in found if len(secret) >= _SHORTEST}


def _of_url(url: str) -> set[str]:
    if ":" not in url:
        return set()
    try:
        parts = urlsplit(url)
        pairs = parse_qsl(parts.query, keep_blank_values=True)
    except ValueError:
        return {url}
    user, at, _ = parts.netloc.rpartition("@")
    password = (user.partition(":")[2] or user) if at else ""
    found = {password, unquote(password)}
    if parts.netloc and "@" in parts.path + parts.query + parts.fragment:
        found.add(url.partition("://")[2])
    for name, value in pairs:
        if is_secret(name):
            found |= {value, quote(value, safe="")}
    return found


def scrub(text: str, hidden: Iterable[str]) -> str:
    """`text` without any of `hidden`: errors of ours hold no secret, those of others might."""
    for secret in sorted(hidden, key=len, reverse=True):
        text = text.replace(secret, MASK)
    return text
