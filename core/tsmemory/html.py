"""How records show themselves in a notebook: plain HTML and CSS, every text escaped.

It knows records by their attributes alone, so that the records can import it. Both text and
background colours are set, so that light and dark notebook themes look alike.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

__all__ = [
    "MAX_SHOWN",
    "conversation",
    "messages",
    "no_session",
    "page",
    "sessions",
    "window",
]

_MAX_TEXT = 2000  # characters of one message: a tool's result may be a whole web page
MAX_SHOWN = 200  # messages: a browser with 100,000 of them helps nobody

_STYLE = """<style>
.tsm{font:14px/1.45 system-ui,sans-serif;max-width:60em;color:#1f2328;background:#fff;padding:.6em}
.tsm .m{border-left:4px solid #8b949e;border-radius:4px;margin:.35em 0;padding:.35em .7em;
background:#f6f8fa}
.tsm .user{border-color:#0969da;background:#ddf4ff}
.tsm .assistant{border-color:#1a7f37;background:#e6f6ea}
.tsm .system,.tsm .developer{border-color:#8250df;background:#f6efff}
.tsm .tool,.tsm .function{border-color:#9a6700;background:#fff8e1}
.tsm .out{opacity:.75;border-left-style:dashed}
.tsm .h{font-size:85%;color:#57606a}
.tsm .h b{color:#1f2328}
.tsm .t{white-space:pre-wrap;overflow-wrap:anywhere}
.tsm code{background:#eaeef2;border-radius:3px;padding:0 .25em;color:#1f2328;overflow-wrap:anywhere}
.tsm table{border-collapse:collapse}
.tsm th,.tsm td{padding:.25em .7em;border-bottom:1px solid #d0d7de;text-align:left;
vertical-align:top}
.tsm summary{cursor:pointer;color:#57606a}
</style>"""


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
            kind = " ".join(str(block[k]) for k in ("type", "mime_type", "url") if block.get(k))
            parts.append(f"<code>{_text(kind)}</code>")
    return "<br>".join(parts)


def _calls(message: Any) -> str:
    shown = ""
    for call in message.tool_calls:
        arguments = call.arguments
        if not isinstance(arguments, str):
            arguments = json.dumps(arguments, ensure_ascii=False, default=str)
        shown += f"<div>→ <b>{_text(call.name)}</b> <code>{_text(arguments)}</code></div>"
    return shown


def _message(message: Any, note: str = "") -> str:
    role = message.role if message.role.isalnum() else "other"
    name = f" · {_text(message.name)}" if message.name else ""
    answers = f" · answers {_text(message.tool_call_id)}" if message.tool_call_id else ""
    when = f" · {_when(message.create_time)}" if message.create_time is not None else ""
    why = f" · <b>{_text(note)}</b>" if note else ""
    head = f'<div class="h"><b>{_text(message.role)}</b>{name}{answers}{when}{why}</div>'
    content = _content(message)
    body = f'<div class="t">{content}</div>' if content else ""
    style = f"m {_text(role)}{' out' if note else ''}"
    return f'<div class="{style}">{head}{body}{_calls(message)}</div>'


def messages(items: Sequence[Any], title: str = "") -> str:
    """A conversation, or a part of one."""
    return _frame(_title(title) + _messages(items))


def _title(title: str) -> str:
    return f'<div class="h">{title}</div>' if title else ""


def _messages(items: Sequence[Any]) -> str:
    if not items:
        return "<i>no messages</i>"
    hidden = len(items) - MAX_SHOWN
    more = f"<i>{hidden:,} earlier messages not shown</i>" if hidden > 0 else ""
    return more + "".join(map(_message, items[-MAX_SHOWN:]))


def window(report: Any) -> str:
    """A window, and what it left out."""
    tokens = f", {report.tokens:,} tokens" if report.tokens is not None else ""
    title = _title(f"<b>{len(report.messages)} messages</b> for the model{tokens}")
    body = _messages(report.messages)
    if report.left_out:
        out = "".join(_message(message, reason) for message, reason in report.left_out)
        body += f"<details><summary>{len(report.left_out)} left out</summary>{out}</details>"
    if report.older:
        body += '<div class="h">Older messages were not read.</div>'
    return _frame(title + body)


def sessions(items: Iterable[Any], more: bool = False) -> str:
    """A table of sessions."""
    rows = "".join(
        f"<tr><td>{_text(s.user_id)}</td><td>{_text(s.session_id)}</td>"
        f"<td>{_text(s.title or '')}</td><td>{s.message_count:,}</td>"
        f"<td>{_when(s.update_time)}</td><td>{_metadata(s.metadata)}</td></tr>"
        for s in items
    )
    heads = ("user", "session", "title", "messages", "last activity", "metadata")
    head = "".join(f"<th>{name}</th>" for name in heads)
    rest = '<div class="h">… and more: see next_cursor</div>' if more else ""
    return _frame(f"<table><tr>{head}</tr>{rows}</table>{rest}")


def _metadata(metadata: dict[str, Any]) -> str:
    return " ".join(f"<code>{_text(k)}={_text(str(v))}</code>" for k, v in metadata.items())


def page(found: Any) -> str:
    """A page of sessions or of messages."""
    if found.items and hasattr(found.items[0], "role"):
        rest = "… and more: see next_cursor" if found.next_cursor else ""
        return messages(found.items, rest)
    return sessions(found.items, more=found.next_cursor is not None)


def conversation(session: Any, newest: Sequence[Any]) -> str:
    """A session, and its newest messages in reading order."""
    title = (
        f"<b>{_text(session.title or session.session_id)}</b> · user {_text(session.user_id)} · "
        f"{session.message_count:,} messages · {_when(session.update_time)}"
    )
    hidden = session.message_count - len(newest)
    more = f"<i>{hidden:,} earlier messages not shown</i>" if hidden > 0 else ""
    return _frame(_title(title) + more + _messages(newest))


def no_session(session_id: str) -> str:
    """In the place of a session that does not exist."""
    return _frame(f"<i>session {_text(session_id)} has no messages yet</i>")
