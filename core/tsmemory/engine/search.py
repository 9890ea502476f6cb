"""The meaning of a search: one tokenizer, one query language, one evaluator, for every backend.

**Tokens.** Text is folded (NFKC, case folding, NFKC again; Arabic and Hebrew vowel points and the
Arabic tatweel are dropped) and cut into words of letters, digits and the marks on them. Characters
of scripts that put no spaces between words (Han, kana, Hangul, Thai, Lao, Khmer, Burmese) and
symbols such as emoji are tokens of their own, so that a Chinese word of two characters is found as
a phrase. Everything else separates tokens. Accents count: ``cafe`` does not find ``café``.

**Queries.** ``ada lovelace`` finds what has both words; ``"ada lovelace"`` the words side by side;
``love*`` words that begin so; ``-byron`` excludes. A word that is several tokens (``snake_case``,
``3.14``, ``北京``) is a phrase. There are no other operators: any text is a query.

**Evaluation.** The tokens of a message are joined by spaces into its *index text*, and a term is a
substring of it (`Query.matches`). A backend may find candidates as it likes, more but never fewer
than match, and asks `Query.matches` about each; so every backend finds the same set.
"""

from __future__ import annotations

import re
import unicodedata
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias, runtime_checkable

import msgspec

from tsmemory.engine.codec import encode_value
from tsmemory.engine.records import Key
from tsmemory.engine.steps import Steps
from tsmemory.errors import CorruptRecordError, InvalidInputError
from tsmemory.filters import Filter
from tsmemory.model import Message, Session, is_pinned

__all__ = [
    "KINDS", "MAX_QUERY_CHARACTERS", "MAX_TERMS", "MAX_TOKEN_CHARACTERS", "SEPARATOR", "Candidate",
    "Candidates", "Kind", "Query", "SearchQuery", "Searchable", "Term", "index_text",
    "index_texts", "parse_query", "session_text", "spans", "tokenize",
]  # fmt: skip

Kind: TypeAlias = Literal["text", "instructions", "tool_results", "reasoning", "tool_calls"]
KINDS: tuple[Kind, ...] = ("text", "instructions", "tool_results", "reasoning", "tool_calls")
"""What of a message may be searched: ``text`` is what users, assistants and roles of your own say,
``instructions`` system and developer messages, ``tool_results`` tool and function messages,
``reasoning`` a model's thinking, ``tool_calls`` the names and arguments of calls."""

MAX_QUERY_CHARACTERS = 4_096
MAX_TERMS = 64
MAX_TOKEN_CHARACTERS = 64
"""A longer run (base64, say) is a token by its first characters: an index entry must stay small,
and every backend must cut alike. All three bounds are ours."""
SEPARATOR = "\ue000"
"""Stands between blocks of one message in the index text, so that no phrase reaches across. A
private-use character: the tokenizer never gives it."""

# -- tokens ----------------------------------------------------------------------------------

_SPACELESS = (
    "\u0e01-\u0e3e\u0e40-\u0eff"  # Thai, Lao
    "\u1000-\u109f\u1780-\u17d3\u17d7\u17dc-\u17e9"  # Burmese, Khmer
    "\u1100-\u11ff\ua960-\ua97f\uac00-\ud7ff"  # Hangul
    "\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff"
    "\u3105-\u312f\u31a0-\u31bf\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U0001b000-\U0001b16f\U00020000-\U0003ffff"
)
_POINTS = re.compile("[\u0640\u064b-\u065f\u0670\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7]")
_ASCII_WORD = re.compile("[0-9a-z]+")
_LAST_SYMBOL = 0x1FBFF  # the end of the planes in which Unicode 16 has marks or symbols in use


def _ranges(points: Iterable[int]) -> str:
    """Code points as the inside of a regular expression's character class."""
    parts: list[str] = []
    first = last = -2
    for point in (*points, -2):
        if point == last + 1:
            last = point
            continue
        if first >= 0:
            parts.append(f"{re.escape(chr(first))}-{re.escape(chr(last))}")
        first = last = point
    return "".join(parts)


@lru_cache(maxsize=1)
def _patterns() -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Tokens in folded text, and the pieces of raw text that fold independently of each other.

    Made at the first text that is not ASCII: it asks `unicodedata` about every code point.
    """
    marks, symbols = [], []
    for point in range(0x80, _LAST_SYMBOL):
        category = unicodedata.category(chr(point))
        if category[0] == "M":
            marks.append(point)
        elif category == "So":
            symbols.append(point)
    mark, symbol = _ranges(marks), _ranges(symbols)
    token = re.compile(f"[{_SPACELESS}][{mark}]*|[{symbol}]|(?:[^\\W_{_SPACELESS}][{mark}]*)+")
    piece = re.compile(f"(?s:[\u1100-\u11ff\ua960-\ua97f\ud7b0-\ud7ff]+|.)[{mark}\uff9e\uff9f]*")
    return token, piece


def _fold(text: str) -> str:
    folded = unicodedata.normalize("NFKC", text).casefold()
    return _POINTS.sub("", unicodedata.normalize("NFKC", folded))


def tokenize(text: str) -> list[str]:
    """The tokens of `text`, in order."""
    if text.isascii():
        tokens = _ASCII_WORD.findall(text.lower())
    else:
        tokens = _patterns()[0].findall(_fold(text))
    return [token[:MAX_TOKEN_CHARACTERS] for token in tokens]


def _placed_tokens(text: str) -> list[tuple[str, int, int]]:
    """The tokens of `text`, each with where it is in it: (token, start, end)."""
    if text.isascii():
        found = _ASCII_WORD.finditer(text.lower())
        return [(m[0][:MAX_TOKEN_CHARACTERS], m.start(), m.end()) for m in found]
    token, piece = _patterns()
    folded: list[str] = []
    starts: list[int] = []
    ends: list[int] = []
    for part in piece.finditer(text):
        characters = _fold(part[0])
        folded.append(characters)
        starts += [part.start()] * len(characters)
        ends += [part.end()] * len(characters)
    return [
        (m[0][:MAX_TOKEN_CHARACTERS], starts[m.start()], ends[m.end() - 1])
        for m in token.finditer("".join(folded))
    ]


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
        """Whether an index text (of one kind, or of several joined) matches."""
        if any(term.needle in text for term in self.excluded):
            return False
        present = (term.needle in text for term in self.required)
        return all(present) if self.match == "all" else any(present)

    def score(self, text: str) -> float:
        """How well an index text matches: BM25's saturated term frequency and length norm, summed
        over the required terms. It looks at this text alone, so that no score depends on what
        another user stored, and a page's order does not move while others write."""
        norm = _K1 * (1 - _B + _B * text.count(" ") / _USUAL_TOKENS)
        counts = (text.count(term.needle) for term in self.required)
        return sum(count * (_K1 + 1) / (count + norm) for count in counts)


_K1, _B = 1.2, 0.75  # Robertson and Zaragoza, "The Probabilistic Relevance Framework", 2009
_USUAL_TOKENS = 60  # tokens in a usual chat message: stands for BM25's average document length

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


def spans(text: str, query: Query) -> list[tuple[int, int]]:
    """Where the required terms are in `text`: (start, end) in characters, in order, disjoint."""
    placed = _placed_tokens(text)
    found: list[tuple[int, int]] = []
    for term in query.required:
        size = len(term.tokens)
        *front, last = term.tokens
        for i in range(len(placed) - size + 1):
            token = placed[i + size - 1][0]
            if not (token.startswith(last) if term.prefix else token == last):
                continue
            if all(placed[i + j][0] == wanted for j, wanted in enumerate(front)):
                found.append((placed[i][1], placed[i + size - 1][2]))
    merged: list[tuple[int, int]] = []
    for start, end in sorted(found):
        if merged and start < merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


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

    def text(self, message: Message) -> str:
        """The index text of the kinds that are searched."""
        texts = (index_text(texts_of(message, kind)) for kind in self.kinds)
        return SEPARATOR.join(text for text in texts if text)

    def matches(self, message: Message) -> bool:
        """Whether `message` is a hit: role, time, metadata and text. The user and the session are
        the backend's to restrict."""
        time = message.create_time or 0
        return (
            (self.roles is None or message.role in self.roles)
            and (self.created_from is None or time >= self.created_from)
            and (self.created_to is None or time <= self.created_to)
            and (self.where is None or self.where.matches(message.metadata))
            and self.query.matches(self.text(message))
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
