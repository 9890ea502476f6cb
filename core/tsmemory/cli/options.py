"""Options that several commands take."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = ["AsJSON", "SkipBroken", "StoreURL", "User", "Users"]

StoreURL = Annotated[
    str | None,
    typer.Option(
        "--store",
        "-s",
        metavar="URL",
        envvar="TSMEMORY_URL",
        show_default=False,
        help="The store, as in sqlite:///chat.db. In the environment a password in it is not in "
        "the list of processes.",
    ),
]
User = Annotated[str, typer.Option("--user", "-u", help="Whose session.")]
AsJSON = Annotated[bool, typer.Option("--json", help="One JSON document on stdout, for scripts.")]
Users = Annotated[
    str | None, typer.Option("--user", "-u", help="Only this user's; default: everybody's.")
]
SkipBroken = Annotated[
    bool, typer.Option("--skip-broken", help="Leave out records that do not decode.")
]
