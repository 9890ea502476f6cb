"""What a backend does in the child of a fork: the parent's threads, and the locks that they held,
are not in it."""

from __future__ import annotations

import os
import weakref
from typing import Protocol

__all__ = ["reset_after_fork"]


class _Owner(Protocol):
    def _after_fork(self) -> None: ...


_owners: weakref.WeakSet[_Owner] = weakref.WeakSet()


def reset_after_fork(owner: _Owner) -> None:
    """Call `owner._after_fork()` in every child that is forked while `owner` exists."""
    _owners.add(owner)


def _reset() -> None:
    for owner in list(_owners):
        owner._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset)
