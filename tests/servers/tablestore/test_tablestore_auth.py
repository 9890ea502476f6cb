"""Who is let in: both signatures, wrong keys, tampering, and what is not a request."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from tablestore import NoRetryPolicy, OTSClient, OTSServiceError
from tablestore.auth import RequestContext
from tablestore.protobuf import table_store_pb2 as pb

from tsmemory.testing.servers.tablestore import LocalTablestore


@pytest.fixture
def raw(server: Any) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection(server.endpoint.removeprefix("http://"))
    yield connection
    connection.close()


def signed(client: Any, operation: str = "ListTable", body: bytes = b"") -> dict[str, str]:
    context = RequestContext(client.credentials_provider.get_credentials())
    headers: dict[str, str] = client.protocol._make_request_headers(
        body, f"/{operation}", client._signer, context
    )
    return headers


def post(raw: Any, path: str, headers: Any, body: bytes = b"") -> tuple[int, str, str]:
    raw.request("POST", path, body, headers)
    answer = raw.getresponse()
    error = pb.Error.FromString(answer.read())
    return answer.status, error.code, error.message


@pytest.mark.parametrize("region", [None, "cn-hangzhou"], ids=["v2", "v4"])
def test_both_signatures(server: Any, region: str | None) -> None:
    client = server.client(region=region)
    assert client.list_table() == ()
    headers = signed(client)
    assert ("x-ots-signaturev4" in headers) == (region is not None)
    # The SDK checks the reply's signature, digest and date; a session token changes what is signed.
    token = OTSClient(
        server.endpoint, server.access_key_id, server.access_key_secret, server.instance_name,
        region=region, sts_token="a token",
    )  # fmt: skip
    assert token.list_table() == ()


@pytest.mark.parametrize("region", [None, "cn-hangzhou"], ids=["v2", "v4"])
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"access_key_secret": "wrong"}, "Signature mismatch."),
        ({"access_key_id": "wrong"}, "The AccessKeyID does not exist."),
        ({"instance_name": "wrong"}, "The instance is not found."),
    ],
)
def test_wrong_credentials(server: Any, region: Any, changed: Any, message: str) -> None:
    names = ("access_key_id", "access_key_secret", "instance_name")
    named = {name: getattr(server, name) for name in names} | changed
    client = OTSClient(server.endpoint, region=region, retry_policy=NoRetryPolicy(), **named)
    with pytest.raises(OTSServiceError) as caught:
        client.list_table()
    assert (caught.value.code, caught.value.http_status) == ("OTSAuthFailed", 403)
    assert caught.value.message == message


def test_a_session_token_can_be_required() -> None:
    with LocalTablestore(sts_token="right") as server:
        assert server.client(sts_token="right").list_table() == ()
        for token in (None, "wrong"):
            with pytest.raises(OTSServiceError) as caught:
                server.client(sts_token=token).list_table()
            assert caught.value.code == "OTSAuthFailed"
        assert "right" not in repr(server._service.credentials)


def test_a_tampered_request(client: Any, raw: Any) -> None:
    good = signed(client)
    assert post(raw, "/ListTable", good)[0] == 200
    assert post(raw, "/DeleteTable", good)[1:] == ("OTSAuthFailed", "Signature mismatch.")
    assert post(raw, "/ListTable", good, b"x")[1] == "OTSAuthFailed"
    assert post(raw, "/ListTable", good | {"x-ots-extra": "1"})[1] == "OTSAuthFailed"
    for name in good:
        if name.startswith("x-ots-"):
            lacking = {other: value for other, value in good.items() if other != name}
            status, code, _ = post(raw, "/ListTable", lacking)
            assert (status, code) == (400, "OTSParameterInvalid")


def test_dates(client: Any, raw: Any) -> None:
    good = signed(client)
    assert post(raw, "/ListTable", good | {"x-ots-date": "yesterday"})[1] == "OTSParameterInvalid"
    old = datetime.now(timezone.utc) - timedelta(minutes=16)
    stamp = old.strftime("%Y-%m-%dT%H:%M:%S.000Z")
    status, code, message = post(raw, "/ListTable", good | {"x-ots-date": stamp})
    assert (status, code) == (403, "OTSAuthFailed")
    assert message == f"Mismatch between system time and x-ots-date: {stamp}."


def test_unknown_operations(client: Any, raw: Any) -> None:
    with pytest.raises(OTSServiceError) as caught:
        client.exe_sql_query("select 1")
    assert caught.value.code == "OTSUnsupportOperation"
    assert caught.value.message == "Unsupported operation: 'SQLQuery'."
    # The newer operations speak JSON.
    headers = signed(client, "ListMemoryStores", b"{}") | {"Content-Type": "application/json"}
    raw.request("POST", "/ListMemoryStores", b"{}", headers)
    answer = raw.getresponse()
    assert json.loads(answer.read())["code"] == "OTSUnsupportOperation"


def test_what_is_not_a_request(server: Any, client: Any, raw: Any) -> None:
    body = b"\xff\xff"
    status, code, _ = post(raw, "/GetRow", signed(client, "GetRow", body), body)
    assert (status, code) == (400, "OTSParameterInvalid")
    raw.request("GET", "/ListTable")
    assert raw.getresponse().read()
    raw.close()
    for line in (b"nonsense", b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked", b"POST /"):
        raw.close()
        raw.connect()
        raw.sock.sendall(line + b"\r\n\r\n")
        assert raw.sock.recv(100).startswith(b"HTTP/1.1 400")
    assert client.list_table() == ()
