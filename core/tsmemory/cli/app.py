"""The program: its options, and the commands of the other modules.

Each command opens a store, calls the public API, and prints the result.
"""

from __future__ import annotations

import importlib.metadata
from typing import Annotated

import typer

from tsmemory.cli import changing, checking, reading, search, transfer, web
from tsmemory.cli.options import SHARED, StoreURL
from tsmemory.errors import InvalidInputError, MissingDependencyError

__all__ = ["app"]

app = typer.Typer(
    name="tsmemory",
    help="Conversation memory for AI agents: look at a store, look after it, move it.",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
_HELP = "For the command that follows."


@app.callback(invoke_without_command=True)
def _begin(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version and end.")] = False,
    store: Annotated[str | None, typer.Option("--store", "-s", metavar="URL", help=_HELP)] = None,
    user: Annotated[str | None, typer.Option("--user", "-u", help=_HELP)] = None,
    as_json: Annotated[bool, typer.Option("--json", help=_HELP)] = False,
    as_jsonl: Annotated[bool, typer.Option("--jsonl", help=_HELP)] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help=_HELP)] = False,
) -> None:
    if version:
        typer.echo(f"tsmemory {importlib.metadata.version('tsmemory')}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit(2)
    command = context.command.get_command(context, context.invoked_subcommand)  # type: ignore[attr-defined]  # a group
    taken = {param.name for param in command.params} if command is not None else set(SHARED)
    for param in context.command.params:  # options of `SHARED` reach it through `inherited`
        name = param.name or ""
        if name in SHARED and context.params.get(name) and name not in taken:
            raise InvalidInputError(f"{context.invoked_subcommand} has no option {param.opts[0]}")


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


for module in (reading, search, changing, checking, transfer, web):
    module.register(app)


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
