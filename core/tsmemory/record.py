"""What every record is: a frozen `msgspec.Struct` that goes in and out as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from tsmemory.errors import InvalidInputError
from tsmemory.values import as_json

__all__ = ["Record"]

R = TypeVar("R", bound="Record")


class Record(msgspec.Struct, frozen=True):
    """What goes in and out as JSON."""

    def to_dict(self) -> dict[str, Any]:
        """The record as a dict that JSON can hold."""
        plain: dict[str, Any] = _plain(self, "")
        return plain

    def to_json(self) -> str:
        """The record as JSON text, one line."""
        try:
            return msgspec.json.encode(self.to_dict()).decode()
        except UnicodeEncodeError:  # lone surrogates: JSON's own escapes hold them, UTF-8 does not
            import json  # rarely needed

            return json.dumps(self.to_dict())

    @classmethod
    def from_dict(cls: type[R], data: Mapping[str, Any]) -> R:
        """The record that `to_dict` gave.

        Raises:
            InvalidInputError: `data` is of another shape.
        """
        try:
            built: R = cls._built(msgspec.convert(data, cls))
        except (ValueError, TypeError) as error:
            raise InvalidInputError(f"not a {cls.__name__} as to_dict gives it: {error}") from None
        return built

    @classmethod
    def _built(cls, shape: Any) -> Any:
        """`shape`, as JSON had it, with its tagged values restored."""
        return shape

    @classmethod
    def __get_pydantic_core_schema__(cls: type[R], source: Any, handler: Any) -> Any:
        """How pydantic, and what is built on it (FastAPI), takes and gives a record."""
        from pydantic_core import core_schema  # only where pydantic asks

        taken = core_schema.no_info_after_validator_function(
            cls.from_dict, core_schema.dict_schema(core_schema.str_schema())
        )
        return core_schema.json_or_python_schema(
            json_schema=taken,
            python_schema=core_schema.union_schema([core_schema.is_instance_schema(cls), taken]),
            serialization=core_schema.plain_serializer_function_ser_schema(
                cls.to_dict, return_schema=core_schema.dict_schema(core_schema.str_schema())
            ),
        )


def _plain(value: Any, path: str) -> Any:
    """A field's value as `Record.to_dict` gives it."""
    if isinstance(value, msgspec.Struct):
        return {name: _plain(getattr(value, name), name) for name in value.__struct_fields__}
    if isinstance(value, tuple) and (names := getattr(value, "_fields", ())):
        return {name: _plain(getattr(value, name), name) for name in names}
    if isinstance(value, tuple) or (  # of a field; those in metadata and the like keep their tag
        isinstance(value, list) and (not value or isinstance(value[0], (msgspec.Struct, tuple)))
    ):
        return [_plain(part, path) for part in value]
    return as_json(value, True, path)
