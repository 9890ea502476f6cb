"""What prompt caches find of a conversation, and what it costs, by the kind of window.

python -m benchmarks.windows [--conversations FILE] [--per-session 10] [--picture FILE.svg]

Replays conversations call by call: before each message of the assistant, the model is shown the
window of what was stored so far. What of a prompt is in the provider's cache is the longest run of
its first messages that an earlier prompt of the session began with. FILE has a conversation per
line: ``{"id": …, "messages": [messages in the OpenAI chat format]}``; by default the one that
TSMEMORY_CONVERSATIONS names, or else a made-up one. System prompts are stored once per session.
"""

from __future__ import annotations

import argparse
import json
import os
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.table import Table

from benchmarks._measure import console
from tsmemory import Message, Window, count_tokens, from_openai, open_store

PRICES = {"Anthropic": (1.25, 0.1), "OpenAI": (1.0, 0.1)}
"""What a token that is not cached and one that is cost, as multiples of the plain input price:
Anthropic's for writing to a cache of five minutes and for reading it, OpenAI's for GPT-5."""


class Call(NamedTuple):
    """One prompt, in tokens."""

    fixed: int
    """Of the system prompt, which every window keeps."""
    history: int
    """Of the rest."""
    cached: int
    """Of the rest, what is in the cache."""


class Replay(NamedTuple):
    name: str
    calls: list[Call]
    lengths: list[int]

    @property
    def cached_share(self) -> float:
        """The share of the history's tokens that is in the cache."""
        return sum(c.cached for c in self.calls) / max(1, sum(c.history for c in self.calls))

    def price(self, provider: str) -> float:
        """Of the history in all prompts, in tokens at the plain input price. The system prompt is
        cached by every window."""
        fresh, cached = PRICES[provider]
        return sum((c.history - c.cached) * fresh + c.cached * cached for c in self.calls)

    @property
    def mean_length(self) -> float:
        """Messages per prompt."""
        return sum(self.lengths) / max(1, len(self.lengths))


def replay(name: str, sessions: Sequence[Sequence[Message]], window: Window) -> Replay:
    """Show a model each session, call by call."""
    calls: list[Call] = []
    lengths: list[int] = []
    sizes: dict[tuple[str, int], int] = {}
    for messages in sessions:
        chat = open_store("memory:").conversation("s")
        earlier: list[list[Message]] = []
        for message in messages:
            if message.role == "assistant":
                prompt = list(chat.window(window))
                lead = next((i for i, m in enumerate(prompt) if m.role != "system"), len(prompt))
                common = max((_common(prompt, before) for before in earlier), default=0)
                tokens = []
                for m in prompt:
                    key = (m.message_id, len(m.content))
                    if key not in sizes:
                        sizes[key] = count_tokens(m)
                    tokens.append(sizes[key])
                calls.append(Call(sum(tokens[:lead]), sum(tokens[lead:]), sum(tokens[lead:common])))
                lengths.append(len(prompt) - lead)
                earlier = [*earlier[-3:], prompt]  # a longer prefix than the newest have is rare
            chat.append(message)
    return Replay(name, calls, lengths)


def _common(prompt: Sequence[Message], earlier: Sequence[Message]) -> int:
    for i, (a, b) in enumerate(zip(prompt, earlier, strict=False)):
        if a != b:
            return i
    return min(len(prompt), len(earlier))


# -- conversations -------------------------------------------------------------------------------


def sessions_of(path: str | None, per_session: int) -> list[list[Message]]:
    """The conversations of a file, so many to a session; without a file, made-up ones."""
    if path is None:
        return [list(_made_up(random.Random(i), 130 * per_session // 5)) for i in range(5)]
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    conversations = [[from_openai(m) for m in json.loads(line)["messages"]] for line in lines]
    sessions: list[list[Message]] = []
    for i in range(0, len(conversations), per_session):
        session: list[Message] = []
        for messages in conversations[i : i + per_session]:
            session += [m for m in messages if m.role != "system" or not session]
        sessions.append(session)
    return sessions


def _made_up(rnd: random.Random, turns: int) -> Iterator[Message]:
    yield Message.system("You sell tickets for the ferries of the western fjords. " * 20)
    for i in range(turns):
        yield Message.user(f"Question {i}: " + "when does the ferry leave? " * rnd.randint(1, 4))
        yield Message.assistant(f"Answer {i}: " + "at half past eight. " * rnd.randint(1, 9))


# -- results -------------------------------------------------------------------------------------


WINDOWS = {
    "whole": Window(),
    "sliding 50": Window(last=50),
    "stepped 10 + 80": Window(last=10, step=80),
    "stepped 20 + 60": Window(last=20, step=60),
    "stepped 40 + 20": Window(last=40, step=20),
    "whole, 5 tool results": Window(step=40, tool_results=5),
}


def main(arguments: Sequence[str] = ()) -> list[Replay]:
    """Prints a table, draws the picture where one is asked for, and returns the replays."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--conversations", default=os.environ.get("TSMEMORY_CONVERSATIONS"))
    parser.add_argument("--per-session", type=int, default=10)
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args(arguments)
    sessions = sessions_of(options.conversations, options.per_session)
    replays = [replay(name, sessions, window) for name, window in WINDOWS.items()]
    sliding = replays[1]
    table = Table(title=f"{len(sliding.calls):,} model calls", title_justify="left")
    for column in ("window", "mean messages", "history cached", "tokens per prompt"):
        table.add_column(column, justify="left" if column == "window" else "right")
    for provider in PRICES:
        table.add_column(f"price, × sliding ({provider})", justify="right")
    for replayed in replays:
        tokens = sum(c.fixed + c.history for c in replayed.calls) / len(replayed.calls)
        table.add_row(
            replayed.name,
            f"{replayed.mean_length:.1f}",
            f"{replayed.cached_share:.1%}",
            f"{tokens:,.0f}",
            *(f"{replayed.price(p) / sliding.price(p):.2f}" for p in PRICES),
        )
    console.print(table)
    if options.picture is not None:
        first = [replay(name, sessions[:1], WINDOWS[name]) for name in _DRAWN]
        options.picture.write_text(picture(first), encoding="utf-8")
        console.print(f"drawn: {options.picture.name}")
    return replays


# -- the picture ---------------------------------------------------------------------------------

_STYLE = """
text { font: 13px system-ui, sans-serif; fill: #24292f; }
.small { font-size: 11px; fill: #57606a; }
.cached { fill: #8fb8de; } .new { fill: #d1495b; } .axis { stroke: #8c959f; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; } .small { fill: #9da7b1; }
  .cached { fill: #3f6f9f; } .new { fill: #ff7b72; } .axis { stroke: #6e7681; }
}
"""
_WIDTH, _PANEL, _LEFT, _CALLS = 760, 150, 10, 120
_DRAWN = ("whole", "sliding 50", "stepped 20 + 60")


def picture(replays: Sequence[Replay]) -> str:
    """The prompts of the first calls as bars: what is cached below, what is new above (SVG)."""
    most = max(c.history for replayed in replays for c in replayed.calls[:_CALLS])
    parts: list[Any] = []
    for row, replayed in enumerate(replays):
        parts += _panel(replayed, row * (_PANEL + 52) + 30, most)
    height = len(replays) * (_PANEL + 52) + 30
    label = "The prompt of each model call: cached from the previous call, and new"
    legend = (
        f'<rect class="cached" x="{_LEFT}" y="{height - 18}" width="10" height="10"/>'
        f'<text class="small" x="{_LEFT + 16}" y="{height - 9}">in the cache</text>'
        f'<rect class="new" x="{_LEFT + 110}" y="{height - 18}" width="10" height="10"/>'
        f'<text class="small" x="{_LEFT + 126}" y="{height - 9}">paid in full</text>'
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img" '
        f'aria-label="{label}">\n<title>{label}</title>\n<style>{_STYLE}</style>\n'
        + "\n".join(parts)
        + f"\n{legend}\n</svg>\n"
    )


def _panel(replayed: Replay, top: int, most: int) -> Iterator[str]:
    calls = replayed.calls[:_CALLS]
    scale = (_PANEL - 20) / most
    wide = (_WIDTH - 2 * _LEFT) / _CALLS
    bottom = top + _PANEL
    yield (
        f'<text x="{_LEFT}" y="{top - 8}">{replayed.name}<tspan class="small" dx="10">'
        f"{replayed.cached_share:.0%} of the history in the cache, "
        f"{replayed.mean_length:.0f} messages per prompt</tspan></text>"
    )
    for kind in ("cached", "new"):
        path = []
        for i, call in enumerate(calls):
            size = call.cached if kind == "cached" else call.history - call.cached
            base = bottom - (0 if kind == "cached" else call.cached * scale)
            path.append(
                f"M{_LEFT + i * wide:.1f} {base:.1f}h{wide - 1:.1f}v{-size * scale:.1f}"
                f"h{-(wide - 1):.1f}z"
            )
        yield f'<path class="{kind}" d="{"".join(path)}"/>'
    yield (
        f'<line class="axis" x1="{_LEFT}" x2="{_WIDTH - _LEFT}" y1="{bottom}" y2="{bottom}"/>'
        f'<text class="small" x="{_WIDTH - _LEFT}" y="{bottom + 14}" text-anchor="end">'
        f"{len(calls)} model calls</text>"
    )


if __name__ == "__main__":
    import sys

    main(sys.argv[1:])
