"""A read-only page on this machine, to look at what a store holds and what a model would be shown.

    tsmemory web --store sqlite:///chat.db

needs ``pip install "tsmemory[web]"``. It answers on loopback only, to who has the link that it
prints: the link works once and leaves a cookie. Nothing on the page writes to the store, loads
anything from elsewhere, or runs what is stored.
"""

from __future__ import annotations

__all__: list[str] = []
