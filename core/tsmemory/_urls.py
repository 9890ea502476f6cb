"""Options in a URL's query, read strictly."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import SplitResult, parse_qsl, urlsplit

from tsmemory.errors import InvalidInputError

__all__ = ["split_url"]


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
