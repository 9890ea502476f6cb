"""Content blocks: LlamaIndex's classes and the neutral dicts, each way.

A neutral block is LangChain's standard content block; what only LlamaIndex has of it stands within,
under ``origin["llamaindex"]``:

    block     the ``block_type``, where the neutral type alone does not tell it
    fields    the block's fields whose values the neutral ones do not give
    raw       true: the medium was kept as bare bytes, not as base64
    citable   title and source of a `CitableBlock`; `span` says how many neutral blocks, from this
              one on, are its content

A block with ``origin["llamaindex"]`` is restored field by field, without validators (a path's file
may be gone). Without, it comes from elsewhere and goes through the class's constructor. Other
frameworks' origins are not read. A `CitationBlock` behind a text is an annotation of that text.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterator, Sequence
from io import IOBase
from typing import Any
from urllib.parse import quote

from llama_index.core.base.llms.types import (
    AudioBlock,
    CitableBlock,
    CitationBlock,
    ContentBlock,
    DocumentBlock,
    ImageBlock,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
    VideoBlock,
)
from pydantic import AnyUrl, BaseModel, ValidationError

from llamaindex_tsmemory._calls import make_call
from llamaindex_tsmemory._values import LEFT_OUT, decode, encode, same, union_members
from tsmemory import Block, InvalidInputError, ToolCall
from tsmemory.blocks import block_text

__all__ = ["BLOCK_TYPES", "from_blocks", "make_text", "make_tool_call", "to_blocks"]

_OWN = "llamaindex"


BLOCK_TYPES: dict[str, type[BaseModel]] = {
    kind.model_fields["block_type"].default: kind for kind in union_members(ContentBlock)
}
"""Every block that the installed llama-index-core lets a message hold, by its ``block_type``."""

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

# -- out ---------------------------------------------------------------------------------------


def to_blocks(blocks: Sequence[Any]) -> list[Block]:
    """The neutral form of a message's blocks.

    Raises:
        InvalidInputError: one of them is no content block of the installed llama-index-core, or
            holds a value that cannot be stored.
    """
    out: list[Block] = []
    cited = False  # whether the last of `out` is a text that a citation may follow
    for i, block in enumerate(blocks):
        path = f"blocks[{i}]"
        if type(block) is TextBlock:
            out.append({"type": "text", "text": _text(block, path)})
            cited = True
        elif cited and type(block) is CitationBlock and (note := _annotation(block)) is not None:
            out[-1].setdefault("annotations", []).append(note)
        else:
            out.extend(_exactly(block, path))
            cited = False
    return out


def _exactly(block: Any, path: str) -> list[Block]:
    """Neutral blocks that give back `block`; of values that cannot be kept, the plain ones."""
    kind = type(block)
    if kind not in BLOCK_TYPES.values():
        raise InvalidInputError(
            f"{path}: a {kind.__module__}.{kind.__qualname__} is no content block of LlamaIndex; "
            "use its own classes (a subclass would come back as its base)"
        )
    block = _read_stream(block, path)
    out = _written(block, path) or _written(_with_plain_values(block, path), path)
    if out is None:
        raise InvalidInputError(f"{path}: this {kind.__name__} would not come back as it is")
    return out


def _written(block: Any, path: str) -> list[Block] | None:
    """Neutral blocks that give back an equal one; None where there are none."""
    for write in (_WRITERS.get(type(block)), _whole):
        if write is None:
            continue
        out = write(block, path)
        restored = from_blocks(out)
        if len(restored) == 1 and same(restored[0], block):
            return out
    return None


def _with_plain_values(block: BaseModel, path: str) -> BaseModel:
    """A copy whose values are what the store can keep of them."""
    kept: dict[str, Any] = {}
    for name, field in type(block).model_fields.items():
        encoded = encode(block.__dict__[name], f"{path}.{name}")
        if encoded is LEFT_OUT:
            kept[name] = field.get_default(call_default_factory=True)
        else:
            kept[name] = decode(encoded)
    return block.model_copy(update=kept)


def _text(block: TextBlock, path: str) -> str:
    if type(block.text) is not str:
        raise InvalidInputError(f"{path}: text is a str, not {type(block.text).__name__}")
    return block.text


def _annotation(block: CitationBlock) -> Block | None:
    if type(block.cited_content) is not TextBlock:
        return None
    extras = {"source": block.source, "additional_location_info": block.additional_location_info}
    note = {
        "type": "citation",
        "cited_text": block.cited_content.text,
        "title": block.title,
        "extras": extras,
    }
    return note if same(_citation(note), block) else None


def _read_stream(block: Any, path: str) -> Any:
    """`block` with the bytes of a stream in its place, as its own serialiser would write it."""
    kind = type(block)
    if kind is CitableBlock:
        parts = [_read_stream(p, f"{path}.content[{i}]") for i, p in enumerate(block.content)]
        changed = any(a is not b for a, b in zip(parts, block.content, strict=True))
        return block.model_copy(update={"content": parts}) if changed else block
    if kind is CitationBlock:
        part = _read_stream(block.cited_content, f"{path}.cited_content")
        unchanged = part is block.cited_content
        return block if unchanged else block.model_copy(update={"cited_content": part})
    name = _DATA.get(kind)
    stream = getattr(block, name) if name else None
    if name is None or not isinstance(stream, IOBase):
        return block
    try:
        at = stream.tell()
        stream.seek(0)
        data: bytes = getattr(stream, "read")()  # noqa: B009  # not on IOBase, but on all of it
        stream.seek(at)
        return block.model_copy(update={name: base64.b64encode(data)})
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise InvalidInputError(
            f"{path}.{name}: the stream cannot be read from its beginning; give its bytes"
        ) from error


def _is_base64(data: bytes) -> bool:
    try:
        return bool(base64.b64decode(data, validate=True)) and data.isascii()
    except (binascii.Error, ValueError):
        return False


def _write_medium(block: Any, path: str) -> list[Block]:
    kind = type(block)
    out: Block = {"type": _NEUTRAL_TYPE[kind]}
    origin: dict[str, Any] = {}
    data = getattr(block, _DATA[kind])
    if isinstance(data, bytes):
        if _is_base64(data):
            out["base64"] = data.decode("ascii")
        else:
            out["base64"] = base64.b64encode(data).decode("ascii")
            origin["raw"] = True
    elif block.url is not None:
        out["url"] = str(block.url)
    elif block.path is not None:
        # What a reader that knows no paths can still make something of.
        local = block.path if isinstance(block.path, str) else block.path.as_posix()
        out["url"] = f"file:{'//' if local.startswith('/') else ''}{quote(local)}"
    mime = block.format if kind is AudioBlock else getattr(block, f"{_stem(kind)}_mimetype")
    if type(mime) is str:
        out["mime_type"] = (
            _MIME_BY_FORMAT.get(mime, f"audio/{mime}") if kind is AudioBlock else mime
        )
    extras = {
        key: value
        for name, key in _EXTRAS.get(kind, {}).items()
        if type(value := getattr(block, name)) in (str, int) and value != _DEFAULT_TITLE
    }
    if extras:
        out["extras"] = extras
    return [_complete(out, block, origin, path)]


def _stem(kind: type) -> str:
    """What the fields of a medium's class begin with: image, video, document."""
    return kind.__name__.removesuffix("Block").lower()


def _write_thinking(block: Any, path: str) -> list[Block]:
    out: Block = {"type": "reasoning"}
    if block.content is not None:
        out["reasoning"] = block.content
    extras = dict(block.additional_information)
    if type(extras.get("id")) is str and not extras["id"].startswith(_GENERATED):
        out["id"] = extras.pop("id")
    extras = {k: v for k, v in extras.items() if encode(v, f"{path}[{k!r}]") is v}
    if extras:
        out["extras"] = extras
    return [_complete(out, block, {}, path)]


def _write_tool_call(block: Any, path: str) -> list[Block]:
    call = make_call(block.tool_call_id, block.tool_name, block.tool_kwargs, f"{path}.tool_kwargs")
    out: Block = {"type": "tool_call", "id": call.id, "name": call.name, "args": call.arguments}
    if isinstance(call.arguments, str):
        out["type"], out["error"] = "invalid_tool_call", call.error
    return [_complete(out, block, {}, path)]


def _write_citable(block: Any, path: str) -> list[Block]:
    parts = [part for p in block.content for part in _exactly(p, path)]
    if not parts:
        return []
    origin = {"title": block.title, "source": block.source, "span": len(parts)}
    own = parts[0].get("origin", {}).get(_OWN, {})
    return [{**parts[0], "origin": {_OWN: {**own, "citable": origin}}}, *parts[1:]]


def _write_text(block: Any, path: str) -> list[Block]:
    return [{"type": "text", "text": _text(block, path)}]


def _whole(block: Any, path: str) -> list[Block]:
    """Any block, for LlamaIndex alone."""
    fields = _encode_fields(block, block.__dict__.keys(), path)
    value = {"type": fields.pop("block_type", block.block_type), **fields}
    origin = {_OWN: {"block": block.block_type, "keys": sorted(fields)}}
    return [{"type": "non_standard", "value": value, "origin": origin}]


def _encode_fields(block: BaseModel, names: Any, path: str) -> dict[str, Any]:
    values = {n: block.__dict__[n] for n in type(block).model_fields if n in names}
    encoded = {n: encode(v, f"{path}.{n}") for n, v in values.items()}
    return {n: v for n, v in encoded.items() if v is not LEFT_OUT}


def _complete(out: Block, block: Any, origin: dict[str, Any], path: str) -> Block:
    """`out`, with what it does not say of `block` in its origin."""
    given = _FIELDS[type(block)]({**out, "origin": {_OWN: origin}})
    rest = [n for n, v in block.__dict__.items() if n not in given or not same(given[n], v)]
    rest = [n for n in rest if n != "block_type"]
    if rest:
        origin = {**origin, "fields": _encode_fields(block, rest, path)}
    # A medium is marked as ours even where the neutral fields say all: restoring it then takes no
    # second look at its bytes to guess a type.
    if origin or type(block) in _DATA:
        out["origin"] = {_OWN: origin}
    return out


# -- back --------------------------------------------------------------------------------------


def from_blocks(blocks: Sequence[Block]) -> list[Any]:
    """LlamaIndex's blocks for neutral ones; those that only another framework reads are left out.

    Raises:
        ValueError, KeyError, TypeError: an origin of ours that we did not write.
    """
    out: list[Any] = []
    rest = iter(blocks)
    for block in rest:
        origin = _origin(block)
        if origin is not None and "citable" in origin:
            out.append(_read_citable(block, origin, rest))
        else:
            out.extend(_read(block, origin))
    return out


def _origin(block: Block) -> dict[str, Any] | None:
    origin = block.get("origin")
    own = origin.get(_OWN) if type(origin) is dict else None
    if own is not None and type(own) is not dict:
        raise ValueError("origin['llamaindex'] is no dict")
    return own


def _read_citable(first: Block, origin: dict[str, Any], rest: Iterator[Block]) -> CitableBlock:
    citable = origin["citable"]
    own = {k: v for k, v in origin.items() if k != "citable"}
    head = {k: v for k, v in first.items() if k != "origin"}
    parts = [{**head, "origin": {_OWN: own}} if own or _is_medium(first) else head]
    parts += [next(rest) for _ in range(citable["span"] - 1)]
    return CitableBlock.model_construct(
        content=from_blocks(parts), title=citable["title"], source=citable["source"]
    )


def _is_medium(block: Block) -> bool:
    return block["type"] in _FOREIGN_MEDIA


def _read(block: Block, origin: dict[str, Any] | None) -> Sequence[Any]:
    kind = block["type"]
    if kind == "text":
        return _read_text(block)
    if origin is not None and kind == "non_standard":
        return _read_whole(block, origin)
    if kind in _CLASSES:
        cls = _CLASSES[kind]
        if cls in _DATA and origin is None:
            return [_read_foreign_medium(cls, block)]
        fields = _FIELDS[cls](block)
        if origin is not None:
            fields |= decode(origin.get("fields", {}))
        return [cls.model_construct(_fields_set=set(fields), **fields)]
    if kind == "text-plain":
        return [_read_text_file(block)]
    if kind == "refusal":
        return [make_text(_str(block.get("refusal")))]
    # non_standard, a provider's own tool calls and results: no class of LlamaIndex holds them.
    text = block_text(block)
    return [make_text(text)] if text else []


def _read_whole(block: Block, origin: dict[str, Any]) -> list[Any]:
    cls = BLOCK_TYPES.get(origin["block"])
    if cls is None:
        return []  # a class of a later llama-index-core
    fields = {name: decode(block["value"][name]) for name in origin["keys"]}
    return [cls.model_construct(_fields_set=set(fields), **fields)]


def make_text(text: str) -> TextBlock:
    """A text block, also of text that pydantic refuses (lone surrogates)."""
    try:
        return TextBlock(text=text)
    except ValidationError:
        return TextBlock.model_construct(text=text)


def _read_text(block: Block) -> list[Any]:
    text = block.get("text")
    found: list[Any] = [make_text(text if type(text) is str else "")]
    notes = block.get("annotations")
    if isinstance(notes, list):
        found += [
            _citation(n) for n in notes if isinstance(n, dict) and n.get("type") == "citation"
        ]
    return found


def _citation(note: Block) -> CitationBlock:
    given = note.get("extras")
    extras = given if isinstance(given, dict) else {}
    info = extras.get("additional_location_info")
    if not isinstance(info, dict):
        info = {k: note[k] for k in ("start_index", "end_index") if type(note.get(k)) is int}
    return CitationBlock.model_construct(
        cited_content=make_text(_str(note.get("cited_text"))),
        source=_str(extras.get("source", note.get("url", note.get("title")))),
        title=_str(note.get("title")),
        additional_location_info=info,
    )


def _str(value: Any) -> str:
    return value if type(value) is str else ""


def _reasoning_fields(block: Block) -> dict[str, Any]:
    extras = block.get("extras")
    info = dict(extras) if isinstance(extras, dict) else {}
    block_id = block.get("id")
    if type(block_id) is str and not block_id.startswith(_GENERATED):
        info["id"] = block_id
    return {
        "content": block.get("reasoning"),
        "num_tokens": None,
        "additional_information": info,
    }


_GENERATED = "lc_"  # what LangChain's own ids begin with; they mean nothing to a provider


def _tool_call_fields(block: Block) -> dict[str, Any]:
    return {
        "tool_call_id": block.get("id"),
        "tool_name": block.get("name") or "",
        "tool_kwargs": block.get("args") if block.get("args") is not None else {},
    }


def make_tool_call(call: ToolCall) -> ToolCallBlock:
    """The block of a neutral call."""
    return ToolCallBlock.model_construct(
        tool_call_id=call.id, tool_name=call.name, tool_kwargs=call.arguments
    )


def _medium_fields(cls: type[BaseModel]) -> Callable[[Block], dict[str, Any]]:
    extra_names = _EXTRAS.get(cls, {})
    mime_name = "format" if cls is AudioBlock else f"{_stem(cls)}_mimetype"

    def fields(block: Block) -> dict[str, Any]:
        own = _origin(block) or {}
        data, url, mime = block.get("base64"), block.get("url"), block.get("mime_type")
        if type(data) is str:
            data = base64.b64decode(data) if own.get("raw") else data.encode("ascii")
        if type(url) is str:
            url = _read_url(cls, url)
        if cls is AudioBlock and type(mime) is str:
            mime = _FORMAT_BY_MIME.get(mime, mime.removeprefix("audio/"))
        found = {_DATA[cls]: data, "path": None, "url": url, mime_name: mime}
        given = block.get("extras")
        extras = given if isinstance(given, dict) else {}
        for name, key in extra_names.items():
            value = extras.get(key)
            found[name] = value if type(value) is (int if name == "fps" else str) else None
        if cls is DocumentBlock and found["title"] is None:
            found["title"] = _str(block.get("filename") or block.get("title")) or _DEFAULT_TITLE
        return found

    return fields


def _read_url(cls: type[BaseModel], url: str) -> Any:
    if cls is DocumentBlock:
        return url
    try:
        return AnyUrl(url)
    except ValidationError:
        return url


def _read_foreign_medium(cls: type[BaseModel], block: Block) -> Any:
    """A medium that no LlamaIndex wrote, as its constructor makes it; a text that names it where
    that is not to be had (a provider's file id, say)."""
    fields = {}
    try:
        fields = {n: v for n, v in _FIELDS[cls](block).items() if v is not None}
        if any(fields.get(name) for name in (_DATA[cls], "url")):
            return cls(**fields)
    except ValueError:  # pydantic's, and of text that is no ASCII
        pass
    where = block.get("file_id") or block.get("url") or "no data"
    return make_text(f"[{block['type']}: {where}]")


def _read_text_file(block: Block) -> Any:
    text = block.get("text")
    if type(text) is not str:
        return _read_foreign_medium(DocumentBlock, block)
    # Encoded first: DocumentBlock would take bytes such as b"abcd" for base64.
    data = base64.b64encode(text.encode("utf-8", "surrogatepass")).decode("ascii")
    return _read_foreign_medium(
        DocumentBlock, {**block, "base64": data, "mime_type": block.get("mime_type", "text/plain")}
    )


_DATA: dict[type, str] = {
    ImageBlock: "image",
    AudioBlock: "audio",
    VideoBlock: "video",
    DocumentBlock: "data",
}
"""The classes of media, and which field holds the bytes."""
_NEUTRAL_TYPE: dict[type, str] = {
    ImageBlock: "image",
    AudioBlock: "audio",
    VideoBlock: "video",
    DocumentBlock: "file",
}
_EXTRAS: dict[type, dict[str, str]] = {
    ImageBlock: {"detail": "detail"},
    VideoBlock: {"detail": "detail", "fps": "fps"},
    DocumentBlock: {"title": "filename"},
}
"""Fields that the neutral form has in a block's ``extras``, under LangChain's names."""

_FOREIGN_MEDIA = frozenset(_NEUTRAL_TYPE.values())
_CLASSES: dict[str, type[BaseModel]] = {
    **{neutral: cls for cls, neutral in _NEUTRAL_TYPE.items()},
    "reasoning": ThinkingBlock,
    "tool_call": ToolCallBlock,
    "invalid_tool_call": ToolCallBlock,
}
_FIELDS: dict[type, Callable[[Block], dict[str, Any]]] = {
    **{cls: _medium_fields(cls) for cls in _DATA},
    ThinkingBlock: _reasoning_fields,
    ToolCallBlock: _tool_call_fields,
}
_WRITERS: dict[type, Callable[[Any, str], list[Block]]] = {
    **dict.fromkeys(_DATA, _write_medium),
    TextBlock: _write_text,
    ThinkingBlock: _write_thinking,
    ToolCallBlock: _write_tool_call,
    CitableBlock: _write_citable,
}
