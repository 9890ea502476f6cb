"""Eight processes append to one session: nothing lost, doubled or out of order."""

from __future__ import annotations

import pytest

from tests._soak import SOAK
from tests.backends._processes import check_writers, write_together
from tsmemory import open_store

EACH = 1000 if SOAK else 100


@pytest.mark.parametrize("kind", ["redis_6", "cluster"])
def test_eight_processes(request: pytest.FixtureRequest, kind: str, prefix: str) -> None:
    url = f"{request.getfixturevalue(kind).url}?prefix={prefix}&retry_for=60"
    write_together(url, "s", 8, EACH)
    with open_store(url) as store:
        chat = store.conversation("s")
        check_writers(list(chat.iter_messages()), 8, EACH)
        session = chat.session()
        assert session is not None
        assert session.message_count == session.version == 8 * EACH
        assert store.list_sessions().items == [session]
        assert store.verify() == []
