"""How records show themselves in a notebook: plain HTML and CSS, every text escaped.

It knows records by their attributes alone, so that the records can import it. Nothing is fetched: a
picture is shown where its bytes are in the message, and one that is a URL as that URL.
"""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

__all__ = [
    "conversation",
    "hits",
    "messages",
    "page",
    "sessions",
    "window",
]

_MAX_TEXT = 2000  # characters of one message: a tool's result may be a whole web page
_MAX_SHOWN = 200  # messages: a browser with 100,000 of them helps nobody

_PICTURES = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})
_MAX_PICTURE = 2_000_000  # characters of base64: a notebook keeps its outputs

_LIGHT = (
    "color-scheme:light;--t:#1f2328;--s:#57606a;--b:#fff;--p:#f6f8fa;--c:#eaeef2;--l:#d0d7de;"
    "--u:#ddf4ff;--ue:#0969da;--a:#e6f6ea;--ae:#1a7f37;--i:#f6efff;--ie:#8250df;"
    "--r:#fff8e1;--re:#9a6700;--k:#ffe58f"
)
_DARK = (
    "color-scheme:dark;--t:#e6edf3;--s:#9da7b1;--b:#0d1117;--p:#161b22;--c:#2d333b;--l:#30363d;"
    "--u:#0c2d4a;--ue:#58a6ff;--a:#0f3220;--ae:#3fb950;--i:#2a1a45;--ie:#bc8cff;"
    "--r:#3a2a06;--re:#d29922;--k:#5f4a00"
)
# Text and background are always set together. A host that says which theme it has (JupyterLab,
# VS Code, Colab, Sphinx, Material) is believed before the system's setting.
_IS_DARK = (
    '[data-jp-theme-light="false"]', ".vscode-dark", '[theme="dark"]', '[data-theme="dark"]',
    '[data-md-color-scheme="slate"]',
)  # fmt: skip
_IS_LIGHT = (
    '[data-jp-theme-light="true"]', ".vscode-light", '[data-theme="light"]',
    '[data-md-color-scheme="default"]',
)  # fmt: skip
# .tsm thrice: more specific than the rules that notebooks have for any table, row or code.
_STYLE = (
    "<style>"
    f".tsm{{{_LIGHT}}}"
    f"@media (prefers-color-scheme:dark){{.tsm{{{_DARK}}}}}"
    + ",".join(f"{host} .tsm" for host in _IS_LIGHT)
    + f"{{{_LIGHT}}}"
    + ",".join(f"{host} .tsm" for host in _IS_DARK)
    + f"{{{_DARK}}}"
    + """
.tsm.tsm.tsm{font:14px/1.45 system-ui,sans-serif;max-width:60em;color:var(--t);background:var(--b);
padding:.6em;border-radius:4px}
.tsm.tsm.tsm .m{border-left:4px solid var(--l);border-radius:4px;margin:.35em 0;padding:.35em .7em;
background:var(--p)}
.tsm.tsm.tsm .user{border-color:var(--ue);background:var(--u)}
.tsm.tsm.tsm .assistant{border-color:var(--ae);background:var(--a)}
.tsm.tsm.tsm .system,.tsm.tsm.tsm .developer{border-color:var(--ie);background:var(--i)}
.tsm.tsm.tsm .tool,.tsm.tsm.tsm .function{border-color:var(--re);background:var(--r)}
.tsm.tsm.tsm .out{border-left-style:dashed}
.tsm.tsm.tsm .h{font-size:85%;color:var(--s)}
.tsm.tsm.tsm b{color:var(--t)}
.tsm.tsm.tsm .t{white-space:pre-wrap;overflow-wrap:anywhere;color:var(--t)}
.tsm.tsm.tsm code{background:var(--c);border-radius:3px;padding:0 .25em;color:var(--t);
overflow-wrap:anywhere}
.tsm.tsm.tsm mark{background:var(--k);color:var(--t);border-radius:3px}
.tsm.tsm.tsm img{max-width:20em;max-height:20em;display:block;background:#fff}
.tsm.tsm.tsm table{border-collapse:collapse;margin:0;color:var(--t);background:none;border:0}
.tsm.tsm.tsm tr{background:none}
.tsm.tsm.tsm th,.tsm.tsm.tsm td{padding:.25em .7em;border:0;border-bottom:1px solid var(--l);
text-align:left;vertical-align:top;color:var(--t);background:none;max-width:none}
.tsm.tsm.tsm summary{cursor:pointer;color:var(--s)}
</style>"""
)


def _frame(body: str) -> str:
    return f'{_STYLE}<div class="tsm">{body}</div>'


def _text(text: str) -> str:
    # A lone surrogate would make the whole notebook unwritable: show it as its escape.
    clean = text.encode("utf-8", "backslashreplace").decode()
    if len(clean) > _MAX_TEXT:
        clean = f"{clean[:_MAX_TEXT]}… ({len(text):,} characters)"
    return escape(clean, quote=True).replace("\0", "␀")


def _when(micros: int | None) -> str:
    if micros is None:
        return ""
    try:
        time = dt.datetime.fromtimestamp(micros / 1_000_000, dt.timezone.utc)
    except (ValueError, OverflowError, OSError):
        return f"{micros} µs"
    return time.strftime("%Y-%m-%d %H:%M:%S UTC")


def _content(message: Any) -> str:
    if isinstance(message.content, str):
        return _text(message.content)
    parts = []
    for block in message.content:
        if isinstance(block.get("text"), str):
            parts.append(_text(block["text"]))
        elif isinstance(block.get("reasoning"), str):
            parts.append(f"<i>{_text(block['reasoning'])}</i>")
        elif block.get("type") != "tool_call":
            picture = _picture(block)
            if picture:
                parts.append(picture)
                continue
            kind = " ".join(str(block[k]) for k in ("type", "mime_type", "url") if block.get(k))
            parts.append(f"<code>{_text(kind)}</code>")
    return "<br>".join(parts)


def _picture(block: Any) -> str:
    """An image whose bytes are here, as one that the browser shows; otherwise nothing."""
    encoded, kind = block.get("base64"), block.get("mime_type")
    if block.get("type") != "image" or kind not in _PICTURES or not isinstance(encoded, str):
        return ""
    if len(encoded) > _MAX_PICTURE or not re.fullmatch(r"[A-Za-z0-9+/\s]+={0,2}\s*", encoded):
        return ""
    return f'<img alt="{kind}" src="data:{kind};base64,{"".join(encoded.split())}">'


def _calls(message: Any) -> str:
    lines = ""
    for call in message.tool_calls:
        arguments = call.arguments
        if not isinstance(arguments, str):
            arguments = json.dumps(arguments, ensure_ascii=False, default=str)
        lines += f"<div>→ <b>{_text(call.name)}</b> <code>{_text(arguments)}</code></div>"
    return lines


def _message(message: Any, note: str = "") -> str:
    role = message.role if message.role.isalnum() else "other"
    name = f" · {_text(message.name)}" if message.name else ""
    answered_call = f" · answers {_text(message.tool_call_id)}" if message.tool_call_id else ""
    when = f" · {_when(message.create_time)}" if message.create_time is not None else ""
    why = f" · <b>{_text(note)}</b>" if note else ""
    head = f'<div class="h"><b>{_text(message.role)}</b>{name}{answered_call}{when}{why}</div>'
    content = _content(message)
    body = f'<div class="t">{content}</div>' if content else ""
    style = f"m {_text(role)}{' out' if note else ''}"
    return f'<div class="{style}">{head}{body}{_calls(message)}</div>'


def messages(items: Sequence[Any], more: bool = False) -> str:
    """A conversation, or a part of one.

    Args:
        more: whether these are a page, and another follows.
    """
    return _frame(_messages(items) + _footer(more))


def _footer(more: bool) -> str:
    return '<div class="h">… and more: see next_cursor</div>' if more else ""


def _messages(records: Sequence[Any]) -> str:
    if not records:
        return "<i>no messages</i>"
    hidden = len(records) - _MAX_SHOWN
    more = f"<i>{hidden:,} earlier messages not shown</i>" if hidden > 0 else ""
    return more + "".join(map(_message, records[-_MAX_SHOWN:]))


def window(report: Any) -> str:
    """A window, and what it left out."""
    tokens = f", {report.tokens:,} tokens" if report.tokens is not None else ""
    title = f'<div class="h"><b>{len(report.messages)} messages</b> for the model{tokens}</div>'
    body = _messages(report.messages)
    if report.left_out:
        out = "".join(_message(message, reason) for message, reason in report.left_out)
        body += f"<details><summary>{len(report.left_out)} left out</summary>{out}</details>"
    if report.older:
        body += '<div class="h">Older messages were not read.</div>'
    return _frame(title + body)


def sessions(items: Iterable[Any], more: bool = False) -> str:
    """A table of sessions."""
    rows = [
        (
            _text(s.user_id), _text(s.session_id), _text(s.title or ""), f"{s.message_count:,}",
            _when(s.update_time), _metadata(s.metadata),
        )
        for s in items
    ]  # fmt: skip
    heads = ("user", "session", "title", "messages", "last activity", "metadata")
    return _table(heads, rows, more)


def hits(found: Sequence[Any], more: bool = False) -> str:
    """What a search found, messages or sessions, with the matches marked."""
    if hasattr(found[0], "message"):
        rows = [_hit(hit, hit, hit.message.role, hit.message.create_time) for hit in found]
        return _table(("user", "session", "role", "time", "text"), rows, more)
    rows = [
        _hit(hit, hit.session, hit.session.title or "", hit.session.update_time) for hit in found
    ]
    return _table(("user", "session", "title", "last activity", "text"), rows, more)


def _hit(hit: Any, ids: Any, about: str, time: int | None) -> tuple[str, ...]:
    text = _marked(hit.snippet, hit.spans)
    return _text(ids.user_id), _text(ids.session_id), _text(about), _when(time), text


def _marked(snippet: str, spans: Iterable[tuple[int, int]]) -> str:
    parts, position = [], 0
    for start, end in spans:
        parts += [_text(snippet[position:start]), f"<mark>{_text(snippet[start:end])}</mark>"]
        position = end
    return "".join(parts) + _text(snippet[position:])


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]], more: bool) -> str:
    """A table; the cells of `rows` are HTML."""
    head = "".join(f"<th>{name}</th>" for name in heads)
    body = "".join(
        "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>" for cells in rows
    )
    return _frame(f"<table><tr>{head}</tr>{body}</table>{_footer(more)}")


def _metadata(metadata: dict[str, Any]) -> str:
    return " ".join(f"<code>{_text(k)}={_text(str(v))}</code>" for k, v in metadata.items())


def page(listing: Any) -> str:
    """A page of sessions, of messages, or of what a search found."""
    items, more = listing.items, listing.next_cursor is not None
    if not items:
        return _frame(f"<i>nothing on this page</i>{_footer(more)}")
    if hasattr(items[0], "snippet"):
        return hits(items, more)
    return messages(items, more) if hasattr(items[0], "role") else sessions(items, more)


def conversation(session_id: str, user_id: str, store: str) -> str:
    """A handle on a session. Its messages are not read: a cell that shows it must not wait."""
    return _frame(
        f"session <b>{_text(session_id)}</b> of user <b>{_text(user_id)}</b> in {_text(store)}"
        '<div class="h">Show its messages with .window(20) or .list_messages()</div>'
    )
