"""The content blocks as typed dicts, for type checkers.

A block is a dict with a ``type``. The vocabulary is that of LangChain's standard content blocks
(langchain-core 1.x, `langchain_core.messages.content`): the classes here have its keys. They are
for type checkers alone; at run time a block is a plain dict, and other keys are stored as they are.

Media are given by exactly one of ``base64`` (text), ``url`` and ``file_id`` (a provider's), with
``mime_type``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias, TypedDict

from tsmemory.content import Block, block_text

__all__ = [
    "AudioBlock",
    "Block",
    "Citation",
    "Content",
    "ContentBlock",
    "FileBlock",
    "ImageBlock",
    "InvalidToolCallBlock",
    "NonStandardBlock",
    "PlainTextBlock",
    "ReasoningBlock",
    "RefusalBlock",
    "ServerToolCallBlock",
    "ServerToolResultBlock",
    "TextBlock",
    "ToolCallBlock",
    "VideoBlock",
    "block_text",
]


class _Extras(TypedDict, total=False):
    index: int | str
    """Its place in a streamed answer."""
    extras: dict[str, Any]
    """What the provider adds."""
    origin: dict[str, Any]


class _Common(_Extras, total=False):
    id: str


class _Media(_Common, total=False):
    base64: str
    url: str
    file_id: str
    mime_type: str


class Citation(_Common, total=False):
    """A source of a text block (type ``citation``); offsets count characters of the text."""

    type: Literal["citation"]
    url: str
    title: str
    start_index: int
    end_index: int
    cited_text: str


class _Text(_Common):
    type: Literal["text"]
    text: str


class TextBlock(_Text, total=False):
    """Text that a person reads."""

    annotations: list[Citation | Block]


class _Reasoning(_Common):
    type: Literal["reasoning"]


class ReasoningBlock(_Reasoning, total=False):
    """What a model thought; its signature, where the provider gives one, is in ``extras``."""

    reasoning: str


class RefusalBlock(_Common):
    """A model's refusal."""

    type: Literal["refusal"]
    refusal: str


class ImageBlock(_Media):
    """A picture."""

    type: Literal["image"]


class AudioBlock(_Media):
    """A sound."""

    type: Literal["audio"]


class VideoBlock(_Media):
    """A video."""

    type: Literal["video"]


class FileBlock(_Media):
    """A file of any other kind, such as a PDF."""

    type: Literal["file"]


class _PlainText(_Media):
    type: Literal["text-plain"]


class PlainTextBlock(_PlainText, total=False):
    """A text document."""

    text: str
    title: str
    context: str


class ToolCallBlock(_Extras):
    """A model's call of a tool of the application; `Message.tool_calls` holds it too."""

    type: Literal["tool_call"]
    id: str | None
    """None where the provider gave none."""
    name: str
    args: dict[str, Any]


class InvalidToolCallBlock(_Extras):
    """A call whose arguments did not parse."""

    type: Literal["invalid_tool_call"]
    id: str | None
    name: str | None
    args: str | None
    error: str | None


class ServerToolCallBlock(_Extras):
    """A call of a tool that the provider runs."""

    type: Literal["server_tool_call"]
    id: str
    """What the result's ``tool_call_id`` answers."""
    name: str
    args: dict[str, Any]


class _ServerToolResult(_Common):
    type: Literal["server_tool_result"]
    tool_call_id: str
    status: Literal["success", "error"]


class ServerToolResultBlock(_ServerToolResult, total=False):
    """The result of a tool that the provider ran."""

    output: Any


class NonStandardBlock(_Common):
    """A provider's own block, as it is, under ``value``."""

    type: Literal["non_standard"]
    value: dict[str, Any]


ContentBlock: TypeAlias = (
    TextBlock
    | ReasoningBlock
    | RefusalBlock
    | ImageBlock
    | AudioBlock
    | VideoBlock
    | FileBlock
    | PlainTextBlock
    | ToolCallBlock
    | InvalidToolCallBlock
    | ServerToolCallBlock
    | ServerToolResultBlock
    | NonStandardBlock
)
"""A block of the standard vocabulary."""

Content: TypeAlias = str | Sequence[Block | ContentBlock]
"""The content of a message, as an argument: text, or a list of blocks."""
