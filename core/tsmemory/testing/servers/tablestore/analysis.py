"""Words of TEXT fields, by analyzer.

``single_word`` (the default) is the service's: runs of letters and digits, lower-cased, and every
CJK character by itself. ``max_word`` and ``min_word`` need the service's dictionary; here they cut
as ``single_word`` does. ``split`` cuts at its delimiter, ``fuzzy`` into pieces of min to max
characters.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from ._wire import search_pb

Analyzer = Callable[[str], list[str]]

_CJK = "\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003134f"
_WORD = re.compile(f"[{_CJK}]|[^\\W_{_CJK}]+")
_DELIMITED = re.compile(f"[{_CJK}]|[^\\W\\d_{_CJK}]+|\\d+")


def analyzer(message: Any) -> Analyzer:
    """The analyzer that a protobuf ``FieldSchema`` asks for."""
    name = message.analyzer or "single_word"
    if name == "split":
        split = search_pb.SplitAnalyzerParameter()
        split.ParseFromString(message.analyzer_parameter)
        delimiter = split.delimiter or " "
        return lambda text: [part.lower() for part in text.split(delimiter) if part]
    if name == "fuzzy":
        fuzzy = search_pb.FuzzyAnalyzerParameter()
        fuzzy.ParseFromString(message.analyzer_parameter)
        least, most = fuzzy.min_chars or 1, fuzzy.max_chars or 7
        return lambda text: _pieces(text[:1024].lower(), least, most)
    single = search_pb.SingleWordAnalyzerParameter()
    if name == "single_word":
        single.ParseFromString(message.analyzer_parameter)
    pattern = _DELIMITED if single.delimit_word else _WORD
    if single.case_sensitive:
        return pattern.findall
    return lambda text: pattern.findall(text.lower())


def _pieces(text: str, least: int, most: int) -> list[str]:
    return [
        text[start : start + size]
        for start in range(len(text))
        for size in range(least, most + 1)
        if start + size <= len(text)
    ]
