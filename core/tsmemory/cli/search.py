"""``tsmemory search``: messages that match, with what matched shown, a hit per line when piped."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.padding import Padding
from rich.text import Text

from tsmemory.cli.options import AsCSV, AsJSON, AsJSONL, StoreURL, Users
from tsmemory.cli.output import (
    clean,
    console,
    echo_json,
    echo_line,
    echo_records,
    errors,
    one_line,
    output_form,
)
from tsmemory.cli.show import moment, timestamp
from tsmemory.cli.store import opened
from tsmemory.engine.records import UNSET
from tsmemory.engine.search import KINDS
from tsmemory.search import SearchHit
from tsmemory.store import Store

__all__ = ["register"]

_FIELDS = ("user_id", "session_id", "message", "score", "snippet", "spans", "around")
_PAGES = 50  # pages without a hit that one call turns, where a store without an index scans


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""

    @app.command()
    def search(
        text: Annotated[str, typer.Argument(metavar="TEXT")],
        store: StoreURL = None,
        user: Users = None,
        session: Annotated[str | None, typer.Option(help="Only this session's messages.")] = None,
        kind: Annotated[
            list[str] | None,
            typer.Option(help=f"What is searched, repeatable: {', '.join(KINDS)}. Default: text."),
        ] = None,
        role: Annotated[
            list[str] | None, typer.Option(help="Only messages of this role, repeatable.")
        ] = None,
        match: Annotated[str, typer.Option(help="all words, or any.")] = "all",
        order: Annotated[str, typer.Option(help="recent or relevance.")] = "recent",
        around: Annotated[
            int, typer.Option(min=0, help="Also so many messages on each side of a hit.")
        ] = 0,
        limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="Hits a page.")] = 20,
        cursor: Annotated[
            str | None, typer.Option(help="What the page before gave as next_cursor.")
        ] = None,
        as_json: AsJSON = False,
        as_jsonl: AsJSONL = False,
        as_csv: AsCSV = False,
    ) -> None:
        """Find messages: words, "phrases", begin*, -without.

        What matched is highlighted; in a pipe, each hit is one line. A query that
        begins with "-" stands behind "--".
        """
        form = output_form(as_json, as_jsonl, as_csv)
        arguments: dict[str, Any] = {
            "session_id": session,
            "kinds": kind or ("text",),
            "role": role or None,
            "match": match,
            "order": order,
            "around": around,
            "user_id": UNSET if user is None else user,
        }
        with opened(store) as opened_store:
            hits, following = _hits(opened_store, text, limit, cursor, arguments)
        if form == "json":
            echo_json({"hits": list(map(SearchHit.to_dict, hits)), "next_cursor": following})
            return
        if form == "terminal":
            for hit in hits:
                _show(hit)
        elif form == "lines":
            for hit in hits:
                time = timestamp(hit.message.create_time)
                echo_line(hit.user_id, hit.session_id, time, hit.message.role, hit.snippet)
        else:
            echo_records(form, _FIELDS, map(SearchHit.to_dict, hits))
        if not hits:
            errors.print("no messages match")
        if following:
            errors.print(Text(f"more: --cursor {following}"), soft_wrap=True)


def _hits(
    store: Store, text: str, limit: int, cursor: str | None, arguments: dict[str, Any]
) -> tuple[list[SearchHit], str | None]:
    """A page of hits; pages that a scan gave empty are passed over."""
    hits: list[SearchHit] = []
    for _ in range(_PAGES):
        page = store.search_messages(
            text, limit=limit - len(hits), cursor=cursor, on_error="skip", **arguments
        )
        hits += page.items
        cursor = page.next_cursor
        if cursor is None or len(hits) >= limit:
            break
    return hits, cursor


def _highlighted(hit: SearchHit) -> Text:
    """The snippet, its matches marked; nothing stored acts on the terminal."""
    text, end = Text(), 0
    for start, stop in hit.spans:
        text.append(clean(hit.snippet[end:start]))
        text.append(clean(hit.snippet[start:stop]), "bold yellow")
        end = stop
    return text.append(clean(hit.snippet[end:]))


def _show(hit: SearchHit) -> None:
    head = Text(f"{one_line(hit.user_id)} / {one_line(hit.session_id)}", style="bold")
    head.append(f"  {one_line(hit.message.role)}  {moment(hit.message.create_time)}", style="dim")
    console.print(head)
    for message in hit.around or [hit.message]:
        if message.message_id == hit.message.message_id:
            body = _highlighted(hit)
        else:
            body = Text(one_line(f"{message.role}: {message.text[:160]}"), style="dim")
        console.print(Padding(body, (0, 0, 0, 2), expand=False))
