"""Counting tokens as a LangChain model does."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from langchain_tsmemory.mapping import from_neutral
from tsmemory import InvalidInputError, Message

if TYPE_CHECKING:
    from langchain_core.language_models import BaseLanguageModel

__all__ = ["model_token_counter"]


def model_token_counter(model: BaseLanguageModel[Any]) -> Callable[[Message], int]:
    """A `tsmemory.Window.token_counter` that asks a model: its ``get_num_tokens_from_messages``.

    Some integrations count locally (langchain-openai, with tiktoken), some ask their API for each
    message (langchain-anthropic, langchain-google-genai), which is a request per message of a
    window: prefer `tsmemory.count_tokens` there.

    Raises:
        InvalidInputError: not a LangChain model.
    """
    # Its import takes longer than all else of this package; who has a model has paid for it.
    from langchain_core.language_models import BaseLanguageModel

    if not isinstance(model, BaseLanguageModel):
        raise InvalidInputError(
            f"model_token_counter takes a LangChain model, not a {type(model).__name__}"
        )

    def count(message: Message) -> int:
        return model.get_num_tokens_from_messages([from_neutral(message)])

    return count
