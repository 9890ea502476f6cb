"""``delete``, ``rename``, ``fork``, ``ttl``, ``erase-user``, ``purge`` and ``compact``."""

from __future__ import annotations

import itertools
import math
import sys
from typing import Annotated

import typer
from rich.text import Text

from tsmemory.checks import DEFAULT_USER
from tsmemory.cli.options import AsJSON, SessionId, StoreURL, User, Yes
from tsmemory.cli.output import console, echo_json, one_line, plural, progress
from tsmemory.cli.store import opened, session_of
from tsmemory.errors import InvalidInputError
from tsmemory.model import Erased
from tsmemory.store import Store

__all__ = ["register"]

_COUNTED = 1_000  # sessions counted before asking: a moment's work on every engine
_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    for command in (delete, rename, fork, ttl, erase_user, purge, compact):
        app.command()(command)


def delete(
    session_id: SessionId,
    message_ids: Annotated[
        list[str] | None, typer.Argument(metavar="[MESSAGE_ID]...", help="Only these messages.")
    ] = None,
    store: StoreURL = None,
    user: User = DEFAULT_USER,
    yes: Yes = False,
    as_json: AsJSON = False,
) -> None:
    """Delete a session, or single messages of it. Asks first."""
    with opened(store) as opened_store:
        chat = opened_store.conversation(session_id, user_id=user)
        session = session_of(chat)
        if message_ids:
            _confirm("delete", yes, f"Delete {plural(len(message_ids), 'message')} for good?")
            deleted = Erased(0, chat.delete_message(*message_ids))
        else:
            count = plural(session.message_count, "message")
            _confirm("delete", yes, f"Delete {one_line(session_id)} with {count} for good?")
            deleted = chat.delete()
    _print_erased("deleted", deleted, as_json)
    if not deleted:
        raise typer.Exit(1)


def rename(
    session_id: SessionId,
    title: Annotated[str, typer.Argument(help="The new title; empty removes it.")],
    store: StoreURL = None,
    user: User = DEFAULT_USER,
    as_json: AsJSON = False,
) -> None:
    """Set the title of a session."""
    with opened(store) as opened_store:
        chat = opened_store.conversation(session_id, user_id=user)
        session_of(chat)
        chat.update_session(title=title or None)
        session = session_of(chat)
    if as_json:
        echo_json({"session": session.to_dict()})
    else:
        name = one_line(session.title) if session.title else "(no title)"
        console.print(Text(f"{one_line(session_id)}: {name}"), soft_wrap=True)


def fork(
    session_id: SessionId,
    new_id: Annotated[str, typer.Argument(metavar="NEW", help="The id of the new session.")],
    store: StoreURL = None,
    user: User = DEFAULT_USER,
    until: Annotated[
        str | None, typer.Option(metavar="MESSAGE_ID", help="Copy up to this message, inclusive.")
    ] = None,
    as_json: AsJSON = False,
) -> None:
    """Copy a session, or its beginning, into a new one of the same user."""
    with opened(store) as opened_store:
        chat = opened_store.conversation(session_id, user_id=user)
        session_of(chat)
        session = session_of(chat.fork(new_id, until=until))
    if as_json:
        echo_json({"session": session.to_dict()})
    else:
        count = plural(session.message_count, "message")
        console.print(Text(f"{one_line(new_id)}: {count}"), soft_wrap=True)


def ttl(
    session_id: SessionId,
    seconds: Annotated[
        str | None,
        typer.Argument(
            metavar="[TIME]", help="Seconds, or as in 90m, 12h, 30d; none removes the limit."
        ),
    ] = None,
    store: StoreURL = None,
    user: User = DEFAULT_USER,
    as_json: AsJSON = False,
) -> None:
    """Show or set the time to live of a session, counted from each write."""
    wanted = _seconds(seconds) if seconds is not None else None
    with opened(store) as opened_store:
        chat = opened_store.conversation(session_id, user_id=user)
        session = session_of(chat)
        if seconds is not None:
            chat.set_ttl(wanted)
            session = session_of(chat)
    if as_json:
        echo_json({"ttl": session.ttl, "expires_at": session.expires_at})
    else:
        console.print("none" if session.ttl is None else f"{session.ttl:,.12g} seconds")


def _seconds(text: str) -> float | None:
    if text == "none":
        return None
    unit = _UNITS.get(text[-1:], 0)
    try:
        value = float(text[:-1] if unit else text) * (unit or 1)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise InvalidInputError(f"the time is as in 3600, 90m, 12h, 30d or none, not {text!r}")
    return value


def erase_user(
    erased_user: Annotated[str, typer.Argument(metavar="USER")],
    store: StoreURL = None,
    yes: Yes = False,
    as_json: AsJSON = False,
) -> None:
    """Remove everything of one user, expired sessions too. Asks first."""
    with opened(store) as opened_store:
        if not yes:
            _confirm("erase-user", yes, "Erase them for good?", (opened_store, erased_user))
        erased = opened_store.erase_user(erased_user)
    if as_json:
        echo_json({"user_id": erased_user, **erased._asdict()})
    else:
        _print_erased("erased", erased, False)


def _confirm(command: str, yes: bool, question: str, of: tuple[Store, str] | None = None) -> None:
    """Ask a person; of a user, say first what there is.

    Raises:
        InvalidInputError: standard input is not a terminal, and `yes` is False.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise InvalidInputError(
            f"{command} asks for confirmation, and standard input is not a terminal: give --yes"
        )
    if of is not None:
        store, user = of
        listed = store.iter_sessions(user_id=user, on_error="skip")
        found = list(itertools.islice(listed, _COUNTED + 1))
        more = "more than " if len(found) > _COUNTED else ""
        counted = found[:_COUNTED]
        messages = plural(sum(s.message_count for s in counted), "message")
        typer.echo(
            f"{one_line(user)} has {more}{plural(len(counted), 'session')} with {messages}.",
            err=True,
        )
    typer.confirm(question, abort=True, err=True)


def _print_erased(verb: str, erased: Erased, as_json: bool) -> None:
    if as_json:
        echo_json(erased._asdict())
    else:
        sessions, messages = plural(erased.sessions, "session"), plural(erased.messages, "message")
        console.print(f"{verb} {sessions}, {messages}")


def purge(store: StoreURL = None, as_json: AsJSON = False) -> None:
    """Remove expired sessions from the engine. No reader sees them already."""
    with opened(store) as opened_store:
        erased = opened_store.purge_expired()
    _print_erased("erased", erased, as_json)


def compact(
    session_id: Annotated[str | None, typer.Argument(metavar="[SESSION]")] = None,
    store: StoreURL = None,
    user: User = DEFAULT_USER,
    as_json: AsJSON = False,
) -> None:
    """Reclaim the space of deleted messages, of one session or of all."""
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
