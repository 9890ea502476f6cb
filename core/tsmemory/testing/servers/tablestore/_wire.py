"""The one module that reads the official SDK's wire format.

The SDK ships neither stubs nor ``py.typed``, so everything it gives is ``Any`` from here on. Its
protobuf messages are the specification of the protocol and are used as they are. Its PlainBuffer
classes are not: the decoder cannot read update operations or infinite keys, and the encoder walks
every byte in Python, so `plainbuffer` has its own.

The generated modules are loaded without their package. Importing that brings the client, aiohttp
and NumPy, of which a server uses nothing, and they take two thirds of a server's start.
"""

from __future__ import annotations

from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

try:
    from google.protobuf.message import (  # type: ignore[import-untyped]  # no stubs are published
        DecodeError,
    )

    _package = find_spec("tablestore")
    if _package is None or not _package.submodule_search_locations:
        raise ImportError("no module named 'tablestore'")
except ImportError as error:  # pragma: no cover - exercised only without the extra
    raise ImportError(
        'the local Tablestore server needs the official SDK: pip install "tsmemory[tablestore]"'
    ) from error

_FOLDER = Path(_package.submodule_search_locations[0], "protobuf")


def _load(name: str) -> Any:
    """A generated module. Where the SDK is imported too, protobuf gives both the same messages:
    it knows them by the file they were generated from."""
    spec = spec_from_file_location(f"{__package__}.{name}", _FOLDER / f"{name}.py")
    assert spec is not None and spec.loader is not None  # noqa: PT018  # one condition of a checker
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


pb: Any = _load("table_store_pb2")
filter_pb: Any = _load("table_store_filter_pb2")
search_pb: Any = _load("search_pb2")

__all__ = ["DecodeError", "filter_pb", "pb", "search_pb"]
