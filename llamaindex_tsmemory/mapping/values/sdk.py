"""The records of OpenAI's SDK that LlamaIndex's integrations leave in messages, and read again.

They come back as objects in every process, also in one that has not imported ``openai``: what a
message is read as must not depend on what else a program has loaded. So the classes are listed
here, and only a class of this list is ever looked up or imported, whatever stored data name. Where
the SDK is not installed, their fields take their place.
"""

from __future__ import annotations

import importlib
from functools import lru_cache

from pydantic import BaseModel

__all__ = ["is_sdk_class", "sdk_class"]

_CHAT, _RESPONSES = "openai.types.chat.", "openai.types.responses."
_CLASSES: dict[str, frozenset[str]] = {
    module: frozenset(names.split())
    for module, names in {
        _CHAT + "chat_completion_message_function_tool_call": (
            "ChatCompletionMessageFunctionToolCall Function"
        ),
        _CHAT + "chat_completion_message_custom_tool_call": (
            "ChatCompletionMessageCustomToolCall Custom"
        ),
        # Before openai 2, where there were only calls of functions.
        _CHAT + "chat_completion_message_tool_call": "ChatCompletionMessageToolCall Function",
        _CHAT + "chat_completion_chunk": "ChoiceDeltaToolCall ChoiceDeltaToolCallFunction",
        _CHAT + "chat_completion_audio": "ChatCompletionAudio",
        _CHAT + "chat_completion_message": "Annotation AnnotationURLCitation FunctionCall",
        "openai.types.completion_usage": (
            "CompletionUsage CompletionTokensDetails PromptTokensDetails"
        ),
        _RESPONSES + "response_usage": "ResponseUsage InputTokensDetails OutputTokensDetails",
        _RESPONSES + "response_function_web_search": (
            "ResponseFunctionWebSearch ActionSearch ActionSearchSource ActionOpenPage ActionFind"
        ),
        _RESPONSES + "response_code_interpreter_tool_call": (
            "ResponseCodeInterpreterToolCall OutputLogs OutputImage"
        ),
        _RESPONSES + "response_file_search_tool_call": "ResponseFileSearchToolCall Result",
        _RESPONSES + "response_computer_tool_call": (
            "ResponseComputerToolCall PendingSafetyCheck ActionClick ActionDoubleClick ActionDrag "
            "ActionDragPath ActionKeypress ActionMove ActionScreenshot ActionScroll ActionType "
            "ActionWait"
        ),
        _RESPONSES + "response_reasoning_item": "ResponseReasoningItem Summary Content",
        _RESPONSES + "response_output_text": (
            "AnnotationFileCitation AnnotationURLCitation AnnotationContainerFileCitation "
            "AnnotationFilePath"
        ),
        _RESPONSES + "response_output_item": "ImageGenerationCall McpCall",
    }.items()
}
"""Class names by the module that defines them (openai 1.x and 2.x)."""


def is_sdk_class(kind: type) -> bool:
    return kind.__qualname__ in _CLASSES.get(kind.__module__, ()) and issubclass(kind, BaseModel)


@lru_cache(maxsize=256)  # stored data may name anything
def sdk_class(name: str) -> type[BaseModel] | None:
    """The listed class of that name, ``module:Name``, imported now; None where it is not listed,
    or the SDK that is installed does not have it."""
    module, _, qualname = name.partition(":")
    if qualname not in _CLASSES.get(module, ()):
        return None
    try:
        kind = getattr(importlib.import_module(module), qualname, None)
    except ImportError:
        return None
    return kind if isinstance(kind, type) and is_sdk_class(kind) else None
