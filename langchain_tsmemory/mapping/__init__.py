"""LangChain's messages to the neutral ones and back: home again exactly, and across faithfully.

    neutral role          LangChain
    user                  HumanMessage
    assistant             AIMessage (chunks are folded to whole messages)
    system · developer    SystemMessage (``additional_kwargs["__openai_role__"] == "developer"``)
    tool                  ToolMessage
    function              FunctionMessage
    anything else         ChatMessage, whose role it is

What the neutral fields cannot say is in ``extensions["langchain"]``, by the name of LangChain's
field, and only where it is not the default: ``additional_kwargs``, ``response_metadata``,
``usage_metadata``, ``artifact``, ``status``, and

- ``id``: LangChain's, where the store's is another one: None (the store gave a random one), or
  what cannot be an id of the store (empty, over 255 bytes, lone surrogates; it gets a digest);
- ``type``: where the role alone would give another class (a ChatMessage of role "user");
- ``role``: an empty one;
- ``extra``: fields that no class declares, which LangChain's messages may have;
- ``tool_calls``, ``invalid_tool_calls``: as they were, where the neutral calls cannot say it (an
  invalid call without a name or without arguments);
- ``calls``: how many there were, where `additional_kwargs` holds the provider's own copy of them;
- ``encoded``: that values have to be read by `values.decode`;
- ``blocks``: that the content is a list and LangChain wrote it, in whichever dialect it did.

An answer's blocks that LangChain did not write are shown as `across` says. What LangChain keeps of
an answer in `additional_kwargs` alone (``reasoning_content``, and of an answer without content a
refusal, the transcript of its audio or a legacy ``function_call``) is in the neutral content too,
so that it does not arrive empty elsewhere; at home it is in `additional_kwargs` alone again.

A valid tool call is a neutral one with arguments; an invalid call has its text in their place.
Both are calls to a chat API, so windows hold both to their results.
"""

from __future__ import annotations

from langchain_tsmemory.mapping.reading import from_neutral, is_same
from langchain_tsmemory.mapping.writing import message_id, to_neutral

__all__ = ["from_neutral", "is_same", "message_id", "to_neutral"]
