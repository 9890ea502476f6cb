"""The layout in the server, seen from outside: keys, rows, what is removed, what is found."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tsmemory import CorruptRecordError, InvalidInputError, Message, Store
from tsmemory.backends.redis import RedisBackend
from tsmemory.backends.redis.layout import (
    SHARDS,
    KeyNames,
    escape,
    load_id,
    parse_member,
    store_id,
    unescape,
)
from tsmemory.backends.redis.session_index import ANNOUNCEMENT_TIMEOUT_US
from tsmemory.backends.redis.writer import place
from tsmemory.engine.records import Key
from tsmemory.model import Erased, new_id
from tsmemory.testing.servers.redis import RedisCluster, RedisServer

ids = st.text(
    st.sampled_from("ab{}%/:*\0\1\2é\uffff\U0001f600") | st.characters(exclude_categories=["Cs"]),
    min_size=1,
    max_size=8,
)


@pytest.fixture
def store(valkey: RedisServer, prefix: str) -> Any:
    with Store(RedisBackend.from_url(valkey.url, prefix=prefix)) as store:
        yield store


@pytest.fixture
def client(valkey: RedisServer) -> Any:
    with valkey.client() as client:
        yield client


@given(ids, ids)
def test_ids_keep_their_order(a: str, b: str) -> None:
    assert ((a < b), (a == b)) == (
        (escape(a) + b"\0{" < escape(b) + b"\0{"),
        (escape(a) == escape(b)),
    )
    assert unescape(escape(a)) == a


@given(ids | st.uuids().map(str) | st.uuids().map(lambda u: str(u).upper()) | st.just("\xff" * 8))
def test_stored_ids_come_back(message_id: str) -> None:
    assert load_id(store_id(message_id)) == message_id
    assert len(store_id(message_id)) <= len(message_id.encode())


@given(ids, ids, ids, ids)
def test_no_two_sessions_share_a_key(a: str, b: str, c: str, d: str) -> None:
    names = KeyNames("p")
    one, two = names.session(Key(a, b)), names.session(Key(c, d))
    same = (a, b) == (c, d)
    assert (one.keys == two.keys) == (bool(set(one.keys) & set(two.keys))) == same
    assert names.parse(one.keys[0].encode()) == (Key(a, b), "head")
    assert parse_member(one.all_member) == Key(a, b)
    assert not {*one.keys, *one.staging} & {*two.lists}
    assert len({key[key.index("{") : key.index("}")] for key in one.keys + one.staging}) == 1
    assert all(names.is_index(key.encode()) for key in one.lists)


@pytest.mark.parametrize("prefix", ["", "a{", "}", "\ud800", None])
def test_prefixes_that_are_none(prefix: Any) -> None:
    with pytest.raises(InvalidInputError, match="prefix"):
        KeyNames(prefix)


def test_the_layout_is_as_documented(store: Store, client: Any, prefix: str) -> None:
    chat = store.conversation("trip 1", user_id="ada", ttl=3600)
    _, hi = chat.append(Message.system("be\0brief", message_id="0"), Message.user("hi"))
    chat.update_session(title="Rom", metadata={"topic": "travel"})
    at = f"{prefix}:{{ada/trip 1}}"
    mine = {
        key.decode().removeprefix(prefix) for key in client.scan_iter(f"{prefix}*", count=10_000)
    }
    (shard,) = {key[:6] for key in mine if key.startswith(":{i")}
    assert mine == {
        *(f":{{ada/trip 1}}:{part}" for part in ("head", "log", "ids", "pins", "done")),
        f"{shard}:user:ada",
        f"{shard}:all",
        f"{shard}:expiry",
    }
    session, time = chat.session(), hi.create_time or 0
    assert session is not None
    state = (
        f"2 {session.create_time} {session.update_time} 2 2 {time} 3600.0 3600000000 "
        f"{session.expires_at} 2 2 1 0"
    )
    assert client.hgetall(f"{at}:head") == {
        b"state": state.encode(),
        b"title": b'["Rom"]',
        b"meta:topic": b'["travel"]',
    }
    packed = b"\xff" + bytes.fromhex(hi.message_id.replace("-", ""))
    assert client.lrange(f"{at}:log", 0, -1) == [
        b'%d \x010{"role":"system","content":"be\\u0000brief"}' % (time - 1),
        b'%d \x11%s{"role":"user","content":"hi"}' % (time, packed),
    ]
    assert client.hgetall(f"{at}:ids") == {b"0": b"%d" % (time - 1), packed: b"%d" % time}
    assert client.zrange(f"{at}:pins", 0, -1) == [b"%019d0" % (time - 1)]
    for name, member, score in (
        ("user:ada", b"trip 1", session.update_time),
        ("all", b"ada\0trip 1", session.update_time),
        ("expiry", b"ada\0trip 1", session.expires_at),
    ):
        found = client.zrange(f"{prefix}{shard}:{name}", 0, -1, withscores=True)
        assert found == [(member, score)]
    for part in ("head", "log", "ids", "pins"):
        assert 3_590_000 < client.pttl(f"{at}:{part}") <= 3_600_001


def test_clearing_leaves_nothing_and_removes_no_more(
    store: Store, client: Any, valkey: RedisServer, prefix: str
) -> None:
    foreign = [
        f"{prefix}x:{{a/b}}:head", prefix, f"{prefix}:other", f"x{prefix}:{{a/b}}:head",
        f"{prefix}:{{theirs}}", f"{prefix}:{{a/b}}:other", f"{prefix}:{{i99}}:all",
        f"{prefix}:{{a%00/b}}:head",
    ]  # fmt: skip
    for key in foreign:
        client.set(key, "not ours")
    beside = Store(RedisBackend.from_url(valkey.url, prefix=f"{prefix}:more"))
    beside.conversation("s").append(Message.user("stays"))
    for user in "ab":
        for session in "xy":
            chat = store.conversation(session, user_id=user, ttl=50 if user == "a" else None)
            chat.append(Message.system("s"), Message.user("m", message_id="m"))
            chat.delete_message("m")
    assert store.erase_user("a") == Erased(2, 2)
    left = {key.decode() for key in client.scan_iter(f"{prefix}:{{*", count=10_000)} - set(foreign)
    assert not [key for key in left if ":{a/" in key or key.endswith("user:a")]
    # A session that no list has is found by looking at every key.
    lists = KeyNames(prefix).session(Key("b", "x")).lists
    client.delete(*lists)
    assert ("b", "x", None) in [p[:3] for p in store.verify()]
    assert store.clear() == Erased(2, 2)
    assert {key.decode() for key in client.scan_iter(f"{prefix}:{{*", count=10_000)} <= set(foreign)
    assert client.exists(*foreign) == len(foreign)
    assert beside.conversation("s").count() == 1
    beside.clear()
    beside.close()
    client.delete(*foreign)


def test_the_server_expires_all_of_it(store: Store, client: Any, prefix: str) -> None:
    chat = store.conversation("s", user_id="u", ttl=0.2)
    chat.append(Message.system("s"), Message.user("m", message_id="m"))
    chat.delete_message("m")
    time.sleep(0.35)  # until the server has expired it
    keys = [key.decode() for key in client.scan_iter(f"{prefix}*", count=10_000)]
    assert [key for key in keys if client.exists(key) and "u/s" in key] == []
    assert store.stats().expired_sessions == 1
    assert store.list_sessions().items == []  # which removes the entry
    assert store.stats().expired_sessions == 0


def test_expired_sessions_leave_the_index(store: Store, client: Any, prefix: str) -> None:
    """By whoever writes next, a few at a time; a reader removes the rest without reading them."""
    for i in range(400):
        store.conversation(f"s{i}", user_id="u", ttl=0.01).append(Message.user("m"))
    time.sleep(0.02)  # until they have expired
    entries = lambda: sum(client.zcard(key) for key in KeyNames(prefix).lists(None))  # noqa: E731
    # Later writers kept removing those that earlier ones let expire.
    assert entries() < 200
    for _ in range(300):
        store.conversation(new_id(), user_id="u").append(Message.user("m"))
    assert entries() < 320
    assert len(store.list_sessions(user_id="u", limit=500)) == 300
    assert entries() == 300


PARTS = ("head", "log", "ids", "pins")


@pytest.mark.parametrize("part", [*PARTS, "row", "id", "pin"])
def test_a_lost_part_is_seen_by_all(store: Store, client: Any, prefix: str, part: str) -> None:
    """By readers and writers, who leave what is left; only deletion removes it."""
    chat = store.conversation("s", user_id="u")
    chat.append(
        Message.system("rules", message_id="a"),
        Message.developer("more", message_id="b") if hasattr(Message, "developer")
        else Message("developer", "more", message_id="b"),
        Message.user("x", message_id="c"),
    )  # fmt: skip
    _head, log, message_ids, pins, *_ = KeyNames(prefix).session(Key("u", "s")).keys
    {
        "row": partial(client.rpop, log),
        "id": partial(client.hdel, message_ids, "a"),
        "pin": partial(client.zremrangebyrank, pins, 0, 0),
    }.get(part, partial(client.delete, f"{prefix}:{{u/s}}:{part}"))()
    left = {key: client.dump(key) for key in client.scan_iter(f"{prefix}:{{u/s}}*", count=10_000)}
    operations: list[Any] = [
        lambda: chat.window(5),
        lambda: chat.list_messages(created_from=0),
        lambda: chat.get_message("c"),
        chat.session,
        chat.count,
        lambda: store.list_sessions(user_id="u"),
        lambda: chat.append(Message.user("new")),
        lambda: chat.append(*(Message.user(str(i)) for i in range(1200))),
        lambda: chat.put_message(Message.user("new", message_id="c")),
        lambda: chat.update_message("c", content="new"),
        lambda: chat.delete_message("c"),
        lambda: chat.clear(),
        lambda: chat.replace([Message.user("new")]),
        lambda: chat.update_session(title="new"),
        lambda: chat.set_ttl(50),
    ]
    for operation in operations:
        with pytest.raises(CorruptRecordError, match="lost"):
            operation()
        assert {
            key: client.dump(key) for key in client.scan_iter(f"{prefix}:{{u/s}}*", count=10_000)
        } == left
    assert [p[:2] for p in store.verify()] == [("u", "s")]
    assert chat.delete().sessions == 1
    assert store.verify() == []
    assert chat.append(Message.user("again"))
    assert chat.count() == 1


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_a_lost_list_hides_nothing_from_erasure(
    store: Store, client: Any, prefix: str, lost: int
) -> None:
    chat = store.conversation("s", user_id="u", ttl=100)
    chat.append(Message.user("secret"))
    store.conversation("s", user_id="u2").append(Message.user("another's"))
    client.delete(KeyNames(prefix).session(Key("u", "s")).lists[lost])
    assert store.erase_user("u") == Erased(1, 1)
    keys = [key.decode() for key in client.scan_iter(f"{prefix}*", count=10_000)]
    assert not [key for key in keys if ":{u/" in key or key.endswith("user:u")]
    assert store.conversation("s", user_id="u2").count() == 1


def test_a_server_that_evicts_makes_no_session_empty(prefix: str) -> None:
    options = ("maxmemory 6mb", "maxmemory-policy allkeys-lru")
    with RedisServer(options=options) as server:
        with Store(RedisBackend.from_url(server.url, prefix=prefix)) as store:
            written: dict[str, int] = {}
            for i in range(1200):
                chat = store.conversation(f"s{i}", user_id="u")
                texts = [Message.user("x" * 1000) for _ in range(5)]
                chat.append(Message.system("rules"), *texts)
                written[f"s{i}"] = 6
            whole = absent = broken = 0
            for name in written:
                try:
                    shown = store.conversation(name, user_id="u").window(3)
                except CorruptRecordError:
                    broken += 1
                else:
                    absent += not shown
                    whole += bool(shown)
                    assert [m.text[:5] for m in shown] in ([], ["rules"] + ["xxxxx"] * 3)
            assert whole + absent + broken == 1200
            assert absent
            assert broken
            store.erase_user("u")
            with server.client() as client:
                assert [key for key in client.scan_iter("*", count=10_000) if b":{u/" in key] == []


def test_a_newer_layout_is_refused(store: Store, client: Any, prefix: str) -> None:
    chat = store.conversation("s")
    chat.append(Message.user("a"))
    head = KeyNames(prefix).session(Key("default", "s")).keys[0]
    client.hset(head, "state", b"3" + client.hget(head, "state")[1:])
    for operation in (chat.session, lambda: chat.append(Message.user("b")), chat.list_messages):
        with pytest.raises(CorruptRecordError, match="layout"):
            operation()


def test_verify_names_what_does_not_agree(store: Store, client: Any, prefix: str) -> None:
    chat = store.conversation("s", user_id="u")
    chat.append(Message.system("s", message_id="a"), Message.user("u", message_id="b"))
    assert store.verify() == []
    session = KeyNames(prefix).session(Key("u", "s"))
    _, _, message_ids, pins, *_ = session.keys
    other, entry = session.lists[0], (session.lists[1], session.all_member)
    pin, away = client.zrange(pins, 0, -1)[0], b"9" * 19 + b"b"
    spoil: list[tuple[Any, Any, str]] = [
        (
            partial(client.hset, message_ids, "zz", "1"),
            partial(client.hdel, message_ids, "zz"),
            "lost its message ids",
        ),
        (
            partial(client.hincrby, message_ids, "b", 1),
            partial(client.hincrby, message_ids, "b", -1),
            "not filed",
        ),
        (
            lambda: client.zadd(pins, {away: 0}) and client.zrem(pins, pin),
            lambda: client.zadd(pins, {pin: 0}) and client.zrem(pins, away),
            "is pinned",
        ),
        (
            partial(client.zincrby, entry[0], -9, entry[1]),
            partial(client.zincrby, entry[0], 9, entry[1]),
            "is listed at",
        ),
        (partial(client.zadd, other, {"q": 1}), partial(client.zrem, other, "q"), "everybody's"),
    ]
    for damage, repair, what in spoil:
        damage()
        assert any(what in problem.what for problem in store.verify()), what
        repair()
        assert store.verify() == []


def test_long_sessions_come_in_portions(store: Store) -> None:
    chat = store.conversation("s")
    for i in range(6):
        chat.append(*(Message.user("x" * 300_000, metadata={"n": 4 * i + j}) for j in range(4)))
    assert [m.metadata["n"] for m in chat.window(None)] == list(range(24))
    assert [m.metadata["n"] for m in chat.list_messages(order="desc", limit=20)] == [
        *range(23, 3, -1)
    ]
    found = chat.list_messages(where={"n": 23}).items + chat.list_messages(where={"n": 0}).items
    assert [m.metadata["n"] for m in found] == [23, 0]


# -- in a Cluster: lists in another slot -----------------------------------------------------


def test_a_writer_that_died_leaves_nothing_to_see(cluster: RedisCluster, prefix: str) -> None:
    backend = RedisBackend.from_url(cluster.url, prefix=prefix)
    with Store(backend) as store, cluster.client(decode_responses=True) as client:
        for name in ("old", "other"):
            store.conversation(name, user_id="u").append(Message.user("a"))
        before = store.list_sessions(user_id="u").items

        def announce(name: str) -> Any:
            session = backend.names.session(Key("u", name))
            backend.run(backend.calls([place(session, "announce", backend.clock())]))
            return session

        new, old = announce("new"), announce("old")
        # Nobody sees the session that never began; the other is listed where it was announced.
        listed = store.list_sessions(user_id="u").items
        assert [s.session_id for s in listed] == ["old", "other"]
        assert listed[0].message_count == 1
        assert store.stats().sessions == 2
        assert store.purge_expired() == Erased()
        # Once the writer must be dead, a reader puts both right.
        for session, member in ((new, "new"), (old, "old")):
            for key, name in zip(session.lists[:2], (member, f"u\0{member}"), strict=True):
                client.zincrby(key, -2 * ANNOUNCEMENT_TIMEOUT_US, name)
        client.zadd(old.lists[0], {"old": client.zscore(old.lists[0], "old") + 1})
        assert store.list_sessions(user_id="u").items == before
        assert client.zscore(new.lists[0], "new") is None
        assert client.zscore(old.lists[0], "old") == before[1].update_time
        assert [s.session_id for s in store.list_sessions()] == ["other", "old"]
        assert store.verify() == []


def test_an_import_of_the_past_is_listed_there(cluster: RedisCluster, prefix: str) -> None:
    with Store(RedisBackend.from_url(cluster.url, prefix=prefix)) as store:
        for i in range(5):
            chat = store.conversation(f"s{i}", user_id="u")
            chat.put_messages([Message.user("a", create_time=i)])
            chat.update_session(update_time=1000 - i)
        assert [s.session_id for s in store.list_sessions(user_id="u")] == [
            f"s{i}" for i in range(5)
        ]
        assert store.verify() == []


def test_one_user_is_spread_over_the_masters(cluster: RedisCluster, prefix: str) -> None:
    """No master runs more than two fifths of the scripts of one user's appends."""
    clients = [server.client() for server in cluster.servers[: cluster.masters]]
    try:
        with Store(RedisBackend.from_url(cluster.url, prefix=prefix)) as store:
            store.conversation("warm", user_id="ada").append(Message.user("a"))
            for client in clients:
                client.config_resetstat()
            for i in range(300):
                store.conversation(f"s{i}", user_id="ada").append(Message.user("a"))
            stats = [client.info("commandstats") for client in clients]
            names = ("cmdstat_eval", "cmdstat_evalsha")
            counts = [sum(s[name]["calls"] for name in names if name in s) for s in stats]
            assert sum(counts) >= 600
            assert max(counts) <= 0.40 * sum(counts)
    finally:
        for client in clients:
            client.close()
    assert len(KeyNames(prefix).lists("ada")) == SHARDS
