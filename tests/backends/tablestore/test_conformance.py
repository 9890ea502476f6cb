"""The conformance suite over Tablestore, in both layouts."""

from __future__ import annotations

import pytest

from tests._soak import SOAK
from tsmemory.testing import BackendConformance, Engine, run_against_oracle
from tsmemory.testing._harness import Mode
from tsmemory.testing.servers.tablestore import TablestoreProcess

from ._open import backend
from ._open import engine as make


class TestIsolated(BackendConformance):
    @pytest.fixture
    def engine(self, server: TablestoreProcess) -> Engine:
        return make(server)


class TestIsolatedOtherwise(BackendConformance):
    """Where the service's behaviour is not documented, the other reading of it."""

    @pytest.fixture(params=["sync"])  # the service's behaviour is the same in both modes
    def mode(self, request: pytest.FixtureRequest) -> Mode:
        return Mode(request.param)

    @pytest.fixture
    def engine(self, server: TablestoreProcess) -> Engine:
        server.set_options(range_limit_counts="passed", filter_sees="all")
        return make(server)


class TestAgentMemory(BackendConformance):
    @pytest.fixture(params=["async"])  # a layout's requests are the same in both modes
    def mode(self, request: pytest.FixtureRequest) -> Mode:
        return Mode(request.param)

    @pytest.fixture
    def engine(self, server: TablestoreProcess) -> Engine:
        return make(server, layout="agent-memory")


def test_random_operations(server: TablestoreProcess) -> None:
    run_against_oracle(lambda: backend(server), examples=8 if SOAK else 5)
