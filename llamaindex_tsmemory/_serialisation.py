"""What the chat stores share: their fields, the store behind them, and how they are written down.

Serialised (`to_dict`, pydantic's own ways, pickle, ``repr``) a chat store has its URL without
secrets; reading it back connects again (`reconnecting_url`). Copies share the store: a framework
copies deeply what it only wants to keep apart.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from llama_index.core.bridge.pydantic import BaseModel, Field, PrivateAttr

from tsmemory import Conversation, InvalidInputError, Store, open_store, redact_url
from tsmemory.adapters import ClosesStore, connect

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["URL_VARIABLE", "StoreFields", "reconnecting_url"]

URL_VARIABLE = "TSMEMORY_URL"
"""The environment variable that gives the URL, with its secrets, to a chat store that is read back
from where secrets are not written."""

_Dict: TypeAlias = dict[str, Any]  # BaseComponent has a method of that name
S = TypeVar("S", bound="StoreFields")


class StoreFields(ClosesStore, BaseModel):
    """The fields of a chat store, and the store that its sessions are in."""

    url: str | None = Field(default=None, description="The store's URL, without secrets.")
    user_id: str = Field(default="default", description="Whose sessions.")
    ttl: float | None = Field(default=None, description="Seconds a session lives after a write.")
    options: tuple[str, ...] = Field(default=(), description="Options given beside the URL.")

    _store: Store = PrivateAttr()
    _opened: Store | None = PrivateAttr(default=None)

    if TYPE_CHECKING:

        def __init__(self, store: Store | str | None = None, **fields: Any) -> None: ...

    def _connect(
        self,
        store: Store | str | None,
        url: str | None,
        options: Sequence[str],
        user_id: str,
        ttl: float | None,
        **fields: Any,
    ) -> None:
        """Fill in the fields and the store. Checks the arguments before anything is kept."""
        if store is None:
            store = reconnecting_url(url, options, type(self).__name__)
        connected, opened, chat = connect(
            store, lambda opened: opened.conversation("any", user_id=user_id, ttl=ttl)
        )
        shown_url = redact_url(store) if isinstance(store, str) else None
        try:
            BaseModel.__init__(self, url=shown_url, user_id=chat.user_id, ttl=ttl, **fields)
        except BaseException:
            if opened is not None:
                opened.close()
            raise
        self._store, self._opened = connected, opened

    @classmethod
    def _from_url(cls: type[S], url: str, options: _Dict, **fields: Any) -> S:
        store = open_store(url, **options)
        try:
            chat_store = cls(store, **fields)
        except BaseException:
            store.close()
            raise
        chat_store.url, chat_store.options, chat_store._opened = (
            redact_url(url),
            tuple(sorted(options)),
            store,
        )
        return chat_store

    @classmethod
    def _from_store(cls: type[S], store: Store, **fields: Any) -> S:
        if not isinstance(store, Store):
            raise InvalidInputError(f"from_store takes a tsmemory.Store, not {type(store)}")
        return cls(store, **fields)

    @property
    def store(self) -> Store:
        """The store that the sessions are in."""
        return self._store

    def conversation(self, key: str) -> Conversation:
        """The session, with everything that tsmemory can do with it."""
        return self._store.conversation(key, user_id=self.user_id, ttl=self.ttl)

    def to_dict(self, **kwargs: Any) -> _Dict:
        """What `from_dict` makes a chat store of: no secret, and no message."""
        return {**self.model_dump(**kwargs), "class_name": self.class_name()}

    @classmethod
    def class_name(cls) -> str:
        """The name in serialised form."""
        return cls.__name__

    @classmethod
    def from_dict(cls, data: _Dict, **kwargs: Any) -> Self:
        """The chat store that `to_dict` wrote, connected again.

        Args:
            data: what it wrote.
            kwargs: instead of what is there: ``store=``, where the URL has secrets or a Store was
                given.

        Raises:
            InvalidInputError: there is nothing to connect to; says what to give.
        """
        fields = {name: value for name, value in data.items() if name != "class_name"}
        return cls(**{**fields, **kwargs})

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        # As to_dict: a store's connections do not travel, and its URL must not with its secrets.
        return type(self).from_dict, (self.to_dict(),)

    def __copy__(self: S) -> S:
        fields = {name: getattr(self, name) for name in type(self).model_fields}
        url, options = fields.pop("url"), fields.pop("options")
        copied = type(self)(self._store, **fields)
        copied.url, copied.options = url, options
        return copied

    def __deepcopy__(self: S, memo: Any = None) -> S:
        """The same store: frameworks copy deeply what they only want to keep apart."""
        return self.__copy__()


def reconnecting_url(url: str | None, options: Sequence[str], name: str) -> str:
    """The URL that a store class called `name`, read back from serialised form, opens.

    Raises:
        InvalidInputError: there is none; says what to give.
    """
    if url is not None and "***" not in url and not options:
        return url
    configured = os.environ.get(URL_VARIABLE)
    if configured:
        return configured
    if url is None:
        why = "there is no URL to open a store at"
    elif options:
        why = f"the store was opened with options beside its URL ({', '.join(options)})"
    else:
        why = f"the URL {redact_url(url)} was written without its secrets"
    raise InvalidInputError(
        f"{why}; set the environment variable {URL_VARIABLE}, or give the store: "
        f"{name}.from_dict(data, store=…), a tsmemory.Store or a URL"
    )
