"""The tokenizer of searches: text in any language as a list of comparable words.

Text is folded (NFKC, case folding, NFKC again; Arabic and Hebrew vowel points and the Arabic
tatweel are dropped) and cut into words of letters, digits and the marks on them. Characters of
scripts that put no spaces between words (Han, kana, Hangul, Thai, Lao, Khmer, Burmese) and symbols
such as emoji are tokens of their own, so that a Chinese word of two characters is found as a
phrase. Everything else separates tokens. Accents count: ``cafe`` does not find ``café``.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache

__all__ = ["MAX_TOKEN_CHARACTERS", "is_spaceless", "placed_tokens", "tokenize"]

MAX_TOKEN_CHARACTERS = 64
"""A longer run (base64, say) is a token by its first characters: an index entry must stay small,
and every backend must cut alike. Ours."""

_SPACELESS = (
    "\u0e01-\u0e3e\u0e40-\u0eff"  # Thai, Lao
    "\u1000-\u109f\u1780-\u17d3\u17d7\u17dc-\u17e9"  # Burmese, Khmer
    "\u1100-\u11ff\ua960-\ua97f\uac00-\ud7ff"  # Hangul
    "\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff"
    "\u3105-\u312f\u31a0-\u31bf\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U0001b000-\U0001b16f\U00020000-\U0003ffff"
)
_POINTS = re.compile("[\u0640\u064b-\u065f\u0670\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7]")
_SPACELESS_TOKEN = re.compile(f"[{_SPACELESS}]")
_ASCII = "".join(chr(point).lower() if chr(point).isalnum() else " " for point in range(128))
"""ASCII as tokens have it: an append is made of this, so no pattern looks at every character."""
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
        tokens = text.translate(_ASCII).split()
    else:
        tokens = _patterns()[0].findall(_fold(text))
    if max(map(len, tokens), default=0) <= MAX_TOKEN_CHARACTERS:
        return tokens
    return [token[:MAX_TOKEN_CHARACTERS] for token in tokens]


def is_spaceless(token: str) -> bool:
    """Whether a token is a character of a script that puts no spaces between words."""
    return _SPACELESS_TOKEN.match(token) is not None


def placed_tokens(text: str) -> list[tuple[str, int, int]]:
    """The tokens of `text`, each with where it is in it: (token, start, end)."""
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
