"""What lies in the server, seen from outside: keys, rows, what goes, what stays, what is found."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tsmemory import CorruptRecordError, InvalidInputError, Message, Store
from tsmemory.backends.redis import RedisBackend, scripts
from tsmemory.backends.redis.layout import Keys, escape, parse_member, unescape
from tsmemory.backends.redis.session_index import GRACE
from tsmemory.engine.records import Change, Key
from tsmemory.engine.steps import run as drive
from tsmemory.model import Erased
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
    with valkey.client(decode_responses=True) as client:
        yield client


@given(ids, ids)
def test_ids_keep_their_order(a: str, b: str) -> None:
    assert ((a < b), (a == b)) == (
        (escape(a) + b"\0{" < escape(b) + b"\0{"),
        (escape(a) == escape(b)),
    )
    assert unescape(escape(a)) == a


@given(ids, ids, ids, ids)
def test_no_two_sessions_share_a_key(a: str, b: str, c: str, d: str) -> None:
    names = Keys("p")
    one, two = names.place(Key(a, b)), names.place(Key(c, d))
    same = (a, b) == (c, d)
    assert (one.keys == two.keys) == (bool(set(one.keys) & set(two.keys))) == same
    assert names.parse(one.keys[0].encode()) == (Key(a, b), "head")
    assert parse_member(one.all_member) == Key(a, b)
    assert not {*one.keys} & {*two.lists}
    tags = {key[key.index("{") : key.index("}")] for key in one.keys}
    assert len(tags) == 1


@pytest.mark.parametrize("prefix", ["", "a{", "}", "\ud800", None])
def test_prefixes_that_are_none(prefix: Any) -> None:
    with pytest.raises(InvalidInputError, match="prefix"):
        Keys(prefix)


def test_the_layout_is_as_documented(store: Store, client: Any, prefix: str) -> None:
    chat = store.conversation("trip 1", user_id="ada", ttl=3600)
    _, hi = chat.append(Message.system("be\0brief", message_id="0"), Message.user("hi"))
    chat.update_session(title="Rom", metadata={"topic": "travel"})
    at = f"{prefix}:{{ada/trip 1}}"
    mine = {key.removeprefix(prefix) for key in client.scan_iter(f"{prefix}*")}
    (shard,) = {key[:6] for key in mine if key.startswith(":{i")}
    assert mine == {
        *(f":{{ada/trip 1}}:{part}" for part in ("head", "log", "ids", "pin", "done")),
        f"{shard}:user:ada",
        f"{shard}:all",
    }
    session = chat.session()
    assert session is not None
    assert client.hgetall(f"{at}:head") == {
        "layout": "1",
        "create_time": str(session.create_time),
        "update_time": str(session.update_time),
        "version": "2",
        "message_count": "2",
        "last_time": str(hi.create_time),
        "ttl": "3600.0",
        "ttl_us": "3600000000",
        "expires_at": str(session.expires_at),
        "title": '["Rom"]',
        "meta:topic": '["travel"]',
    }
    assert client.zrange(f"{at}:log", 0, -1) == [
        f'{(hi.create_time or 0) - 1:019}0\0{{"role":"system","content":"be\\u0000brief"}}',
        f'{hi.create_time:019}{hi.message_id}\0{{"role":"user","content":"hi"}}',
    ]
    assert client.hgetall(f"{at}:ids") == {
        "0": str((hi.create_time or 0) - 1),
        hi.message_id: str(hi.create_time),
    }
    assert client.zrange(f"{at}:pin", 0, -1) == [f"{(hi.create_time or 0) - 1:019}0\0"]
    lists = {f"{prefix}{shard}:user:ada": "trip 1", f"{prefix}{shard}:all": "ada\0trip 1"}
    for key, member in lists.items():
        assert client.zrange(key, 0, -1, withscores=True) == [(member, session.update_time)]
    for part in ("head", "log", "ids", "pin"):
        assert 3_590_000 < client.pttl(f"{at}:{part}") <= 3_600_001


def test_clearing_leaves_nothing_and_takes_no_more(
    store: Store, client: Any, valkey: RedisServer, prefix: str
) -> None:
    foreign = [f"{prefix}x:{{a/b}}:head", prefix, f"{prefix}:other", f"x{prefix}:{{a/b}}:head"]
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
    left = set(client.scan_iter(f"{prefix}:{{*"))
    assert not [key for key in left if ":{a/" in key or key.endswith("user:a")]
    # A session that no list knows is found by looking at every key.
    names = Keys(prefix)
    client.zrem(names.lists("b")[1], "b\0x")
    client.zrem(names.lists("b")[0], "x")
    assert [p[:3] for p in store.verify()] == [("b", "x", None)]
    assert store.clear() == Erased(2, 2)
    assert set(client.scan_iter(f"{prefix}:{{*")) == set()
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
    assert [k for k in client.scan_iter(f"{prefix}*") if client.exists(k) and "u/s" in k] == []
    assert store.stats().expired_sessions == 1
    assert store.list_sessions().items == []  # which takes the entry away
    assert set(client.scan_iter(f"{prefix}*")) == set()


@pytest.mark.parametrize("part", ["head", "log"])
def test_a_lost_key_is_not_an_empty_history(
    store: Store, client: Any, prefix: str, part: str
) -> None:
    chat = store.conversation("s")
    chat.append(Message.user("a"))
    client.delete(f"{prefix}:{{default/s}}:{part}")
    for read in (lambda: chat.window(5), lambda: chat.list_messages(), lambda: chat.window(None)):
        with pytest.raises(CorruptRecordError, match="its 1 messages"):
            read()
    assert store.verify() != []
    assert chat.delete().sessions == 1
    assert store.verify() == []


def test_a_newer_layout_is_refused(store: Store, client: Any, prefix: str) -> None:
    chat = store.conversation("s")
    chat.append(Message.user("a"))
    client.hset(Keys(prefix).place(Key("default", "s")).keys[0], "layout", "2")
    with pytest.raises(CorruptRecordError, match="layout"):
        chat.session()
    with pytest.raises(CorruptRecordError, match="layout"):
        chat.append(Message.user("b"))
    assert [m.text for m in chat.list_messages()] == ["a"]


def test_verify_names_what_does_not_agree(store: Store, client: Any, prefix: str) -> None:
    chat = store.conversation("s", user_id="u")
    chat.append(Message.system("s", message_id="a"), Message.user("u", message_id="b"))
    assert store.verify() == []
    place = Keys(prefix).place(Key("u", "s"))
    head, _, ids, pin, _ = place.keys
    away, entry = f"{prefix}:{{u/s}}:away", (place.lists[1], place.all_member)
    spoil: list[tuple[Any, Any, str]] = [
        (
            partial(client.hincrby, head, "message_count", 3),
            partial(client.hincrby, head, "message_count", -3),
            "message_count is 5",
        ),
        (partial(client.hset, ids, "zz", "1"), partial(client.hdel, ids, "zz"), "3 ids"),
        (
            partial(client.hincrby, ids, "b", 1),
            partial(client.hincrby, ids, "b", -1),
            "not filed",
        ),
        (partial(client.rename, pin, away), partial(client.rename, away, pin), "is pinned"),
        (
            partial(client.zincrby, entry[0], -9, entry[1]),
            partial(client.zincrby, entry[0], 9, entry[1]),
            "is listed at",
        ),
        (
            partial(client.zadd, place.lists[0], {"q": 1}),
            partial(client.zrem, place.lists[0], "q"),
            "everybody's list",
        ),
    ]
    for damage, repair, what in spoil:
        damage()
        assert any(what in problem.what for problem in store.verify()), what
        repair()
        assert store.verify() == []


def test_big_deletions_do_not_block(store: Store, valkey: RedisServer) -> None:
    def fill(name: str, size: int) -> Any:
        chat = store.conversation(name)
        for first in range(0, size, 5000):
            chat.append(*(Message.user(str(i)) for i in range(first, first + 5000)))
        return chat

    with valkey.client() as client:
        sizes = {"delete": 100_000, "clear": 20_000, "truncate": 20_000}
        chats = [fill(name, size) for name, size in sizes.items()]
        client.config_resetstat()
        assert chats[0].delete() == Erased(1, 100_000)
        assert chats[1].clear() == 20_000
        assert chats[2].truncate(20) == 19_980
        assert [m.text for m in chats[2].window(2)] == ["19998", "19999"]
        # No work per message: few commands, those of scripts included, and memory is freed by
        # the server's background thread.
        calls = {name: stat["calls"] for name, stat in client.info("commandstats").items()}
        assert sum(calls.values()) < 100, calls
        assert "cmdstat_unlink" in calls
        assert "cmdstat_del" not in calls
    assert store.verify() == []


def test_deleting_up_to_a_place(store: Store) -> None:
    """Few, most and all of the messages go by three ways; all must agree."""
    for total, keep in ((6, 5), (6, 1), (3000, 1500), (3000, 0)):
        chat = store.conversation(f"{total}-{keep}")
        for first in range(0, total, 1500):
            chat.append(
                *(
                    Message("system" if i % 5 == 0 else "user", str(i), message_id=f"id\0{i}")
                    for i in range(first, min(first + 1500, total))
                )
            )
        assert chat.truncate(keep) == total - keep
        assert [m.text for m in chat.iter_messages()] == [
            str(i) for i in range(total - keep, total)
        ]
        assert chat.get_message("id\x000") is None
        chat.append(Message.user("again", message_id="id\x000"))
        assert chat.count() == keep + 1
    assert store.verify() == []


def test_long_sessions_come_in_portions(store: Store, valkey: RedisServer) -> None:
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
            place = backend.names.place(Key("u", name))
            touch = ("touch", place.member, place.all_member, 0)
            backend.run(backend.call(scripts.INDEX, place.lists, *touch))
            return place

        new, old = announce("new"), announce("old")
        # Nobody sees the session that never began; the other is listed where it was announced.
        listed = store.list_sessions(user_id="u").items
        assert [s.session_id for s in listed] == ["old", "other"]
        assert listed[0].message_count == 1
        assert store.stats().sessions == 2
        assert store.purge_expired() == Erased()
        # Once the writer must be dead, a reader puts both right.
        for place, member in ((new, "new"), (old, "old")):
            for key, name in zip(place.lists, (member, f"u\0{member}"), strict=True):
                client.zincrby(key, -2 * GRACE, name)
        client.zadd(old.lists[0], {"old": client.zscore(old.lists[0], "old") + 1})
        assert store.list_sessions(user_id="u").items == before
        assert client.zscore(new.lists[0], "new") is None
        assert client.zscore(old.lists[0], "old") == before[1].update_time
        assert [s.session_id for s in store.list_sessions()] == ["other", "old"]
        assert store.verify() == []


def test_a_list_emptied_under_a_writer_is_settled(cluster: RedisCluster, prefix: str) -> None:
    backend = RedisBackend.from_url(cluster.url, prefix=prefix)
    with Store(backend) as store, cluster.client() as client:
        place = backend.names.place(Key("u", "s"))
        announced: list[Any] = []

        def perform(step: Any) -> Any:
            reply = backend._perform(step)
            if not announced:
                client.delete(*place.lists)  # as an erasing reader would, between the two
            announced.append(reply)
            return reply

        store.setup()
        change = Change(append=(Message.user("a"),))
        drive(backend.commit(Key("u", "s"), change), perform)
        assert len(announced) == 3
        assert len(store.list_sessions(user_id="u")) == len(store.list_sessions()) == 1
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
