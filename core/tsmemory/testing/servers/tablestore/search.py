"""Search indexes: their schema, and the documents made from rows.

A document is the row's fields in the types of the schema; a column whose value does not fit its
field's type is left out of the document. Nested fields and arrays are read from JSON text, as the
service does. A search walks every document: right for tests, slow for millions of rows.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from . import limits
from ._wire import search_pb
from .analysis import Analyzer, analyzer
from .errors import invalid
from .rows import Key, Row

if TYPE_CHECKING:
    from .schema import Table

#: A field's values in a document: always a list, of one value unless the field is an array.
FieldValues = list[Any]


@dataclass
class Field:
    """A field of a search index.

    Attributes:
        kind: the protobuf ``FieldType``.
        analyze: cuts a TEXT field into words; None for the other types.
        nested: the sub-fields of a NESTED field, by name.
    """

    name: str
    kind: int
    indexed: bool
    sortable: bool
    is_array: bool
    analyze: Analyzer | None
    date_formats: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    dimension: int = 0
    nested: dict[str, Field] = field(default_factory=dict)

    def values(self, raw: Any) -> FieldValues:
        """The values a column's content gives this field; empty when it does not fit."""
        if self.kind == search_pb.NESTED:
            return self._nested(raw)
        if not self.is_array:
            value = self.value(raw)
            return [] if value is None else [value]
        parts = _json(raw)
        if not isinstance(parts, list):
            return []
        return [value for part in parts if (value := self.value(part)) is not None]

    def _nested(self, raw: Any) -> FieldValues:
        parts = _json(raw)
        if isinstance(parts, dict):
            parts = [parts]
        if not isinstance(parts, list):
            return []
        return [
            {name: sub.values(part[name]) for name, sub in self.nested.items() if name in part}
            for part in parts
            if isinstance(part, dict)
        ]

    def value(self, raw: Any) -> Any:
        """One value in the field's type; None when it does not fit."""
        kind = self.kind
        if kind in (search_pb.KEYWORD, search_pb.TEXT):
            return raw if isinstance(raw, str) else None
        if kind == search_pb.LONG:
            return raw if type(raw) is int else None
        if kind == search_pb.DOUBLE:
            return float(raw) if type(raw) in (int, float) else None
        if kind == search_pb.BOOLEAN:
            return raw if isinstance(raw, bool) else None
        if kind == search_pb.DATE:
            return self._date(raw)
        if kind == search_pb.VECTOR:
            return self._vector(raw)
        return None

    def _vector(self, raw: Any) -> list[float] | None:
        parts = _json(raw)
        if not isinstance(parts, list) or len(parts) != self.dimension:
            return None
        try:
            return [float(part) for part in parts]
        except (TypeError, ValueError):
            return None

    def _date(self, raw: Any) -> int | None:
        """Microseconds since the epoch."""
        if type(raw) is int:
            scale = {"epoch_second": 10**6, "epoch_millis": 10**3, "epoch_micros": 1}
            for name in self.date_formats:
                if name in scale:
                    return raw * scale[name]
            return None if self.date_formats else raw * 1000
        if not isinstance(raw, str):
            return None
        for name in self.date_formats:
            if not _date_shape(name).fullmatch(raw):  # strptime takes 2026-1-1 for yyyy-MM-dd
                continue
            pattern = _strptime_format(name)
            try:
                moment = datetime.strptime(raw, pattern)  # noqa: DTZ007 - UTC is set below
            except ValueError:
                continue
            if moment.tzinfo is None:
                moment = moment.replace(tzinfo=timezone.utc)
            return round(moment.timestamp() * 10**6)
        return None

    def query_value(self, raw: Any) -> Any:
        """A query's value in the field's type: text is converted, as the service does.

        Raises:
            ServiceError: OTSParameterInvalid, when it cannot be.
        """
        converted: Any = raw
        try:
            if self.kind == search_pb.LONG and isinstance(raw, (str, float)):
                converted = int(raw)
            elif self.kind == search_pb.DOUBLE and isinstance(raw, (str, int)):
                converted = float(raw)
            elif self.kind == search_pb.BOOLEAN and isinstance(raw, str):
                converted = {"true": True, "false": False}.get(raw.lower())
        except (ValueError, OverflowError):
            converted = None
        value = self.value(converted)
        if value is None:
            raise invalid(f"The value of field [{self.name}] does not fit its type.")
        return value


def _strptime_format(name: str) -> str:
    for java, python in (
        ("yyyy", "%Y"), ("MM", "%m"), ("dd", "%d"), ("HH", "%H"), ("mm", "%M"),
        ("ss", "%S"), (".SSSSSS", ".%f"), (".SSS", ".%f"), ("'T'", "T"), ("'Z'", "Z"),
    ):  # fmt: skip
        name = name.replace(java, python)
    return name


@lru_cache(maxsize=64)
def _date_shape(name: str) -> re.Pattern[str]:
    """How a text of a date format looks: as many digits as the format has letters."""
    shape = ""
    for quoted, letters, other in re.findall(r"('[^']*')|([A-Za-z]+)|([^A-Za-z'])", name):
        if letters and letters[0] in "XZxz":
            shape += r"(?:Z|[+-]\d\d:?(?:\d\d)?)"
        elif letters:
            shape += rf"\d{{{len(letters)}}}" if len(letters) > 1 else r"\d{1,2}"
        else:
            shape += re.escape(quoted[1:-1] if quoted else other)
    return re.compile(shape)


def _json(raw: Any) -> Any:
    if not isinstance(raw, str):
        return raw
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        return None


def _field(message: Any) -> Field:
    if message.field_type not in (
        search_pb.LONG, search_pb.DOUBLE, search_pb.BOOLEAN, search_pb.KEYWORD, search_pb.TEXT,
        search_pb.NESTED, search_pb.DATE, search_pb.VECTOR, search_pb.GEO_POINT,
    ):  # fmt: skip
        raise invalid(f"The type of field [{message.field_name}] is not supported here.")
    sortable = message.enable_sort_and_agg
    if sortable and message.field_type == search_pb.TEXT:
        raise invalid(f"TEXT field [{message.field_name}] cannot enable sort and aggregation.")
    return Field(
        name=message.field_name,
        kind=message.field_type,
        indexed=message.index if message.HasField("index") else True,
        sortable=sortable,
        is_array=message.is_array,
        analyze=analyzer(message) if message.field_type == search_pb.TEXT else None,
        date_formats=tuple(message.date_formats),
        sources=tuple(message.source_field_names) if message.is_virtual_field else (),
        dimension=message.vector_options.dimension,
        nested={sub.field_name: _field(sub) for sub in message.field_schemas},
    )


class Document:
    """A row as a search index sees it."""

    __slots__ = ("fields", "row")

    def __init__(self, row: Row, fields: dict[str, FieldValues]) -> None:
        self.row = row
        self.fields = fields


class SearchIndex:
    """A search index and its documents.

    Args:
        request: the protobuf ``CreateSearchIndexRequest``.
        created: seconds since the epoch.

    Raises:
        ServiceError: OTSParameterInvalid, for a schema that cannot be.
    """

    def __init__(self, request: Any, table: Table, created: int) -> None:
        schema = request.schema
        if not schema.field_schemas:
            raise invalid("The schema of the search index has no field.")
        if len(schema.field_schemas) > limits.SEARCH_FIELDS:
            raise invalid(f"The number of fields exceeds the upper limit: {limits.SEARCH_FIELDS}.")
        self.request = type(request)()
        self.request.CopyFrom(request)
        self.table = table
        self.created = created
        self.fields: dict[str, Field] = {}
        for message in schema.field_schemas:
            if message.field_name in self.fields:
                raise invalid(f"Duplicated field name: [{message.field_name}].")
            self.fields[message.field_name] = _field(message)
        self._check_routing(schema)
        self.documents: dict[Key, Document] = {}
        if request.HasField("time_to_live"):
            self.set_time_to_live(request.time_to_live)

    def _check_routing(self, schema: Any) -> None:
        for name in schema.index_setting.routing_fields:
            if name not in self.table.key_names:
                raise invalid(f"Routing field [{name}] is not a primary key column.")

    def set_time_to_live(self, seconds: int) -> None:
        """Set the index's own time to live; it is kept and described, and hides nothing.

        Raises:
            ServiceError: OTSParameterInvalid, when it is 0 or less than -1.
        """
        if seconds == 0 or seconds < -1:
            raise invalid(f"Invalid time to live: {seconds}.")
        self.request.time_to_live = seconds

    def described(self) -> Any:
        """The protobuf ``IndexSchema``, with the defaults filled in."""
        schema = search_pb.IndexSchema()
        schema.CopyFrom(self.request.schema)
        for message in schema.field_schemas:
            _fill_defaults(message)
        has_nested = any(field.kind == search_pb.NESTED for field in self.fields.values())
        if not schema.HasField("index_sort"):
            schema.index_sort.SetInParent()
            if not has_nested:
                schema.index_sort.sorter.add().pk_sort.order = search_pb.SORT_ORDER_ASC
        return schema

    def apply(self, before: Row | None, after: Row | None) -> None:
        """Follow a change of a row of the table."""
        if after is None:
            if before is not None:
                self.documents.pop(before.key, None)
            return
        self.documents[after.key] = Document(after, self._document(after))

    def _document(self, row: Row) -> dict[str, FieldValues]:
        keys = dict(row.primary_key)
        fields: dict[str, FieldValues] = {}
        for name, definition in self.fields.items():
            values: FieldValues = []
            for source in definition.sources or (name,):
                raw: Any = keys.get(source)
                if raw is None:
                    cell = row.newest(source)
                    raw = cell.value if cell is not None else None
                if raw is not None:
                    values += definition.values(raw)
            if values:
                fields[name] = values
        return fields

    def field(self, name: str) -> Field:
        """The field a query names; ``path.name`` for a nested one.

        Raises:
            ServiceError: OTSParameterInvalid, when the index has no such field.
        """
        fields = self.fields
        match: Field | None = None
        path = name
        while path:
            if path in fields:
                match = fields[path]
                break
            head, _, path = path.partition(".")
            if head not in fields:
                break
            fields = fields[head].nested
        if match is None:
            raise invalid(f"field [{name}] does not exist in the index schema")
        return match


def _fill_defaults(message: Any) -> None:
    if message.field_type != search_pb.NESTED:
        for name, default in (("index", True), ("is_array", False), ("enable_sort_and_agg", False)):
            if not message.HasField(name):
                setattr(message, name, default)
    if message.field_type == search_pb.TEXT and not message.HasField("analyzer"):
        message.analyzer = "single_word"
    for sub in message.field_schemas:
        _fill_defaults(sub)


def cosine(vector: list[float], other: list[float]) -> float:
    """The similarity of two vectors, from 0 to 1."""
    dot = sum(a * b for a, b in zip(vector, other, strict=True))
    norm = math.sqrt(sum(a * a for a in vector)) * math.sqrt(sum(b * b for b in other))
    return (1 + dot / norm) / 2 if norm else 0.0
