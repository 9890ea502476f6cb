"""``tsmemory web``: the page of `tsmemory.web`, served on loopback until interrupted."""

from __future__ import annotations

import socket
import sys
import webbrowser
from typing import Annotated

import typer

from tsmemory.cli.options import StoreURL
from tsmemory.cli.output import warn
from tsmemory.cli.store import opened
from tsmemory.errors import MissingDependencyError

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""

    @app.command()
    def web(
        store: StoreURL = None,
        port: Annotated[
            int, typer.Option(min=0, max=65535, help="0 takes a free one.", show_default=True)
        ] = 0,
        browser: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
    ) -> None:
        """Browse and search a store on a local page that reads only.

        It shows each conversation with the window that a model would be given drawn over it, the
        tokens, and what a prompt cache would serve. The link that is printed works once.
        """
        with opened(store) as opened_store, socket.socket() as listener:
            try:
                import uvicorn
            except ModuleNotFoundError:
                raise MissingDependencyError(
                    'the page needs uvicorn; pip install "tsmemory[web]"'
                ) from None
            from tsmemory.web.app import create_app

            page = create_app(opened_store, name=store or "")
            listener.bind(("127.0.0.1", port))
            link = f"http://127.0.0.1:{listener.getsockname()[1]}/?token={page.state.token}"
            sys.stdout.write(f"{link}\n")
            sys.stdout.flush()
            warn("reading only; Ctrl-C ends it")
            if browser:
                webbrowser.open(link)
            config = uvicorn.Config(page, log_level="warning", lifespan="off")
            uvicorn.Server(config).run(sockets=[listener])
