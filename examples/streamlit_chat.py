"""A chat page with a list of conversations and a search: ``streamlit run streamlit_chat.py``."""

from __future__ import annotations

import os
from typing import Any
from uuid import uuid4

import streamlit as st

from langchain_tsmemory import from_neutral
from tsmemory import Message, Store, Window, open_store

USER = "ada"  # from your login


@st.cache_resource
def the_store() -> Store:
    """One store for all scripts and threads of this process."""
    return open_store(os.environ.get("TSMEMORY_URL", "sqlite:///chat.db"))


@st.cache_resource
def the_model() -> Any:
    from langchain.chat_models import init_chat_model

    return init_chat_model(os.environ["MODEL"])


def answer(view: list[Message]) -> str:
    """What the model says to the window."""
    if "MODEL" not in os.environ:
        return f"I was shown {len(view)} messages."
    return str(the_model().invoke([from_neutral(m) for m in view]).text)


store = the_store()
state = st.session_state
state.setdefault("session", uuid4().hex)

with st.sidebar:
    if st.button("New conversation"):
        state.session = uuid4().hex
    words = st.text_input("Search")
    if words.strip():
        for hit in store.search_messages(words, user_id=USER, limit=10):
            if st.button(hit.snippet, key=f"hit-{hit.session_id}-{hit.message.message_id}"):
                state.session = hit.session_id
    else:
        for session in store.list_sessions(user_id=USER, limit=10):
            if st.button(session.title or "…", key=f"session-{session.session_id}"):
                state.session = session.session_id

chat = store.conversation(state.session, user_id=USER)
for message in chat.list_messages(order="desc", limit=50).items[::-1]:
    with st.chat_message(message.role):
        st.write(message.text)

if text := st.chat_input("Say something"):
    chat.append(Message.user(text))
    chat.append(Message.assistant(answer(chat.window(Window(last=20, step=20)))))
    session = chat.session()
    if session is not None and session.title is None:
        chat.update_session(title=text[:40])
    st.rerun()
