"""What an adapter cannot do on one of the supported Pythons."""

from __future__ import annotations

import sys

import pytest

CONFIGURED_IN_ASYNCIO = pytest.mark.skipif(
    sys.version_info < (3, 11),
    reason="on Python 3.10 LangGraph hands no configuration on in asyncio (docs/langchain.md)",
)
