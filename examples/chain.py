"""A LangChain chain that remembers between runs: ``python chain.py "My name is Ada."``"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
from langchain_core.runnables import RunnableLambda

from langchain_tsmemory import TSMemoryChatMessageHistory
from tsmemory import Window, open_store


def model() -> Any:
    """Yours, or one that says what it was shown."""
    if "MODEL" in os.environ:
        from langchain.chat_models import init_chat_model

        return init_chat_model(os.environ["MODEL"])
    return RunnableLambda(
        lambda prompt: AIMessage(f"I was shown {len(prompt.to_messages())} messages.")
    )


def main(arguments: Sequence[str]) -> None:
    """Say each of `arguments`, in one conversation."""
    prompt = ChatPromptTemplate.from_messages(
        [("system", "Be brief."), MessagesPlaceholder("history"), ("human", "{text}")]
    )
    chain = prompt | model()
    with open_store(os.environ.get("TSMEMORY_URL", "sqlite:///chat.db")) as store:
        history = TSMemoryChatMessageHistory(
            "trip", store=store, user_id="ada", window=Window(last=20, step=20)
        )
        for text in arguments:
            answer = chain.invoke({"history": history.messages, "text": text})
            # Both or neither: a question whose model call failed is not stored.
            history.add_messages([HumanMessage(text), answer])
            print(f"{text} → {answer.text}")


if __name__ == "__main__":
    main(sys.argv[1:] or ["My name is Ada.", "What is my name?"])
