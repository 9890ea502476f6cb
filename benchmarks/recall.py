"""Recall of searches on long conversations with known evidence, in LoCoMo's form.

    python -m benchmarks.recall locomo10.json

The file is not part of this project: https://github.com/snap-research/locomo has one. It is a list
of conversations, each with sessions of turns (``session_1``: a list of ``speaker``, ``dia_id``,
``text``) and questions (``qa``: ``question``, and in ``evidence`` the ``dia_id`` of each turn that
answers it, as ``D1:3``). Each conversation becomes a user, each of its sessions a session, each
turn a message. A question is searched as an agent's tool does, and its hits are ranked as sessions:
a session counts with its best turns, and with a search of the whole session's text. Printed is how
often any, and how often each, session of the evidence is among the first five.
"""

from __future__ import annotations

import json
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tsmemory import Message, Store, open_store
from tsmemory.adapters import recall

_FIRST = 5  # sessions that count
_TURNS = 100  # hits on turns that are ranked
_DAMPING = 60  # of reciprocal rank fusion: Cormack et al., 2009
_SESSION = re.compile(r"session_(\d+)\Z")


class Question(NamedTuple):
    user_id: str
    text: str
    evidence: frozenset[str]
    """Session ids."""


def load(store: Store, conversations: list[dict[str, Any]]) -> Iterator[Question]:
    """Store the conversations; gives their questions that have evidence."""
    for number, record in enumerate(conversations):
        user = f"user-{number}"
        talk = record.get("conversation", record)
        for name, turns in talk.items():
            match = _SESSION.match(name)
            if match is None or not turns:
                continue
            texts = [
                f"{turn['speaker']}: {turn.get('text', '')} {turn.get('blip_caption', '')}".strip()
                for turn in turns
            ]
            chat = store.conversation(f"D{match[1]}", user_id=user)
            chat.append([Message.user(text) for text in texts])
            # The session as one document, under a user of its own.
            whole = store.conversation(f"D{match[1]}", user_id=f"{user} whole")
            whole.append(Message.user("\n".join(texts)))
        for question in record.get("qa", ()):
            found = (re.findall(r"D(\d+)", part) for part in question.get("evidence", ()))
            evidence = frozenset(f"D{session}" for part in found for session in part)
            if evidence:
                yield Question(user, question["question"], evidence)


def ranked(store: Store, question: Question, *, fused: bool) -> list[str]:
    """Session ids, the best first: by their best turn, or that fused with the whole session."""
    scores: dict[str, float] = defaultdict(float)
    turns = store.run(recall(store, question.text, user_id=question.user_id, limit=_TURNS))
    add_ranks(scores, dict.fromkeys(hit.session_id for hit in turns))
    if fused:
        whole = store.run(
            recall(store, question.text, user_id=f"{question.user_id} whole", limit=_TURNS)
        )
        add_ranks(scores, dict.fromkeys(hit.session_id for hit in whole))
    return sorted(scores, key=lambda session: -scores[session])[:_FIRST]


def add_ranks(scores: dict[str, float], sessions: Iterable[str]) -> None:
    """Reciprocal ranks of `sessions`, added to `scores`."""
    for rank, session in enumerate(sessions, 1):
        scores[session] += 1 / (_DAMPING + rank)


def main(path: Path) -> None:
    """Print a line per way of ranking."""
    conversations = json.loads(path.read_text(encoding="utf-8"))
    with open_store("memory:") as store:
        questions = list(load(store, conversations))
        print(f"{len(conversations)} conversations, {len(questions)} questions with evidence")
        for name, fused in (("turns", False), ("turns and sessions", True)):
            first = [set(ranked(store, question, fused=fused)) for question in questions]
            pairs = list(zip(questions, first, strict=True))
            some = sum(not q.evidence.isdisjoint(found) for q, found in pairs)
            every = sum(q.evidence <= found for q, found in pairs)
            total = len(questions) or 1
            print(f"{name:20} any {some / total:6.1%}   all {every / total:6.1%}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
