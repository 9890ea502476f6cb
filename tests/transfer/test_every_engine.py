"""The real conversations through every engine, on real servers, compare equal at the end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import msgspec
import pytest
from langchain_core.messages import convert_to_messages

from langchain_tsmemory import to_neutral
from tests._chat_api import conversations
from tsmemory import Message, Session, Store, from_openai, open_store
from tsmemory.backends.tablestore import TablestoreBackend
from tsmemory.testing.servers.postgres import find_postgres
from tsmemory.testing.servers.redis import RedisServer
from tsmemory.testing.servers.tablestore import LocalTablestore
from tsmemory.testing.servers.zerodb import LocalZeroDB
from tsmemory.transfer import copy


@pytest.fixture
def engines(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[dict[str, Store]]:
    """An empty store of each engine, on a server of its own where it wants one."""
    with ExitStack() as stack:
        redis = stack.enter_context(RedisServer())
        tablestore = stack.enter_context(LocalTablestore())
        zerodb = stack.enter_context(LocalZeroDB())
        postgres = request.getfixturevalue("postgres_server") if find_postgres() else None
        stores = {
            "sqlite": open_store(f"sqlite:///{tmp_path / 'first.db'}?durability=normal"),
            "jsonl": open_store(f"jsonl:///{tmp_path / 'chats'}?durability=normal"),
            "redis": open_store(redis.url),
            **({"postgres": open_store(f"{postgres.url}?prefix=copied_")} if postgres else {}),
            "tablestore": Store(
                TablestoreBackend(
                    tablestore.endpoint,
                    instance_name=tablestore.instance_name,
                    access_key_id=tablestore.access_key_id,
                    access_key_secret=tablestore.access_key_secret,
                )
            ),
            "zerodb": open_store(zerodb.url, api_key=zerodb.api_key),
            "memory": open_store("memory:"),
            "sqlite again": open_store(f"sqlite:///{tmp_path / 'last.db'}?durability=normal"),
        }
        for store in stores.values():
            stack.callback(store.close)
            store.setup()
        yield stores


Kept = dict[tuple[str, str], tuple[Session, list[Message]]]


def everything(store: Store) -> Kept:
    """All that a store holds, but for the versions, which count its own writes."""
    return {
        (s.user_id, s.session_id): (
            msgspec.structs.replace(s, version=0),
            list(store.conversation(s.session_id, user_id=s.user_id).iter_messages()),
        )
        for s in store.iter_sessions()
    }


def test_all_the_way_round(engines: dict[str, Store]) -> None:
    first, *others = engines.values()
    for name, raws in conversations().items():
        chat = first.conversation(name, user_id="airline")
        chat.append(*map(to_neutral, convert_to_messages(raws)))
        chat.append(*map(from_openai, raws))
        chat.update_session(title=f"About {name}", summary="…", metadata={"n": len(raws)})
    first.conversation("passing", user_id="airline").append(Message.user("for a day"))
    first.conversation("passing", user_id="airline").set_ttl(86_400)
    expected = everything(first)
    source = first
    for target in others:
        report = copy(source, target)
        assert report.problems == []
        assert everything(target) == expected, target
        assert target.verify() == []
        source = target
