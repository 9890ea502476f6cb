"""Search indexes: queries, sort, pages, columns, lag."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from tablestore import (
    AnalyzerType,
    BoolQuery,
    ColumnReturnType,
    ColumnsToGet,
    ExistsQuery,
    FieldSchema,
    FieldSort,
    FieldType,
    IndexSetting,
    KnnVectorQuery,
    MatchAllQuery,
    MatchPhraseQuery,
    MatchQuery,
    NestedQuery,
    OTSServiceError,
    PrefixQuery,
    PrimaryKeySort,
    QueryOperator,
    RangeQuery,
    Row,
    ScanQuery,
    ScoreMode,
    ScoreSort,
    SearchIndexMeta,
    SearchQuery,
    Sort,
    SortOrder,
    SyncPhase,
    TermQuery,
    TermsQuery,
    VectorDataType,
    VectorMetricType,
    VectorOptions,
    WildcardQuery,
)
from tablestore.metadata import GeoDistanceQuery

FIELDS = [
    FieldSchema("p", FieldType.KEYWORD),
    FieldSchema("k", FieldType.KEYWORD, enable_sort_and_agg=True),
    FieldSchema("t", FieldType.TEXT, analyzer=AnalyzerType.SINGLEWORD),
    FieldSchema("n", FieldType.LONG, enable_sort_and_agg=True),
    FieldSchema("d", FieldType.DOUBLE),
    FieldSchema("b", FieldType.BOOLEAN),
    FieldSchema("tags", FieldType.KEYWORD, is_array=True),
    FieldSchema(
        "parts",
        FieldType.NESTED,
        sub_field_schemas=[
            FieldSchema("kind", FieldType.KEYWORD),
            FieldSchema("size", FieldType.LONG),
        ],
    ),
    FieldSchema("day", FieldType.DATE, date_formats=["yyyy-MM-dd"]),
    FieldSchema(
        "v",
        FieldType.VECTOR,
        vector_options=VectorOptions(VectorDataType.VD_FLOAT_32, VectorMetricType.VM_COSINE, 2),
    ),
]


def put(client: Any, number: int, **columns: Any) -> None:
    client.put_row("t", Row([("p", f"r{number:03}"), ("q", number)], list(columns.items())))


@pytest.fixture
def rows(client: Any, make_table: Any) -> Any:
    make_table()
    client.create_search_index("t", "x", SearchIndexMeta(FIELDS))
    put(client, 0, k="apple", t="The quick brown fox", n=5, d=0.5, b=True, day="2026-01-02")
    put(client, 1, k="apricot", t="quick quick slow", n=3, tags='["red", "round"]', hidden=1)
    put(client, 2, k="banana", t="今天 weather is fine", n=9, b=False, v="[1, 0]")
    parts = [{"kind": "a", "size": 1}, {"kind": "b", "size": 9}]
    put(client, 3, k="cherry", t="", n="not a long", parts=json.dumps(parts), v="[0, 1]")
    return client


def search(client: Any, query: Any, columns: Any = None, **named: Any) -> Any:
    named.setdefault("limit", 10)
    columns = columns or ColumnsToGet(return_type=ColumnReturnType.NONE)
    return client.search("t", "x", SearchQuery(query, **named), columns)


def hits(client: Any, query: Any, **named: Any) -> list[int]:
    return [key[1][1] for key, _ in search(client, query, **named).rows]


def either(**parts: Any) -> Any:
    lists = {name: [] for name in ("must", "must_not", "filter", "should")}
    least = parts.pop("least", None)
    lists.update(parts)
    named: Any = {f"{name}_queries": value for name, value in lists.items()}
    return BoolQuery(minimum_should_match=least, **named)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (MatchAllQuery(), [0, 1, 2, 3]),
        (TermQuery("k", "apple"), [0]),
        (TermQuery("p", "r002"), [2]),
        (TermQuery("n", 5), [0]),
        (TermQuery("n", "5"), [0]),
        (TermQuery("d", 0.5), [0]),
        (TermQuery("b", False), [2]),
        (TermQuery("tags", "round"), [1]),
        (TermQuery("t", "quick"), [0, 1]),
        (TermsQuery("k", ["banana", "cherry", "x"]), [2, 3]),
        (RangeQuery("n", 3, 9, include_lower=False, include_upper=True), [0, 2]),
        (RangeQuery("n", range_to=5, include_upper=False), [1]),
        (RangeQuery("k", "apricot", "cherry", include_lower=True, include_upper=False), [1, 2]),
        (RangeQuery("day", "2026-01-01", "2026-01-03"), [0]),
        (PrefixQuery("k", "ap"), [0, 1]),
        (WildcardQuery("k", "*an?n*"), [2]),
        (WildcardQuery("k", "ap*[x]"), []),
        (ExistsQuery("b"), [0, 2]),
        (ExistsQuery("n"), [0, 1, 2]),
        (MatchQuery("t", "QUICK fox"), [0, 1]),
        (MatchQuery("t", "quick fox", operator=QueryOperator.AND), [0]),
        (MatchQuery("t", "quick slow fox", minimum_should_match=2), [0, 1]),
        (MatchQuery("t", "quick slow fox", minimum_should_match="100%"), []),
        (MatchQuery("t", "天"), [2]),
        (MatchQuery("k", "apple"), [0]),
        (MatchPhraseQuery("t", "quick brown"), [0]),
        (MatchPhraseQuery("t", "brown quick"), []),
        (MatchPhraseQuery("t", "quick fox"), []),
        (either(must=[TermQuery("t", "quick")], must_not=[TermQuery("n", 3)]), [0]),
        (either(filter=[ExistsQuery("n")], should=[TermQuery("n", 3)]), [0, 1, 2]),
        (either(should=[TermQuery("n", 3), TermQuery("n", 9)]), [1, 2]),
        (either(should=[TermQuery("n", 3), ExistsQuery("tags")], least=2), [1]),
        (either(must_not=[MatchAllQuery()]), []),
        (NestedQuery("parts", TermQuery("parts.kind", "a"), ScoreMode.NONE), [3]),
        (
            NestedQuery(
                "parts",
                either(must=[TermQuery("parts.kind", "a"), TermQuery("parts.size", 9)]),
                ScoreMode.NONE,
            ),
            [],
        ),
        (KnnVectorQuery("v", top_k=1, float32_query_vector=[0.9, 0.1]), [2]),
    ],
    ids=lambda one: type(one).__name__ if not isinstance(one, list) else "",
)
def test_queries(rows: Any, query: Any, expected: list[int]) -> None:
    assert hits(rows, query) == expected


def test_sort(rows: Any) -> None:
    def by(*sorters: Any) -> list[int]:
        return hits(rows, MatchAllQuery(), sort=Sort(list(sorters)))

    assert by(FieldSort("n", SortOrder.ASC)) == [1, 0, 2, 3]
    assert by(FieldSort("n", SortOrder.DESC)) == [2, 0, 1, 3]
    assert by(PrimaryKeySort(SortOrder.DESC)) == [3, 2, 1, 0]
    found = search(rows, MatchQuery("t", "quick"), sort=Sort([ScoreSort(SortOrder.DESC)]))
    assert [hit.row[0][1][1] for hit in found.search_hits] == [1, 0]
    assert found.search_hits[0].score > found.search_hits[1].score
    unsorted = search(rows, MatchQuery("t", "quick"))
    assert all(math.isnan(hit.score) for hit in unsorted.search_hits)


def test_pages_by_token_and_offset(client: Any, make_table: Any) -> None:
    make_table()
    client.create_search_index("t", "x", SearchIndexMeta(FIELDS))
    for number in range(25):
        put(client, number, n=number % 3)
    sort = Sort([FieldSort("n", SortOrder.DESC)])
    found: list[int] = []
    token = None
    for size in (10, 10, 5):
        answer = search(
            client, MatchAllQuery(), sort=None if token else sort, next_token=token,
            get_total_count=True,
        )  # fmt: skip
        assert (len(answer.rows), answer.total_count) == (size, 25)
        found += [key[1][1] for key, _ in answer.rows]
        token = answer.next_token
        # What is written meanwhile does not shift the pages.
        put(client, 0, n=0)
    assert not token
    assert found == sorted(range(25), key=lambda number: (-(number % 3), number))
    assert hits(client, MatchAllQuery(), offset=20, limit=3) == [20, 21, 22]
    assert search(client, MatchAllQuery(), limit=0).rows == []
    assert search(client, MatchAllQuery()).total_count == -1


def test_columns_to_get(rows: Any) -> None:
    def columns(kind: Any, names: Any = ()) -> Any:
        wanted = ColumnsToGet(list(names), kind)
        return [name for name, _, _ in search(rows, TermQuery("n", 3), wanted).rows[0][1]]

    assert columns(ColumnReturnType.ALL) == ["hidden", "k", "n", "t", "tags"]
    assert columns(ColumnReturnType.ALL_FROM_INDEX) == ["k", "n", "t", "tags"]
    assert columns(ColumnReturnType.SPECIFIED, ["hidden", "n", "none"]) == ["hidden", "n"]
    assert columns(ColumnReturnType.NONE) == []


def test_search_limits(rows: Any) -> None:
    everything = ColumnsToGet(return_type=ColumnReturnType.ALL)
    assert search(rows, MatchAllQuery(), everything, limit=100).is_all_succeed
    assert search(rows, MatchAllQuery(), limit=1000).is_all_succeed
    for columns, named in (
        (everything, {"limit": 101}),
        (None, {"limit": 1001}),
        (None, {"limit": 10, "offset": 99_991}),
        (None, {"sort": Sort([FieldSort("d")])}),
        (None, {"sort": Sort([FieldSort("nowhere")])}),
        (None, {"next_token": b"nonsense"}),
    ):
        with pytest.raises(OTSServiceError) as caught:
            search(rows, MatchAllQuery(), columns, **named)
        assert caught.value.code == "OTSParameterInvalid"
    for query in (
        TermQuery("nowhere", 1),
        TermQuery("n", "x"),
        TermsQuery("k", [str(n) for n in range(1025)]),
        WildcardQuery("k", "*" * 33),
        PrefixQuery("n", "1"),
    ):
        with pytest.raises(OTSServiceError) as caught:
            search(rows, query)
        assert caught.value.code == "OTSParameterInvalid"
    with pytest.raises(OTSServiceError) as caught:
        search(rows, GeoDistanceQuery("p", "0,0", 1))
    assert caught.value.code == "OTSUnsupportOperation"


def test_an_index_is_listed_described_updated_and_deleted(client: Any, make_table: Any) -> None:
    make_table()
    put(client, 1, k="before")
    setting = IndexSetting(routing_fields=["p"])
    client.create_search_index("t", "x", SearchIndexMeta(FIELDS[:4], setting))
    assert client.list_search_index("t") == client.list_search_index() == [("t", "x")]
    assert hits(client, TermQuery("k", "before")) == [1]
    meta, state = client.describe_search_index("t", "x")
    assert [field.field_name for field in meta.fields] == ["p", "k", "t", "n"]
    assert [field.index for field in meta.fields] == [True] * 4
    assert meta.index_setting.routing_fields == ["p"]
    assert isinstance(meta.index_sort.sorters[0], PrimaryKeySort)
    assert state.sync_phase == SyncPhase.INCR
    changed = SearchIndexMeta(FIELDS[:4], time_to_live=100_000)
    client.update_search_index("t", "x", changed)
    assert client.describe_search_index("t", "x")[0].time_to_live == 100_000
    for call, code in (
        (lambda: client.create_search_index("t", "x", changed), "OTSObjectAlreadyExist"),
        (lambda: client.delete_table("t"), "OTSParameterInvalid"),
        (lambda: client.describe_search_index("t", "y"), "OTSObjectNotExist"),
        (lambda: client.delete_search_index("t", "y"), "OTSObjectNotExist"),
        (lambda: client.list_search_index("nowhere"), "OTSObjectNotExist"),
    ):
        with pytest.raises(OTSServiceError) as caught:
            call()
        assert caught.value.code == code
    client.delete_search_index("t", "x")
    client.delete_table("t")
    assert client.list_search_index() == []


def test_documents_follow_rows_after_the_lag(server: Any, rows: Any) -> None:
    server.set_options(index_lag=60)
    put(rows, 4, k="apple")
    rows.delete_row("t", [("p", "r000"), ("q", 0)])
    assert hits(rows, TermQuery("k", "apple")) == [0]
    # Columns that the index does not have are read from the table, where the row is gone.
    everything = ColumnsToGet(return_type=ColumnReturnType.ALL)
    assert search(rows, TermQuery("k", "apple"), everything).rows == []
    server.settle()
    assert hits(rows, TermQuery("k", "apple")) == [4]


def test_parallel_scan(client: Any, make_table: Any) -> None:
    make_table()
    client.create_search_index("t", "x", SearchIndexMeta(FIELDS))
    for number in range(7):
        put(client, number, n=number)
    splits = client.compute_splits("t", "x")
    assert splits.splits_size == 1
    found: list[int] = []
    token = None
    while token is None or token:
        query = ScanQuery(RangeQuery("n", 1), 4, token, 0, splits.splits_size)
        columns = ColumnsToGet(return_type=ColumnReturnType.ALL_FROM_INDEX)
        answer = client.parallel_scan("t", "x", query, splits.session_id, columns)
        found += [key[1][1] for key, _ in answer.rows]
        token = answer.next_token
    assert found == [1, 2, 3, 4, 5, 6]
