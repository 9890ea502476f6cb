"""Leases: a rewrite that lost to other writers asks them, in the session's head, to wait."""

from __future__ import annotations

import random
import time

import msgspec

from tsmemory.backends.tablestore.reader import Reader
from tsmemory.backends.tablestore.records import Record, new_token
from tsmemory.backends.tablestore.recovery import Recovery
from tsmemory.engine.log import get_logger, hashed
from tsmemory.engine.records import Key
from tsmemory.engine.steps import Pause, Steps

__all__ = ["LEASE_SECONDS", "Leases"]

_log = get_logger("tablestore")

LEASE_SECONDS = 2.0
"""How long other writers wait for the rewrite that has the lease."""


class Leases:
    """The leases of sessions in one layout."""

    def __init__(self, reader: Reader, recovery: Recovery) -> None:
        self.reader = reader
        self.recovery = recovery

    def take(self, key: Key, record: Record) -> Steps[str]:
        """A new lease, written into the head `record`; empty where the head has changed."""
        leased = msgspec.structs.replace(
            record, token=new_token(), sequence=record.sequence + 1, lease=new_token()
        )
        lost = yield from self.recovery.write_head(key, record, leased)
        return leased.lease if lost is None else ""

    def wait_for(self, key: Key, record: Record) -> Steps[None]:
        """Wait until the rewrite is done, or has had its time; then take the lease from it."""
        deadline = time.monotonic() + LEASE_SECONDS
        while time.monotonic() < deadline:
            yield Pause(random.uniform(0.01, 0.03))
            now = yield from self.reader.record(key)
            if now is None or now.lease != record.lease:
                return
        _log.info("session %s: a rewrite did not end in time", hashed(key))
        yield from self.release(key, record.lease)

    def release(self, key: Key, lease: str) -> Steps[None]:
        """End a lease, where it is still there."""
        record = (yield from self.reader.record(key)) if lease else None
        if record is None or record.lease != lease:
            return
        ended = msgspec.structs.replace(
            record, token=new_token(), sequence=record.sequence + 1, lease=""
        )
        yield from self.recovery.write_head(key, record, ended)
