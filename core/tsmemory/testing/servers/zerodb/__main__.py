"""``python -m tsmemory.testing.servers.zerodb``: serve until SIGTERM or SIGINT."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Sequence

from tsmemory.testing.servers.zerodb._server import DEFAULT_API_KEY, DEFAULT_PROJECT, LocalZeroDB


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until told to stop; the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tsmemory.testing.servers.zerodb",
        description="A local server of ZeroDB's tables for development and tests, its data in "
        "memory. Its first line of output is the URL for open_store.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=0, help="0 chooses a free port")
    parser.add_argument("--project", default=DEFAULT_PROJECT, help="the project's id")
    parser.add_argument(
        "--dialect", choices=("sdk", "specification"), default="sdk",
        help="which of the vendor's texts to follow",
    )  # fmt: skip
    options = parser.parse_args(arguments)
    key = os.environ.get("ZERODB_API_KEY", DEFAULT_API_KEY)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        server = LocalZeroDB(
            project=options.project,
            api_key=key,
            dialect=options.dialect,
            host=options.host,
            port=options.port,
        )
    except OSError as error:
        print(f"cannot start: {error}", file=sys.stderr)
        return 1
    with server:
        print(server.url, flush=True)
        stop.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
