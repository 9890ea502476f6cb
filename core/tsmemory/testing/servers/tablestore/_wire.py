"""The one module that imports the official SDK's wire modules.

The SDK ships neither stubs nor ``py.typed``, so everything it gives is ``Any`` from here on. Its
protobuf messages are the specification of the protocol and are used as they are. Its PlainBuffer
classes are not: the decoder cannot read update operations or infinite keys, and the encoder walks
every byte in Python, so `plainbuffer` has its own.
"""

from __future__ import annotations

import logging
import warnings
from typing import Any

_LOG = logging.getLogger("tablestore")
_LEVEL = _LOG.level

try:
    with warnings.catch_warnings():
        # Where its native codec is not built for this Python, the SDK warns at import, twice over.
        warnings.simplefilter("ignore", ImportWarning)
        _LOG.setLevel(logging.ERROR)
        import tablestore as _sdk  # type: ignore[import-untyped]  # no stubs are published
        from google.protobuf.message import (  # type: ignore[import-untyped]  # as above
            DecodeError,
        )
        from tablestore.protobuf import (  # type: ignore[import-untyped]  # as above
            search_pb2 as _search_pb,
        )
        from tablestore.protobuf import table_store_filter_pb2 as _filter_pb
        from tablestore.protobuf import table_store_pb2 as _table_pb
except ImportError as error:  # pragma: no cover - exercised only without the extra
    raise ImportError(
        'the local Tablestore server needs the official SDK: pip install "tsmemory[tablestore]"'
    ) from error
finally:
    _LOG.setLevel(_LEVEL)

sdk: Any = _sdk
pb: Any = _table_pb
filter_pb: Any = _filter_pb
search_pb: Any = _search_pb

__all__ = ["DecodeError", "filter_pb", "pb", "sdk", "search_pb"]
