"""The operations on search indexes."""

from __future__ import annotations

import base64
import json
import secrets
import time
from collections.abc import Callable
from functools import cmp_to_key
from typing import Any

from . import limits
from ._wire import DecodeError, search_pb
from .engine import Engine
from .errors import ServiceError, invalid
from .messages import parse
from .plainbuffer import encode_rows
from .query import compile_query
from .query import parse as parse_part
from .rows import Cell, Row
from .search import Document, SearchIndex
from .usage import Usage

#: A hit: its score, and what the sorters order it by.
_Hit = tuple[Document, float, list[Any]]


def create_search_index(engine: Engine, body: bytes, usage: Usage) -> bytes:
    """CreateSearchIndex; the rows that are there already are indexed at once."""
    request = parse(search_pb.CreateSearchIndexRequest(), body)
    usage.tables.append(request.table_name)
    engine.alter("CreateSearchIndex", request)
    return bytes(search_pb.CreateSearchIndexResponse().SerializeToString())


def update_search_index(engine: Engine, body: bytes, usage: Usage) -> bytes:
    """UpdateSearchIndex: its time to live."""
    request = parse(search_pb.UpdateSearchIndexRequest(), body)
    usage.tables.append(request.table_name)
    engine.alter("UpdateSearchIndex", request)
    return bytes(search_pb.UpdateSearchIndexResponse().SerializeToString())


def delete_search_index(engine: Engine, body: bytes, usage: Usage) -> bytes:
    """DeleteSearchIndex."""
    request = parse(search_pb.DeleteSearchIndexRequest(), body)
    usage.tables.append(request.table_name)
    engine.alter("DeleteSearchIndex", request)
    return bytes(search_pb.DeleteSearchIndexResponse().SerializeToString())


def list_search_index(engine: Engine, body: bytes, usage: Usage) -> bytes:
    """ListSearchIndex: of one table, or of all."""
    request = parse(search_pb.ListSearchIndexRequest(), body)
    names = sorted(engine.tables)
    if request.table_name:
        usage.tables.append(request.table_name)
        names = [engine.table(request.table_name).name]
    response = search_pb.ListSearchIndexResponse()
    for name in names:
        for index in sorted(engine.tables[name].search_indexes):
            response.indices.add(table_name=name, index_name=index)
    return bytes(response.SerializeToString())


def describe_search_index(engine: Engine, body: bytes, usage: Usage) -> bytes:
    """DescribeSearchIndex; the sync state is always incremental, up to now."""
    request = parse(search_pb.DescribeSearchIndexRequest(), body)
    usage.tables.append(request.table_name)
    index = engine.search_index(request.table_name, request.index_name)
    response = search_pb.DescribeSearchIndexResponse(create_time=index.created)
    response.schema.CopyFrom(index.described())
    response.time_to_live = (
        index.request.time_to_live if index.request.HasField("time_to_live") else -1
    )
    if request.include_sync_stat:
        response.sync_stat.sync_phase = search_pb.INCR
        response.sync_stat.current_sync_timestamp = engine.now() * 1_000_000
    return bytes(response.SerializeToString())


# --- Search ---------------------------------------------------------------------------------


def search(engine: Engine, body: bytes, usage: Usage) -> bytes:
    """Search: query, sort, page by offset or token, count."""
    request = parse(search_pb.SearchRequest(), body)
    usage.tables.append(request.table_name)
    index = engine.search_index(request.table_name, request.index_name)
    query = parse_part(search_pb.SearchQuery(), request.search_query)
    for name in ("collapse", "aggs", "group_bys", "highlight"):
        if query.HasField(name):
            raise ServiceError(
                "OTSUnsupportOperation", f"Search with {name} is not supported here."
            )
    columns = _Columns(request.columns_to_get, index)
    limit, offset = _page(query, columns)
    sort, after = _position(query, index)
    sorters = _sorters(sort, index)
    hits = _hits(engine, index, query.query, sorters)
    hits.sort(key=_in_order(sorters))
    total = len(hits)
    if after is not None:
        hits = [hit for hit in hits if _compare(hit[2], after, sorters) > 0]
    page = hits[offset : offset + limit]
    scored = any(kind == "score" for kind, _, _ in sorters)
    response = search_pb.SearchResponse(is_all_succeed=True)
    response.total_hits = total if query.get_total_count else -1
    for document, score, _ in page:
        row = columns.encoded(document)
        if row is None:
            continue
        response.rows.append(row)
        response.search_hits.add(score=score if scored else float("nan"))
    usage.rows_read += len(response.rows)
    usage.rows_returned += len(response.rows)
    if page and len(hits) > offset + limit:
        response.next_token = _token(sort, page[-1][2])
    return bytes(response.SerializeToString())


def _page(query: Any, columns: _Columns) -> tuple[int, int]:
    limit = query.limit if query.HasField("limit") else limits.SEARCH_DEFAULT_LIMIT
    offset = query.offset if query.HasField("offset") else 0
    most = limits.SEARCH_LIMIT_FROM_INDEX if columns.from_index else limits.SEARCH_LIMIT_FROM_TABLE
    if not 0 <= limit <= most:
        raise invalid(f"The limit of Search must be in range: [0, {most}], actual: {limit}.")
    if offset < 0 or offset + limit > limits.SEARCH_OFFSET_AND_LIMIT:
        raise invalid(f"offset + limit must not exceed {limits.SEARCH_OFFSET_AND_LIMIT}.")
    if offset and query.token:
        raise invalid("offset and token must not be specified together.")
    return limit, offset


def _token(sort: Any, last: list[Any]) -> bytes:
    state = {
        "sort": base64.b64encode(sort.SerializeToString()).decode("ascii"),
        "after": [_to_json(value) for value in last],
    }
    return json.dumps(state, separators=(",", ":")).encode("ascii")


def _to_json(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"b": base64.b64encode(value).decode("ascii")}
    if isinstance(value, tuple):
        return {"k": [_to_json(part) for part in value]}
    return value


def _from_json(value: Any) -> Any:
    if isinstance(value, dict):
        if "b" in value:
            return base64.b64decode(value["b"])
        return tuple(_from_json(part) for part in value["k"])
    return value


def _position(query: Any, index: SearchIndex) -> tuple[Any, list[Any] | None]:
    """The sort to use, and the place to go on from when a token is given."""
    sort = search_pb.Sort()
    if query.token:
        try:
            state = json.loads(query.token)
            sort.ParseFromString(base64.b64decode(state["sort"]))
            return sort, [_from_json(value) for value in state["after"]]
        except (ValueError, KeyError, TypeError, DecodeError):
            raise invalid("Invalid token.") from None
    if query.HasField("sort") and query.sort.sorter:
        sort.CopyFrom(query.sort)
    else:
        sort.CopyFrom(index.described().index_sort)
    return sort, None


_Sorter = tuple[str, bool, str]  # what to sort by, whether descending, the field


def _sorters(sort: Any, index: SearchIndex) -> list[_Sorter]:
    sorters: list[_Sorter] = []
    for sorter in sort.sorter:
        if sorter.HasField("field_sort"):
            name = sorter.field_sort.field_name
            if not index.field(name).sortable:
                raise invalid(f"field [{name}] does not enable sort and aggregation")
            kind = "max" if sorter.field_sort.mode == search_pb.SORT_MODE_MAX else "min"
            sorters.append((kind, sorter.field_sort.order == search_pb.SORT_ORDER_DESC, name))
        elif sorter.HasField("score_sort"):
            sorters.append(("score", sorter.score_sort.order == search_pb.SORT_ORDER_DESC, ""))
        elif sorter.HasField("pk_sort"):
            sorters.append(("key", sorter.pk_sort.order == search_pb.SORT_ORDER_DESC, ""))
        elif sorter.HasField("doc_sort"):
            sorters.append(("key", sorter.doc_sort.order == search_pb.SORT_ORDER_DESC, ""))
        else:
            raise ServiceError("OTSUnsupportOperation", "Geo distance sort is not supported here.")
    if not any(kind == "key" for kind, _, _ in sorters):
        sorters.append(("key", False, ""))
    return sorters


def _compare(left_keys: list[Any], right_keys: list[Any], sorters: list[_Sorter]) -> int:
    for left_key, right_key, (_, descending, _) in zip(left_keys, right_keys, sorters, strict=True):
        if left_key == right_key:
            continue
        if left_key is None:  # a document without the field comes last, either way
            return 1
        if right_key is None:
            return -1
        return (-1 if left_key < right_key else 1) * (-1 if descending else 1)
    return 0


def _in_order(sorters: list[_Sorter]) -> Callable[[_Hit], Any]:
    def compare(first: _Hit, second: _Hit) -> int:
        return _compare(first[2], second[2], sorters)

    return cmp_to_key(compare)


def _hits(engine: Engine, index: SearchIndex, query: Any, sorters: list[_Sorter]) -> list[_Hit]:
    matcher = compile_query(query, index)
    cutoff = index.table.cutoff(engine.now())
    hits: list[_Hit] = []
    for document in index.documents.values():
        if cutoff is not None and document.row.live(cutoff) is None:
            continue
        score = matcher(document.fields)
        if score is None:
            continue
        order: list[Any] = []
        for kind, _, name in sorters:
            if kind == "key":
                order.append(document.row.key)
            elif kind == "score":
                order.append(score)
            else:
                values = document.fields.get(name)
                pick = max if kind == "max" else min
                order.append(pick(values) if values else None)
        hits.append((document, score, order))
    return hits


class _Columns:
    """Which columns of a hit are returned, and from where."""

    def __init__(self, message: Any, index: SearchIndex) -> None:
        self._kind = message.return_type or search_pb.RETURN_NONE
        self._names = frozenset(message.column_names)
        self._index = index
        in_index = set(index.fields) | index.table.key_names
        self.from_index = self._kind in (
            search_pb.RETURN_NONE,
            search_pb.RETURN_ALL_FROM_INDEX,
        ) or (self._kind == search_pb.RETURN_SPECIFIED and self._names <= in_index)

    def encoded(self, document: Document) -> bytes | None:
        """The row in PlainBuffer; None when the table no longer has it."""
        row: Row | None = document.row
        if not self.from_index:
            row = self._index.table.rows.get(document.row.key)
            if row is None:
                return None
        assert row is not None
        return encode_rows([row.encoded(self._cells(row))])

    def _cells(self, row: Row) -> list[Cell]:
        if self._kind == search_pb.RETURN_NONE:
            return []
        return [
            versions[0]
            for name, versions in row.columns.items()
            if self._kind == search_pb.RETURN_ALL
            or (self._kind == search_pb.RETURN_SPECIFIED and name in self._names)
            or (self._kind == search_pb.RETURN_ALL_FROM_INDEX and name in self._index.fields)
        ]


# --- parallel scan --------------------------------------------------------------------------


_SPLITS = 1


def compute_splits(engine: Engine, body: bytes, usage: Usage) -> bytes:
    """ComputeSplits: always one split, in a session that scans name."""
    request = parse(search_pb.ComputeSplitsRequest(), body)
    usage.tables.append(request.table_name)
    if not request.HasField("search_index_splits_options"):
        raise invalid("[search index splits options] must not be null")
    _scanned_index(engine, request.table_name, request.search_index_splits_options.index_name)
    session_id = secrets.token_hex(8).encode("ascii")
    engine.scans[session_id] = time.monotonic() + limits.SCAN_ALIVE_SECONDS
    return bytes(
        search_pb.ComputeSplitsResponse(
            session_id=session_id, splits_size=_SPLITS
        ).SerializeToString()
    )


def _scanned_index(engine: Engine, table_name: str, index_name: str) -> SearchIndex:
    """The index; for scans the service answers 400 where it is missing, not 404."""
    if table_name not in engine.tables:
        raise invalid(f"table [{table_name}] does not exist")
    if index_name not in engine.tables[table_name].search_indexes:
        raise ServiceError("OTSMetaNotMatch", f"search index [{index_name}] does not exist")
    return engine.search_index(table_name, index_name)


def _check_scan(engine: Engine, session_id: bytes, query: Any) -> None:
    """Which of the parallel scans a request is, and whether its session still lives."""
    parallel = query.max_parallel if query.HasField("max_parallel") else _SPLITS
    if not 0 < parallel <= _SPLITS:
        raise invalid(
            f"[parallel_scan.max_parallel_id] must in (0 ,{_SPLITS}], current max_parallel_id is "
            f"{parallel}"
        )
    current = query.current_parallel_id if query.HasField("current_parallel_id") else 0
    if not 0 <= current < parallel:
        raise invalid(
            "[parallel_scan.current_parallel_id] must in [0, max_parallel), current max_parallel "
            f"is {parallel}, current_parallel_id is {current}"
        )
    alive = query.alive_time if query.HasField("alive_time") else limits.SCAN_ALIVE_SECONDS
    if alive < 1:
        raise invalid(f"[parallel_scan.alive_time] must be positive, actual: {alive}.")
    now = time.monotonic()
    if engine.scans.get(session_id, 0.0) < now:
        raise ServiceError(
            "OTSSessionExpired",
            "ScanQuery'session is expired, please retry ComputeSplitsRequest and ScanQuery.",
        )
    engine.scans[session_id] = now + alive


def parallel_scan(engine: Engine, body: bytes, usage: Usage) -> bytes:
    """ParallelScan: the hits in key order, page by page; the rows come from the index.

    A page with rows has a token for the next one; the page after the last row is empty and has
    none, so that a client that goes by the token ends there.
    """
    request = parse(search_pb.ParallelScanRequest(), body)
    usage.tables.append(request.table_name)
    index = _scanned_index(engine, request.table_name, request.index_name)
    query = parse_part(search_pb.ScanQuery(), request.scan_query)
    limit = query.limit if query.HasField("limit") else limits.PARALLEL_SCAN_LIMIT
    if not 0 < limit <= limits.PARALLEL_SCAN_LIMIT:
        raise invalid(f"The limit must be in range: [1, {limits.PARALLEL_SCAN_LIMIT}].")
    _check_scan(engine, request.session_id, query)
    columns = _Columns(request.columns_to_get, index)
    if not columns.from_index:
        raise invalid("ParallelScan returns columns of the index only.")
    sort, after = _position(query, index) if query.token else (search_pb.Sort(), None)
    sorters = _sorters(sort, index)
    hits = _hits(engine, index, query.query, sorters)
    hits.sort(key=_in_order(sorters))
    if after is not None:
        hits = [hit for hit in hits if _compare(hit[2], after, sorters) > 0]
    response = search_pb.ParallelScanResponse()
    page = hits[:limit]
    response.rows.extend(columns.encoded(hit[0]) for hit in page)
    usage.rows_read += len(response.rows)
    usage.rows_returned += len(response.rows)
    if page:
        response.next_token = _token(sort, page[-1][2])
    return bytes(response.SerializeToString())


OPERATIONS: dict[str, Callable[[Engine, bytes, Usage], bytes]] = {
    "ComputeSplits": compute_splits,
    "CreateSearchIndex": create_search_index,
    "DeleteSearchIndex": delete_search_index,
    "DescribeSearchIndex": describe_search_index,
    "ListSearchIndex": list_search_index,
    "ParallelScan": parallel_scan,
    "Search": search,
    "UpdateSearchIndex": update_search_index,
}
