"""The commands. Each opens a store, asks the public API, and prints what it says."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import itertools
import sys
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from tsmemory.checks import DEFAULT_USER
from tsmemory.cli import show as views
from tsmemory.cli.doctor import examine
from tsmemory.cli.options import AsJSON, StoreURL, User, Users
from tsmemory.cli.output import (
    clean,
    console,
    echo_json,
    errors,
    message_record,
    one_line,
    plural,
    progress,
    session_record,
    warn,
)
from tsmemory.cli.store import opened, rows, session_of
from tsmemory.cli.transfer import register
from tsmemory.cli.web import register as register_web
from tsmemory.engine.records import UNSET
from tsmemory.engine.urls import redact_url
from tsmemory.errors import (
    CorruptRecordError,
    InvalidInputError,
    MissingDependencyError,
)
from tsmemory.model import Session
from tsmemory.store import Store
from tsmemory.window import Window, count_tokens

__all__ = ["app"]

app = typer.Typer(
    name="tsmemory",
    help="Conversation memory for AI agents: look at a store, look after it, move it.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback(invoke_without_command=True)
def _begin(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version and end.")] = False,
) -> None:
    if version:
        typer.echo(f"tsmemory {importlib.metadata.version('tsmemory')}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit(2)


@app.command()
def demo(
    store: StoreURL = None,
    conversations: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Load these (JSON Lines of id and messages) instead."),
    ] = None,
    show: Annotated[int, typer.Option(min=0, help="How many of them to print whole.")] = 1,
) -> None:
    """Show one conversation across two frameworks.

    Two processes, no network, no key.
    """
    from tsmemory.demo import check_installed
    from tsmemory.demo import main as run_demo

    check_installed()
    arguments = ["--show", str(show)]
    arguments += ["--store", store] if store else []
    run_demo(arguments + (["--conversations", conversations] if conversations else []))


@app.command()
def sessions(
    store: StoreURL = None,
    user: Users = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="Sessions a page.")] = 20,
    order: Annotated[str, typer.Option(help="desc (most recently active first) or asc.")] = "desc",
    cursor: Annotated[
        str | None, typer.Option(help="What the page before gave as next_cursor.")
    ] = None,
    as_json: AsJSON = False,
) -> None:
    """List sessions, the last active first."""
    arguments: dict[str, Any] = {"limit": limit, "order": order, "cursor": cursor}
    broken: CorruptRecordError | None = None
    with opened(store) as opened_store:
        whose = UNSET if user is None else user
        try:
            page = opened_store.list_sessions(user_id=whose, **arguments)
        except CorruptRecordError as error:
            broken = error
            page = opened_store.list_sessions(user_id=whose, on_error="skip", **arguments)
    if as_json:
        echo_json({"sessions": [session_record(s) for s in page], "next_cursor": page.next_cursor})
    else:
        _table(page.items)
        if page.next_cursor:
            errors.print(Text(f"more: --cursor {page.next_cursor}"), soft_wrap=True)
    if broken is not None:
        warn(f'{broken}; "tsmemory verify" names every broken record')
        raise typer.Exit(1)


def _table(found: list[Session]) -> None:
    if not found:
        console.print("no sessions")
        return
    table = Table(header_style="dim", box=None, pad_edge=False)
    for name in ("user", "session"):
        table.add_column(name, overflow="fold")
    table.add_column("messages", justify="right")
    table.add_column("last activity (UTC)", no_wrap=True)
    table.add_column("title", overflow="fold")
    for s in found:
        names = (Text(one_line(s.user_id)), Text(one_line(s.session_id)))
        time = views.moment(s.update_time)
        table.add_row(*names, f"{s.message_count:,}", time, Text(one_line(s.title or "")))
    console.print(table)


@app.command()
def show(
    session_id: Annotated[str, typer.Argument(metavar="SESSION")],
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
) -> None:
    """Print a conversation, or a window of it.

    As a person reads it; with --window, as a model would see it, and what was left out and why.
    """
    windowed = window is not None or max_tokens is not None
    if windowed and last is not None:
        raise InvalidInputError("--last is for the transcript; --window has its own number")
    broken: list[str] = []
    with opened(store) as opened_store:
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
            report = chat.window(policy, explain=True)
            if as_json:
                echo_json(
                    {
                        "session": session_record(session),
                        "messages": [message_record(m) for m in report.messages],
                        "left_out": [
                            {"message": message_record(m), "reason": reason}
                            for m, reason in report.left_out
                        ],
                        "older": report.older,
                        "tokens": report.tokens,
                    }
                )
                return
            views.header(session)
            views.window(report, full)
            return
        found = rows(chat, last)
        if as_json:
            messages = []
            for row in found:
                if isinstance(row, CorruptRecordError):
                    broken.append(str(row))
                else:
                    messages.append(message_record(row))
            echo_json({"session": session_record(session), "messages": messages, "broken": broken})
        else:
            views.header(session)
            broken = views.transcript(found, full)
    if broken:
        warn(f"{plural(len(broken), 'message')} cannot be decoded")
        raise typer.Exit(1)


@app.command()
def stats(store: StoreURL = None, as_json: AsJSON = False) -> None:
    """Count users, sessions and messages."""
    with opened(store) as opened_store:
        found = opened_store.stats()
    record = {name: getattr(found, name) for name in found.__struct_fields__}
    if as_json:
        echo_json(record)
        return
    for name, value in record.items():
        shown = "unknown" if value is None else f"{value:,}"
        console.print(Text(f"{name.replace('_', ' '):<18}{shown:>15}"))


@app.command()
def verify(store: StoreURL = None, as_json: AsJSON = False) -> None:
    """Read everything and name what is broken.

    Exit code 1 where anything is.
    """
    with opened(store) as opened_store, progress("reading everything") as _:
        problems = opened_store.verify()
    if as_json:
        echo_json({"problems": [problem._asdict() for problem in problems]})
    elif not problems:
        console.print("all is well")
    else:
        for problem in problems:
            where = " / ".join(one_line(part) for part in problem[:3] if part is not None)
            console.print(Text(f"{where or 'store'}: {clean(problem.what)}"), soft_wrap=True)
        warn(plural(len(problems), "problem"))
    if problems:
        raise typer.Exit(1)


@app.command()
def setup(store: StoreURL = None) -> None:
    """Create the tables or files that are missing.

    Safe to repeat.
    """
    with opened(store, create=True) as opened_store:
        opened_store.setup()
    console.print(Text(f"set up: {clean(redact_url(store or ''))}"), soft_wrap=True)


@app.command()
def doctor(
    store: StoreURL = None,
    write: Annotated[
        bool, typer.Option("--write", help="Also write a message, and remove it again.")
    ] = False,
    as_json: AsJSON = False,
) -> None:
    """Examine a store: reach, limits, speed.

    Can it be reached, is it set up, what are its limits and capabilities, how fast is a round
    trip. Exit code 1 where something fails.
    """
    if not store:
        with opened(store):  # says which store is missing, as every command does
            pass
    checks = examine(store, write)
    well = all(check.ok for check in checks)
    if as_json:
        echo_json({"ok": well, "checks": [check._asdict() for check in checks]})
    else:
        for name, ok, value in checks:
            line = Text("ok    " if ok else "FAIL  ", style="green" if ok else "bold red")
            shown = "no limit of its own" if value is None else str(value)
            line.append(f"{name.replace('_', ' '):<20}{one_line(shown)}", style="default")
            console.print(line, soft_wrap=True)
    if not well:
        raise typer.Exit(1)


@app.command()
def erase_user(
    user: Annotated[str, typer.Argument(metavar="USER")],
    store: StoreURL = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: AsJSON = False,
) -> None:
    """Remove everything of one user. Asks first.

    Expired sessions too. There is no way back.
    """
    with opened(store) as opened_store:
        if not yes:
            if not sys.stdin.isatty():
                raise InvalidInputError("erase-user asks first, and nobody is there; give --yes")
            _ask(opened_store, user)
        erased = opened_store.erase_user(user)
    if as_json:
        echo_json({"user_id": user, **erased._asdict()})
    else:
        console.print(_receipt(erased.sessions, erased.messages))


def _ask(store: Store, user: str) -> None:
    found = list(
        itertools.islice(store.iter_sessions(user_id=user, on_error="skip"), _ASKED_ABOUT + 1)
    )
    more = "more than " if len(found) > _ASKED_ABOUT else ""
    found = found[:_ASKED_ABOUT]
    messages = sum(s.message_count for s in found)
    typer.echo(
        f"{one_line(user)} has {more}{plural(len(found), 'session')} with "
        f"{plural(messages, 'message')}.",
        err=True,
    )
    typer.confirm("Erase them for good?", abort=True, err=True)


_ASKED_ABOUT = 1_000  # sessions counted before asking: a moment's work on every engine


def _receipt(sessions: int, messages: int) -> str:
    return f"erased {plural(sessions, 'session')}, {plural(messages, 'message')}"


@app.command()
def purge(store: StoreURL = None, as_json: AsJSON = False) -> None:
    """Remove sessions past their time to live.

    No reader sees them any more anyway.
    """
    with opened(store) as opened_store:
        erased = opened_store.purge_expired()
    if as_json:
        echo_json(erased._asdict())
    else:
        console.print(_receipt(erased.sessions, erased.messages))


@app.command()
def compact(
    session_id: Annotated[str | None, typer.Argument(metavar="[SESSION]")] = None,
    store: StoreURL = None,
    user: User = DEFAULT_USER,
    as_json: AsJSON = False,
) -> None:
    """Reclaim what deleted messages still occupy.

    Of one session, or of every one.
    """
    freed = count = 0
    with opened(store) as opened_store:
        if session_id is not None:
            chat = opened_store.conversation(session_id, user_id=user)
            session_of(chat)
            freed, count = chat.compact(), 1
        else:
            with progress("compacting", lambda: opened_store.stats().sessions) as move:
                for session in opened_store.iter_sessions(order="asc", on_error="skip"):
                    chat = opened_store.conversation(session.session_id, user_id=session.user_id)
                    freed += chat.compact()
                    count += 1
                    move(count)
    if as_json:
        echo_json({"sessions": count, "bytes": freed})
    else:
        console.print(f"{plural(count, 'session')} compacted, {plural(freed, 'byte')} freed")


@app.command(
    context_settings={
        "allow_extra_args": True,
        "ignore_unknown_options": True,
        "help_option_names": [],
    }
)
def local_tablestore(context: typer.Context) -> None:
    """Run a local Tablestore for development.

    Its options: tsmemory local-tablestore --help.
    """
    try:
        from tsmemory.testing.servers.tablestore.__main__ import main as serve
    except ImportError as error:
        raise MissingDependencyError(str(error)) from error
    raise typer.Exit(serve(context.args))


register(app)
register_web(app)
