"""Pictures, sounds, videos and documents: which field of each class holds what."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from io import IOBase
from typing import Any
from urllib.parse import quote

from llama_index.core.base.llms.types import (
    AudioBlock,
    CitableBlock,
    CitationBlock,
    DocumentBlock,
    ImageBlock,
    VideoBlock,
)
from pydantic import AnyUrl, BaseModel, ValidationError

from llamaindex_tsmemory.mapping.blocks.fields import dict_or_empty, own_origin, text_or_empty
from tsmemory import Block, InvalidInputError

__all__ = ["DATA_FIELDS", "NEUTRAL_TYPES", "medium_fields", "read_stream", "write_medium"]

DATA_FIELDS: dict[type, str] = {
    ImageBlock: "image",
    AudioBlock: "audio",
    VideoBlock: "video",
    DocumentBlock: "data",
}
"""The classes of media, and which field holds the bytes."""
NEUTRAL_TYPES: dict[type, str] = {
    ImageBlock: "image",
    AudioBlock: "audio",
    VideoBlock: "video",
    DocumentBlock: "file",
}
_EXTRA_FIELDS: dict[type, dict[str, str]] = {
    ImageBlock: {"detail": "detail"},
    VideoBlock: {"detail": "detail", "fps": "fps"},
    DocumentBlock: {"title": "filename"},
}
"""Fields that the neutral form has in a block's ``extras``, under LangChain's names."""

_DEFAULT_TITLE = "input_document"  # what DocumentBlock calls a document without a title

_MIME_BY_FORMAT = {
    "aac": "audio/aac",
    "aiff": "audio/aiff",
    "amr": "audio/amr",
    "flac": "audio/flac",
    "m4a": "audio/mp4",
    "mid": "audio/midi",
    "mp3": "audio/mpeg",
    "ogg": "audio/ogg",
    "opus": "audio/opus",
    "wav": "audio/wav",
    "webm": "audio/webm",
}
"""AudioBlock.format is a file's extension, the neutral form has its media type."""
_FORMAT_BY_MIME = {mime: name for name, mime in _MIME_BY_FORMAT.items()} | {"audio/x-wav": "wav"}


def _stem(kind: type) -> str:
    """What the fields of a medium's class begin with: image, video, document."""
    return kind.__name__.removesuffix("Block").lower()


def medium_fields(cls: type[BaseModel]) -> Callable[[Block], dict[str, Any]]:
    """What reads the fields of a block of class `cls` from a neutral block."""
    extra_names = _EXTRA_FIELDS.get(cls, {})
    mime_name = "format" if cls is AudioBlock else f"{_stem(cls)}_mimetype"

    def fields(block: Block) -> dict[str, Any]:
        own = own_origin(block) or {}
        medium, url, mime = block.get("base64"), block.get("url"), block.get("mime_type")
        if type(medium) is str:
            medium = base64.b64decode(medium) if own.get("raw") else medium.encode("ascii")
        if type(url) is str:
            url = _read_url(cls, url)
        if cls is AudioBlock and type(mime) is str:
            mime = _FORMAT_BY_MIME.get(mime, mime.removeprefix("audio/"))
        values = {DATA_FIELDS[cls]: medium, "path": None, "url": url, mime_name: mime}
        extras = dict_or_empty(block.get("extras"))
        for name, key in extra_names.items():
            value = extras.get(key)
            values[name] = value if type(value) is (int if name == "fps" else str) else None
        if cls is DocumentBlock and values["title"] is None:
            title = text_or_empty(block.get("filename") or block.get("title"))
            values["title"] = title or _DEFAULT_TITLE
        return values

    return fields


def _read_url(cls: type[BaseModel], url: str) -> Any:
    if cls is DocumentBlock:
        return url
    try:
        return AnyUrl(url)
    except ValidationError:
        return url


def read_stream(block: Any, path: str) -> Any:
    """`block` with the bytes of a stream in its place, as its own serialiser would write it."""
    kind = type(block)
    if kind is CitableBlock:
        parts = [read_stream(p, f"{path}.content[{i}]") for i, p in enumerate(block.content)]
        changed = any(a is not b for a, b in zip(parts, block.content, strict=True))
        return block.model_copy(update={"content": parts}) if changed else block
    if kind is CitationBlock:
        part = read_stream(block.cited_content, f"{path}.cited_content")
        unchanged = part is block.cited_content
        return block if unchanged else block.model_copy(update={"cited_content": part})
    name = DATA_FIELDS.get(kind)
    stream = getattr(block, name) if name else None
    if name is None or not isinstance(stream, IOBase):
        return block
    try:
        at = stream.tell()
        stream.seek(0)
        medium: bytes = getattr(stream, "read")()  # noqa: B009  # not on IOBase, but on all of it
        stream.seek(at)
        return block.model_copy(update={name: base64.b64encode(medium)})
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise InvalidInputError(
            f"{path}.{name}: the stream cannot be read from its beginning; give its bytes"
        ) from error


def write_medium(block: Any) -> tuple[Block, dict[str, Any]]:
    """The neutral block of a medium, and what its origin says beside the fields that it lacks."""
    kind = type(block)
    out: Block = {"type": NEUTRAL_TYPES[kind]}
    origin: dict[str, Any] = {}
    medium = getattr(block, DATA_FIELDS[kind])
    if isinstance(medium, bytes):
        if _is_base64(medium):
            out["base64"] = medium.decode("ascii")
        else:
            out["base64"] = base64.b64encode(medium).decode("ascii")
            origin["raw"] = True
    elif block.url is not None:
        out["url"] = str(block.url)
    elif block.path is not None:
        # What a reader that knows no paths can still make something of.
        path = block.path if isinstance(block.path, str) else block.path.as_posix()
        out["url"] = f"file:{'//' if path.startswith('/') else ''}{quote(path)}"
    mime = block.format if kind is AudioBlock else getattr(block, f"{_stem(kind)}_mimetype")
    if type(mime) is str:
        out["mime_type"] = (
            _MIME_BY_FORMAT.get(mime, f"audio/{mime}") if kind is AudioBlock else mime
        )
    extras = {
        key: value
        for name, key in _EXTRA_FIELDS.get(kind, {}).items()
        if type(value := getattr(block, name)) in (str, int) and value != _DEFAULT_TITLE
    }
    if extras:
        out["extras"] = extras
    return out, origin


def _is_base64(encoded: bytes) -> bool:
    try:
        return bool(base64.b64decode(encoded, validate=True)) and encoded.isascii()
    except (binascii.Error, ValueError):
        return False
