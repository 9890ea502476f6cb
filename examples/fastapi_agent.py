"""An agent behind an HTTP API, for many users: ``uvicorn fastapi_agent:app``.

    curl -H "Authorization: Bearer ada" -d '{"text": "Which ferry?"}' \
        -H "Content-Type: application/json" localhost:8000/sessions/trip/messages
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any
from uuid import uuid4

from fastapi import Depends, FastAPI, Header, HTTPException, Request
from fastapi.responses import JSONResponse
from langchain.agents import create_agent
from langchain.chat_models import init_chat_model
from langchain.tools import tool
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from pydantic import BaseModel

from langchain_tsmemory import TSMemoryMiddleware
from tsmemory import (
    ConflictError,
    InvalidInputError,
    MessageTooLargeError,
    NotFoundError,
    ThrottledError,
    TimeoutError,
    TSMemoryError,
    UnavailableError,
    Window,
    open_store,
)

STATUS: dict[type[TSMemoryError], int] = {
    MessageTooLargeError: 413,
    InvalidInputError: 422,
    NotFoundError: 404,
    ConflictError: 409,
    ThrottledError: 429,
    UnavailableError: 503,
    TimeoutError: 504,
}


class NoModel(BaseChatModel):
    """In the place of a model: asks the timetable for ferries, and says how much it was shown."""

    @property
    def _llm_type(self) -> str:
        return "none"

    def bind_tools(self, tools: Any, **kwargs: Any) -> NoModel:
        return self

    def _generate(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        newest = messages[-1]
        if newest.type == "tool":
            answer = AIMessage(f"It goes at {newest.text}.")
        elif "ferry" in newest.text.lower():
            call = {"name": "timetable", "args": {"to": "Bergen"}, "id": str(uuid4())}
            answer = AIMessage("", tool_calls=[call])
        else:
            answer = AIMessage(f"I was shown {len(messages)} messages.")
        return ChatResult(generations=[ChatGeneration(message=answer)])


@tool
def timetable(to: str) -> str:
    """When the next ferry to a town goes."""
    return "08:30"


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """One store and one agent per process."""
    async with open_store(os.environ.get("TSMEMORY_URL", "sqlite:///chat.db")) as store:
        model = init_chat_model(os.environ["MODEL"]) if "MODEL" in os.environ else NoModel()
        memory = TSMemoryMiddleware(store, window=Window(last=20, step=20, max_tokens=8000))
        app.state.store = store
        app.state.agent = create_agent(model, [timetable], middleware=[memory])
        yield


app = FastAPI(title="An agent that remembers", lifespan=lifespan)


@app.exception_handler(TSMemoryError)
async def failed(request: Request, error: TSMemoryError) -> JSONResponse:
    """The store's errors as statuses. What is not the client's fault is not explained to it."""
    status = next((code for kind, code in STATUS.items() if isinstance(error, kind)), 500)
    detail = str(error) if status < 500 else "the conversation store failed"
    retry = {"Retry-After": "1"} if status in (429, 503, 504) else None
    return JSONResponse({"detail": detail}, status_code=status, headers=retry)


def login(authorization: Annotated[str, Header()] = "") -> str:
    """The user's id. Put your own login here: never take it from the request's body."""
    kind, _, user_id = authorization.partition(" ")
    if kind != "Bearer" or not user_id:
        raise HTTPException(401)
    return user_id


User = Annotated[str, Depends(login)]


class Said(BaseModel):
    text: str
    id: str | None = None
    """Made by the client, so that a request that is sent twice is one message."""


@app.post("/sessions/{session_id}/messages")
async def say(request: Request, session_id: str, said: Said, user_id: User) -> dict[str, str]:
    """Ask the agent; its answer is stored, and returned."""
    config = {"configurable": {"session_id": session_id, "user_id": user_id}}
    question = HumanMessage(said.text, id=said.id or str(uuid4()))
    state = await request.app.state.agent.ainvoke({"messages": [question]}, config)
    return {"answer": state["messages"][-1].text}


@app.get("/sessions/{session_id}/messages")
async def transcript(
    request: Request, session_id: str, user_id: User, cursor: str | None = None
) -> dict[str, Any]:
    """A page of the transcript, oldest first."""
    chat = request.app.state.store.conversation(session_id, user_id=user_id)
    page = await chat.alist_messages(limit=100, cursor=cursor)
    return {"messages": [m.to_dict() for m in page], "next_cursor": page.next_cursor}


@app.get("/sessions")
async def sessions(request: Request, user_id: User, cursor: str | None = None) -> dict[str, Any]:
    """The user's conversations, the most recently active first."""
    page = await request.app.state.store.alist_sessions(user_id=user_id, limit=20, cursor=cursor)
    return {"sessions": [s.to_dict() for s in page], "next_cursor": page.next_cursor}


@app.get("/search")
async def search(request: Request, q: str, user_id: User) -> list[dict[str, Any]]:
    """Messages of the user that hold all the words."""
    page = await request.app.state.store.asearch_messages(q, user_id=user_id, limit=20)
    return [{"session_id": h.session_id, "snippet": h.snippet, "spans": h.spans} for h in page]


@app.delete("/me")
async def forget_me(request: Request, user_id: User) -> dict[str, int]:
    """Everything of the user is deleted."""
    receipt = await request.app.state.store.aerase_user(user_id)
    return {"sessions": receipt.sessions, "messages": receipt.messages}
