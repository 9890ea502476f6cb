"""The providers' forms of content blocks: where each has what a standard block says."""

from __future__ import annotations

import json
import mimetypes
import re
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

__all__ = ["DATA_URL", "MEDIA", "Form", "Raw", "form_of"]

Raw: TypeAlias = dict[Any, Any]

MEDIA = frozenset({"image", "audio", "video", "file"})
DATA_URL = re.compile(r"data:([\w.+-]+/[\w.+-]+);base64,(.*)", re.DOTALL)


class Form(NamedTuple):
    """How a provider's block says what a standard one says."""

    type: str
    moved: dict[str, str]
    """Neutral place → raw place. ``data_url`` stands for `mime_type` and `base64` of a data URL,
    ``bytes`` for the `base64` of bytes."""
    derived: dict[str, Any] = {}  # noqa: RUF012  # read, never written
    """What the standard block says beside, and the way back does not need."""


def _present(raw: Raw, **moved: str) -> dict[str, str]:
    """Those of the moves whose raw place is a top-level key with a value that is not None."""
    return {
        key.replace("__", "."): path for key, path in moved.items() if raw.get(path) is not None
    }


def _url(url: str, path: str) -> dict[str, str]:
    return {"data_url" if DATA_URL.fullmatch(url) else "url": path}


def _image_url(raw: Raw) -> Form:
    inner = raw["image_url"]
    if isinstance(inner, str):
        return Form("image", _url(inner, "image_url"))
    return Form("image", _url(inner["url"], "image_url.url"))


def _input_image(raw: Raw) -> Form:
    if raw.get("image_url") is not None:
        return Form("image", _url(raw["image_url"], "image_url"))
    return Form("image", {"file_id": "file_id"})


def _input_audio(raw: Raw) -> Form:
    kind = raw["input_audio"]["format"]
    return Form("audio", {"base64": "input_audio.data"}, {"mime_type": f"audio/{kind}"})


def _file(raw: Raw) -> Form | None:
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
    return Form("file", moved) if moved else None


def _sourced(raw: Raw) -> Form | None:
    """Anthropic's image and document; or a LangChain 0.x block."""
    if "source_type" in raw:
        return _version_0(raw)
    kind = "image" if raw["type"] == "image" else "file"
    source = raw["source"]["type"]
    if source == "text":
        moved = {"text": "source.data", "mime_type": "source.media_type"}
        return Form("text-plain", moved | _present(raw, title="title", context="context"))
    about = _present(raw, extras__title="title", extras__context="context")
    if source == "base64":
        moved = {"base64": "source.data", "mime_type": "source.media_type"}
    elif source == "url":
        moved = {"url": "source.url"}
    elif source == "file":
        moved = {"file_id": "source.file_id"}
    else:
        return None
    return Form(kind, moved | about)


def _version_0(raw: Raw) -> Form | None:
    kind, source = raw["type"], raw["source_type"]
    about = _present(raw, mime_type="mime_type")
    if source == "id":
        return Form(kind, {"file_id": "id"} | about)
    about |= _present(raw, id="id")
    if source == "base64":
        return Form(kind, {"base64": "data"} | about)
    if source == "url":
        return Form(kind, {"url": "url"} | about)
    if source == "text":
        return Form("text-plain", {"text": "text"} | about)
    return None


def _media(raw: Raw) -> Form:
    """Google's media."""
    mime = raw["mime_type"]
    kind = mime.split("/")[0]
    moved = {"mime_type": "mime_type"}
    if raw.get("data") is not None:
        moved["bytes" if isinstance(raw["data"], bytes) else "base64"] = "data"
    else:
        moved["url"] = "file_uri"
    return Form(kind if kind in MEDIA else "file", moved)


def _thinking(raw: Raw) -> Form:
    return Form(
        "reasoning", {"reasoning": "thinking"} | _present(raw, extras__signature="signature")
    )


def _reasoning_content(raw: Raw) -> Form:
    moved = {"reasoning": "reasoning_content.text"}
    if raw["reasoning_content"].get("signature") is not None:
        moved["extras.signature"] = "reasoning_content.signature"
    return Form("reasoning", moved)


def _reasoning(raw: Raw) -> Form:
    """OpenAI's reasoning item: its summary, or else its text, in parts."""
    parts = [part["text"] for part in raw["summary"] or raw.get("content") or ()]
    return Form("reasoning", _present(raw, id="id"), {"reasoning": "\n\n".join(parts)})


def _arguments(value: Any) -> dict[str, Any]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            value = None
    return value if isinstance(value, dict) else {}


def _tool_use(raw: Raw) -> Form:
    kind = "tool_call" if raw["type"] == "tool_use" else "server_tool_call"
    moved = {"id": "id", "name": "name"}
    if isinstance(raw["input"], dict):
        return Form(kind, moved | {"args": "input"})
    return Form(kind, moved, {"args": _arguments(raw["input"])})


def _function_call(raw: Raw) -> Form:
    args = {"args": _arguments(raw["arguments"])}
    return Form("tool_call", {"id": "call_id", "name": "name"}, args)


def _server_result(raw: Raw) -> Form | None:
    if "tool_use_id" not in raw or raw["type"] == "tool_result":
        return None
    content = raw["content"]
    failed = isinstance(content, dict) and str(content.get("type", "")).endswith("error")
    moved = {"tool_call_id": "tool_use_id", "output": "content"}
    return Form("server_tool_result", moved, {"status": "error" if failed else "success"})


def _text(raw: Raw) -> Form:
    return Form("text", {"text": "text"})


def _untyped(raw: Raw) -> Form | None:
    """Bedrock's blocks, which are named by their only key."""
    if len(raw) != 1:
        return None
    ((name, inner),) = raw.items()
    if name == "text":
        return _text(raw)
    if name == "toolUse":
        moved = {"id": "toolUse.toolUseId", "name": "toolUse.name", "args": "toolUse.input"}
        return Form("tool_call", moved)
    if name in ("image", "document", "video", "audio"):
        mime = mimetypes.guess_type(f"a.{inner['format']}")[0]
        kind = "file" if name == "document" else name
        about = {"mime_type": mime or f"{kind}/{inner['format']}"}
        return Form(kind, {"bytes": f"{name}.source.bytes"}, about)
    return None


def form_of(raw: Raw) -> Form | None:
    """How `raw`, a block that is not standard, says what a standard one does; None: nothing does.

    Raises:
        AttributeError, IndexError, KeyError, TypeError, ValueError: not in the form that its type
            promises.
    """
    kind = raw.get("type")
    if not isinstance(kind, str):
        return _untyped(raw)
    find = _FORMS.get(kind)
    if find is None and kind.endswith("_tool_result"):
        find = _server_result
    return None if find is None else find(raw)


_FORMS: dict[str, Callable[[Raw], Form | None]] = {
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
