"""What is in the tables: for people and other programs, and for the operator."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tsmemory import Message, Store, TSMemoryError, UnavailableError
from tsmemory.backends.postgres import PostgresBackend
from tsmemory.backends.postgres.maintenance import EXPIRED
from tsmemory.backends.postgres.rows import escape_text, unescape_text
from tsmemory.testing.servers.postgres import PgBouncer, PostgresServer


@pytest.fixture
def store(server: PostgresServer, prefix: str) -> Iterator[Store]:
    with Store(PostgresBackend.from_url(server.url, prefix=prefix)) as store:
        store.setup()
        yield store


def rows(server: PostgresServer, sql: str, values: Any = None) -> list[Any]:
    with server.connect() as connection:
        return connection.execute(sql, values).fetchall()


def test_a_person_can_query(server: PostgresServer, store: Store, prefix: str) -> None:
    store.conversation("s", user_id="ada").append(
        Message.user("hello", metadata={"topic": "travel"}),
        Message.assistant([{"type": "text", "text": "Hi "}, {"type": "text", "text": "Ada!"}]),
        Message.user("a\0b \ud800"),
    )
    view = rows(server, f"SELECT user_id, session_id, role, text FROM {prefix}messages_view")
    assert view[:2] == [("ada", "s", "user", "hello"), ("ada", "s", "assistant", "Hi Ada!")]
    assert view[2][3].startswith("a\ufffdb")
    found = rows(
        server,
        f"SELECT body->>'content' FROM {prefix}messages "
        'WHERE body @> \'{"metadata": {"topic": "travel"}}\'',
    )
    assert found == [("hello",)]
    # Three texts under the codec's own keys need no second copy; the order of a block's keys does.
    exact = rows(server, f"SELECT exact FROM {prefix}messages ORDER BY create_time")
    assert exact[0] == (None,)
    assert list(exact[1][0]["content"][0]) == ["type", "text"]


_keys = st.text(st.sampled_from("ab\0\x01$é"), max_size=3)
_values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.integers(10**300, 10**302),
        st.floats(allow_nan=False),
        st.sampled_from([-0.0, 0.0, 1.0, 1e300, 5e-324, 1e16, 0.1]),
        st.text(st.characters(codec=None, exclude_categories=[]), max_size=4),
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_keys, inner, max_size=4),
    max_leaves=8,
)


def _ordered(value: Any) -> Any:
    """A value that compares by type, by sign of zero, and by the order of keys."""
    if isinstance(value, dict):
        return [(key, _ordered(inner)) for key, inner in value.items()]
    if isinstance(value, list):
        return ["list", *map(_ordered, value)]
    return repr(value)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(values=st.lists(st.dictionaries(_keys, _values, max_size=4), min_size=1, max_size=4))
def test_values_come_back_exactly(store: Store, values: list[dict[str, Any]]) -> None:
    """Key order, kinds of numbers and any text, whatever JSONB makes of them."""
    chat = store.conversation("exact")
    chat.delete()
    chat.append(*(Message.user("m", metadata=value, extensions={"x": value}) for value in values))
    for message, value in zip(chat.list_messages(), values, strict=True):
        assert _ordered(message.metadata) == _ordered(value)
        assert _ordered(message.extensions) == _ordered({"x": value})
        chat.update_session(title=str(value), metadata=value, replace_metadata=True)
        session = chat.session()
        assert session is not None
        assert session.title == str(value)
        assert _ordered(session.metadata) == _ordered(value)


@given(st.lists(st.text(st.sampled_from("a\0\x01\x02\x03z\ud800é"), max_size=6), max_size=8))
def test_escaping_is_exact_and_keeps_the_order(texts: list[str]) -> None:
    assert [unescape_text(escape_text(text)) for text in texts] == texts
    whole = [text for text in texts if "\ud800" not in text]
    assert sorted(whole) == sorted(whole, key=escape_text)


def test_partitions(server: PostgresServer, prefix: str) -> None:
    with Store(PostgresBackend.from_url(f"{server.url}?partitions=4", prefix=prefix)) as store:
        store.setup()
        for i in range(40):
            store.conversation(str(i)).append(Message.user(str(i)), Message.user("more"))
        assert store.conversation("7").window(1)[0].text == "more"
        assert (store.stats().bytes or 0) > 0
        assert store.verify() == []
        assert store.clear().messages == 80
    (filled,) = rows(
        server,
        "SELECT count(*) FROM pg_inherits WHERE inhparent = %s::regclass",
        [f"{prefix}messages"],
    )
    assert filled == (4,)


def test_an_application_s_role_needs_no_ddl(
    server: PostgresServer, store: Store, prefix: str
) -> None:
    with server.connect() as connection:
        connection.execute(f"CREATE ROLE {prefix}app LOGIN")
        connection.execute(f"GRANT SELECT ON {prefix}migrations TO {prefix}app")
        connection.execute(
            "GRANT SELECT, INSERT, UPDATE, DELETE "
            f"ON {prefix}sessions, {prefix}messages TO {prefix}app"
        )
    url = server.url.replace("postgres@", f"{prefix}app@")
    with Store(PostgresBackend.from_url(url, prefix=prefix)) as app:
        app.setup()
        app.conversation("s").append(Message.user("a"))
        app.conversation("s").put_message(Message.user("b"))
        assert app.conversation("s").count() == 2
        assert app.clear().messages == 2
    with Store(PostgresBackend.from_url(url, prefix=f"{prefix}other_")) as app:
        with pytest.raises(TSMemoryError, match="permission denied"):
            app.setup()


@pytest.mark.parametrize("through", ["direct", "pooled"])
def test_row_level_security(
    server: PostgresServer, prefix: str, through: str, request: pytest.FixtureRequest
) -> None:
    with Store(PostgresBackend.from_url(server.url, prefix=prefix, row_security=True)) as owner:
        owner.setup()
        owner.setup()
    with server.connect() as connection:
        connection.execute(
            "DO $$BEGIN CREATE ROLE app LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END$$"
        )
        tables = ", ".join(prefix + name for name in ("migrations", "sessions", "messages"))
        connection.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {tables} TO app")
        connection.execute(f"GRANT SELECT ON {prefix}messages_view TO app")
    url = server.url
    if through == "pooled":
        bouncer: PgBouncer = request.getfixturevalue("bouncer")
        url = bouncer.url
    url = url.replace("postgres@", "app@")
    with Store(PostgresBackend.from_url(url, prefix=prefix, row_security=True)) as app:
        app.setup()
        for user in ("ada", "bob", "a\0b"):
            chat = app.conversation("s", user_id=user)
            chat.append(Message.user(f"of {user}", message_id="m"))
            chat.put_message(Message.user("put"))
            chat.update_message("m", metadata={"x": 1})
            assert [m.text for m in chat.window(5)] == [f"of {user}", "put"]
            assert [s.user_id for s in app.list_sessions(user_id=user)] == [user]
        assert app.list_sessions().items == []
        assert app.stats().sessions == 0
    # The policy holds for statements that are not ours.
    with psycopg.connect(url, autocommit=True, prepare_threshold=None) as connection:

        def seen() -> list[Any]:
            sql = f"SELECT DISTINCT user_id FROM {prefix}messages_view"
            return connection.execute(sql).fetchall()

        assert seen() == []
        with connection.transaction():
            connection.execute("SELECT set_config('tsmemory.user_id', 'ada', true)")
            assert seen() == [("ada",)]
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(f"UPDATE {prefix}messages SET user_id = 'bob'")
    with Store(PostgresBackend.from_url(server.url, prefix=prefix)) as owner:
        assert owner.erase_user("ada").messages == 2
        assert owner.stats().users == 2


def test_a_newer_schema_is_refused(server: PostgresServer, store: Store, prefix: str) -> None:
    with server.connect() as connection:
        connection.execute(f"INSERT INTO {prefix}migrations (version) VALUES (99)")
    with pytest.raises(UnavailableError, match="newer tsmemory"):
        store.setup()


def test_problems_are_named(server: PostgresServer, store: Store, prefix: str) -> None:
    store.conversation("s", user_id="u").append(Message.user("a"), Message.user("b"))
    store.conversation("t", user_id="u").append(Message.user("c", message_id="c"))
    with server.connect() as connection:
        connection.execute(f"DELETE FROM {prefix}sessions WHERE session_id = 't'")
        connection.execute(f"DELETE FROM {prefix}messages WHERE body->>'content' = 'a'")
    assert {(p.session_id, p.what) for p in store.verify()} == {
        ("s", "message_count is 2, but there are 1 messages"),
        (None, "belongs to no session"),
    }


def test_expired_sessions_are_purged_in_slices(
    server: PostgresServer, store: Store, prefix: str
) -> None:
    with server.connect() as connection:
        connection.execute(
            f"INSERT INTO {prefix}sessions (user_id, session_id, create_time, update_time, "
            "version, message_count, last_time, ttl, expires_at) "
            "SELECT 'u', i::text, 0, 0, 1, 0, 0, 1, 1000000 FROM generate_series(1, 450) i"
        )
        connection.execute("SET enable_seqscan = off")
        condition = PostgresBackend.from_url(server.url, prefix=prefix).layout.fill(EXPIRED)
        plan = connection.execute(
            f"EXPLAIN (FORMAT JSON) SELECT s.id FROM {prefix}sessions s WHERE {condition}"
        ).fetchone()
    assert f"{prefix}sessions_by_expiry" in json.dumps(plan)
    store.conversation("stays").append(Message.user("a"))
    assert store.list_sessions(user_id="u").items == []
    assert store.stats().expired_sessions == 450
    assert store.purge_expired().sessions == 450
    assert store.stats().sessions == 1


def test_the_server_s_set_up_is_named(store: Store) -> None:
    findings = {finding.name: finding for finding in store.run(store.backend.check_server())}
    assert findings["writable"].ok
    assert not findings["fsync"].ok  # these tests' server
    assert "crash" in findings["fsync"].value
