"""The stores, and both modes, for the tests of agents."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tsmemory import open_store


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path):
    urls = {"memory": "memory:", "sqlite": f"sqlite:///{tmp_path / 'c.db'}?durability=normal"}
    with open_store(urls[request.param]) as opened:
        yield opened


def needs_the_configuration_in_asyncio() -> None:
    """Skip where LangGraph does not hand the run's configuration on (docs/agents.md)."""
    if sys.version_info < (3, 11):
        pytest.skip("on Python 3.10 LangGraph has no configuration in asyncio")


@pytest.fixture(params=["sync", "async"])
def mode(request: pytest.FixtureRequest) -> str:
    if request.param == "async":
        needs_the_configuration_in_asyncio()
    return str(request.param)
