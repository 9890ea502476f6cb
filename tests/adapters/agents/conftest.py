"""The stores, and both modes, for the tests of agents."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.adapters._python import CONFIGURED_IN_ASYNCIO
from tsmemory import open_store


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path):
    urls = {"memory": "memory:", "sqlite": f"sqlite:///{tmp_path / 'c.db'}?durability=normal"}
    with open_store(urls[request.param]) as opened:
        yield opened


@pytest.fixture(params=["sync", pytest.param("async", marks=CONFIGURED_IN_ASYNCIO)])
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)
