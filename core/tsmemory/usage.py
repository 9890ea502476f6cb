"""Token usage that providers reported, as frameworks keep it in their messages.

LangChain keeps a model's usage in ``AIMessage.usage_metadata``, which is stored in the extension of
the message (https://docs.langchain.com/oss/python/langchain/messages#token-usage). LlamaIndex has
no field for it. Where an integration puts it into the message's ``additional_kwargs``, under
``usage`` (streamed answers of Anthropic) or as ``prompt_tokens`` and ``completion_tokens`` (the
names of OpenAI's API), it is stored; most report it beside the message, in the ``ChatResponse``,
which no memory is given. Messages without any of these count for nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from tsmemory.model import Message, Record, Stats

__all__ = [
    "SessionUsage",
    "TokenUsage",
    "UsageStats",
    "UserUsage",
    "token_usage",
    "total_usage",
    "with_usage",
]


class TokenUsage(Record, frozen=True, kw_only=True):
    """A sum of what providers reported, in tokens."""

    messages: int = 0
    """Messages that report their usage."""
    input_tokens: int = 0
    """Of the prompts; each call of a model counts its whole prompt."""
    output_tokens: int = 0
    total_tokens: int = 0
    cached_tokens: int = 0
    """Of the input: what a prompt cache served."""
    reasoning_tokens: int = 0
    """Of the output: what the model thought."""


class SessionUsage(TokenUsage, frozen=True, kw_only=True):
    """The usage of one session."""

    user_id: str
    session_id: str


class UserUsage(TokenUsage, frozen=True, kw_only=True):
    """The usage of all sessions of a user."""

    user_id: str


class UsageStats(Stats, frozen=True, kw_only=True):
    """`Stats`, with the token usage that live messages keep (``stats(usage=True)``)."""

    usage: TokenUsage
    """Of everything."""
    usage_by_user: list[UserUsage]
    """The largest total first; users without reported usage are left out."""
    usage_by_session: list[SessionUsage]
    """As `usage_by_user`. A fork counts what was copied into it again."""


def token_usage(message: Message) -> TokenUsage | None:
    """What the provider reported for this message; None where nothing is kept."""
    for extension in message.extensions.values():
        if not isinstance(extension, dict):
            continue
        kwargs = extension.get("additional_kwargs")
        own = kwargs if isinstance(kwargs, dict) else {}
        for candidate in (extension.get("usage_metadata"), own.get("usage"), own):
            usage = _read(candidate) if isinstance(candidate, dict) else None
            if usage is not None:
                return usage
    return None


def total_usage(usages: Iterable[TokenUsage]) -> TokenUsage:
    """The sum."""
    sums = dict.fromkeys(_FIELDS, 0)
    for usage in usages:
        for name in _FIELDS:
            sums[name] += getattr(usage, name)
    return TokenUsage(**sums)


_FIELDS = TokenUsage.__struct_fields__


def _read(usage: Mapping[str, Any]) -> TokenUsage | None:
    """Usage by the names of LangChain, of Anthropic's or of OpenAI's API."""
    read = _count(usage, "input_tokens", "prompt_tokens")
    written = _count(usage, "output_tokens", "completion_tokens")
    if read is None and written is None:
        return None
    total = _count(usage, "total_tokens")
    inputs = usage.get("input_token_details") or usage.get("prompt_tokens_details")
    outputs = usage.get("output_token_details") or usage.get("completion_tokens_details")
    cached = _count(inputs, "cache_read", "cached_tokens")
    reasoning = _count(outputs, "reasoning", "reasoning_tokens")
    return TokenUsage(
        messages=1,
        input_tokens=read or 0,
        output_tokens=written or 0,
        total_tokens=(read or 0) + (written or 0) if total is None else total,
        cached_tokens=cached or 0,
        reasoning_tokens=reasoning or 0,
    )


def _count(usage: Any, *names: str) -> int | None:
    if not isinstance(usage, dict):
        return None
    values = (usage.get(name) for name in names)
    return next((v for v in values if type(v) is int and v >= 0), None)


def with_usage(stats: Stats, sessions: list[SessionUsage]) -> UsageStats:
    """`stats` with the usage of its sessions."""
    by_user: dict[str, list[SessionUsage]] = {}
    for session in sessions:
        by_user.setdefault(session.user_id, []).append(session)
    users = [
        UserUsage(user_id=user, **msgspec.structs.asdict(total_usage(user_usage)))
        for user, user_usage in by_user.items()
    ]
    return UsageStats(
        **msgspec.structs.asdict(stats),
        usage=total_usage(sessions),
        usage_by_user=sorted(users, key=lambda usage: (-usage.total_tokens, usage.user_id)),
        usage_by_session=sorted(
            sessions, key=lambda usage: (-usage.total_tokens, usage.user_id, usage.session_id)
        ),
    )
