"""URLs of stores: their parts and options, read strictly, and what of them may be shown.

A URL may hold a password, and a password with an unescaped ``/``, ``?``, ``#``, ``:`` or ``@`` in
it is cut in the wrong place by any parser. So (1) a URL whose parts could be read in more than one
way is refused without repeating any of it, and (2) an error about a URL that holds a secret quotes
nothing but its scheme.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from tsmemory.errors import InvalidInputError

__all__ = [
    "MASK",
    "StoreURL",
    "as_bool",
    "is_secret",
    "parse_url",
    "redact_url",
    "scheme_of",
    "split_url",
]

MASK = "***"
_SECRET_WORDS = frozenset({
    "ak", "apikey", "auth", "authorization", "credential", "credentials", "key", "pass", "passwd",
    "password", "pat", "pwd", "secret", "sig", "signature", "sk", "sts", "token",
})  # fmt: skip
_PUBLIC_WORDS = frozenset({"dir", "file", "path", "prefix", "space"})  # key_prefix is no key
_WORD = re.compile(r"[A-Z]?[a-z0-9]+|[A-Z]+")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")  # RFC 3986, section 3.1
_PARTS = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*):(?://(?P<netloc>[^/?#]*))?(?P<path>[^?#]*)"
    r"(?:\?(?P<query>[^#]*))?(?:#(?P<fragment>.*))?",
    re.DOTALL,
)
_HOST = re.compile(
    r"(?:\[(?P<literal>[0-9A-Fa-f:.%]+)\]|(?P<name>[^\[\]:]*))(?::(?P<port>[0-9]{0,5}))?"
)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_DELIMITERS = frozenset("/?#@:")
_ESCAPE_IT = (
    "percent-encode what is special in a user name, password or option (urllib.parse.quote)"
)


class StoreURL(NamedTuple):
    """A URL in its parts, all of them percent-encoded. ``repr`` shows no secret."""

    scheme: str
    """In lower case."""
    netloc: str
    """User, password, hosts and ports; empty in ``scheme:///path``."""
    path: str
    query: str
    fragment: str

    def __repr__(self) -> str:
        return f"StoreURL({redact_url(self.geturl())!r})"

    @property
    def username(self) -> str | None:
        """Before the ``:`` of the user information, as written; None where there is no ``@``."""
        user, at, _ = self.netloc.rpartition("@")
        return user.partition(":")[0] if at else None

    @property
    def password(self) -> str | None:
        """After that ``:``, as written; None where there is none."""
        _, colon, password = self.netloc.rpartition("@")[0].partition(":")
        return password if colon else None

    @property
    def hosts(self) -> list[tuple[str, int | None]]:
        """Each ``host:port`` of a list with commas; the port None where there is none."""
        address = self.netloc.rpartition("@")[2]
        return [_host(self.scheme, part) for part in address.split(",")]

    @property
    def hostname(self) -> str | None:
        """The first host, in lower case; None where there is none."""
        return self.hosts[0][0] or None

    @property
    def port(self) -> int | None:
        """The first host's port."""
        return self.hosts[0][1]

    def geturl(self) -> str:
        """The URL again, its secrets included: for a driver, never for a text."""
        query = f"?{self.query}" if self.query else ""
        fragment = f"#{self.fragment}" if self.fragment else ""
        slashes = "//" if self.netloc or self.path.startswith("/") else ""
        return f"{self.scheme}:{slashes}{self.netloc}{self.path}{query}{fragment}"


def scheme_of(url: str) -> str:
    """The scheme of `url` in lower case; empty where there is none."""
    match = _SCHEME.match(url)
    return match[0].lower() if match and url[match.end() : match.end() + 1] == ":" else ""


def parse_url(url: str) -> StoreURL:
    """`url` in its parts.

    Raises:
        InvalidInputError: it has no scheme, or its parts could be read in more than one way.
    """
    match = _PARTS.fullmatch(url)
    if match is None:
        raise InvalidInputError("not a URL: it has no scheme, as in sqlite:///chat.db")
    scheme = match["scheme"].lower()
    if _CONTROL.search(url):  # at which a parser in C may end the URL
        raise InvalidInputError(f"{scheme}: a control character in the URL; {_ESCAPE_IT}")
    user, at, address = (match["netloc"] or "").rpartition("@")
    # Another parser, a driver's, may take the first @ as the end of the password.
    netloc = user.replace("@", "%40") + at + address
    parts = StoreURL(scheme, netloc, match["path"], match["query"] or "", match["fragment"] or "")
    if _is_ambiguous(parts, has_authority=match["netloc"] is not None):
        raise InvalidInputError(
            f"{scheme}: an '@' stands behind the host or in the path; {_ESCAPE_IT}"
        )
    for host in parts.netloc.rpartition("@")[2].split(","):
        _host(scheme, host)
    return parts


def split_url(
    url: str, readers: Mapping[str, Callable[[str], Any]], options: Mapping[str, Any]
) -> tuple[StoreURL, dict[str, Any]]:
    """A URL in its parts, and the options: those of its query, read by `readers`, under `options`.

    Raises:
        InvalidInputError: a URL as in `parse_url`, or an option that is unknown or does not read.
    """
    parts = parse_url(url)
    if parts.fragment:
        raise InvalidInputError(f"{parts.scheme}: no URL of a store has a fragment; write # as %23")
    names = ", ".join(sorted(readers)) or "none"
    pairs = _pairs(parts.query)
    may_quote = not _holds_secret(parts, pairs)
    values: dict[str, Any] = {}
    for name, text in pairs:
        if name not in readers:
            quoted = f" {name!r}" if may_quote else " of one of the names given"
            raise InvalidInputError(f"{parts.scheme}: has no option{quoted}; it has {names}")
        try:
            values[name] = readers[name](text)
        except (ValueError, OverflowError) as error:
            reason = f": {error}" if may_quote else " does not read"
            raise InvalidInputError(f"{parts.scheme}: option {name!r}{reason}") from None
    for name in options:
        if name not in readers and name != "clock":
            raise InvalidInputError(f"{parts.scheme}: has no option {name!r}; it has {names}")
    return parts, {**values, **options}


def redact_url(url: str) -> str:
    """`url` with `MASK` for every part that could be a secret; the same where there is none."""
    scheme, colon, _ = url.partition(":")
    try:
        parts = parse_url(url)
    except InvalidInputError:
        slashes = "//" if url.startswith(f"{scheme}://") and "@" in url else ""
        return f"{scheme}{colon}{slashes}{MASK}" if _SCHEME.fullmatch(scheme) else MASK
    user, at, address = parts.netloc.rpartition("@")
    if at:
        name, colon, _ = user.partition(":")
        user = f"{name}:{MASK}" if colon else MASK  # a lone user name may be a token
    pairs = _pairs(parts.query)
    query = parts.query
    if any(is_secret(name) and value for name, value in pairs):
        # A piece without a "=" may be the rest of a secret that was not percent-encoded.
        shown = [
            (name if value else MASK, MASK if is_secret(name) and value else value)
            for name, value in pairs
        ]
        from urllib.parse import quote, urlencode  # slow to import, and rarely needed

        query = urlencode(shown, quote_via=quote, safe="*/:", errors="surrogatepass")
    fragment = MASK if parts.fragment and parts.netloc else parts.fragment
    redacted = parts._replace(netloc=f"{user}{at}{address}", query=query, fragment=fragment)
    return url if redacted == parts else redacted.geturl()


def as_bool(text: str) -> bool:
    """A yes or no in a URL.

    Raises:
        ValueError: it is neither.
    """
    try:
        return _BOOLEANS[text.lower()]
    except KeyError:
        raise ValueError("give true or false") from None


_BOOLEANS = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}


def is_secret(name: str) -> bool:
    """Whether an option or variable of this name holds what must not be shown."""
    words = {word.lower() for word in _WORD.findall(name)}
    return bool(words & _SECRET_WORDS) and not words & _PUBLIC_WORDS


def _is_ambiguous(parts: StoreURL, *, has_authority: bool) -> bool:
    """Whether a password may have been cut: an ``@`` where only its rest can have put one. In
    ``scheme:///path`` nothing but the path can be meant."""
    if has_authority and not parts.netloc:
        return False
    return "@" in parts.path + parts.query + parts.fragment


def _pairs(query: str) -> list[tuple[str, str]]:
    from urllib.parse import parse_qsl  # slow to import, and needed only where there are options

    return parse_qsl(query, keep_blank_values=True) if query else []


def _host(scheme: str, text: str) -> tuple[str, int | None]:
    """The host and port that `text` is. Never quotes it: it may be a part of a password."""
    import unicodedata

    match = _HOST.fullmatch(text)
    # A full-width @ or / is one of them after the normalisation that host names undergo.
    if match is None or _DELIMITERS & set(unicodedata.normalize("NFKC", match["name"] or "")):
        raise InvalidInputError(f"{scheme}: host and port do not read; {_ESCAPE_IT}")
    host = (match["literal"] or match["name"]).lower()
    if not match["port"]:
        return host, None
    port = int(match["port"])
    if not 0 < port < 65536:
        raise InvalidInputError(f"{scheme}: a port is a number from 1 to 65535")
    return host, port


def _holds_secret(parts: StoreURL, pairs: list[tuple[str, str]]) -> bool:
    return "@" in parts.netloc or any(is_secret(name) for name, _ in pairs)
