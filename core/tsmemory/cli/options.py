"""Options that several commands take. They may also be given before the command."""

from __future__ import annotations

from typing import Annotated, Any

import typer

__all__ = [
    "SHARED", "AsCSV", "AsJSON", "AsJSONL", "SessionId", "SkipBroken", "StoreURL", "User", "Users",
    "Yes", "inherited",
]  # fmt: skip

SHARED = ("store", "user", "as_json", "as_jsonl", "as_csv")
"""The parameters that `tsmemory` itself takes too, for the command that follows."""


def inherited(context: typer.Context, param: typer.CallbackParam, value: Any) -> Any:
    """The value of a shared option: what stands behind the command, else what stands before it,
    else the environment or the default."""
    source = context.get_parameter_source(param.name or "")
    if source is not None and source.name == "COMMANDLINE":
        return value
    before = context.parent.params.get(param.name or "") if context.parent else None
    return value if before in (None, False) else before


StoreURL = Annotated[
    str | None,
    typer.Option(
        "--store",
        "-s",
        metavar="URL",
        envvar="TSMEMORY_URL",
        show_default=False,
        callback=inherited,
        help="The store, such as sqlite:///chat.db. Prefer the environment for a URL with a "
        "password: arguments are visible in the process list.",
    ),
]
User = Annotated[
    str, typer.Option("--user", "-u", callback=inherited, help="The user who owns the session.")
]
Users = Annotated[
    str | None,
    typer.Option("--user", "-u", callback=inherited, help="Only this user; default: all users."),
]
AsJSON = Annotated[
    bool, typer.Option("--json", callback=inherited, help="One JSON document on stdout.")
]
AsJSONL = Annotated[
    bool, typer.Option("--jsonl", callback=inherited, help="One JSON object per record and line.")
]
AsCSV = Annotated[
    bool, typer.Option("--csv", callback=inherited, help="One CSV row per record, with a header.")
]
SkipBroken = Annotated[
    bool, typer.Option("--skip-broken", help="Leave out records that do not decode.")
]
SessionId = Annotated[str, typer.Argument(metavar="SESSION")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")]
