"""Search queries: decoded once into a function of a document.

The function returns None when the document does not match, and its score when it does. The score
grows with the number of matching words and their frequency; it orders results as a test would
expect and is not the service's BM25.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Mapping
from typing import Any

from . import limits
from ._wire import DecodeError, search_pb
from .errors import ServiceError, invalid
from .plainbuffer import decode_variant
from .search import Field, FieldValues, SearchIndex, cosine

Fields = Mapping[str, FieldValues]
Matcher = Callable[[Fields], float | None]


def parse(message: Any, encoded: bytes) -> Any:
    """Decode a part of a search request.

    Raises:
        ServiceError: OTSParameterInvalid, when it is not that message.
    """
    try:
        message.ParseFromString(encoded)
    except DecodeError:
        raise invalid("Invalid search query.") from None
    return message


def compile_query(message: Any, index: SearchIndex) -> Matcher:
    """Turn a protobuf ``Query`` into a matcher.

    Raises:
        ServiceError: OTSParameterInvalid for a query that does not fit the schema or is too large;
            OTSUnsupportOperation for a kind this server does not have (geo, function score).
    """
    build = _BUILDERS.get(message.type)
    if build is None:
        name = search_pb.QueryType.Name(message.type)
        raise ServiceError("OTSUnsupportOperation", f"{name} is not supported here.")
    return build(message.query, index)


def _values(fields: Fields, name: str) -> FieldValues:
    """The values of a field; through ``path.name``, those of every nested document."""
    values = fields.get(name)
    if values is not None:
        return values
    head, _, nested_name = name.partition(".")
    if not nested_name:
        return []
    return [value for part in fields.get(head, ()) for value in _values(part, nested_name)]


def _indexed(index: SearchIndex, name: str) -> Field:
    field = index.field(name)
    if not field.indexed:
        raise invalid(f"field [{name}] is not indexed")
    return field


def _weight(query: Any) -> float:
    return query.weight if query.HasField("weight") else 1.0


def _match_all(encoded: bytes, index: SearchIndex) -> Matcher:
    return lambda fields: 1.0


def _any_value(name: str, test: Callable[[Any], bool], weight: float = 1.0) -> Matcher:
    return lambda fields: weight if any(map(test, _values(fields, name))) else None


def _term(encoded: bytes, index: SearchIndex) -> Matcher:
    query = parse(search_pb.TermQuery(), encoded)
    return _terms_matcher(query.field_name, [query.term], _weight(query), index)


def _terms(encoded: bytes, index: SearchIndex) -> Matcher:
    query = parse(search_pb.TermsQuery(), encoded)
    if not query.terms or len(query.terms) > limits.SEARCH_TERMS:
        raise invalid(f"The number of terms must be in range: [1, {limits.SEARCH_TERMS}].")
    return _terms_matcher(query.field_name, query.terms, _weight(query), index)


def _terms_matcher(name: str, terms: Any, weight: float, index: SearchIndex) -> Matcher:
    field = _indexed(index, name)
    if field.kind in (search_pb.VECTOR, search_pb.NESTED, search_pb.GEO_POINT):
        raise invalid(f"field [{name}] does not support term query")
    accepted = {field.query_value(decode_variant(term)) for term in terms}
    analyze = field.analyze
    if analyze is not None:
        return _any_value(name, lambda text: not accepted.isdisjoint(analyze(text)), weight)
    return _any_value(name, lambda value: value in accepted, weight)


def _range(encoded: bytes, index: SearchIndex) -> Matcher:
    query = parse(search_pb.RangeQuery(), encoded)
    field = _indexed(index, query.field_name)
    if field.kind in (search_pb.TEXT, search_pb.NESTED, search_pb.BOOLEAN):
        raise invalid(f"field [{query.field_name}] does not support range query")
    low = high = None
    if query.HasField("range_from"):
        low = field.query_value(decode_variant(query.range_from))
    if query.HasField("range_to"):
        high = field.query_value(decode_variant(query.range_to))
    with_low, with_high = query.include_lower, query.include_upper

    def inside(value: Any) -> bool:
        if low is not None and (value < low or (value == low and not with_low)):
            return False
        return high is None or value < high or (value == high and with_high)

    return _any_value(query.field_name, inside)


def _prefix(encoded: bytes, index: SearchIndex) -> Matcher:
    query = parse(search_pb.PrefixQuery(), encoded)
    if len(query.prefix.encode()) > limits.SEARCH_PREFIX_BYTES:
        raise invalid(f"The length of the prefix exceeds: {limits.SEARCH_PREFIX_BYTES}.")
    return _pattern(query, index, lambda text: text.startswith(query.prefix))


def _wildcard(encoded: bytes, index: SearchIndex) -> Matcher:
    query = parse(search_pb.WildcardQuery(), encoded)
    if len(query.value) > limits.SEARCH_WILDCARD_CHARS:
        raise invalid(f"The length of the wildcard exceeds: {limits.SEARCH_WILDCARD_CHARS}.")
    # Only * and ? are special; fnmatch also reads [sets].
    pattern = re.compile(fnmatch.translate(query.value.replace("[", "[[]")))
    return _pattern(query, index, lambda text: pattern.match(text) is not None)


def _pattern(query: Any, index: SearchIndex, test: Callable[[str], bool]) -> Matcher:
    field = _indexed(index, query.field_name)
    analyze = field.analyze
    if analyze is not None:
        return _any_value(
            query.field_name, lambda text: any(map(test, analyze(text))), _weight(query)
        )
    if field.kind != search_pb.KEYWORD:
        raise invalid(f"field [{query.field_name}] must be KEYWORD or TEXT")
    return _any_value(query.field_name, test, _weight(query))


def _exists(encoded: bytes, index: SearchIndex) -> Matcher:
    name = parse(search_pb.ExistsQuery(), encoded).field_name
    index.field(name)
    return lambda fields: 1.0 if _values(fields, name) else None


def _least(query: Any, count: int, default: int) -> int:
    """``minimum_should_match``: a number, a negative number or a percentage of ``count``."""
    if query.HasField("new_minimum_should_match"):
        text = query.new_minimum_should_match
    elif query.HasField("minimum_should_match"):
        text = str(query.minimum_should_match)
    else:
        return default
    try:
        minimum = int(int(text[:-1]) * count / 100) if text.endswith("%") else int(text)
    except ValueError:
        raise invalid(f"Invalid minimum should match: '{text}'.") from None
    return minimum if minimum >= 0 else count + minimum


def _match(encoded: bytes, index: SearchIndex) -> Matcher:
    query = parse(search_pb.MatchQuery(), encoded)
    field = _indexed(index, query.field_name)
    analyze = field.analyze
    weight = _weight(query)
    if analyze is None:
        expected = field.query_value(query.text)
        return _any_value(query.field_name, lambda value: value == expected, weight)
    words = list(dict.fromkeys(analyze(query.text)))
    least = max(1, _least(query, len(words), 1))
    if query.operator == search_pb.AND:
        least = len(words)

    def matcher(fields: Fields) -> float | None:
        best: float | None = None
        for text in _values(fields, query.field_name):
            tokens = analyze(text)
            counts = [count for word in words if (count := tokens.count(word))]
            if counts and len(counts) >= least:
                score = weight * sum(count / (count + 1.2) for count in counts)
                best = score if best is None else max(best, score)
        return best

    return matcher


def _match_phrase(encoded: bytes, index: SearchIndex) -> Matcher:
    query = parse(search_pb.MatchPhraseQuery(), encoded)
    field = _indexed(index, query.field_name)
    analyze = field.analyze
    weight = _weight(query)
    if analyze is None:
        expected = field.query_value(query.text)
        return _any_value(query.field_name, lambda value: value == expected, weight)
    words = analyze(query.text)
    # A gap of up to `slop` words is allowed before each next word.
    reach = 1 + query.slop

    def follows(tokens: list[str], position: int, remaining: list[str]) -> bool:
        if not remaining:
            return True
        return any(
            tokens[step] == remaining[0] and follows(tokens, step, remaining[1:])
            for step in range(position + 1, min(position + 1 + reach, len(tokens)))
        )

    def inside(text: str) -> bool:
        tokens = analyze(text)
        return bool(words) and any(
            word == words[0] and follows(tokens, position, words[1:])
            for position, word in enumerate(tokens)
        )

    return _any_value(query.field_name, inside, weight)


def _bool(encoded: bytes, index: SearchIndex) -> Matcher:
    query = parse(search_pb.BoolQuery(), encoded)
    must = [compile_query(part, index) for part in query.must_queries]
    must_not = [compile_query(part, index) for part in query.must_not_queries]
    filters = [compile_query(part, index) for part in query.filter_queries]
    should = [compile_query(part, index) for part in query.should_queries]
    least = _least(query, len(should), 0 if must or filters or not should else 1)
    weight = _weight(query)

    def matcher(fields: Fields) -> float | None:
        score = 0.0
        for part in must:
            part_score = part(fields)
            if part_score is None:
                return None
            score += part_score
        if any(part(fields) is None for part in filters):
            return None
        if any(part(fields) is not None for part in must_not):
            return None
        scores = [part_score for part in should if (part_score := part(fields)) is not None]
        if len(scores) < least:
            return None
        return weight * (score + sum(scores))

    return matcher


def _nested(encoded: bytes, index: SearchIndex) -> Matcher:
    query = parse(search_pb.NestedQuery(), encoded)
    path = query.path
    if index.field(path).kind != search_pb.NESTED:
        raise invalid(f"field [{path}] is not NESTED")
    inner = compile_query(query.query, index)
    mode = query.score_mode
    weight = _weight(query)

    def matcher(fields: Fields) -> float | None:
        # Each nested document is asked alone, under the name the inner query uses.
        scores = [
            part_score
            for part in _values(fields, path)
            if (part_score := inner({f"{path}.{name}": part[name] for name in part})) is not None
        ]
        if not scores:
            return None
        if mode == search_pb.SCORE_MODE_AVG:
            return weight * sum(scores) / len(scores)
        if mode == search_pb.SCORE_MODE_MIN:
            return weight * min(scores)
        if mode == search_pb.SCORE_MODE_MAX:
            return weight * max(scores)
        return weight * sum(scores)

    return matcher


def _const_score(encoded: bytes, index: SearchIndex) -> Matcher:
    inner = compile_query(parse(search_pb.ConstScoreQuery(), encoded).filter, index)
    return lambda fields: None if inner(fields) is None else 1.0


def _knn(encoded: bytes, index: SearchIndex) -> Matcher:
    """Exact search by cosine; ``top_k`` is applied over all documents that pass the filter."""
    query = parse(search_pb.KnnVectorQuery(), encoded)
    field = index.field(query.field_name)
    vector = list(query.float32_query_vector)
    if field.kind != search_pb.VECTOR or len(vector) != field.dimension:
        raise invalid(f"field [{query.field_name}] is not a vector of {len(vector)} dimensions")
    passes = compile_query(query.filter, index) if query.HasField("filter") else None
    least = query.min_score if query.HasField("min_score") else 0.0
    weight = _weight(query)

    def score(fields: Fields) -> float | None:
        values = fields.get(query.field_name)
        if not values or (passes is not None and passes(fields) is None):
            return None
        similarity = cosine(vector, values[0])
        return similarity if similarity >= least else None

    ranked = [
        similarity
        for document in index.documents.values()
        if (similarity := score(document.fields)) is not None
    ]
    ranked.sort(reverse=True)
    bar = ranked[query.top_k - 1] if 0 < query.top_k <= len(ranked) else 0.0

    def matcher(fields: Fields) -> float | None:
        similarity = score(fields)
        return weight * similarity if similarity is not None and similarity >= bar else None

    return matcher


_BUILDERS: dict[int, Callable[[bytes, SearchIndex], Matcher]] = {
    search_pb.BOOL_QUERY: _bool,
    search_pb.CONST_SCORE_QUERY: _const_score,
    search_pb.EXISTS_QUERY: _exists,
    search_pb.KNN_VECTOR_QUERY: _knn,
    search_pb.MATCH_ALL_QUERY: _match_all,
    search_pb.MATCH_PHRASE_QUERY: _match_phrase,
    search_pb.MATCH_QUERY: _match,
    search_pb.NESTED_QUERY: _nested,
    search_pb.PREFIX_QUERY: _prefix,
    search_pb.RANGE_QUERY: _range,
    search_pb.TERMS_QUERY: _terms,
    search_pb.TERM_QUERY: _term,
    search_pb.WILDCARD_QUERY: _wildcard,
}
