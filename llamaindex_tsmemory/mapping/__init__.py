"""One message: LlamaIndex's `ChatMessage` and the neutral `tsmemory.Message`, each way.

    ChatMessage                                neutral
    role chatbot, model                        assistant; the name in the extension
    one TextBlock, calls as plain blocks       content a str, tool_calls
    any other blocks                           content a list (see `blocks`), tool_calls
    additional_kwargs["tool_call_id"], ["name"]  tool_call_id, name
    additional_kwargs["tool_calls"]            tool_calls, and as they stand in the extension
    other additional_kwargs                    the extension

The extension, ``extensions["llamaindex"]``, has the keys ``role``, ``additional_kwargs`` (encoded
as `values` says), ``empty_text``, and ``blocks``: that LlamaIndex wrote this answer's list of
blocks. There is no extension where there is nothing to say. Reasoning in
``additional_kwargs["reasoning_content"]`` is in the neutral content too.

An answer's blocks that another framework wrote are shown as `across` says.

Calls that a window has taken out of a message are taken out of its blocks and its
``additional_kwargs["tool_calls"]`` too. Calls that another framework made become `ToolCallBlock`s,
the form that llama-index-core 0.14 and its integrations read.
"""

from __future__ import annotations

from llamaindex_tsmemory.mapping.reading import from_neutral
from llamaindex_tsmemory.mapping.writing import to_neutral

__all__ = ["from_neutral", "to_neutral"]
