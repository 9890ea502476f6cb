"""How the command speaks: tables and lines for people, JSON for scripts, progress on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from tsmemory.engine.codec import encode_value
from tsmemory.engine.text import visible as clean
from tsmemory.model import Message, Session

__all__ = [
    "clean", "console", "echo_json", "errors", "message_record", "plural", "progress",
    "session_record", "warn",
]  # fmt: skip

console = Console(highlight=False, markup=False, emoji=False)
errors = Console(stderr=True, highlight=False, markup=False, emoji=False)


def one_line(text: str) -> str:
    """`clean`, without line breaks."""
    return clean(text).replace("\n", "\\n")


def plural(count: int, noun: str) -> str:
    """``1 session``, ``2,000 sessions``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def warn(line: str) -> None:
    """A line on stderr."""
    errors.print(Text(f"tsmemory: {one_line(line)}"), soft_wrap=True)


def echo_json(value: Any) -> None:
    """One JSON document on one line of stdout: ASCII, so that nothing in it acts on a terminal."""
    sys.stdout.write(json.dumps(value, ensure_ascii=True, allow_nan=False) + "\n")


def session_record(session: Session) -> dict[str, Any]:
    """A session for scripts: the fields of `Session`."""
    return {name: _plain(getattr(session, name)) for name in session.__struct_fields__}


def message_record(message: Message) -> dict[str, Any]:
    """A message for scripts: the fields of `Message`, empty ones included."""
    record = {name: getattr(message, name) for name in message.__struct_fields__}
    record["tool_calls"] = [
        {name: getattr(call, name) for name in call.__struct_fields__}
        for call in message.tool_calls
    ]
    return {name: _plain(value) for name, value in record.items()}


def _plain(value: Any) -> Any:
    """What JSON cannot hold, tagged as in a store's own records (``{"$bytes": "…"}``)."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, dict) and not any(name.startswith("$") for name in value):
        return {name: _plain(one) for name, one in value.items()}
    return json.loads(encode_value(value))[0]


@contextmanager
def progress(label: str, total: Callable[[], int] | None = None) -> Iterator[Callable[[int], None]]:
    """A bar on stderr while the work lasts, where a person watches; gives how to move it.

    Args:
        total: asked only where the bar is shown, for counting may be work too.
    """
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=errors,
        transient=True,
        disable=not errors.is_terminal,
    )
    with bar:
        known = total() if total is not None and errors.is_terminal else None
        task = bar.add_task(label, total=known)
        yield lambda done: bar.update(task, completed=done)
