"""The contract, on the memory backend."""

from __future__ import annotations

import pytest

from tsmemory.backends.memory import MemoryBackend
from tsmemory.engine.records import Key
from tsmemory.testing import BackendConformance, Engine, run_against_oracle


@pytest.fixture
def engine() -> Engine:
    backend = MemoryBackend()

    def damage(user_id: str, session_id: str, message_id: str | None) -> None:
        session = backend._sessions[Key(user_id, session_id)]
        if message_id is None:
            session.free = b"{"
        else:
            session.bodies[message_id] = (session.bodies[message_id][0], b'{"role":')

    return Engine(open=lambda: backend, damage=damage)


class TestMemory(BackendConformance):
    @pytest.fixture
    def engine(self, engine: Engine) -> Engine:
        return engine


def test_random_operations() -> None:
    run_against_oracle(MemoryBackend)
