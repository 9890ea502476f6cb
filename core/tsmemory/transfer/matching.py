"""Which stored message is which incoming one, what is new and what differs: steps 2 to 5 of
`merging`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import msgspec

from tsmemory.engine.records import Key
from tsmemory.model import Message, Problem
from tsmemory.transfer.alignment import align
from tsmemory.transfer.imported import IMPORT_NOTE, Incoming, Stored, id_mark

__all__ = ["differences", "match", "new_messages"]

_MAX_REPORTED = 20  # differences of one conversation that are reported one by one


def match(incoming: Sequence[Incoming], stored: Sequence[Stored], origin: str) -> dict[int, Stored]:
    """Steps 2 and 3: which stored message is the n-th incoming one."""
    by_id = {row.message_id: row for row in stored}
    matched: dict[int, Stored] = {}
    unnamed: list[int] = []
    for i, newcomer in enumerate(incoming):
        row = by_id.get(newcomer.own_id) if newcomer.own_id is not None else None
        if row is not None and (newcomer.mark in (row.imported_mark, row.mark) or row.mark is None):
            matched[i] = row
        elif row is not None or newcomer.own_id is None:
            unnamed.append(i)
    marked = [(row, mark) for row in stored if (mark := id_mark(row.message_id, origin))]
    pairs = align([mark for _, mark in marked], [incoming[i].mark for i in unnamed])
    matched.update((unnamed[j], marked[k][0]) for j, k in pairs.items())
    return matched


def new_messages(
    incoming: Sequence[Incoming],
    stored: Sequence[Stored],
    matched: Mapping[int, Stored],
    origin: str,
) -> list[Message]:
    """What is new, with the ids and times that it gets."""
    stored_times = {row.message_id: row.create_time for row in stored}
    used_ids = set(stored_times)
    used_ids.update(newcomer.own_id for newcomer in incoming if newcomer.own_id is not None)
    numbers: Counter[str] = Counter()
    timed = any(newcomer.message.create_time is not None for newcomer in incoming)
    new: list[Message] = []
    last_time = 0
    for i, newcomer in enumerate(incoming):
        row = matched.get(i)
        if row is not None:
            last_time = max(last_time, row.create_time)
            continue
        mid, message = newcomer.own_id, newcomer.message
        if mid is not None and mid not in stored_times:
            note = {"origin": origin, "mark": newcomer.mark}
            extensions = {**message.extensions, IMPORT_NOTE: note}
            message = msgspec.structs.replace(message, extensions=extensions)
        else:
            # A new version is after the old one.
            last_time = max(last_time, stored_times.get(mid or "", 0))
            mid = f"{origin}:{newcomer.mark}:{numbers[newcomer.mark]}"
            while mid in used_ids:
                numbers[newcomer.mark] += 1
                mid = f"{origin}:{newcomer.mark}:{numbers[newcomer.mark]}"
            used_ids.add(mid)
        time = None
        if timed:
            time = last_time = max(message.create_time or 0, last_time + 1)
        new.append(msgspec.structs.replace(message, message_id=mid, create_time=time))
    return new


def differences(
    key: Key,
    incoming: Sequence[Incoming],
    stored: Sequence[Stored],
    matched: Mapping[int, Stored],
) -> list[Problem]:
    """Step 5."""
    ids = {row.message_id for row in stored}
    changed = [
        Problem(*key, newcomer.own_id, "differs from the source; both versions are stored")
        for i, newcomer in enumerate(incoming)
        if i not in matched and newcomer.own_id in ids
    ]
    changed += [
        Problem(*key, row.message_id, "was changed here since it was brought in; it stays")
        for i, row in sorted(matched.items())
        if row.mark is not None and row.mark != incoming[i].mark
    ]
    if len(changed) > _MAX_REPORTED:
        others = len(changed) - _MAX_REPORTED
        changed[_MAX_REPORTED:] = [
            Problem(*key, None, f"{others} more messages differ from the source")
        ]
    matched_ids = {row.message_id for row in matched.values()}
    matched_ids.update(newcomer.own_id for newcomer in incoming if newcomer.own_id is not None)
    lost = [r for r in stored if r.imported_mark is not None and r.message_id not in matched_ids]
    if lost:
        counted = "1 message" if len(lost) == 1 else f"{len(lost)} messages"
        what = f"{counted} brought in before, not in the source any more; what is stored stays"
        changed.append(Problem(*key, None, what))
    return changed
