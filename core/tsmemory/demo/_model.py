"""A language model small enough to read: it answers out of its context, and only out of that.

It finds the statement of the user's that shares the most telling words with the question and says
it back in the second person. What it was not shown it does not know, which is the point: an answer
proves that the memory put the statement into the context.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["Said", "answer"]

_WORD = re.compile(r"[^\W\d_]+(?:'[a-z]+)?|\d+")
_SENTENCE = re.compile(r"[^.!?]+[.!?]?")
_STOP = frozenset(
    re.findall(
        r"\w+",
        """a an and am are at be but by can could did do does for from has have how i in is it me my
        of on or our please so tell that the there this to was we were what when where which who
        whom whose why will with would you your""",
    )
)
_SECOND_PERSON = {
    "i": "you",
    "me": "you",
    "my": "your",
    "mine": "yours",
    "myself": "yourself",
    "we": "you",
    "our": "your",
    "am": "are",
    "i'm": "you're",
    "i've": "you've",
    "i'll": "you'll",
}


class Said(NamedTuple):
    """A line of the context."""

    role: str
    text: str


def answer(context: Sequence[Said]) -> str:
    """The reply to the last line of the user's, from the lines before it."""
    last = max((i for i, line in enumerate(context) if line.role == "user"), default=None)
    if last is None:
        return "Hello! Tell me something about yourself."
    question = context[last].text.strip()
    facts = [
        sentence.strip()
        for line in context[:last]
        if line.role == "user"
        for sentence in _SENTENCE.findall(line.text)
        if sentence.strip() and not sentence.strip().endswith("?")
    ]
    if not question.endswith("?"):
        return f"Noted: {_turned(question)}"
    best = _closest(question, facts)
    return _turned(best) if best else "I do not know: nothing that I was shown says so."


def _stems(text: str) -> list[str]:
    words = (word.lower() for word in _WORD.findall(text))
    return [re.sub(r"(?<=\w{3})(?:'s|s|ed|ing)$", "", w) for w in words if w not in _STOP]


def _closest(question: str, facts: Sequence[str]) -> str | None:
    """The statement with the most of the question's words, the rare ones counting more."""
    stems = set(_stems(question))
    spread = Counter(stem for sentence in facts for stem in set(_stems(sentence)))
    scored = [
        (sum(1 / spread[stem] for stem in stems & set(_stems(sentence))), i, sentence)
        for i, sentence in enumerate(facts)
    ]
    score, _, sentence = max(scored, default=(0.0, 0, ""))
    return sentence if score > 0 else None


def _turned(sentence: str) -> str:
    """First person into second."""
    turned = _WORD.sub(lambda m: _SECOND_PERSON.get(m[0].lower(), m[0]), sentence)
    turned = re.sub(r"(?:^|(?<=[.!?] ))\w", lambda m: m[0].upper(), turned)
    return turned if turned.endswith((".", "!")) else f"{turned}."
