"""Draw ``docs/pictures/overview.svg``, the picture of the README: ``python -m tools.overview``.

The transcript in it is what the README's blocks store. Colours follow the reader's theme, on a
background of the picture's own, so that it is readable where only one of both is known.
"""

from __future__ import annotations

from html import escape
from pathlib import Path

__all__ = ["PICTURE", "draw", "main"]

PICTURE = Path(__file__).parents[1] / "docs" / "pictures" / "overview.svg"
TRANSCRIPT = (
    ("user", "My name is Ada.", "your code"),
    ("assistant", "Hi Ada!", "your code"),
    ("user", "What is my name?", "LangChain agent"),
    ("assistant", "Your name is Ada.", "LangChain agent"),
    ("user", "And when does my ferry go?", "LlamaIndex"),
    ("assistant", "At 08:30.", "LlamaIndex"),
)
_LABEL = (
    "Your code, a LangChain agent and a LlamaIndex memory write one conversation. The store keeps "
    "the whole transcript; a window is the part that a model is shown, and a search finds messages."
)
_STYLE = """
.back { fill: #ffffff; stroke: #d0d7de; }
text { font: 14px system-ui, sans-serif; fill: #1f2328; }
.small { font-size: 12px; fill: #57606a; }
.strong { font-weight: 600; }
.box { fill: #f6f8fa; stroke: #8c959f; }
.user { fill: #ddf4ff; } .assistant { fill: #dafbe1; }
.line { fill: none; stroke: #57606a; stroke-width: 1.5; }
.head { fill: #57606a; }
.window { fill: none; stroke: #8250df; stroke-width: 2; }
.windowtext { fill: #8250df; }
@media (prefers-color-scheme: dark) {
  .back { fill: #0d1117; stroke: #30363d; }
  text { fill: #e6edf3; } .small { fill: #9da7b1; }
  .box { fill: #161b22; stroke: #6e7681; }
  .user { fill: #0c2d4a; } .assistant { fill: #0f3220; }
  .line { stroke: #9da7b1; } .head { fill: #9da7b1; }
  .window { stroke: #bc8cff; } .windowtext { fill: #bc8cff; }
}
"""
_WIDTH, _HEIGHT, _ROW, _TOP = 860, 330, 34, 64


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    return f'<text x="{x}" y="{y}" class="{kind}" text-anchor="{anchor}">{escape(text)}</text>'


def _box(x: float, y: float, width: float, height: float, kind: str) -> str:
    return f'<rect class="{kind}" x="{x}" y="{y}" width="{width}" height="{height}" rx="6"/>'


def _arrow(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<path class="line" marker-end="url(#head)" d="M{x1} {y1}L{x2} {y2}"/>'


def draw() -> str:
    """The picture, as SVG."""
    parts = [_box(0.5, 0.5, _WIDTH - 1, _HEIGHT - 1, "back")]
    left, wide = 230, 330
    parts.append(
        _text(left + wide / 2, 30, "the store keeps the whole transcript", "strong", "middle")
    )
    parts.append(_text(left + wide / 2, 48, "session-456 of user-123", "small", "middle"))
    writers: dict[str, list[int]] = {}
    for row, (role, text, writer) in enumerate(TRANSCRIPT):
        y = _TOP + row * _ROW
        parts.append(_box(left, y, wide, _ROW - 6, role))
        parts.append(_text(left + 10, y + 19, role, "small"))
        parts.append(_text(left + 80, y + 19, text))
        writers.setdefault(writer, []).append(y)
    for writer, rows in writers.items():
        middle = (rows[0] + rows[-1] + _ROW - 6) / 2
        parts.append(_box(20, middle - 20, 150, 40, "box"))
        parts.append(_text(95, middle + 5, writer, "strong", "middle"))
        parts.append(_arrow(170, middle, left - 8, middle))
    top, bottom = _TOP + 2 * _ROW - 5, _TOP + len(TRANSCRIPT) * _ROW - 1
    parts.append(_box(left - 5, top, wide + 10, bottom - top, "window"))
    parts.append(_arrow(left + wide + 5, (top + bottom) / 2, 612, (top + bottom) / 2))
    for box_top, title, lines in (
        (_TOP - 2, "search", ("words, phrases, Chinese,", "in one user's sessions")),
        (
            (top + bottom) / 2 - 45,
            "window",
            (
                "what a model is shown: a valid",
                "prompt within a budget, which",
                "repeats the one before it",
            ),
        ),
    ):
        height = 34 + 18 * len(lines)
        parts.append(_box(620, box_top, 220, height, "box"))
        parts.append(
            _text(632, box_top + 22, title, "windowtext strong" if title == "window" else "strong")
        )
        parts += [_text(632, box_top + 42 + 18 * i, line, "small") for i, line in enumerate(lines)]
    parts.append(_arrow(left + wide, _TOP + 26, 612, _TOP + 26))
    parts.append(
        _text(
            _WIDTH / 2,
            _HEIGHT - 24,
            "SQLite · PostgreSQL · Redis, Valkey · Tablestore · ZeroDB · JSONL · memory",
            "",
            "middle",
        )
    )
    head = (
        '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" '
        'markerHeight="8" orient="auto"><path class="head" d="M0 0L8 4L0 8z"/></marker></defs>'
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{_LABEL}">\n<title>{_LABEL}</title>\n<style>{_STYLE}</style>\n{head}\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def main() -> None:
    """Write the picture."""
    PICTURE.write_text(draw(), encoding="utf-8")


if __name__ == "__main__":
    main()
