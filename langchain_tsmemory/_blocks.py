"""Content blocks: LangChain's forms, which are many, to the neutral vocabulary and exactly back.

The neutral vocabulary is LangChain's own standard one, so a block that is standard already passes
untouched. A provider's block becomes the standard one that says the same, and carries what it
takes to become itself again under the key ``origin``, inside the block, so that whoever drops,
moves or copies the block takes it along::

    {"type": "image", "base64": "iVBOR…", "mime_type": "image/png",
     "origin": {"langchain": {"raw": {"type": "image", "source": {"type": "base64"}},
                              "moved": {"base64": "source.data",
                                        "mime_type": "source.media_type"}}}}

``raw`` is what is left of the provider's block once the values named in ``moved`` (neutral place →
raw place, dotted) have been taken out; the empty place is the block itself. So nothing is kept
twice, and going home needs no table. What has no standard form that leads back exactly is
``{"type": "non_standard", "value": <the block>}``.
"""

from __future__ import annotations

import base64
import json
import mimetypes
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

from tsmemory import Block

__all__ = ["STANDARD", "from_block", "to_block"]

Raw: TypeAlias = dict[Any, Any]

_MEDIA = frozenset({"image", "audio", "video", "file"})
STANDARD = _MEDIA | {
    "citation",
    "invalid_tool_call",
    "non_standard",
    "non_standard_annotation",
    "reasoning",
    "refusal",
    "server_tool_call",
    "server_tool_call_chunk",
    "server_tool_result",
    "text",
    "text-plain",
    "tool_call",
    "tool_call_chunk",
}
"""The types of LangChain's standard content blocks and annotations (langchain-core 1.8)."""

_BASE64 = re.compile(r"[A-Za-z0-9+/_\s-]*={0,2}\s*")
_DATA_URL = re.compile(r"data:([\w.+-]+/[\w.+-]+);base64,(.*)", re.DOTALL)


def to_block(raw: str | Raw) -> Block:
    """One element of a LangChain message's content as a neutral block."""
    if isinstance(raw, str):
        return {"type": "text", "text": raw, "origin": _itself("text")}
    if "origin" not in raw:
        kind = raw.get("type")
        if _is_standard(raw):
            return raw
        form = _FORMS.get(kind) if isinstance(kind, str) else _untyped
        if form is None and isinstance(kind, str) and kind.endswith("_tool_result"):
            form = _server_result
        block = _convert(raw, form) if form is not None else None
        if block is not None:
            return block
    return {"type": "non_standard", "value": raw, "origin": _itself("value")}


def from_block(block: Block) -> str | Raw:
    """A neutral block as LangChain had it; as the standard block where it comes from elsewhere."""
    if "origin" not in block:
        return block
    try:
        note = block["origin"]["langchain"]
        return _restore(block, note.get("raw", {}), note["moved"])
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        # Not ours, or changed by somebody who did not know: the neutral fields are what counts.
        return {key: value for key, value in block.items() if key != "origin"}


def _itself(key: str) -> dict[str, Any]:
    """The origin of a block whose value at `key` is the whole of what it was."""
    return {"langchain": {"moved": {key: ""}}}


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_standard(block: Raw) -> bool:
    """Whether readers of the neutral vocabulary can rely on this block as it is."""
    kind = block.get("type")
    if not isinstance(kind, str) or kind not in STANDARD:
        return False
    if kind == "text":
        return _is_text(block.get("text"))
    if kind == "refusal":
        return _is_text(block.get("refusal"))
    if kind in _MEDIA or kind == "text-plain":
        sources = [block[k] for k in ("url", "base64", "file_id") if k in block]
        if kind == "text-plain" and "text" in block:
            sources.append(block["text"])
        foreign = "source" in block or "source_type" in block
        return bool(sources) and all(map(_is_text, sources)) and not foreign
    if kind == "reasoning":
        return "summary" not in block and _is_text(block.get("reasoning", ""))
    if kind in ("tool_call", "server_tool_call"):
        name, args, call = block.get("name"), block.get("args"), block.get("id")
        return _is_text(name) and isinstance(args, dict) and (call is None or _is_text(call))
    if kind == "server_tool_result":
        return _is_text(block.get("tool_call_id"))
    if kind == "non_standard":
        return "value" in block
    return True


# -- places in nested dicts ----------------------------------------------------------


@lru_cache(maxsize=256)  # the places of the forms are few; those of stored data could be any
def _steps(path: str) -> tuple[str, ...]:
    return tuple(path.split("."))


def _get(whole: Any, path: str) -> Any:
    for step in _steps(path):
        whole = whole[step]
    return whole


def _put(whole: Any, path: str, value: Any) -> None:
    *way, last = _steps(path)
    for step in way:
        whole = whole.setdefault(step, {})
    whole[last] = value


def _copy(whole: Any) -> Any:
    """A copy of the containers; the values are shared."""
    if isinstance(whole, dict):
        return {key: _copy(value) for key, value in whole.items()}
    if isinstance(whole, list):
        return [_copy(value) for value in whole]
    return whole


# -- there and back ----------------------------------------------------------------------------


class _Form(NamedTuple):
    """How a provider's block says what a standard one says."""

    type: str
    moved: dict[str, str]
    """Neutral place → raw place. ``data_url`` stands for `mime_type` and `base64` of a data URL,
    ``bytes`` for the `base64` of bytes."""
    derived: dict[str, Any] = {}  # noqa: RUF012  # read, never written
    """What the standard block says beside, and the way back does not need."""


def _convert(raw: Raw, find: Callable[[Raw], _Form | None]) -> Block | None:
    try:
        form = find(raw)
        if form is None:
            return None
        block: Block = {"type": form.type}
        remaining = _copy(raw)
        for key, path in form.moved.items():
            value = _get(raw, path)
            if key == "data_url":
                _, block["mime_type"], block["base64"], _ = _DATA_URL.split(value)
            elif key == "bytes":
                block["base64"] = base64.b64encode(value).decode()
            else:
                _put(block, key, value)
            _take(remaining, path)
        if not _BASE64.fullmatch(block.get("base64", "")):
            return None
        block.update(form.derived)
        block["origin"] = {"langchain": {"raw": remaining, "moved": form.moved}}
        exact = _restore(block, remaining, form.moved) == raw
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        return None  # not in the form that its type promises
    return block if exact and _is_standard(block) else None


def _take(whole: Any, path: str) -> None:
    *way, last = _steps(path)
    for step in way:
        whole = whole[step]
    del whole[last]


def _restore(block: Block, remaining: Raw, moved: dict[str, str]) -> str | Raw:
    raw = _copy(remaining)
    for key, path in moved.items():
        if key == "data_url":
            value: Any = f"data:{block['mime_type']};base64,{block['base64']}"
        elif key == "bytes":
            value = base64.b64decode(block["base64"])
        else:
            value = _get(block, key)
        if not path:
            return value  # type: ignore[no-any-return]  # the element itself
        _put(raw, path, value)
    return raw  # type: ignore[no-any-return]  # a copy of a dict


# -- the providers' forms ----------------------------------------------------------------------


def _there(raw: Raw, **moved: str) -> dict[str, str]:
    """Those of the moves whose raw place is a top-level key that is there and not None."""
    return {
        key.replace("__", "."): path for key, path in moved.items() if raw.get(path) is not None
    }


def _url(url: str, path: str) -> dict[str, str]:
    return {"data_url" if _DATA_URL.fullmatch(url) else "url": path}


def _image_url(raw: Raw) -> _Form:
    inner = raw["image_url"]
    if isinstance(inner, str):
        return _Form("image", _url(inner, "image_url"))
    return _Form("image", _url(inner["url"], "image_url.url"))


def _input_image(raw: Raw) -> _Form:
    if raw.get("image_url") is not None:
        return _Form("image", _url(raw["image_url"], "image_url"))
    return _Form("image", {"file_id": "file_id"})


def _input_audio(raw: Raw) -> _Form:
    kind = raw["input_audio"]["format"]
    return _Form("audio", {"base64": "input_audio.data"}, {"mime_type": f"audio/{kind}"})


def _file(raw: Raw) -> _Form | None:
    """OpenAI's file, nested (chat completions) or flat (responses); or a LangChain 0.x one."""
    if "source_type" in raw:
        return _version_0(raw)
    at = "file." if "file" in raw else ""
    inner = raw["file"] if at else raw
    moved: dict[str, str] = {}
    if inner.get("file_data") is not None:
        moved = _url(inner["file_data"], f"{at}file_data")
        if "url" in moved:  # bare base64
            moved = {"base64": f"{at}file_data"}
    elif inner.get("file_url") is not None:
        moved = {"url": f"{at}file_url"}
    elif inner.get("file_id") is not None:
        moved = {"file_id": f"{at}file_id"}
    if moved and "filename" in inner:
        moved["extras.filename"] = f"{at}filename"
    return _Form("file", moved) if moved else None


def _sourced(raw: Raw) -> _Form | None:
    """Anthropic's image and document; or a LangChain 0.x block."""
    if "source_type" in raw:
        return _version_0(raw)
    kind = "image" if raw["type"] == "image" else "file"
    source = raw["source"]["type"]
    if source == "text":
        moved = {"text": "source.data", "mime_type": "source.media_type"}
        return _Form("text-plain", moved | _there(raw, title="title", context="context"))
    about = _there(raw, extras__title="title", extras__context="context")
    if source == "base64":
        moved = {"base64": "source.data", "mime_type": "source.media_type"}
    elif source == "url":
        moved = {"url": "source.url"}
    elif source == "file":
        moved = {"file_id": "source.file_id"}
    else:
        return None
    return _Form(kind, moved | about)


def _version_0(raw: Raw) -> _Form | None:
    kind, source = raw["type"], raw["source_type"]
    about = _there(raw, mime_type="mime_type")
    if source == "id":
        return _Form(kind, {"file_id": "id"} | about)
    about |= _there(raw, id="id")
    if source == "base64":
        return _Form(kind, {"base64": "data"} | about)
    if source == "url":
        return _Form(kind, {"url": "url"} | about)
    if source == "text":
        return _Form("text-plain", {"text": "text"} | about)
    return None


def _media(raw: Raw) -> _Form:
    """Google's media."""
    mime = raw["mime_type"]
    kind = mime.split("/")[0]
    moved = {"mime_type": "mime_type"}
    if raw.get("data") is not None:
        moved["bytes" if isinstance(raw["data"], bytes) else "base64"] = "data"
    else:
        moved["url"] = "file_uri"
    return _Form(kind if kind in _MEDIA else "file", moved)


def _thinking(raw: Raw) -> _Form:
    return _Form(
        "reasoning", {"reasoning": "thinking"} | _there(raw, extras__signature="signature")
    )


def _reasoning_content(raw: Raw) -> _Form:
    moved = {"reasoning": "reasoning_content.text"}
    if raw["reasoning_content"].get("signature") is not None:
        moved["extras.signature"] = "reasoning_content.signature"
    return _Form("reasoning", moved)


def _reasoning(raw: Raw) -> _Form:
    """OpenAI's reasoning item: its summary, or else its text, in parts."""
    parts = [part["text"] for part in raw["summary"] or raw.get("content") or ()]
    return _Form("reasoning", _there(raw, id="id"), {"reasoning": "\n\n".join(parts)})


def _arguments(value: Any) -> dict[str, Any]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            value = None
    return value if isinstance(value, dict) else {}


def _tool_use(raw: Raw) -> _Form:
    kind = "tool_call" if raw["type"] == "tool_use" else "server_tool_call"
    moved = {"id": "id", "name": "name"}
    if isinstance(raw["input"], dict):
        return _Form(kind, moved | {"args": "input"})
    return _Form(kind, moved, {"args": _arguments(raw["input"])})


def _function_call(raw: Raw) -> _Form:
    args = {"args": _arguments(raw["arguments"])}
    return _Form("tool_call", {"id": "call_id", "name": "name"}, args)


def _server_result(raw: Raw) -> _Form | None:
    if "tool_use_id" not in raw or raw["type"] == "tool_result":
        return None
    content = raw["content"]
    failed = isinstance(content, dict) and str(content.get("type", "")).endswith("error")
    moved = {"tool_call_id": "tool_use_id", "output": "content"}
    return _Form("server_tool_result", moved, {"status": "error" if failed else "success"})


def _text(raw: Raw) -> _Form:
    return _Form("text", {"text": "text"})


def _untyped(raw: Raw) -> _Form | None:
    """Bedrock's blocks, which are named by their only key."""
    if len(raw) != 1:
        return None
    ((name, inner),) = raw.items()
    if name == "text":
        return _text(raw)
    if name == "toolUse":
        moved = {"id": "toolUse.toolUseId", "name": "toolUse.name", "args": "toolUse.input"}
        return _Form("tool_call", moved)
    if name in ("image", "document", "video", "audio"):
        mime = mimetypes.guess_type(f"a.{inner['format']}")[0]
        kind = "file" if name == "document" else name
        about = {"mime_type": mime or f"{kind}/{inner['format']}"}
        return _Form(kind, {"bytes": f"{name}.source.bytes"}, about)
    return None


_FORMS: dict[str, Callable[[Raw], _Form | None]] = {
    "audio": _version_0,
    "document": _sourced,
    "file": _file,
    "function_call": _function_call,
    "image": _sourced,
    "image_url": _image_url,
    "input_audio": _input_audio,
    "input_file": _file,
    "input_image": _input_image,
    "input_text": _text,
    "media": _media,
    "output_text": _text,
    "reasoning": _reasoning,
    "reasoning_content": _reasoning_content,
    "server_tool_use": _tool_use,
    "thinking": _thinking,
    "tool_use": _tool_use,
    "video": _version_0,
}
