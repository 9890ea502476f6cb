"""``export``, ``import`` and ``copy``: faces of `tsmemory.transfer`."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.text import Text

from tsmemory.checks import DEFAULT_USER
from tsmemory.cli.options import AsJSON, SkipBroken, StoreURL, Users, inherited
from tsmemory.cli.output import console, echo_json, errors, one_line, plural, progress, warn
from tsmemory.cli.store import opened
from tsmemory.engine.records import UNSET
from tsmemory.errors import InvalidInputError
from tsmemory.store import Store

if TYPE_CHECKING:
    from tsmemory.transfer import Progress, Report

__all__ = ["register"]

_STANDARD = "-"  # the standard streams, as everywhere
_TO = ("tsmemory", "openai", "markdown")
ToFormat = Annotated[
    str,
    typer.Option(
        "--format",
        help="tsmemory (loses nothing), openai (chat format, for training sets) or markdown (for "
        "people).",
    ),
]
FromFormat = Annotated[
    str,
    typer.Option(
        "--format",
        help="What wrote it: tsmemory (default), chatgpt, claude, open-webui, openai, sharegpt, "
        "langchain-sql and others; --format list shows all.",
    ),
]
Options = Annotated[
    list[str] | None,
    typer.Option(
        "--option",
        "-o",
        metavar="NAME=VALUE",
        help="An option of the format, as table_name=history or branches=true; repeatable.",
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    app.command("export")(_export)
    app.command("import")(_import)
    app.command("copy")(_copy)


def _export(
    file: Annotated[str, typer.Argument(metavar="[FILE]", help="- is standard output.")] = "-",
    store: StoreURL = None,
    user: Users = None,
    format: ToFormat = "tsmemory",  # noqa: A002  # the option's name
    skip_broken: SkipBroken = False,
    force: Annotated[bool, typer.Option("--force", help="Write over FILE if it is there.")] = False,
    as_json: AsJSON = False,
) -> None:
    """Write a store to a file: as JSON Lines, or as Markdown to read."""
    _check_format(format, _TO)
    if format == "openai" and skip_broken:
        raise InvalidInputError("--skip-broken is not for the format openai")
    if file == _STANDARD and as_json:
        raise InvalidInputError("--json needs stdout for its report: give a FILE")
    if file != _STANDARD and Path(file).exists() and not force:
        raise InvalidInputError(f"{file} is there already; --force writes over it")
    with opened(store) as source:
        if file == _STANDARD:
            sys.stdout.flush()
            report = _exported(source, sys.stdout.buffer, user, format, skip_broken)
            sys.stdout.buffer.flush()
        else:
            report = _written(source, Path(file), user, format, skip_broken)
    _tell(report, "exported", as_json, quiet=file == _STANDARD)


def _written(source: Store, file: Path, user: str | None, format: str, skip: bool) -> Report:  # noqa: A002
    """Export into `file`, under another name until it is whole: a half is never taken for a backup.

    That name is a new one, and the owner's alone (mode 0600): conversations are private, and a
    link that somebody put there beforehand is not followed.
    """
    handle, part = tempfile.mkstemp(prefix=f".{file.name}.", suffix=".part", dir=file.parent)
    try:
        with os.fdopen(handle, "wb") as target:
            report = _exported(source, target, user, format, skip)
            target.flush()
            os.fsync(target.fileno())
        os.replace(part, file)
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise
    return report


def _exported(source: Store, target: Any, user: str | None, format: str, skip: bool) -> Report:  # noqa: A002
    from tsmemory.transfer import export_jsonl, export_markdown, export_openai

    whose = UNSET if user is None else user
    with progress("exporting", lambda: source.stats().messages) as move:
        if format == "openai":
            return export_openai(source, target, user_id=whose)
        on_error: Literal["raise", "skip"] = "skip" if skip else "raise"
        export = export_markdown if format == "markdown" else export_jsonl
        return export(source, target, user_id=whose, progress=_moving(move), on_error=on_error)


def _import(
    source: Annotated[
        str | None,
        typer.Argument(metavar="SOURCE", help="A path or a URL; - is standard input."),
    ] = None,
    store: StoreURL = None,
    format: FromFormat = "tsmemory",  # noqa: A002  # the option's name
    user: Annotated[
        str | None,
        typer.Option(
            "--user", "-u", callback=inherited, help="Owner of sessions that do not name theirs."
        ),
    ] = None,
    option: Options = None,
    as_json: AsJSON = False,
) -> None:
    """Bring in what tsmemory or other software wrote. Safe to repeat.

    What is stored is never overwritten; exit code 1 where something could not be read, or differs.
    """
    from tsmemory import transfer

    if format == "list":
        _list_formats(as_json)
        return
    if source is None:
        raise InvalidInputError("give a SOURCE: a path, a URL, or - for standard input")
    options = _parsed(option or [])
    if format == "tsmemory" and (user is not None or options):
        raise InvalidInputError("a file of the format tsmemory has its users; it has no options")
    _check_format(format, ("tsmemory", *transfer.FORMATS))
    given: Any = sys.stdin.buffer if source == _STANDARD else source
    if format == "tsmemory" and source != _STANDARD and not Path(source).is_file():
        raise InvalidInputError(f"there is no file {source}")
    with opened(store, create=True) as target, progress("importing") as move:
        target.setup()
        moved = _moving(move)
        if format == "tsmemory":
            report = transfer.import_jsonl(target, given, progress=moved)
        else:
            whose = user or DEFAULT_USER
            report = transfer.import_from(
                target, given, format=format, user_id=whose, progress=moved, **options
            )
    _tell(report, "imported", as_json)


def _list_formats(as_json: bool) -> None:
    from tsmemory.transfer import FORMATS

    if as_json:
        echo_json({name: found.source for name, found in FORMATS.items()})
        return
    width = max(map(len, FORMATS))
    console.print(Text(f"{'tsmemory':{width}}  file of tsmemory export"))
    for name, found in FORMATS.items():
        console.print(Text(f"{name:{width}}  {found.source}"), soft_wrap=True)


def _parsed(given: list[str]) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals:
            raise InvalidInputError(f"--option is NAME=VALUE, not {text!r}")
        options[name.replace("-", "_")] = {"true": True, "false": False}.get(value.lower(), value)
    return options


def _copy(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="The URL of a store.")],
    target: Annotated[str, typer.Argument(metavar="TARGET", help="The URL of another.")],
    user: Users = None,
    verify: Annotated[
        bool, typer.Option("--verify/--no-verify", help="Compare the two afterwards.")
    ] = True,
    skip_broken: SkipBroken = False,
    as_json: AsJSON = False,
) -> None:
    """Copy a store into another, whatever the engines.

    With ids, order, times and all; interrupted, it is finished by running it again. Exit code 1
    where the two differ afterwards.
    """
    from tsmemory.transfer import copy

    with opened(source) as origin, opened(target, create=True) as other:
        other.setup()
        with progress("copying", lambda: origin.stats().messages) as move:
            report = copy(
                origin,
                other,
                user_id=UNSET if user is None else user,
                progress=_moving(move),
                verify=verify,
                on_error="skip" if skip_broken else "raise",
            )
    _tell(report, "copied", as_json)


def _check_format(given: str, known: tuple[str, ...]) -> None:
    if given not in known:
        raise InvalidInputError(f"--format is one of {', '.join(known)}, not {given!r}")


def _moving(move: Callable[[int], None]) -> Callable[[Progress], None]:
    return lambda so_far: move(so_far.messages)


def _tell(report: Report, done: str, as_json: bool, *, quiet: bool = False) -> None:
    """Say what came of it; exit code 1 where there are problems."""
    problems = report.problems
    if as_json:
        echo_json(
            {
                "sessions": report.sessions,
                "messages": report.messages,
                "written": report.written,
                "problems": [problem._asdict() for problem in problems],
            }
        )
    else:
        line = f"{done} {plural(report.sessions, 'session')}, {plural(report.messages, 'message')}"
        if done != "exported":
            line += f"; {report.written:,} written, the rest was there"
        (errors if quiet else console).print(Text(line), soft_wrap=True)
        for problem in problems:
            where = " / ".join(one_line(part) for part in problem[:3] if part is not None)
            errors.print(Text(one_line(f"{where or done}: {problem.what}")), soft_wrap=True)
    if problems:
        warn(plural(len(problems), "problem"))
        raise typer.Exit(1)
