"""URLs, ready clients, sync and async, and what is left open or closed."""

from __future__ import annotations

import asyncio
import gc
import os
import shutil
import ssl
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.asyncio

from tests.backends.redis.conftest import require
from tsmemory import (
    AuthenticationError,
    BackendError,
    InvalidInputError,
    Message,
    Store,
    UnavailableError,
)
from tsmemory.backends.redis import RedisBackend
from tsmemory.backends.redis.client import read_url
from tsmemory.backends.redis.layout import KeyNames
from tsmemory.engine.records import Key
from tsmemory.testing import run_against_oracle
from tsmemory.testing.servers.redis import CuttingProxy, RedisCluster, RedisServer


@pytest.mark.parametrize(
    ("url", "shown", "expected"),
    [
        ("redis://", "redis://localhost:6379", {}),
        ("redis://h:7", "redis://h:7", {}),
        ("redis://h/3", "redis://h:6379/3", {"db": 3}),
        ("redis://h?db=3", "redis://h:6379/3", {"db": 3}),
        ("redis://:p%40ss%2F@h", "redis://h:6379", {"password": "p@ss/"}),
        ("redis://us%3Aer:p@h", "redis://h:6379", {"username": "us:er", "password": "p"}),
        ("redis://h?password=p", "redis://h:6379", {"password": "p"}),
        ("redis://[::1]:7/0", "redis://[::1]:7", {"db": 0}),
        ("rediss://h?ssl_cert_reqs=none", "rediss://h:6379", {"ssl_cert_reqs": "none"}),
        ("unix:///run/r%20s.sock?db=2", "unix:///run/r s.sock", {"db": 2}),
        ("unix://u:p@/run/r.sock", "unix:///run/r.sock", {"username": "u", "password": "p"}),
        ("redis+sentinel://a,b:7/chat/1", "redis+sentinel://a:26379,b:7/chat/1", {"db": 1}),
        ("redis+cluster://a:1,b:2", "redis+cluster://a:1,b:2", {}),
        ("rediss+cluster://p:q@a", "rediss+cluster://a:6379", {"ssl": True, "username": "p"}),
        ("valkey://h/2", "valkey://h:6379/2", {"db": 2}),
        ("valkeys+cluster://a", "valkeys+cluster://a:6379", {"ssl": True}),
        ("valkey+sentinel://a/chat", "valkey+sentinel://a:26379/chat", {}),
        ("redis://h?socket_timeout=none", "redis://h:6379", {"socket_timeout": None}),
    ],
)
def test_urls(url: str, shown: str, expected: dict[str, Any]) -> None:
    target, _ = read_url(url, {})
    assert repr(target) == shown
    assert target.connection.items() >= expected.items()
    backend = RedisBackend.from_url(url)
    assert shown in repr(backend)
    assert "p%40" not in repr(backend)
    assert "p@ss" not in repr(backend)


@pytest.mark.parametrize(
    "url",
    [
        "http://h",
        "redis://h/x",
        "redis://h/1/2",
        "redis://h:99999",
        "redis://h:secret",
        "redis://a,b",
        "redis://h?nonsense=1",
        "redis://h?db=x",
        "redis://h?ssl_ca_certs=x",
        "redis://h?ttl=0",
        "redis://h?retry_for=-1",
        "redis://h?prefix=",
        "redis://h?prefix=a%7Bb",
        "redis://h#x",
        "redis+cluster://h/1",
        "redis+cluster://h?db=1",
        "redis+sentinel://h",
        "unix://h/x",
        "unix://",
    ],
)
def test_urls_that_are_none(url: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        RedisBackend.from_url(url)
    assert "secret" not in str(caught.value)


def test_options(valkey: RedisServer, prefix: str) -> None:
    url = f"{valkey.url}/2?prefix={prefix}&ttl=90&max_connections=3&protocol=3&client_name=chat"
    with Store(RedisBackend.from_url(url, socket_timeout=2.0)) as store:
        chat = store.conversation("s")
        chat.append(Message.user("a"))
        session = chat.session()
        assert session is not None
        assert session.ttl == 90
        with valkey.client(db=2) as client:
            assert {c["name"] for c in client.client_list()} >= {"chat"}
            assert all(key.startswith(prefix.encode()) for key in client.scan_iter())
            assert client.pttl(client.keys("*:head")[0]) <= 90_000
        store.clear()


def test_socket_file(valkey: RedisServer, prefix: str) -> None:
    with Store(RedisBackend.from_url(f"unix://{valkey.socket}?prefix={prefix}")) as store:
        store.conversation("s").append(Message.user("a"))
    with Store(RedisBackend.from_url(valkey.url, prefix=prefix)) as store:
        assert store.conversation("s").count() == 1


def test_tls(valkey: RedisServer, prefix: str, tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    request = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"]
    request += ["-keyout", str(key), "-out", str(certificate), "-subj", "/CN=127.0.0.1"]
    request += ["-addext", "subjectAltName=IP:127.0.0.1"]
    if shutil.which("openssl") is None:
        pytest.skip("no openssl to make a certificate with")
    subprocess.run(request, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    async def count(store: Store) -> int:
        return await store.conversation("s").acount()

    with CuttingProxy(valkey.port, tls=context) as proxy:
        url = f"rediss://127.0.0.1:{proxy.port}?prefix={prefix}"
        with Store(RedisBackend.from_url(url, ssl_ca_certs=str(certificate))) as store:
            store.conversation("s").append(Message.user("a"))
            assert asyncio.run(count(store)) == 1
        with Store(RedisBackend.from_url(url, retry_for=0)) as stranger:
            with pytest.raises(UnavailableError, match="certificate"):
                stranger.conversation("s").count()


def test_more_tasks_than_connections(valkey: RedisServer, prefix: str) -> None:
    async def append() -> int:
        url = f"{valkey.url}?max_connections=4"
        async with Store(RedisBackend.from_url(url, prefix=prefix)) as store:
            chat = store.conversation("s")
            await asyncio.gather(*(chat.aappend(Message.user(str(i))) for i in range(40)))
            return await chat.acount()

    assert asyncio.run(append()) == 40


def test_credentials(prefix: str) -> None:
    options = ("requirepass top-secret", "user ann on >p@ss/w%rd ~* +@all")
    with RedisServer(require("redis-server"), options=options) as server:
        at = f"127.0.0.1:{server.port}"
        for userinfo in (":top-secret", "ann:p%40ss%2Fw%25rd"):
            with Store(RedisBackend.from_url(f"redis://{userinfo}@{at}", prefix=prefix)) as store:
                store.conversation("s").append(Message.user("a"))
        for userinfo in ("", ":wrong-secret@", "ann:wrong-secret@"):
            with Store(RedisBackend.from_url(f"redis://{userinfo}{at}")) as store:
                with pytest.raises(AuthenticationError) as caught:
                    store.conversation("s").append(Message.user("a"))
                assert "secret" not in f"{caught.value}{store!r}"


def test_a_url_of_the_wrong_kind(cluster: RedisCluster, valkey: RedisServer) -> None:
    key = KeyNames("tsmemory").session(Key("default", "s")).keys[0]
    other = next(s for s in cluster.servers if s is not cluster.master_of(key))
    with Store(RedisBackend.from_url(other.url, retry_for=0)) as store:
        with pytest.raises(BackendError, match=r"redis\+cluster://"):
            store.conversation("s").count()
    url = f"redis+cluster://127.0.0.1:{valkey.port}"
    with Store(RedisBackend.from_url(url, retry_for=0)) as store:
        with pytest.raises(UnavailableError):
            store.conversation("s").count()


# -- ready clients ---------------------------------------------------------------------------


@pytest.mark.parametrize("decode", [False, True])
@pytest.mark.parametrize("protocol", [2, 3])
def test_a_ready_client_stays_open(
    valkey: RedisServer, prefix: str, decode: bool, protocol: int
) -> None:
    with redis.Redis(port=valkey.port, decode_responses=decode, protocol=protocol) as client:
        backend = RedisBackend(client, prefix=prefix)
        with Store(backend) as store:
            _use(store)
        assert client.ping()
        with pytest.raises(UnavailableError):
            store.conversation("s").count()
        # Its async operations work too, in a thread.
        store = Store(RedisBackend(client, prefix=prefix))
        assert asyncio.run(store.conversation("é\0s").acount()) == 2
        store.clear()


@pytest.mark.parametrize("protocol", [2, 3])
def test_random_operations_with_a_client_that_decodes(
    valkey: RedisServer, prefix: str, protocol: int
) -> None:
    with redis.Redis(port=valkey.port, decode_responses=True, protocol=protocol) as client:
        run_against_oracle(lambda: RedisBackend(client, prefix=prefix), examples=6)


@pytest.mark.parametrize("decode", [False, True])
@pytest.mark.parametrize("kind", ["one", "cluster"])
def test_a_ready_asynchronous_client(
    request: pytest.FixtureRequest, prefix: str, decode: bool, kind: str
) -> None:
    async def use() -> None:
        if kind == "one":
            port = request.getfixturevalue("valkey").port
            client: Any = redis.asyncio.Redis(port=port, decode_responses=decode)
        else:
            port = request.getfixturevalue("cluster").servers[0].port
            client = redis.asyncio.RedisCluster(
                host="127.0.0.1", port=port, decode_responses=decode
            )
        async with client:
            async with Store(RedisBackend(client, prefix=prefix)) as store:
                chat = store.conversation("é\0s")
                await chat.aappend(Message.user("ä\0b"), Message.system("\ud800"))
                assert [m.text for m in await chat.awindow(5)] == ["\ud800", "ä\0b"]
                assert len(await store.alist_sessions()) == 1
                assert (await store.averify()) == []
                assert (await store.aclear()).messages == 2
            assert await client.ping()
            with pytest.raises(InvalidInputError, match="async client"):
                Store(RedisBackend(client)).conversation("s").count()

    asyncio.run(use())


def test_a_ready_cluster_client_that_decodes(cluster: RedisCluster, prefix: str) -> None:
    with cluster.client(decode_responses=True) as client:
        _use(Store(RedisBackend(client, prefix=prefix)))
        Store(RedisBackend(client, prefix=prefix)).clear()


def _use(store: Store) -> None:
    chat = store.conversation("é\0s")
    chat.append(Message.user("ä\0b", metadata={"k": b"\xff"}), Message.system("\ud800"))
    chat.update_session(title="tä", metadata={"\ud800": 1})
    assert [m.text for m in chat.window(5)] == ["\ud800", "ä\0b"]
    assert len(store.list_sessions()) == 1
    assert store.verify() == []
    assert (store.stats().bytes or 0) > 0


def test_no_client() -> None:
    with pytest.raises(InvalidInputError, match="ready client"):
        RedisBackend()


# -- event loops, threads, processes ---------------------------------------------------------


@pytest.mark.parametrize("kind", ["valkey", "cluster"])
def test_a_loop_after_another(request: pytest.FixtureRequest, prefix: str, kind: str) -> None:
    url = request.getfixturevalue(kind).url
    store = Store(RedisBackend.from_url(url, prefix=prefix))

    async def append(text: str) -> int:
        chat = store.conversation("s")
        await asyncio.gather(*(chat.aappend(Message.user(f"{text}{i}")) for i in range(5)))
        return await chat.acount()

    assert [asyncio.run(append(text)) for text in "abc"] == [5, 10, 15]
    assert store.backend._by_loop == {}  # type: ignore[attr-defined]
    assert store.conversation("s").count() == 15
    store.close()
    store.close()
    gc.collect()  # what was left open would warn now


def test_loops_side_by_side(valkey: RedisServer, prefix: str) -> None:
    store = Store(RedisBackend.from_url(valkey.url, prefix=prefix))
    problems: list[BaseException] = []

    def work(name: str) -> None:
        async def append() -> None:
            for i in range(10):
                await store.conversation("s").aappend(Message.user(f"{name}{i}"))

        try:
            asyncio.run(append())
        except BaseException as error:  # noqa: BLE001  # shown below
            problems.append(error)

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert store.conversation("s").count() == 40
    store.close()


def test_an_open_store_warns(valkey: RedisServer) -> None:
    store = Store(RedisBackend.from_url(valkey.url))
    store.setup()
    with pytest.warns(ResourceWarning, match="unclosed RedisBackend"):
        store.backend.__del__()  # type: ignore[attr-defined]  # as its collection would


def test_closing_the_sync_and_the_async_client(valkey: RedisServer, prefix: str) -> None:
    async def use() -> None:
        store = Store(RedisBackend.from_url(valkey.url, prefix=prefix))
        await store.conversation("s").aappend(Message.user("a"))
        store.conversation("s").append(Message.user("b"))  # with the sync client
        await store.aclose()
        await store.aclose()
        with pytest.raises(UnavailableError, match="closed"):
            await store.conversation("s").acount()

    asyncio.run(use())
    gc.collect()


def test_a_forked_process_opens_its_own(valkey: RedisServer, prefix: str) -> None:
    with Store(RedisBackend.from_url(valkey.url, prefix=prefix)) as store:
        chat = store.conversation("s")
        chat.append(Message.user("parent"))
        pid = os.fork()
        if pid == 0:  # pragma: no cover  # the child
            try:
                chat.append(Message.user("child"))
                store.close()
            except BaseException:  # noqa: BLE001  # seen as its status
                os._exit(1)
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        chat.append(Message.user("parent again"))
        assert chat.count() == 3
