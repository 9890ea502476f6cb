"""``stats``, ``verify``, ``setup`` and ``doctor``: how a store is."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Column, Table
from rich.text import Text

from tsmemory.cli.doctor import Check, examine
from tsmemory.cli.options import AsCSV, AsJSON, AsJSONL, StoreURL
from tsmemory.cli.output import (
    Form,
    clean,
    console,
    echo_json,
    echo_line,
    echo_records,
    one_line,
    output_form,
    plural,
    progress,
    warn,
)
from tsmemory.cli.store import opened
from tsmemory.engine.urls import redact_url
from tsmemory.model import Problem
from tsmemory.usage import SessionUsage, UsageStats

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    for command in (stats, verify, setup, doctor):
        app.command()(command)


def stats(
    store: StoreURL = None,
    usage: Annotated[
        bool, typer.Option("--usage", help="Also sum the token usage kept in messages.")
    ] = False,
    as_json: AsJSON = False,
    as_csv: AsCSV = False,
) -> None:
    """Count users, sessions and messages; with --usage also tokens, which reads every message.

    With --csv, --usage gives one row per session.
    """
    form = output_form(as_json, False, as_csv)
    with opened(store) as opened_store:
        found = opened_store.stats(usage=True) if usage else opened_store.stats()
    record = found.to_dict()
    if form == "json":
        echo_json(record)
    elif form == "csv":
        by_session = record.get("usage_by_session")
        columns = tuple(record) if by_session is None else SessionUsage.__struct_fields__
        echo_records(form, columns, [record] if by_session is None else by_session)
    else:
        counts = {name: value for name, value in record.items() if not name.startswith("usage")}
        if isinstance(found, UsageStats):
            counts |= {n: v for n, v in found.usage.to_dict().items() if n != "messages"}
        for name, value in counts.items():
            if form == "lines":
                echo_line(name, "" if value is None else value)
                continue
            shown = "unknown" if value is None else f"{value:,}"
            console.print(Text(f"{name.replace('_', ' '):<18}{shown:>15}"))
        if isinstance(found, UsageStats):
            _print_usage(form, found)


def _print_usage(form: Form, found: UsageStats) -> None:
    """Tokens by user, the largest first."""
    for user in found.usage_by_user:
        name = one_line(user.user_id)
        if form == "lines":
            echo_line("total_tokens", user.total_tokens, name)
        else:
            console.print(Text(f"  tokens of {name}: {user.total_tokens:,}"), soft_wrap=True)


def verify(
    store: StoreURL = None,
    as_json: AsJSON = False,
    as_jsonl: AsJSONL = False,
    as_csv: AsCSV = False,
) -> None:
    """Read everything and name what is broken. Exit code 1 where anything is."""
    form = output_form(as_json, as_jsonl, as_csv)
    with opened(store) as opened_store, progress("reading everything") as _:
        problems = opened_store.verify()
    records = [problem._asdict() for problem in problems]
    if form == "json":
        echo_json({"problems": records})
    elif form in ("jsonl", "csv"):
        echo_records(form, Problem._fields, records)
    elif not problems:
        console.print("all is well")
    else:
        for problem in problems:
            where = " / ".join(one_line(part) for part in problem[:3] if part is not None)
            console.print(Text(f"{where or 'store'}: {one_line(problem.what)}"), soft_wrap=True)
    if problems:
        warn(plural(len(problems), "problem"))
        raise typer.Exit(1)


def setup(store: StoreURL = None) -> None:
    """Create the tables or files that are missing. Safe to repeat."""
    with opened(store, create=True) as opened_store:
        opened_store.setup()
    console.print(Text(f"set up: {clean(redact_url(store or ''))}"), soft_wrap=True)


def doctor(
    store: StoreURL = None,
    write: Annotated[
        bool, typer.Option("--write", help="Also write a message, and remove it again.")
    ] = False,
    as_json: AsJSON = False,
    as_jsonl: AsJSONL = False,
    as_csv: AsCSV = False,
) -> None:
    """Examine a store: reach, set-up, risks, limits, speed. Exit code 1 where something fails."""
    form = output_form(as_json, as_jsonl, as_csv)
    if not store:
        with opened(store):  # the error that every command gives
            pass
    checks = examine(store, write)
    well = all(check.ok for check in checks)
    records = [check._asdict() for check in checks]
    if form == "json":
        echo_json({"ok": well, "checks": records})
    elif form in ("jsonl", "csv"):
        echo_records(form, Check._fields, records)
    else:
        _print_checks(form, checks)
    if not well:
        raise typer.Exit(1)


def _print_checks(form: Form, checks: list[Check]) -> None:
    """One line per check; on a terminal, long advice is wrapped beside its name."""
    table = Table.grid(Column(no_wrap=True), Column(no_wrap=True), Column(), padding=(0, 2, 0, 0))
    for name, ok, value in checks:
        text = "no limit of its own" if value is None else str(value)
        if form == "lines":
            echo_line("ok" if ok else "FAIL", name, text)
            continue
        state = Text("ok", style="green") if ok else Text("FAIL", style="bold red")
        table.add_row(state, name.replace("_", " "), Text(one_line(text)))
    if form != "lines":
        console.print(table)
