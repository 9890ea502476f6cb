"""Conversations as text: for a terminal, one message after the other; for a pipe, one per line."""

from __future__ import annotations

import datetime as dt
import json
import sys
from collections.abc import Iterable
from typing import Any

from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from tsmemory.cli.output import clean, console, echo_line, one_line, plural
from tsmemory.errors import CorruptRecordError
from tsmemory.model import LeftOut, Message, Session, ToolCall, WindowReport

__all__ = ["header", "lines", "moment", "table", "timestamp", "transcript", "window"]

_COLORS = {
    "user": "cyan",
    "assistant": "green",
    "system": "magenta",
    "developer": "magenta",
    "tool": "yellow",
    "function": "yellow",
}
_MAX_TEXT = 2_000  # characters of one message on a terminal, unless asked for all
_MAX_OUT = 20  # messages left out of a window that a terminal lists, the newest


def moment(micros: int | None) -> str:
    """A time of the store, for people: UTC, to the second."""
    if micros is None:
        return ""
    try:
        return f"{dt.datetime.fromtimestamp(micros / 1e6, dt.timezone.utc):%Y-%m-%d %H:%M:%S}"
    except (OverflowError, OSError, ValueError):  # beyond the year 9999
        return str(micros)


def timestamp(micros: int | None) -> str:
    """A time of the store in one word, as RFC 3339 writes it: UTC, to the second."""
    text = moment(micros)
    return f"{text.replace(' ', 'T')}Z" if " " in text else text


def table(sessions: list[Session]) -> None:
    """A listing of sessions, for a terminal."""
    if not sessions:
        console.print("no sessions")
        return
    grid = Table(header_style="dim", box=None, pad_edge=False)
    for name in ("user", "session"):
        grid.add_column(name, overflow="fold")
    grid.add_column("messages", justify="right")
    grid.add_column("last activity (UTC)", no_wrap=True)
    grid.add_column("title", overflow="fold")
    for s in sessions:
        names = (Text(one_line(s.user_id)), Text(one_line(s.session_id)))
        time = moment(s.update_time)
        grid.add_row(*names, f"{s.message_count:,}", time, Text(one_line(s.title or "")))
    console.print(grid)


def header(session: Session) -> None:
    """What is known of a session beside its messages."""
    console.print(Text(one_line(session.session_id), style="bold"), end="")
    console.print(Text(f"  user {one_line(session.user_id)}", style="dim"))
    facts = [
        plural(session.message_count, "message"),
        f"version {session.version}",
        f"last activity {moment(session.update_time)} UTC",
    ]
    if session.expires_at is not None:
        facts.append(f"expires {moment(session.expires_at)} UTC")
    console.print(Text(" · ".join(facts), style="dim"))
    for name, text in (("title", session.title), ("summary", session.summary)):
        if text:
            console.print(Text(f"{name}: {clean(text)}"))
    if session.metadata:
        console.print(Text(f"metadata: {clean(_json(session.metadata))}", style="dim"))


def lines(rows: Iterable[Message | CorruptRecordError], *before: str) -> list[str]:
    """Print one line per message: `before`, time, role, id, text. The errors of those that do not
    decode."""
    broken = []
    for row in rows:
        if isinstance(row, CorruptRecordError):
            broken.append(str(row))
            role, text = "broken", str(row)
        else:
            role, text = row.role, "\n".join(part for part, _ in _parts(row, True))
        echo_line(*before, timestamp(row.create_time), role, row.message_id or "", text)
        sys.stdout.flush()  # `tail -f` has a reader that waits
    return broken


def transcript(rows: Iterable[Message | CorruptRecordError], whole: bool) -> list[str]:
    """Print messages as they come. The errors of those that do not decode."""
    broken = []
    for row in rows:
        console.print()
        if isinstance(row, CorruptRecordError):
            broken.append(str(row))
            _row("broken", "red", Text(clean(str(row)), style="red"))
        else:
            _message(row, whole)
    return broken


def window(report: WindowReport, whole: bool) -> None:
    """What the model sees, then what it does not, with the reasons."""
    transcript(report.messages, whole)
    console.print()
    tokens = "" if report.tokens is None else f", {plural(report.tokens, 'token')}"
    console.print(Text(f"the model sees {plural(len(report.messages), 'message')}{tokens}"))
    if report.older:
        console.print(Text("older messages exist and were not read", style="dim"))
    if report.left_out:
        console.print(Text(f"left out: {plural(len(report.left_out), 'message')}", style="dim"))
    hidden = len(report.left_out) - _MAX_OUT
    if hidden > 0:
        console.print(Text(f"the older {hidden:,} of them are not listed", style="dim"))
    for out in report.left_out[-_MAX_OUT:]:
        _left_out(out)


def _left_out(out: LeftOut) -> None:
    text = one_line(out.message.text or ", ".join(call.name for call in out.message.tool_calls))
    if len(text) > 60:
        text = f"{text[:60]}…"
    body = Text(text, style="dim")
    body.append(f"  ({one_line(out.reason)})", style="italic red")
    _row(out.message.role, "dim", body)


def _message(message: Message, whole: bool) -> None:
    body = Text()
    for i, (part, style) in enumerate(_parts(message, whole)):
        body.append("\n" if i else "")
        body.append(part, style)
    _row(message.role, _COLORS.get(message.role, "white"), body, message)


def _parts(message: Message, whole: bool) -> list[tuple[str, str]]:
    """Text, blocks and tool calls, each with its style. Nothing in them acts on a terminal."""
    text = message.text
    if not whole and len(text) > _MAX_TEXT:
        text = f"{text[:_MAX_TEXT]} … ({len(message.text):,} characters; --full shows them)"
    parts = [(clean(text), "")] if text else []
    if isinstance(message.content, list):
        parts += [(f"[{_block(block)}]", "blue") for block in message.content if _unread(block)]
    parts += [(f"→ {_call(call, whole)}", "yellow") for call in message.tool_calls]
    return parts


def _unread(block: dict[str, Any]) -> bool:
    return not isinstance(block.get("text"), str)


def _block(block: dict[str, Any]) -> str:
    """What a block is, without its data."""
    words = [str(block.get("type"))]
    for name in ("mime_type", "url", "name", "reasoning"):
        value = block.get(name)
        if isinstance(value, str):
            words.append(value if len(value) <= 80 else f"{value[:80]}…")
    data = block.get("base64")
    if isinstance(data, (str, bytes)):
        words.append(f"{len(data):,} characters of base64")
    return one_line(" ".join(words))


def _call(call: ToolCall, whole: bool) -> str:
    arguments = call.arguments if isinstance(call.arguments, str) else _json(call.arguments)
    if not whole and len(arguments) > _MAX_TEXT:
        arguments = f"{arguments[:_MAX_TEXT]}…"
    return clean(f"{call.name}({arguments})")


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=repr)


def _row(role: str, color: str, body: Text, message: Message | None = None) -> None:
    head = Text(one_line(role), style=f"bold {color}")
    if message is not None:
        name = f" {one_line(message.name)}" if message.name else ""
        answers = f" · answers {one_line(message.tool_call_id)}" if message.tool_call_id else ""
        head.append(f"{name}  {moment(message.create_time)}{answers}", style="dim")
        console.print(head)
        console.print(Padding(body, (0, 0, 0, 2), expand=False))
        return
    row = Table.grid(padding=(0, 1))
    row.add_column(min_width=10)
    row.add_column(ratio=1, overflow="fold")
    row.add_row(head, body)
    console.print(row)
