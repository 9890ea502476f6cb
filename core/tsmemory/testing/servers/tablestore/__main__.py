"""``python -m tsmemory.testing.servers.tablestore``: serve until SIGTERM or SIGINT."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
from dataclasses import fields

from .local import (
    DEFAULT_ACCESS_KEY_ID,
    DEFAULT_ACCESS_KEY_SECRET,
    DEFAULT_INSTANCE,
    LocalTablestore,
)
from .options import CHOICES, ServerOptions


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tsmemory.testing.servers.tablestore",
        description="A local Tablestore for development and tests. Its first line of output is "
        "its endpoint. Programs may use the control endpoints with the key in "
        "$TSMEMORY_LOCAL_CONTROL_KEY; without one there are none.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=0, help="0 chooses a free port")
    parser.add_argument("--data", metavar="FILE", help="keep the data in this file")
    parser.add_argument("--instance", default=DEFAULT_INSTANCE, help="instance name")
    parser.add_argument("--access-key-id", default=DEFAULT_ACCESS_KEY_ID)
    parser.add_argument(
        "--access-key-secret",
        default=os.environ.get("TSMEMORY_LOCAL_ACCESS_KEY_SECRET", DEFAULT_ACCESS_KEY_SECRET),
        help="default: $TSMEMORY_LOCAL_ACCESS_KEY_SECRET or a fixed one",
    )
    parser.add_argument(
        "--sts-token",
        default=os.environ.get("TSMEMORY_LOCAL_STS_TOKEN"),
        help="required of clients when given; default: $TSMEMORY_LOCAL_STS_TOKEN",
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="make the first line a JSON object: endpoint, instance name and keys",
    )
    parser.add_argument("--end-with-stdin", action="store_true", help=argparse.SUPPRESS)
    for option in fields(ServerOptions):
        choices = CHOICES.get(option.name)
        parser.add_argument(
            "--" + option.name.replace("_", "-"),
            default=option.default,
            choices=choices,
            type=str if choices else float,
            help="see ServerOptions" if choices else "seconds",
        )
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Serve until told to stop; the exit status."""
    options = _parser().parse_args(arguments)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        server = LocalTablestore(
            instance_name=options.instance,
            access_key_id=options.access_key_id,
            access_key_secret=options.access_key_secret,
            sts_token=options.sts_token,
            data=options.data,
            control_key=os.environ.get("TSMEMORY_LOCAL_CONTROL_KEY", ""),
            options=ServerOptions(
                **{field.name: getattr(options, field.name) for field in fields(ServerOptions)}
            ),
            host=options.host,
            port=options.port,
        )
    except OSError as error:
        print(f"cannot start: {error}", file=sys.stderr)
        return 1
    with server:
        if options.json:
            line = json.dumps(
                {
                    "endpoint": server.endpoint,
                    "instance_name": server.instance_name,
                    "access_key_id": server.access_key_id,
                    "access_key_secret": server.access_key_secret,
                }
            )
        else:
            line = server.endpoint
        print(line, flush=True)
        if options.end_with_stdin:
            threading.Thread(target=_wait_for_end, args=(stop,), daemon=True).start()
        stop.wait()
    return 0


def _wait_for_end(stop: threading.Event) -> None:
    """Stop when the parent that holds the other end of stdin is gone."""
    while os.read(0, 4096):
        pass
    stop.set()


if __name__ == "__main__":
    sys.exit(main())
