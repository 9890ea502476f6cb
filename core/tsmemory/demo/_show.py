"""What the demo prints: conversations, windows and sessions, for a terminal (rich)."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterable

from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from tsmemory import Message, Session, WindowReport

__all__ = ["console", "exchange", "heading", "sessions", "transcript", "window"]

console = Console(highlight=False, soft_wrap=False)
_COLOURS = {
    "user": "cyan",
    "assistant": "green",
    "system": "magenta",
    "developer": "magenta",
    "tool": "yellow",
    "function": "yellow",
}
_MAX_TEXT = 320  # characters of one message


def heading(title: str, note: str = "") -> None:
    """The title of a part, and a line on it."""
    console.print()
    console.print(Rule(f"[bold]{title}", align="left", style="dim"))
    if note:
        console.print(Text(note, style="dim"))


def exchange(question: str, reply: str) -> None:
    """A question and its answer."""
    console.print(_line(Message.user(question)))
    console.print(_line(Message.assistant(reply)))


def _clean(text: str) -> str:
    # What cannot be written (lone surrogates) or would act on a terminal (control characters).
    text = text.encode("utf-8", "backslashreplace").decode()
    return "".join(c if c.isprintable() or c == "\n" else f"\\x{ord(c):02x}" for c in text)


def _line(message: Message, reason: str = "") -> Table:
    colour = _COLOURS.get(message.role, "white")
    text = _clean(message.text)
    if len(text) > _MAX_TEXT:
        text = f"{text[:_MAX_TEXT].rstrip()} … ({len(message.text):,} characters)"
    body = Text(text, style="dim" if reason else "")
    for call in message.tool_calls:
        arguments = call.arguments
        if not isinstance(arguments, str):
            arguments = json.dumps(arguments, ensure_ascii=False, default=str)
        body.append("\n" if body.plain else "")
        body.append(f"→ {_clean(call.name)}({_clean(arguments)[:_MAX_TEXT]})", "yellow")
    if reason:
        body.append(f"\n{reason}", style="italic red")
    row = Table.grid(padding=(0, 1))
    row.add_column(justify="right", min_width=10)
    row.add_column(ratio=1)
    row.add_row(Text(_clean(message.role), style=f"bold {colour}"), body)
    return row


def transcript(messages: Iterable[Message], title: str) -> None:
    """A conversation, as it is stored."""
    console.print(Panel(Group(*map(_line, messages)), title=title, title_align="left"))


def window(report: WindowReport, title: str, out: int = 6) -> None:
    """What the model sees, and the newest `out` messages that it does not."""
    lines: list[RenderableType] = [_line(message) for message in report.messages]
    hidden = len(report.left_out) - out
    if report.left_out:
        lines.append(Text(f"\n left out: {len(report.left_out)}", style="dim"))
        if hidden > 0:
            lines.append(Text(f" … the older {hidden} not listed", style="dim"))
        lines += [_line(message, reason) for message, reason in report.left_out[-out:]]
    console.print(Panel(Group(*lines), title=title, title_align="left", border_style="green"))


def sessions(records: Iterable[Session], title: str) -> None:
    """A table of sessions."""
    table = Table(title=title, title_justify="left", title_style="bold", header_style="dim")
    for name in ("user", "session", "title"):
        table.add_column(name, overflow="fold")
    table.add_column("last activity (UTC)", no_wrap=True)
    table.add_column("messages", justify="right")
    for s in records:
        time = dt.datetime.fromtimestamp(s.update_time / 1e6, dt.timezone.utc)
        table.add_row(
            *map(_clean, (s.user_id, s.session_id, s.title or "", f"{time:%Y-%m-%d %H:%M:%S}")),
            str(s.message_count),
        )
    console.print(table)
