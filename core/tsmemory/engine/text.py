"""Stored text where something could act on it: a terminal, a page, a log."""

from __future__ import annotations

import unicodedata

__all__ = ["visible"]

_JOINERS = "\u200c\u200d"  # they shape scripts and emoji, and do nothing else


def visible(text: str) -> str:
    """`text` as it may be shown: what would act on a terminal or on the direction of writing
    (control characters, bidirectional overrides) or cannot be encoded (lone surrogates) becomes an
    escape such as ``\\x1b``. Line breaks stay."""
    return text if text.isascii() and text.isprintable() else "".join(map(_shown, text))


def _shown(character: str) -> str:
    if character == "\n" or character.isprintable() or character in _JOINERS:
        return character
    if character == "\t":
        return "    "
    if unicodedata.category(character) == "Zs":  # other widths of space
        return " "
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
