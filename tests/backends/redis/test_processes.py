"""Eight processes append to one session: nothing lost, doubled or out of order."""

from __future__ import annotations

import os

import pytest

from tests.backends.redis._checks import check_session, finish, start_writer
from tsmemory import Store
from tsmemory.backends.redis import RedisBackend

EACH = int(os.environ.get("TSMEMORY_APPENDS", "100"))


@pytest.mark.parametrize("kind", ["redis_6", "cluster"])
def test_eight_processes(request: pytest.FixtureRequest, kind: str, prefix: str) -> None:
    url = request.getfixturevalue(kind).url
    writers = [start_writer(url, prefix, f"w{i}", EACH) for i in range(8)]
    acknowledged = finish(writers)
    assert len(acknowledged) == 8 * EACH
    with Store(RedisBackend.from_url(url, prefix=prefix)) as store:
        assert check_session(store, acknowledged) == []
        session = store.conversation("s", user_id="u").session()
        assert session is not None
        assert session.message_count == session.version == 8 * EACH
        assert store.list_sessions(user_id="u").items == [session]
