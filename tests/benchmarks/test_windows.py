"""What the windows page says of the cache, on made-up conversations."""

from __future__ import annotations

from benchmarks.windows import WINDOWS, replay, sessions_of


def test_a_stepped_window_repeats_what_a_sliding_one_does_not() -> None:
    sessions = sessions_of(None, 5)[:2]
    sliding, stepped = (
        replay(name, sessions, WINDOWS[name]) for name in ("sliding 50", "stepped 20 + 60")
    )
    assert sliding.cached_share < 0.5 < 0.9 < stepped.cached_share
    assert stepped.price("OpenAI") < 0.4 * sliding.price("OpenAI")
