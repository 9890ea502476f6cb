"""The meaning of a search: one tokenizer, one query language, one evaluator, for every backend.

**Tokens** are `engine.tokens`'s: words, and each character of scripts without spaces apart.

**Queries.** ``ada lovelace`` finds what has both words; ``"ada lovelace"`` the words side by side;
``love*`` words that begin so; ``-byron`` excludes. A word that is several tokens (``snake_case``,
``3.14``, ``北京``) is a phrase. There are no other operators: any text is a query.

**Evaluation.** The tokens of a message are joined by spaces into its *index text*, and a term is a
substring of it (`Query.matches`). A backend may find candidates as it likes, more but never fewer
than match, and asks `Query.matches` about each; so every backend finds the same set.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias, runtime_checkable

import msgspec

from tsmemory.engine.codec import encode_value
from tsmemory.engine.records import Key
from tsmemory.engine.steps import Steps
from tsmemory.engine.tokens import MAX_TOKEN_CHARACTERS, is_spaceless, placed_tokens, tokenize
from tsmemory.errors import CorruptRecordError, InvalidInputError
from tsmemory.filters import Filter
from tsmemory.model import Message, Session, is_pinned

__all__ = [
    "KINDS", "MAX_QUERY_CHARACTERS", "MAX_TERMS", "SEPARATOR", "Candidate",
    "Candidates", "Kind", "Query", "SearchQuery", "Searchable", "Term", "Text", "index_text",
    "index_texts", "keywords", "parse_query", "score", "session_text", "spans",
]  # fmt: skip

Kind: TypeAlias = Literal["text", "instructions", "tool_results", "reasoning", "tool_calls"]
KINDS: tuple[Kind, ...] = ("text", "instructions", "tool_results", "reasoning", "tool_calls")
"""What of a message may be searched: ``text`` is what users, assistants and roles of your own say,
``instructions`` system and developer messages, ``tool_results`` tool and function messages,
``reasoning`` a model's thinking, ``tool_calls`` the names and arguments of calls."""

MAX_QUERY_CHARACTERS = 4_096
MAX_TERMS = 64
"""Of one query; both bounds are ours."""
SEPARATOR = "\ue000"
"""Stands between blocks of one message in the index text, so that no phrase reaches across. A
private-use character: the tokenizer never gives it."""

# -- what of a record is searched --------------------------------------------------------------


def texts_of(message: Message, kind: Kind) -> Iterator[str]:
    """The texts of one kind in `message`: one per block, so that no phrase reaches across."""
    if kind == "tool_calls":
        for call in message.tool_calls:
            yield call.name
            arguments = call.arguments
            yield arguments if isinstance(arguments, str) else _readable(arguments)
        return
    content = message.content
    if kind == "reasoning":
        if not isinstance(content, str):
            for block in content:
                thought = block.get("reasoning")
                if block.get("type") == "reasoning" and isinstance(thought, str):
                    yield thought
        return
    if kind != _kind_of(message.role):
        return
    if isinstance(content, str):
        yield content
        return
    for block in content:
        for name in ("text", "refusal", "transcript"):
            if isinstance(block.get(name), str):
                yield block[name]


def _readable(value: Any) -> str:
    return encode_value(value).decode()


def _kind_of(role: str) -> Kind:
    if role in ("tool", "function"):
        return "tool_results"
    return "instructions" if is_pinned(role) else "text"


def index_text(texts: Iterable[str]) -> str:
    """Tokens joined by spaces, with one in front and one behind; empty where there is none."""
    parts = [" ".join(tokens) for tokens in map(tokenize, texts) if tokens]
    return f" {f' {SEPARATOR} '.join(parts)} " if parts else ""


def index_texts(message: Message) -> dict[Kind, str]:
    """The index text of `message` per kind; kinds without text are left out."""
    if isinstance(message.content, str) and not message.tool_calls:  # one kind, in every append
        text = index_text((message.content,))
        return {_kind_of(message.role): text} if text else {}
    return {kind: text for kind in KINDS if (text := index_text(texts_of(message, kind)))}


def session_text(session: Session) -> list[str]:
    """What `search_sessions` looks at: title, summary, and the texts in the metadata."""
    texts = [text for text in (session.title, session.summary) if text]
    pending: list[Any] = [session.metadata]
    while pending:
        value = pending.pop()
        if isinstance(value, str):
            texts.append(value)
        elif isinstance(value, dict):
            pending.extend(reversed(value.values()))
        elif isinstance(value, list):
            pending.extend(reversed(value))
    return texts


# -- queries -----------------------------------------------------------------------------------


class Term(NamedTuple):
    """One condition of a query: tokens side by side."""

    tokens: tuple[str, ...]
    prefix: bool = False
    """The last token may go on."""

    @property
    def needle(self) -> str:
        """What an index text must contain."""
        return f" {' '.join(self.tokens)}" + ("" if self.prefix else " ")


class Query(NamedTuple):
    """A parsed query."""

    required: tuple[Term, ...]
    """At least one."""
    excluded: tuple[Term, ...] = ()
    match: Literal["all", "any"] = "all"
    """Whether every required term must be there, or one."""

    def matches(self, text: str) -> bool:
        """Whether an index text (of one kind, or of several joined) matches: what a match means."""
        if any(term.needle in text for term in self.excluded):
            return False
        present = (term.needle in text for term in self.required)
        return all(present) if self.match == "all" else any(present)

    def counts(self, texts: Sequence[Text]) -> list[int] | None:
        """How often each required term occurs in texts of one record; None where they do not
        match. The same as `matches` of their index text, by a quicker way."""
        if self.excluded and any(text.count(term) for term in self.excluded for text in texts):
            return None
        if len(texts) == 1:  # nearly always
            (text,) = texts
            term_counts = [text.count(term) for term in self.required]
        else:
            term_counts = [sum(text.count(term) for text in texts) for term in self.required]
        matching = all(term_counts) if self.match == "all" else any(term_counts)
        return term_counts if matching else None


class Text:
    """A text of a record, ready to be searched."""

    __slots__ = ("_indexed", "_lower", "raw")

    def __init__(self, raw: str) -> None:
        self.raw = raw
        self._lower = raw.lower() if raw.isascii() else None
        self._indexed: str | None = None

    def count(self, term: Term) -> int:
        """How often `term` occurs."""
        if self._lower is not None:
            pattern = _ascii_pattern(term)
            return 0 if pattern is None else len(pattern.findall(self._lower))
        if self._indexed is None:
            self._indexed = index_text((self.raw,))
        return self._indexed.count(term.needle)

    def spans(self, term: Term) -> list[tuple[int, int]]:
        """Where `term` occurs: (start, end) in characters of the text as it is."""
        if self._lower is not None:
            pattern = _ascii_pattern(term)
            return [] if pattern is None else [m.span() for m in pattern.finditer(self._lower)]
        return _spans(placed_tokens(self.raw), term)


@lru_cache(maxsize=256)
def _ascii_pattern(term: Term) -> re.Pattern[str] | None:
    """What finds `term` in lower-case ASCII text; None where it cannot be there."""
    if not all(token.isascii() for token in term.tokens):
        return None
    whole = "(?:[0-9a-z]*)"  # of a token that was cut
    words = [token + (whole if len(token) == MAX_TOKEN_CHARACTERS else "") for token in term.tokens]
    # What stands before is looked at behind the first word: so the pattern begins with plain
    # characters, which `re` looks for many times as fast.
    first = term.tokens[0]
    words[0] = f"{first}(?<![0-9a-z]{first}){words[0][len(first) :]}"
    end = "[0-9a-z]*" if term.prefix else "(?![0-9a-z])"
    return re.compile("[^0-9a-z]+".join(words) + end)


def score(counts: Sequence[float], texts: Sequence[Text]) -> float:
    """How well a record matches: BM25's saturated term frequency and length norm, summed over the
    required terms. It looks at this record alone, so that no score depends on what another user
    stored, and the order of hits does not move while others write.

    Args:
        counts: of `Query.counts`, weighted or not.
    """
    length = sum(len(text.raw) for text in texts)
    norm = _K1 * (1 - _B + _B * length / _USUAL_CHARACTERS)
    return sum(count * (_K1 + 1) / (count + norm) for count in counts)


_K1, _B = 1.2, 0.75  # Robertson and Zaragoza, "The Probabilistic Relevance Framework", 2009
_USUAL_CHARACTERS = 350  # of a usual chat message: stands for BM25's average document length

_QUERY_PART = re.compile(r'(-?)"([^"]*)(?:"|$)(\*?)|(\S+)')


def parse_query(text: str, match: Literal["all", "any"] = "all") -> Query:
    """The query that `text` spells, as the module's docstring says.

    Raises:
        InvalidInputError: not a str; over `MAX_QUERY_CHARACTERS` or `MAX_TERMS`; or nothing to
            look for in it (only punctuation, only exclusions).
    """
    if not isinstance(text, str):
        raise InvalidInputError(f"a query is a str, not {type(text).__name__}")
    if match not in ("all", "any"):
        raise InvalidInputError(f'match is "all" or "any", not {match!r}')
    if len(text) > MAX_QUERY_CHARACTERS:
        raise InvalidInputError(
            f"the query has {len(text)} characters, over {MAX_QUERY_CHARACTERS}; search for a few "
            "of its words"
        )
    required: dict[Term, None] = {}
    excluded: dict[Term, None] = {}
    for part in _QUERY_PART.finditer(text):
        minus, quoted, star, word = part.groups()
        if word is not None:
            minus, body = ("-", word[1:]) if word.startswith("-") else ("", word)
            star, quoted = ("*", body[:-1]) if body.endswith("*") else ("", body)
        elif quoted.endswith("*"):
            star = "*"
        tokens = tokenize(quoted)
        if tokens:
            (excluded if minus else required)[Term(tuple(tokens), bool(star))] = None
    if not required:
        raise InvalidInputError(
            "the query has nothing to look for; give it a word, as 'invoice' or '\"paid twice\"' "
            "(exclusions such as '-draft' need one beside them)"
        )
    if len(required) + len(excluded) > MAX_TERMS:
        raise InvalidInputError(
            f"the query has {len(required) + len(excluded)} terms, over {MAX_TERMS}"
        )
    return Query(tuple(required), tuple(excluded), match)


def keywords(text: str) -> str:
    """A query of the words of `text`, whatever it is, for ``match="any"``: a question, say. Nothing
    in it is an operator; of scripts without spaces it takes each two neighbours. Empty where there
    is no word; where there are too many, the longest are taken, for short words say least."""
    terms: dict[str, None] = {}
    for word in text.split():
        tokens = tokenize(word)
        for i, token in enumerate(tokens):
            if not is_spaceless(token):
                terms[token] = None
            elif i + 1 < len(tokens) and is_spaceless(tokens[i + 1]):
                terms[token + tokens[i + 1]] = None
            elif i == 0 or not is_spaceless(tokens[i - 1]):
                terms[token] = None
    chosen = sorted(terms, key=len, reverse=True)[:MAX_TERMS] if len(terms) > MAX_TERMS else terms
    while sum(map(len, chosen)) + len(chosen) > MAX_QUERY_CHARACTERS:
        chosen = list(chosen)[1:]
    return " ".join(term for term in terms if term in set(chosen))


def spans(text: str, query: Query) -> list[tuple[int, int]]:
    """Where the required terms are in `text`: (start, end) in characters, in order, disjoint."""
    ready = Text(text)
    merged: list[tuple[int, int]] = []
    for start, end in sorted(span for term in query.required for span in ready.spans(term)):
        if merged and start < merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def _spans(placed: Sequence[tuple[str, int, int]], term: Term) -> list[tuple[int, int]]:
    size = len(term.tokens)
    *front, last = term.tokens
    spans: list[tuple[int, int]] = []
    for i in range(len(placed) - size + 1):
        token = placed[i + size - 1][0]
        if not (token.startswith(last) if term.prefix else token == last):
            continue
        if all(placed[i + j][0] == token_before for j, token_before in enumerate(front)):
            spans.append((placed[i][1], placed[i + size - 1][2]))
    return spans


# -- what a backend is asked -------------------------------------------------------------------


class SearchQuery(msgspec.Struct, frozen=True, kw_only=True):
    """A page of a search over messages."""

    query: Query
    kinds: tuple[Kind, ...] = ("text",)
    user_id: str | None = None
    """None for every user's."""
    session_id: str | None = None
    """With `user_id`: one session."""
    roles: tuple[str, ...] | None = None
    created_from: int | None = None
    created_to: int | None = None
    """Both inclusive, µs."""
    where: Filter | None = None
    limit: int
    """Hits in the page; a backend may give fewer together with a `next`."""
    after: Any = None
    """`Candidates.next` of the page before; built of JSON's plain values."""

    def texts(self, message: Message) -> list[Text]:
        """What of `message` is searched."""
        if type(message.content) is str and not message.tool_calls:  # nearly always
            found = _kind_of(message.role) in self.kinds
            return [Text(message.content)] if found else []
        return [Text(text) for kind in self.kinds for text in texts_of(message, kind)]

    def matches(self, message: Message) -> bool:
        """Whether `message` is a hit: role, time, metadata and text. The user and the session are
        the backend's to restrict."""
        time = message.create_time or 0
        return (
            (self.roles is None or message.role in self.roles)
            and (self.created_from is None or time >= self.created_from)
            and (self.created_to is None or time <= self.created_to)
            and (self.where is None or self.where.matches(message.metadata))
            and self.query.counts(self.texts(message)) is not None
        )


class Candidate(NamedTuple):
    key: Key
    message: Message | CorruptRecordError


class Candidates(NamedTuple):
    """An answer to a `SearchQuery`."""

    rows: Sequence[Candidate]
    """Hits, the most recent first as far as the backend can; each passed `SearchQuery.matches`. A
    broken record that the search met is among them."""
    next: Any = None
    """Where the next page goes on; None at the end. JSON's plain values."""


@runtime_checkable
class Searchable(Protocol):
    """The optional power of a backend that keeps an index. Without it the store scans."""

    @abstractmethod
    def search(self, query: SearchQuery) -> Steps[Candidates]:
        """A page of hits.

        The index changes in the same transaction as the messages, or the backend's page says how
        far it may lag. Nothing of a deleted or expired message is found, and nothing of another
        user's data bears on the answer.
        """
