"""The operations that write and remove messages of one session."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import msgspec

from tsmemory import checks
from tsmemory.checks import MessageLike
from tsmemory.content import as_content
from tsmemory.engine.records import (
    UNSET,
    Change,
    MessageQuery,
    Position,
    Snapshot,
    Unset,
)
from tsmemory.engine.steps import Steps
from tsmemory.errors import NotFoundError
from tsmemory.model import (
    Id,
    Message,
    MessageList,
    ToolCall,
)
from tsmemory.times import MAX_TIME
from tsmemory.usecases.arguments import (
    position,
    whole,
)
from tsmemory.usecases.rewriting import check_duplicates, check_unique, replacement
from tsmemory.usecases.windows import Appended, ConversationWindowSteps, Hide, window_query
from tsmemory.window import Window, as_window

if TYPE_CHECKING:
    from tsmemory.blocks import Content

__all__ = ["ConversationWritingSteps"]

_END = Position(MAX_TIME + 1, "")


class ConversationWritingSteps(ConversationWindowSteps):
    """The part of `ConversationSteps` that writes and removes messages."""

    __slots__ = ()

    if TYPE_CHECKING:
        ttl: float | None
        default_ttl: float | None

    # -- writing -----------------------------------------------------------------------------

    def append(
        self, *messages: MessageLike | Iterable[MessageLike], if_version: int | None = None
    ) -> Steps[list[Message]]:
        """Same as `Conversation.append`."""
        batch = self._batch(messages, if_version)
        if not batch:
            return MessageList()
        outcome = yield from self.backend.commit(self.key, self._appending(batch, if_version))
        return MessageList(outcome.stored)

    def append_and_window(
        self,
        messages: Iterable[MessageLike],
        window: Window | int | None = None,
        *,
        if_version: int | None = None,
        explain: bool = False,
        hide: Hide | None = None,
    ) -> Steps[Appended]:
        """`append`, then `window` and the session's record: in one request where the backend can.

        Args:
            hide: as in `window`.

        Raises:
            ConflictError: as `Conversation.append`; nothing was written.
        """
        policy = as_window(window)
        batch = self._batch((messages,), if_version)
        query = window_query(policy, session=True, whole=explain or hide is not None)
        if batch:
            outcome, read = yield from self.backend.commit_and_read(
                self.key, self._appending(batch, if_version), query
            )
            stored, session = outcome.stored, outcome.session
        else:
            read = yield from self.backend.read(self.key, query)
            stored, session = [], whole(read.session)
        report = yield from self._cut(policy, query, read, explain, hide)
        return Appended(stored, session, report)

    def _batch(self, messages: tuple[Any, ...], if_version: int | None) -> tuple[Message, ...]:
        batch = checks.check_messages(checks.flattened(messages))
        checks.check_version(if_version)
        if len(batch) > 1:
            check_duplicates(batch)
        return batch

    def _appending(self, batch: tuple[Message, ...], if_version: int | None) -> Change:
        return Change(
            append=batch, if_version=if_version, ttl=self.ttl, default_ttl=self.default_ttl
        )

    def put_message(self, message: MessageLike) -> Steps[Message]:
        """Same as `Conversation.put_message`."""
        return (yield from self.put_messages([message]))[0]

    def put_messages(self, messages: Iterable[MessageLike]) -> Steps[list[Message]]:
        """Same as `Conversation.put_messages`."""
        batch = checks.check_messages(messages)
        if not batch:
            return []
        change = Change(put=batch, ttl=self.ttl, default_ttl=self.default_ttl)
        return (yield from self.backend.commit(self.key, change)).stored

    def update_message(
        self,
        message_id: Id,
        *,
        role: str | Unset = UNSET,
        content: Content | Unset = UNSET,
        name: str | Unset | None = UNSET,
        tool_calls: Iterable[ToolCall] | Unset = UNSET,
        tool_call_id: str | Unset | None = UNSET,
        metadata: dict[str, Any] | Unset = UNSET,
        remove_metadata: Iterable[str] = (),
        extensions: dict[str, Any] | Unset = UNSET,
    ) -> Steps[Message]:
        """Same as `Conversation.update_message`."""
        message_id = checks.check_id("message_id", message_id)
        removed = checks.check_texts("remove_metadata", remove_metadata)
        fields: dict[str, Any] = {
            "role": role,
            "content": content if content is UNSET else as_content(content),
            "name": name,
            "tool_calls": UNSET if tool_calls is UNSET else checks.as_calls(tool_calls),
            "tool_call_id": tool_call_id,
            "extensions": extensions,
        }
        changes = {name: value for name, value in fields.items() if value is not UNSET}
        checks.check_storable(
            Message("user", metadata={} if metadata is UNSET else metadata), **changes
        )

        def decide(stored: Snapshot) -> Change:
            if stored.session is None or not stored.messages:
                raise NotFoundError(
                    f"session {self.key.session_id!r} has no message {message_id!r}; "
                    "put_message inserts one"
                )
            old = whole(stored.messages[0])
            merged = {k: v for k, v in old.metadata.items() if k not in removed}
            if metadata is not UNSET:
                merged.update(metadata)
            new = msgspec.structs.replace(old, metadata=merged, **changes)
            return Change(put=(new,), create=False, ttl=self.ttl)

        outcome = yield from self.backend.rewrite(self.key, decide, [message_id])
        return outcome.stored[0]

    def replace(self, messages: Iterable[MessageLike]) -> Steps[list[Message]]:
        """Same as `Conversation.replace`."""
        target = checks.check_messages(messages)
        check_unique(target)
        placed: list[Message] = []

        def decide(stored: Snapshot) -> Change | None:
            nonlocal placed
            placed, change = replacement(target, stored.messages, self.backend.clock())
            if change is None:
                return None
            return msgspec.structs.replace(change, ttl=self.ttl, default_ttl=self.default_ttl)

        yield from self.backend.rewrite(self.key, decide)
        return placed

    # -- removing ----------------------------------------------------------------------------

    def delete_message(self, *message_ids: Id) -> Steps[int]:
        """Same as `Conversation.delete_message`."""
        ids = tuple(checks.check_id("message_id", mid) for mid in message_ids)
        if not ids:
            return 0
        return (yield from self.backend.commit(self.key, Change(delete=ids, create=False))).deleted

    def truncate(self, keep_last: int) -> Steps[int]:
        """Same as `Conversation.truncate`."""
        checks.check_size("keep_last", keep_last)
        if keep_last == 0:
            return (yield from self.clear())
        query = MessageQuery(limit=keep_last + 1, descending=True)
        rows = (yield from self.backend.read(self.key, query)).rows
        if len(rows) <= keep_last:
            return 0
        return (yield from self._delete_through(position(rows[-1])))

    def rewind(self, *, until: Id) -> Steps[int]:
        """Same as `Conversation.rewind`."""
        until = checks.check_id("until", until)
        rows = yield from self.backend.get_messages(self.key, [until])
        if not rows:
            raise NotFoundError(f"session {self.key.session_id!r} has no message {until!r}")
        # What others append after this read stays: as if they had appended after the rewind.
        query = MessageQuery(limit=None, after=position(rows[0]))
        later = (yield from self.backend.read(self.key, query)).rows
        return (yield from self.delete_message(*(row.message_id or "" for row in later)))

    def clear(self) -> Steps[int]:
        """Same as `Conversation.clear`."""
        return (yield from self._delete_through(_END))

    def _delete_through(self, position: Position) -> Steps[int]:
        change = Change(delete_through=position, create=False)
        return (yield from self.backend.commit(self.key, change)).deleted
