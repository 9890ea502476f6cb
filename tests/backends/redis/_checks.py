"""What must hold of a session that several writers appended to."""

from __future__ import annotations

from collections.abc import Iterable

from tsmemory import Store


def check_session(store: Store, acknowledged: Iterable[str]) -> list[str]:
    """Nothing doubled, nothing out of order; returns what was acknowledged and is not there."""
    messages = list(store.conversation("s", user_id="u").iter_messages())
    times = [m.create_time for m in messages]
    assert times == sorted(set(times))
    texts = [m.text for m in messages]
    assert len(texts) == len(set(texts))
    for name in {text.split(".")[0] for text in texts}:
        numbers = [int(t.split(".")[1]) for t in texts if t.split(".")[0] == name]
        assert numbers == sorted(numbers)
    assert store.verify() == []
    return sorted(set(acknowledged) - set(texts))
