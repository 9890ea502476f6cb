"""Conversations as Markdown, for people to read."""

from __future__ import annotations

import datetime as dt
import json
import os
import re
from collections.abc import Callable, Iterator
from typing import BinaryIO

from tsmemory.engine.records import UNSET, Unset
from tsmemory.model import Message, Session
from tsmemory.store import Store
from tsmemory.transfer.archive import opened
from tsmemory.transfer.copying import Progress, Report
from tsmemory.usecases import OnError

__all__ = ["export_markdown"]

_FENCE = re.compile(r"^ {0,3}(`{3,})", re.MULTILINE)


def export_markdown(
    store: Store,
    file: str | os.PathLike[str] | BinaryIO,
    *,
    user_id: str | Unset = UNSET,
    progress: Callable[[Progress], None] | None = None,
    on_error: OnError = "raise",
) -> Report:
    """Write conversations as Markdown: a heading per session, and one per message.

    Tool calls and results are in fenced blocks, images and files are named with their URL, and what
    else a message holds is left out: to move a store, use `export_jsonl`.

    Args:
        file: a path, or a binary file open for writing.
        user_id: whose sessions; leave it out for every user's.
        progress: called after every session.
        on_error: ``"skip"`` leaves out records that do not decode.

    Raises:
        CorruptRecordError: a record does not decode.
    """
    report = Report()
    with opened(file, "wb") as out:
        for session in store.iter_sessions(user_id=user_id, order="asc", on_error=on_error):
            chat = store.conversation(session.session_id, user_id=session.user_id)
            begin = "\n" if report.sessions else ""
            out.write(_encoded(begin + "\n".join(_head(session)) + "\n"))
            for message in chat.iter_messages(on_error=on_error):
                out.write(_encoded("\n".join(_lines(message)) + "\n"))
                report.messages += 1
            report.sessions += 1
            if progress is not None:
                ids = session.user_id, session.session_id
                progress(Progress(report.sessions, report.messages, *ids))
    return report


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "replace")  # lone surrogates cannot be shown


def _head(session: Session) -> Iterator[str]:
    yield f"# {_one_line(session.title or session.session_id)}"
    yield ""
    yield f"- session: `{_one_line(session.session_id)}`"
    yield f"- user: `{_one_line(session.user_id)}`"
    yield f"- last active: {_moment(session.update_time)}"
    if session.summary:
        yield ""
        yield f"> {_one_line(session.summary)}"


def _lines(message: Message) -> Iterator[str]:
    name = f" ({_one_line(message.name)})" if message.name else ""
    yield ""
    yield f"## {_one_line(message.role).capitalize()}{name} · {_moment(message.create_time)}"
    text = message.text
    if text:
        yield ""
        if message.role == "tool":
            yield from _fenced(text)
        else:
            yield text
    for block in () if isinstance(message.content, str) else message.content:
        kind, where = block.get("type"), block.get("url") or block.get("file_id")
        if kind == "reasoning" and block.get("reasoning"):
            yield ""
            yield from (f"> {line}" for line in str(block["reasoning"]).splitlines())
        elif where or "base64" in block:
            yield ""
            yield f"*{kind}: {_one_line(str(where or block.get('mime_type') or 'attached'))}*"
    for call in message.tool_calls:
        arguments = call.arguments
        if not isinstance(arguments, str):
            arguments = json.dumps(arguments, ensure_ascii=False, indent=2, default=str)
        yield ""
        yield f"**calls** `{_one_line(call.name)}`"
        yield ""
        yield from _fenced(arguments, "json")


def _fenced(text: str, language: str = "") -> Iterator[str]:
    """A code block whose fence is longer than any inside."""
    longest = max((len(fence) for fence in _FENCE.findall(text)), default=2)
    fence = "`" * max(3, longest + 1)
    yield fence + language
    yield text
    yield fence


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _moment(micros: int | None) -> str:
    try:
        when = dt.datetime.fromtimestamp((micros or 0) / 1_000_000, dt.timezone.utc)
    except (ValueError, OverflowError, OSError):
        return f"{micros} µs"
    return when.strftime("%Y-%m-%d %H:%M:%S UTC")
