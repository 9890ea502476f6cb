"""The OpenAI chat format, both ways: the bridge to everything that speaks it.

The format is that of the ``messages`` of the Chat Completions API
(https://platform.openai.com/docs/api-reference/chat/create). There and back is exact: what the
neutral fields cannot say (a null content, how a call's arguments were spaced, a field that is not
known here) is kept in ``extensions["openai"]``, or in a block's ``origin``.

A call's arguments are text there and a dict here, or text here too where they are no JSON object.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from tsmemory.content import block_text
from tsmemory.errors import InvalidInputError
from tsmemory.model import Block, Message, ToolCall

__all__ = ["arguments_text", "data_url", "from_openai", "source_of", "to_openai"]

_KNOWN = frozenset({"role", "content", "name", "tool_calls", "tool_call_id"})
_ABSENT = False  # stands for a content that is not even null
_DATA_URL = re.compile(r"data:([\w.+-]+/[\w.+-]+);base64,([A-Za-z0-9+/]*=*)")


def from_openai(raw: Mapping[str, Any], **fields: Any) -> Message:
    """A message of the OpenAI chat format as a neutral one.

    Args:
        raw: the message: ``role``, ``content``, and what else the format has.
        fields: further fields of the `Message`, as ``message_id=``.

    Raises:
        InvalidInputError: it has no role, or a content or call of another shape.
    """
    if not isinstance(raw, Mapping):
        raise InvalidInputError(
            f"a message of the OpenAI chat format is a dict, not {type(raw).__name__}; "
            "convert the messages of a list one by one, or give it to append"
        )
    role = raw.get("role")
    if not isinstance(role, str):
        raise InvalidInputError("a message of the OpenAI chat format has a text 'role'")
    unknown_fields: dict[str, Any] = {k: v for k, v in raw.items() if k not in _KNOWN}
    content = raw.get("content")
    if isinstance(content, list):
        content = [_block(part) for part in content]
        if not content:
            unknown_fields["content"] = []
    elif content is not None and not isinstance(content, str):
        raise InvalidInputError(f"content is text, a list of parts or null, not {content!r:.80}")
    elif not content:
        empty = content if "content" in raw else _ABSENT
        if empty != _usual_empty(bool(raw.get("tool_calls"))):
            unknown_fields["content"] = empty
        content = ""
    calls: list[ToolCall] = []
    for i, call in enumerate(raw.get("tool_calls") or ()):
        calls.append(_call(call))
        if _raw_call(calls[-1]) != call:
            unknown_fields.setdefault("tool_calls", {})[str(i)] = dict(call)
    for key in ("name", "tool_calls", "tool_call_id"):
        if key in raw and not raw[key]:
            unknown_fields[f"empty_{key}"] = raw[key]
    extensions = {"openai": unknown_fields} if unknown_fields else {}
    return Message(
        role,
        content,
        name=raw.get("name"),
        tool_calls=tuple(calls),
        tool_call_id=raw.get("tool_call_id"),
        extensions=extensions,
        **fields,
    )


def to_openai(message: Message) -> dict[str, Any]:
    """A message as the OpenAI chat format has it: a dict that JSON can hold.

    Reasoning and blocks that only another provider knows are left out, as the API has no place for
    them; calls stand in ``tool_calls`` alone.
    """
    extra_fields = dict(message.extensions.get("openai") or {})
    raw_calls = extra_fields.pop("tool_calls", {})
    empty = extra_fields.pop("content", _usual_empty(bool(message.tool_calls)))
    content: Any = message.content
    if not isinstance(content, str):
        # The API refuses an empty list: Claude's everyday thinking and call has no other content.
        content = [part for part in map(_as_part, content) if part is not None] or empty
    elif not content:
        content = empty
    raw: dict[str, Any] = {"role": message.role}
    if content is not _ABSENT:
        raw["content"] = content
    if message.name is not None:
        raw["name"] = message.name
    if message.tool_calls:
        raw["tool_calls"] = [
            _restored(call, raw_calls) or _raw_call(call) for call in message.tool_calls
        ]
    if message.tool_call_id is not None:
        raw["tool_call_id"] = message.tool_call_id
    for key, value in extra_fields.items():
        raw[key.removeprefix("empty_")] = value
    return raw


def _usual_empty(has_calls: bool) -> str | None:
    """How the API writes a message without content: null beside calls."""
    return None if has_calls else ""


# -- calls -------------------------------------------------------------------------------------


def _call(raw: Any) -> ToolCall:
    try:
        function = raw["function"]
        text = function["arguments"]
        return ToolCall(raw.get("id"), function["name"], _arguments(text))
    except (KeyError, TypeError, AttributeError) as error:
        raise InvalidInputError(
            "a tool call of the OpenAI chat format has an 'id' and a 'function' with 'name' and "
            f"'arguments', not {raw!r:.120}"
        ) from error


def _arguments(text: str) -> dict[str, Any] | str:
    try:
        parsed = json.loads(text)
    except ValueError:
        return text
    return parsed if isinstance(parsed, dict) else text


def _raw_call(call: ToolCall) -> dict[str, Any]:
    text = arguments_text(call)
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": text}}


def arguments_text(call: ToolCall) -> str:
    """A call's arguments as OpenAI's APIs have them: JSON. What a message may hold and JSON cannot,
    as a date or bytes, is the text that Python shows."""
    arguments = call.arguments
    return arguments if isinstance(arguments, str) else json.dumps(arguments, default=str)


def _restored(call: ToolCall, raw_calls: Mapping[str, Any]) -> dict[str, Any] | None:
    """The call as it came, where it did not look as ours would; by what it says, not by its place,
    for a window may have left out the one before it."""
    return next((dict(raw) for raw in raw_calls.values() if _call(raw) == call), None)


# -- content -----------------------------------------------------------------------------------


def _block(part: Any) -> Block:
    if not isinstance(part, dict) or not isinstance(part.get("type"), str):
        raise InvalidInputError(f"a content part is a dict with a text 'type', not {part!r:.120}")
    block = _as_block(part)
    if block is not None and _as_part(block) == part:
        return block
    return {"type": "non_standard", "value": part, "origin": {"openai": True}}


def _as_block(part: dict[str, Any]) -> Block | None:
    kind = part["type"]
    body = part.get(kind)
    if kind in ("text", "refusal"):
        return {"type": kind, kind: body} if isinstance(body, str) else None
    if not isinstance(body, dict):
        return None
    if kind == "image_url" and isinstance(body.get("url"), str):
        image = {"type": "image", **source_of(body["url"])}
        if "detail" in body:
            image["origin"] = {"openai": {"detail": body["detail"]}}
        return image
    if kind == "input_audio" and isinstance(body.get("data"), str):
        return {"type": "audio", "base64": body["data"], "mime_type": f"audio/{body.get('format')}"}
    if kind == "file":
        file: Block = {"type": "file"}
        if isinstance(body.get("file_id"), str):
            file["file_id"] = body["file_id"]
        if isinstance(body.get("file_data"), str):
            file.update(source_of(body["file_data"]))
        if "filename" in body:
            file["extras"] = {"filename": body["filename"]}
        return file
    return None


def source_of(url: str) -> dict[str, Any]:
    """The fields of a media block for a URL: of a data URL, what it holds."""
    match = _DATA_URL.fullmatch(url)
    return {"base64": match[2], "mime_type": match[1]} if match else {"url": url}


def data_url(block: Block) -> Any:
    """The URL of a media block, a data URL for what it holds itself; None where it has neither."""
    if "base64" in block:
        mime_type = block.get("mime_type", "application/octet-stream")
        return f"data:{mime_type};base64,{block['base64']}"
    return block.get("url")


def _as_part(block: Block) -> dict[str, Any] | None:
    kind = block.get("type")
    origin = block.get("origin")
    ours = origin.get("openai") if isinstance(origin, dict) else None
    if kind == "non_standard" and ours:
        return block["value"]  # type: ignore[no-any-return]  # a part of the format
    if kind == "refusal" and isinstance(block.get("refusal"), str):
        return {"type": "refusal", "refusal": block["refusal"]}
    if kind in ("text", "text-plain"):
        return {"type": "text", "text": block.get("text", "")}
    url = data_url(block)
    if kind == "image" and url is not None:
        image = {"url": url}
        if isinstance(ours, dict):
            image.update(ours)
        return {"type": "image_url", "image_url": image}
    if kind == "audio" and "base64" in block:
        sound = str(block.get("mime_type", "")).removeprefix("audio/")
        return {"type": "input_audio", "input_audio": {"data": block["base64"], "format": sound}}
    if kind == "file" and ("file_id" in block or url is not None):
        file = {"file_id": block["file_id"]} if "file_id" in block else {}
        if url is not None:
            file["file_data"] = url
        extras = block.get("extras")
        if isinstance(extras, dict) and "filename" in extras:
            file["filename"] = extras["filename"]
        return {"type": "file", "file": file}
    text = block_text(block)
    return {"type": "text", "text": text} if text else None
