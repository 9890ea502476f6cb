"""The same with AsyncOTSClient."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest
from tablestore import (
    INF_MAX,
    INF_MIN,
    BatchWriteRowRequest,
    Condition,
    NoRetryPolicy,
    OTSServiceError,
    PutRowItem,
    Row,
    TableInBatchWriteRowItem,
)

from tsmemory.testing.servers.tablestore import Fault


@pytest.mark.parametrize("region", [None, "cn-hangzhou"], ids=["v2", "v4"])
def test_reads_and_writes(server: Any, make_table: Any, region: Any) -> None:
    make_table()

    async def use() -> None:
        async with server.async_client(region=region) as client:
            request = BatchWriteRowRequest()
            items = [
                PutRowItem(Row([("p", "a"), ("q", number)], [("c", "é" * number)]), None)
                for number in range(50)
            ]
            request.add(TableInBatchWriteRowItem("t", items))
            assert (await client.batch_write_row(request)).is_all_succeed()
            rows = await asyncio.gather(
                *[client.get_row("t", [("p", "a"), ("q", number)]) for number in range(50)]
            )
            assert [row.attribute_columns[0][1] for _, row, _ in rows] == [
                "é" * number for number in range(50)
            ]
            _, following, found, _ = await client.get_range(
                "t", "BACKWARD", [("p", "a"), ("q", INF_MAX)], [("p", "a"), ("q", INF_MIN)],
                limit=20,
            )  # fmt: skip
            assert [row.primary_key[1][1] for row in found] == list(range(49, 29, -1))
            assert following == [("p", "a"), ("q", 29)]
            row = Row([("p", "a"), ("q", 1)], [("c", 1)])
            with pytest.raises(OTSServiceError) as caught:
                await client.put_row("t", row, Condition("EXPECT_NOT_EXIST"))
            assert caught.value.code == "OTSConditionCheckFail"

    asyncio.run(use())


def test_faults_as_an_async_client_sees_them(server: Any, make_table: Any) -> None:
    make_table()

    async def use() -> None:
        row = Row([("p", "a"), ("q", 1)], [("c", 1)])
        policy = NoRetryPolicy()
        async with server.async_client(retry_policy=policy, socket_timeout=1) as client:
            for fault, error in (
                (Fault("drop_before", times=1), aiohttp.ServerDisconnectedError),
                (Fault("hang", times=1, seconds=5), aiohttp.SocketTimeoutError),
                (Fault("throttle", times=1), OTSServiceError),
            ):
                await asyncio.to_thread(server.inject, fault)
                with pytest.raises(error):
                    await client.put_row("t", row)
                assert (await client.get_row("t", row.primary_key))[1] is None
                await asyncio.to_thread(server.clear_faults)
            await asyncio.to_thread(server.inject, Fault("drop_after", times=1))
            with pytest.raises(aiohttp.ServerDisconnectedError):
                await client.put_row("t", row)
            assert (await client.get_row("t", row.primary_key))[1] is not None

    asyncio.run(use())
