"""Bars of the medians of an append and of a window, one panel per engine."""

from __future__ import annotations

import math
from html import escape
from typing import Any

from benchmarks.contenders import FLOOR, OURS

__all__ = ["picture"]

_SHOWN = ("append 1", "window of 20")
_NAMES, _CHART, _SPACE = 310, 300, 34
"""px: for the names, for a chart, and between two charts (a bar's figure is written there)."""
_ROW, _HEAD, _TOP = 20, 34, 52
_LOW, _HIGH = 0.0, 5.0  # powers of ten, in µs: 1 µs to 100 ms
_TICKS = {0: "1 µs", 1: "10", 2: "100", 3: "1 ms", 4: "10", 5: "100 ms"}
_WIDTH = _NAMES + 2 * (_CHART + _SPACE + 30)
_STYLE = (
    ".b{fill:#fff}text{font:12px system-ui,sans-serif;fill:#24292f}.t{font-weight:600}"
    ".s{font-size:11px;fill:#59636e}.o{fill:#0969da}.p{fill:#afb8c1}.f{fill:#4a9d57}"
    "line{stroke:#d8dee4}"
    "@media(prefers-color-scheme:dark){.b{fill:#1b2027}text{fill:#e6edf3}.s{fill:#9198a1}"
    ".o{fill:#58a6ff}.p{fill:#6e7681}.f{fill:#57ab5a}line{stroke:#373e47}}"
)


def picture(engines: dict[str, Any], titles: dict[str, str]) -> str:
    """An SVG that follows the reader's light or dark scheme, on a background of its own."""
    parts = _legend()
    y = _TOP
    for engine, found in engines.items():
        charts = [found["operations"].get(operation, {}) for operation in _SHOWN]
        names = list(dict.fromkeys(name for chart in charts for name in chart))
        parts.append(f'<text class="t" x="12" y="{y + 16}">{escape(titles[engine])}</text>')
        for column, chart in enumerate(charts):
            parts += _chart(column, y + _HEAD - 10, names, chart)
        for i, name in enumerate(names):
            weight = ' class="t"' if name == OURS else ""
            row = y + _HEAD + i * _ROW
            parts.append(
                f'<text{weight} x="{_NAMES - 10}" y="{row + 13}" text-anchor="end">'
                f"{escape(name)}</text>"
            )
        y += _HEAD + len(names) * _ROW + 22
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {y}" role="img" '
        f'aria-label="Medians of an append and a window by engine"><style>{_STYLE}</style>'
        f'<rect class="b" width="{_WIDTH}" height="{y}" rx="6"/>{"".join(parts)}</svg>\n'
    )


def _left(column: int) -> int:
    return _NAMES + column * (_CHART + _SPACE + 30)


def _legend() -> list[str]:
    parts = []
    for column, operation in enumerate(_SHOWN):
        parts.append(
            f'<text class="t" x="{_left(column)}" y="22">{operation}: median, logarithmic</text>'
        )
    keys = (("f", "by hand"), ("o", "tsmemory"), ("p", "others"))
    for i, (kind, label) in enumerate(keys):
        x = 12 + i * 90
        parts.append(
            f'<rect class="{kind}" x="{x}" y="12" width="12" height="12"/>'
            f'<text x="{x + 17}" y="22">{label}</text>'
        )
    return parts


def _x(column: int, microseconds: float) -> float:
    power = min(max(math.log10(max(microseconds, 1e-3)), _LOW), _HIGH)
    return _left(column) + _CHART * (power - _LOW) / (_HIGH - _LOW)


def _chart(column: int, y: int, names: list[str], chart: dict[str, Any]) -> list[str]:
    bottom = y + 10 + len(names) * _ROW
    parts = []
    for power, label in _TICKS.items():
        x = _x(column, 10.0**power)
        parts.append(
            f'<line x1="{x:.0f}" x2="{x:.0f}" y1="{y + 6}" y2="{bottom}"/>'
            f'<text class="s" x="{x:.0f}" y="{bottom + 12}" text-anchor="middle">{label}</text>'
        )
    for i, name in enumerate(names):
        if name not in chart:
            continue
        median = chart[name]["p50"]
        kind = "o" if name == OURS else "f" if name == FLOOR else "p"
        begin, end = _left(column), max(_x(column, median), _left(column) + 2)
        row = y + 10 + i * _ROW
        parts.append(
            f'<rect class="{kind}" x="{begin}" y="{row + 3}" width="{end - begin:.0f}" '
            f'height="{_ROW - 6}" rx="2"/>'
            f'<text class="s" x="{end + 5:.0f}" y="{row + 14}">{_short(median)}</text>'
        )
    return parts


def _short(microseconds: float) -> str:
    if microseconds >= 10_000:
        return f"{microseconds / 1000:,.0f} ms"
    if microseconds >= 1_000:
        return f"{microseconds / 1000:.1f} ms"
    return f"{microseconds:.0f} µs" if microseconds >= 10 else f"{microseconds:.1f} µs"
