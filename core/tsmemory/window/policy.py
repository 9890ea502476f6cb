"""`Window`: how much of a conversation a model is shown, and how."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Literal

import msgspec

from tsmemory.errors import InvalidInputError
from tsmemory.model import Message
from tsmemory.window.tokens import count_tokens

__all__ = ["Window", "as_window"]


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """How much of a conversation to read, and how.

    Raises:
        InvalidInputError: a negative or non-integer size, or an unknown choice.
    """

    last: int | None = None
    """The newest messages in the view, at least. 0 is an empty view, None no limit."""
    step: int | None = None
    """The start of the view moves by this many messages at once, so that in between a prompt is
    the previous prompt and what is new, which a provider's prompt cache answers. With `last`:
    between `last` and ``last + step - 1`` messages."""
    max_tokens: int | None = None
    """The most tokens in the view, by `token_counter`, instructions and summary included."""
    reserve: int = 0
    """Tokens of `max_tokens` that are kept free: for tool schemas, a system prompt that is not
    stored, and the answer."""
    token_counter: Callable[[Message], int] = count_tokens
    system: Literal["keep", "lead", "in_place", "drop"] = "keep"
    """Where system and developer messages are shown. ``"lead"``: before all others, which every
    provider accepts. ``"in_place"``: where they stand, which few providers accept. ``"drop"``:
    nowhere. ``"keep"``: they lead; but with `step`, those behind the start of the view are shown
    where they stand, as user messages in ``<system>`` tags, because a change at the top of a
    prompt makes the whole cache useless."""
    summary: bool = False
    """Show the session's summary, as a system message after the instructions."""
    start: Literal["user", "any"] = "user"
    unanswered: Literal["drop", "error"] = "drop"
    """What becomes of a tool call without a result: left out, or answered with an error."""
    tool_results: int | None = None
    """How many of the newest tool results are shown whole, at least; older ones are shown as one
    line that names the message. None: all."""
    merge_roles: bool = False
    """Merge neighbours of one role, for models that want user and assistant to alternate."""

    def __post_init__(self) -> None:
        for name, least in (
            ("last", 0), ("step", 1), ("max_tokens", 0), ("reserve", 0), ("tool_results", 0),
        ):  # fmt: skip
            size = getattr(self, name)
            if size is None and name != "reserve":
                continue
            if not isinstance(size, int) or isinstance(size, bool):
                raise InvalidInputError(f"{name} is an int, not {type(size).__name__}")
            if size < least:
                raise InvalidInputError(f"{name} is {size}; give {least} or more")
        for name, allowed in (
            ("system", ("keep", "lead", "in_place", "drop")),
            ("start", ("user", "any")),
            ("unanswered", ("drop", "error")),
        ):
            if getattr(self, name) not in allowed:
                raise InvalidInputError(
                    f"{name} is {getattr(self, name)!r}; give one of {', '.join(allowed)}"
                )
        if type(self.merge_roles) is not bool:
            raise InvalidInputError("merge_roles is True or False")
        if not callable(self.token_counter):
            raise InvalidInputError("token_counter is not callable; it takes a Message, gives int")
        if self.max_tokens is not None and self.reserve > self.max_tokens:
            raise InvalidInputError(
                f"reserve is {self.reserve}, more than the {self.max_tokens} of max_tokens"
            )

    @property
    def everything(self) -> bool:
        """Whether no size limits the view."""
        return self.last is None and self.max_tokens is None

    @property
    def untouched(self) -> bool:
        """Whether every message is shown as it is, however many there are."""
        return self.max_tokens is None and self.tool_results is None and not self.merge_roles

    @property
    def budget(self) -> int | None:
        """The tokens that the view may take; None without `max_tokens`."""
        return None if self.max_tokens is None else self.max_tokens - self.reserve

    @property
    def notes(self) -> bool:
        """Whether instructions behind the start are shown in place, as user messages."""
        return self.system == "keep" and self.step is not None


def as_window(window: Window | int | None) -> Window:
    """What a ``window=`` argument means: a policy, or the number of the newest messages.

    Raises:
        InvalidInputError: it is neither, or negative.
    """
    if type(window) is int:
        return _newest(window)
    return window if isinstance(window, Window) else Window(last=window)


@lru_cache(maxsize=64)
def _newest(last: int) -> Window:
    return Window(last=last)
