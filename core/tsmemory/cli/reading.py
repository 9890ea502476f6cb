"""``sessions``, ``show`` and ``tail``: what is stored."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.text import Text

from tsmemory.checks import DEFAULT_USER
from tsmemory.cli import show as views
from tsmemory.cli.options import AsCSV, AsJSON, AsJSONL, SessionId, StoreURL, User, Users
from tsmemory.cli.output import (
    Form,
    console,
    echo_csv,
    echo_json,
    echo_line,
    echo_records,
    errors,
    output_form,
    paged,
    plural,
    warn,
)
from tsmemory.cli.store import followed, opened, rows, session_of
from tsmemory.engine.records import UNSET
from tsmemory.errors import CorruptRecordError, InvalidInputError
from tsmemory.model import Message, Session, WindowReport
from tsmemory.window import Window, count_tokens

__all__ = ["register"]

_SESSION = Session.__struct_fields__
_MESSAGE = Message.__struct_fields__


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    app.command()(sessions)
    app.command()(show)
    app.command()(tail)


def sessions(
    store: StoreURL = None,
    user: Users = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="Sessions per page.")] = 20,
    order: Annotated[str, typer.Option(help="desc (most recently active first) or asc.")] = "desc",
    cursor: Annotated[str | None, typer.Option(help="The next_cursor of the page before.")] = None,
    as_json: AsJSON = False,
    as_jsonl: AsJSONL = False,
    as_csv: AsCSV = False,
) -> None:
    """List sessions, the most recently active first."""
    form = output_form(as_json, as_jsonl, as_csv)
    arguments: dict[str, Any] = {"limit": limit, "order": order, "cursor": cursor}
    broken: CorruptRecordError | None = None
    with opened(store) as opened_store:
        user_id = UNSET if user is None else user
        try:
            page = opened_store.list_sessions(user_id=user_id, **arguments)
        except CorruptRecordError as error:
            broken = error
            page = opened_store.list_sessions(user_id=user_id, on_error="skip", **arguments)
    if form == "json":
        echo_json({"sessions": [s.to_dict() for s in page], "next_cursor": page.next_cursor})
    elif form == "terminal":
        views.table(page.items)
    elif form == "lines":
        for s in page:
            time = views.timestamp(s.update_time)
            echo_line(s.user_id, s.session_id, s.message_count, time, s.title or "")
    else:
        echo_records(form, _SESSION, (s.to_dict() for s in page))
    if form != "json" and page.next_cursor:
        errors.print(Text(f"more: --cursor {page.next_cursor}"), soft_wrap=True)
    if broken is not None:
        warn(f'{broken}; "tsmemory verify" names every broken record')
        raise typer.Exit(1)


def show(
    session_id: SessionId,
    store: StoreURL = None,
    user: User = DEFAULT_USER,
    last: Annotated[
        int | None, typer.Option("--last", "-n", min=1, help="Only the newest so many messages.")
    ] = None,
    window: Annotated[
        int | None,
        typer.Option(min=0, help="What a model would see with window(N), and what it would not."),
    ] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option(min=1, help="The window's limit in tokens, counted roughly."),
    ] = None,
    summary: Annotated[
        bool, typer.Option("--summary", help="Put the session's summary into the window.")
    ] = False,
    full: Annotated[bool, typer.Option("--full", help="Do not shorten long messages.")] = False,
    as_json: AsJSON = False,
    as_jsonl: AsJSONL = False,
    as_csv: AsCSV = False,
) -> None:
    """Print a conversation, or a window of it.

    With --window: what a model would see, and what is left out and why. On a terminal, long
    output goes through a pager; in a pipe, each message is one line.
    """
    form = output_form(as_json, as_jsonl, as_csv)
    windowed = window is not None or max_tokens is not None
    if windowed and last is not None:
        raise InvalidInputError("--last is for the transcript; --window has its own number")
    broken: list[str] = []
    with opened(store) as opened_store, paged(form):
        chat = opened_store.conversation(session_id, user_id=user)
        session = session_of(chat)
        if windowed:
            policy = Window(last=window, summary=summary)
            if max_tokens is not None:
                policy = Window(
                    last=window,
                    summary=summary,
                    max_tokens=max_tokens,
                    token_counter=count_tokens,
                )
            _print_window(form, session, chat.window(policy, explain=True), full)
            return
        found = rows(chat, last)
        if form == "json":
            messages = list(_records(found, broken))
            echo_json({"session": session.to_dict(), "messages": messages, "broken": broken})
        else:
            if form == "terminal":
                views.header(session)
            broken = _print_rows(form, found, full)
    _report_broken(broken)


def _print_window(form: Form, session: Session, report: WindowReport, full: bool) -> None:
    if form == "terminal":
        views.header(session)
        views.window(report, full)
    elif form == "lines":
        for message, reason in report.left_out:
            views.lines([message], f"left out: {reason}")
        views.lines(report.messages, "shown")
    elif form == "json":
        echo_json({"session": session.to_dict(), **report.to_dict()})
    else:
        records = [
            *({**out.message.to_dict(), "left_out": out.reason} for out in report.left_out),
            *({**message.to_dict(), "left_out": None} for message in report.messages),
        ]
        echo_records(form, (*_MESSAGE, "left_out"), records)


def _records(found: Any, broken: list[str]) -> Any:
    """Records of messages; the errors of those that do not decode go to `broken`."""
    for row in found:
        if isinstance(row, CorruptRecordError):
            broken.append(str(row))
        else:
            yield row.to_dict()


def _print_rows(form: Form, found: Any, full: bool) -> list[str]:
    """Print messages in any form but ``json``; the errors of those that do not decode."""
    if form == "terminal":
        return views.transcript(found, full)
    if form == "lines":
        return views.lines(found)
    broken: list[str] = []
    if form == "csv":
        echo_csv(_MESSAGE, _records(found, broken))
    else:
        for record in _records(found, broken):
            echo_json(record)
            console.file.flush()
    return broken


def _report_broken(broken: list[str]) -> None:
    if broken:
        warn(f"{plural(len(broken), 'message')} cannot be decoded")
        raise typer.Exit(1)


def tail(
    session_id: SessionId,
    store: StoreURL = None,
    user: User = DEFAULT_USER,
    last: Annotated[
        int, typer.Option("--last", "-n", min=1, help="The newest so many messages.")
    ] = 10,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Wait for new messages; Ctrl-C ends it.")
    ] = False,
    interval: Annotated[
        float, typer.Option(min=0.05, help="Seconds between two reads, with --follow.")
    ] = 1.0,
    as_jsonl: AsJSONL = False,
) -> None:
    """Print the newest messages, and with -f every new one.

    It follows the end of the session: messages inserted or changed before it are not printed.
    """
    form = output_form(False, as_jsonl)
    with opened(store) as opened_store:
        chat = opened_store.conversation(session_id, user_id=user)
        session_of(chat)
        found = followed(chat, last, interval) if follow else rows(chat, last)
        try:
            broken = _print_rows(form, found, False)
        except KeyboardInterrupt:
            if not follow:
                raise
            return
    _report_broken(broken)
