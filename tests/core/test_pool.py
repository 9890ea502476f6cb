"""Pools of connections: turns, and what no interrupt or cancellation may do to them."""

from __future__ import annotations

import asyncio
import random
import threading
from contextlib import suppress

import pytest

from tsmemory import UnavailableError
from tsmemory.engine.pool import AsyncPool, Pool, _Lease


class Connection:
    def __init__(self) -> None:
        self.open, self.busy = True, False

    def close(self) -> None:
        self.open = False


def usable(connection: Connection) -> bool:
    return connection.open and not connection.busy


def pool_of(size: int, timeout: float = 5.0) -> tuple[Pool[Connection], list[Connection]]:
    opened: list[Connection] = []

    def connect() -> Connection:
        opened.append(Connection())
        return opened[-1]

    return Pool(connect, Connection.close, usable, size=size, timeout=timeout), opened


def test_connections_are_reused_and_bounded() -> None:
    pool, opened = pool_of(3)

    def work() -> None:
        for _ in range(50):
            with pool.lease() as connection:
                assert not connection.busy
                connection.busy = True
                assert len(pool) <= 3
                connection.busy = False

    threads = [threading.Thread(target=work) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 1 <= len(opened) <= 3
    assert all(connection.open for connection in opened)
    pool.close()
    assert not any(connection.open for connection in opened)


def test_an_error_of_the_server_keeps_the_connection_and_an_interrupt_does_not() -> None:
    pool, opened = pool_of(1)
    with suppress(ValueError), pool.lease():
        raise ValueError
    with suppress(KeyboardInterrupt), pool.lease():
        raise KeyboardInterrupt
    assert [connection.open for connection in opened] == [False]
    with suppress(ValueError), pool.lease() as connection:
        connection.busy = True  # in the middle of an exchange
        raise ValueError
    assert [connection.open for connection in opened] == [False, False]
    with pool.lease() as connection:
        assert connection.open


def test_a_broken_connection_takes_the_idle_ones_with_it() -> None:
    pool, opened = pool_of(3)
    with pool.lease(), pool.lease(), pool.lease():
        pass
    with suppress(OSError), pool.lease() as connection:
        connection.open = False
        raise OSError
    assert len(opened) == 3
    assert not any(connection.open for connection in opened)


def test_none_free_in_time() -> None:
    pool, _ = pool_of(1, timeout=0.05)
    with pool.lease():
        with pytest.raises(UnavailableError, match="all 1 connections"):
            with pool.lease():
                pass
    with pool.lease():
        pass


def test_a_lease_lost_with_its_frame_is_free_again() -> None:
    """As an interrupt between two instructions may leave it: counted, and never given back."""
    pool, _ = pool_of(1, timeout=10)
    lease = _Lease()
    assert pool._acquire(lease) is None
    del lease
    with pool.lease():
        pass


def test_tasks_take_turns() -> None:
    async def main() -> list[int]:
        order: list[int] = []

        async def connect() -> Connection:
            return Connection()

        async def disconnect(connection: Connection) -> None:
            connection.close()

        pool = AsyncPool(connect, disconnect, usable, size=1, timeout=5)

        async def work(number: int) -> None:
            for _ in range(3):
                async with pool.lease():
                    order.append(number)
                    await asyncio.sleep(0)

        await asyncio.gather(*(work(i) for i in range(4)))
        await pool.close()
        return order

    assert asyncio.run(main()) == [0, 1, 2, 3] * 3


def test_two_thousand_cancellations_use_nothing_up() -> None:
    async def main() -> None:
        opened: list[Connection] = []

        async def connect() -> Connection:
            await asyncio.sleep(0)
            opened.append(Connection())
            return opened[-1]

        async def disconnect(connection: Connection) -> None:
            connection.close()

        pool = AsyncPool(connect, disconnect, usable, size=4, timeout=5)
        generator = random.Random(3)

        async def work() -> None:
            async with pool.lease() as connection:
                assert usable(connection)
                connection.busy = True
                for _ in range(generator.randrange(4)):
                    await asyncio.sleep(0)
                connection.busy = False

        for _ in range(100):
            tasks = [asyncio.ensure_future(work()) for _ in range(25)]
            for task in tasks:
                if generator.random() < 0.8:
                    asyncio.get_running_loop().call_soon(task.cancel)
                if generator.random() < 0.3:
                    await asyncio.sleep(0)
            for result in await asyncio.gather(*tasks, return_exceptions=True):
                assert result is None or isinstance(result, asyncio.CancelledError)
            assert sum(connection.open for connection in opened) <= 4
        assert len(pool) <= 4
        leases = [pool.lease() for _ in range(4)]
        for lease in leases:
            await lease.__aenter__()
        pool.timeout = 0.01
        with pytest.raises(UnavailableError):
            await pool.lease().__aenter__()
        for lease in leases:
            await lease.__aexit__(None, None, None)
        await pool.close()
        assert not any(connection.open for connection in opened)

    asyncio.run(main())
