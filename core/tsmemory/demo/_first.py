"""The first process: a LangChain chain with the session as its history."""

from __future__ import annotations

import warnings
from typing import Any

from langchain_core._api import LangChainDeprecationWarning
from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
from langchain_core.runnables.history import RunnableWithMessageHistory

from langchain_tsmemory import history_factory
from tsmemory import Message, open_store
from tsmemory.demo._model import Said, answer
from tsmemory.demo._show import exchange

__all__ = ["SAYS", "main"]

RULES = "You are a travel assistant. Answer only from this conversation."
SAYS = (
    "Hello! I am Ada, and I build bridges.",
    "My sister Grace lives in Bergen, and I visit her in June.",
    "I'm allergic to peanuts, so please keep that in mind for the flight.",
    "Where does my sister live?",
)
_ROLES = {"human": "user", "ai": "assistant"}


class ContextModel(BaseChatModel):
    """The demo's model as a LangChain chat model."""

    @property
    def _llm_type(self) -> str:
        return "tsmemory-demo"

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        context = [Said(_ROLES.get(m.type, m.type), str(m.text)) for m in messages]
        return ChatResult(generations=[ChatGeneration(message=AIMessage(answer(context)))])


def main(url: str, user_id: str, session_id: str) -> None:
    """Hold the first half of the conversation."""
    # RunnableWithMessageHistory is deprecated in favour of agents, and still what most chains use.
    warnings.simplefilter("ignore", LangChainDeprecationWarning)
    prompt = ChatPromptTemplate.from_messages(
        [MessagesPlaceholder("history"), ("human", "{input}")]
    )
    with open_store(url) as store:
        chat = store.conversation(session_id, user_id=user_id)
        chat.append(Message.system(RULES, message_id="rules"))
        chat.update_session(title="A trip to Bergen", metadata={"channel": "demo"})
        chain = RunnableWithMessageHistory(
            prompt | ContextModel(),
            history_factory(store, user_id=user_id, window=20),
            input_messages_key="input",
            history_messages_key="history",
        )
        config = {"configurable": {"session_id": session_id}}
        for text in SAYS:
            reply = chain.invoke({"input": text}, config)  # type: ignore[arg-type]  # a plain dict
            exchange(text, str(reply.text))
