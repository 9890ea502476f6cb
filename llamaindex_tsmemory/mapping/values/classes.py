"""The classes whose objects come back as objects: a stored name is looked up here alone."""

from __future__ import annotations

import pathlib
from typing import Annotated, Any, get_args, get_origin

from llama_index.core.base.llms import types as llm_types
from llama_index.core.llms.llm import ToolSelection
from pydantic import BaseModel

from llamaindex_tsmemory.mapping.values.sdk import is_sdk_class, sdk_class

__all__ = [
    "BLOCK_CLASSES",
    "PATHS",
    "TAG",
    "class_name",
    "is_record",
    "is_url",
    "named_class",
    "union_members",
]

TAG = "@"
"""The key of a dict that stands for an object."""
PATHS = (
    pathlib.PosixPath,
    pathlib.WindowsPath,
    pathlib.PurePosixPath,
    pathlib.PureWindowsPath,
)
_MODEL_CLASSES: frozenset[type[BaseModel]] = frozenset({ToolSelection, llm_types.LogProb})


def union_members(annotation: Any) -> tuple[type[BaseModel], ...]:
    """The classes of an annotated union."""
    if get_origin(annotation) is Annotated:
        return union_members(get_args(annotation)[0])
    return get_args(annotation) or (annotation,)


BLOCK_CLASSES: frozenset[type[BaseModel]] = frozenset(
    {*union_members(llm_types.ContentBlock), llm_types.CacheControl}
)
"""LlamaIndex's content blocks and their parts. They are restored without their validators, which
want a path's file to exist still."""


def class_name(kind: type) -> str:
    return f"{kind.__module__}:{kind.__qualname__}"


_OWN_CLASSES = {class_name(kind): kind for kind in BLOCK_CLASSES | _MODEL_CLASSES}


def named_class(name: str) -> type[BaseModel] | None:
    """The class of that `class_name`; None where it is not listed or not installed."""
    return _OWN_CLASSES.get(name) or sdk_class(name)


def is_record(kind: type[BaseModel]) -> bool:
    return kind in _MODEL_CLASSES or kind in BLOCK_CLASSES or is_sdk_class(kind)


def is_url(kind: Any) -> bool:
    return (
        isinstance(kind, type)
        and kind.__module__ == "pydantic.networks"
        and kind.__name__.endswith(("Url", "Dsn"))
    )
