"""Values in nested dicts, by their dotted path; the empty path is the dict itself."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

__all__ = ["copy_of", "get_at", "put_at", "take_at"]


@lru_cache(maxsize=256)  # the places of the forms are few; those of stored data could be any
def _steps(path: str) -> tuple[str, ...]:
    return tuple(path.split("."))


def get_at(container: Any, path: str) -> Any:
    for step in _steps(path):
        container = container[step]
    return container


def put_at(container: Any, path: str, value: Any) -> None:
    *way, last = _steps(path)
    for step in way:
        container = container.setdefault(step, {})
    container[last] = value


def copy_of(container: Any) -> Any:
    """A copy of the containers; the values are shared."""
    if isinstance(container, dict):
        return {key: copy_of(value) for key, value in container.items()}
    if isinstance(container, list):
        return [copy_of(value) for value in container]
    return container


def take_at(container: Any, path: str) -> None:
    *way, last = _steps(path)
    for step in way:
        container = container[step]
    del container[last]
