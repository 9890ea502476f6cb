"""How the command prints: tables for a terminal, lines for a pipe, JSON or CSV on request.

Results go to stdout, remarks and progress to stderr.
"""

from __future__ import annotations

import csv
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Literal, TypeAlias

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from tsmemory.engine.text import visible as clean
from tsmemory.errors import InvalidInputError

__all__ = [
    "Form", "clean", "console", "echo_csv", "echo_json", "echo_line", "echo_records", "errors",
    "one_line", "output_form", "paged", "plural", "progress", "warn",
]  # fmt: skip

Form: TypeAlias = Literal["terminal", "lines", "json", "jsonl", "csv"]
"""``terminal`` is for a person; ``lines`` for a pipe: one record per line, fields separated by
tabs, nothing wrapped, padded or shortened."""

console = Console(highlight=False, markup=False, emoji=False)
errors = Console(stderr=True, highlight=False, markup=False, emoji=False)


def output_form(as_json: bool, as_jsonl: bool = False, as_csv: bool = False) -> Form:
    """The form that the options ask for.

    Raises:
        InvalidInputError: more than one of them.
    """
    if as_json + as_jsonl + as_csv > 1:
        raise InvalidInputError("--json, --jsonl and --csv exclude each other")
    if as_json:
        return "json"
    if as_jsonl:
        return "jsonl"
    if as_csv:
        return "csv"
    return "terminal" if console.is_terminal else "lines"


def one_line(text: str) -> str:
    """`clean`, without line breaks."""
    return clean(text).replace("\n", "\\n")


def plural(count: int, noun: str) -> str:
    """``1 session``, ``2,000 sessions``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def warn(line: str) -> None:
    """A line on stderr."""
    errors.print(Text(f"tsmemory: {one_line(line)}"), soft_wrap=not errors.is_terminal)


def echo_json(value: Any) -> None:
    """One JSON document on one line of stdout: ASCII, so that nothing in it acts on a terminal."""
    sys.stdout.write(json.dumps(value, ensure_ascii=True, allow_nan=False) + "\n")


def echo_line(*fields: object) -> None:
    """One record on one line of stdout, its fields separated by tabs."""
    sys.stdout.write("\t".join(one_line(str(field)) for field in fields) + "\n")


def echo_csv(columns: Sequence[str], records: Iterable[Mapping[str, Any]]) -> None:
    """A header and one row per record. Lists and objects are JSON; None is empty; what would act
    on a terminal is an escape."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(columns)
    for record in records:
        writer.writerow([_cell(record.get(name)) for name in columns])


def _cell(value: Any) -> Any:
    if isinstance(value, str):
        return clean(value)
    return json.dumps(value) if isinstance(value, (list, dict, bool)) else value


def echo_records(form: Form, columns: Sequence[str], records: Iterable[Mapping[str, Any]]) -> None:
    """Records as ``csv``, or else as ``jsonl``."""
    if form == "csv":
        echo_csv(columns, records)
        return
    for record in records:
        echo_json(record)


@contextmanager
def paged(form: Form) -> Iterator[None]:
    """Show what `console` prints in a pager, where a person is at the terminal.

    The pager is ``PAGER``, or else ``less``, which ends by itself where one screen is enough; an
    empty ``PAGER`` means none.
    """
    command = shlex.split(os.environ.get("PAGER", "less"))
    watched = form == "terminal" and sys.stdout.isatty() and sys.stdin.isatty()
    if not watched or not command or shutil.which(command[0]) is None:
        yield
        return
    pager = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        env={"LESS": "FRX", **os.environ},  # as git does: colours, and no pager for one screen
        text=True,
        encoding=sys.stdout.encoding,
        errors="backslashreplace",
    )
    assert pager.stdin is not None  # a pipe
    try:
        console.file = pager.stdin
        yield
        pager.stdin.close()
    except (BrokenPipeError, SystemExit):  # rich's answer to a pager that was left early
        pass
    finally:
        console.file = sys.stdout
        while True:
            with suppress(BrokenPipeError):
                pager.stdin.close()
            try:
                pager.wait()
                break
            except KeyboardInterrupt:  # it is the pager's, as long as that runs
                continue


@contextmanager
def progress(label: str, total: Callable[[], int] | None = None) -> Iterator[Callable[[int], None]]:
    """A progress bar on stderr, where that is a terminal; gives the function that moves it.

    Args:
        total: called only where the bar is shown, since counting may be work too.
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
        count = total() if total is not None and errors.is_terminal else None
        task = bar.add_task(label, total=count)
        yield lambda done: bar.update(task, completed=done)
