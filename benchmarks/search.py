"""Searches in one SQLite file of 100,000 messages, beside plain FTS5 queries on the same texts.

    python -m benchmarks.search [MESSAGES]

The floor is a table of FTS5 with its own tokenizer, asked by hand for the newest 20 hits with their
texts, decoded with json. Words follow Zipf's distribution; of the words searched for, one is in 1,
one in 10, and one in 1,000 of the messages.
"""

from __future__ import annotations

import gc
import json
import os
import random
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tsmemory import Message, Store
from tsmemory.backends.sqlite import SQLiteBackend

_RARE = {"onceonly": 1, "tentimes": 10, "thousandfold": 1_000}
_ROUNDS = 200


def texts(count: int) -> list[str]:
    """Texts of 20 to 80 words, the rare words spread over them."""
    dice = random.Random(11)
    vocabulary = [f"word{i}" for i in range(20_000)]
    weights = [1 / (i + 10) for i in range(len(vocabulary))]
    made = [
        " ".join(dice.choices(vocabulary, weights, k=dice.randint(20, 80))) for _ in range(count)
    ]
    for word, hits in _RARE.items():
        for i in dice.sample(range(count), hits):
            made[i] += f" {word}"
    return made


def by_hand(path: Path, rows: list[str]) -> sqlite3.Connection:
    """The same texts in a plain FTS5 table."""
    db = sqlite3.connect(path)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("CREATE TABLE m (pk INTEGER PRIMARY KEY, body BLOB)")
    db.execute("CREATE VIRTUAL TABLE f USING fts5(text, content='')")
    for start in range(0, len(rows), 1_000):
        some = list(enumerate(rows[start : start + 1_000], start + 1))
        with db:
            db.executemany(
                "INSERT INTO m VALUES (?, ?)", [(i, json.dumps({"content": t})) for i, t in some]
            )
            db.executemany("INSERT INTO f (rowid, text) VALUES (?, ?)", some)
    return db


def ask(db: sqlite3.Connection, word: str) -> int:
    """The newest 20 hits, by hand."""
    found = db.execute(
        "SELECT body FROM f JOIN m ON m.pk = f.rowid WHERE f MATCH ? "
        "ORDER BY f.rowid DESC LIMIT 20",
        (word,),
    )
    return len([json.loads(body) for (body,) in found])


def paired(ours: Callable[[], object], floor: Callable[[], object]) -> tuple[float, float, float]:
    """Median of ours and of the floor in µs, and the ratio of medians; the two in turns."""
    times: tuple[list[float], list[float]] = ([], [])
    for i in range(_ROUNDS):
        order = ((0, ours), (1, floor)) if i % 2 else ((1, floor), (0, ours))
        for which, call in order:
            begin = time.perf_counter()
            call()
            times[which].append(time.perf_counter() - begin)
    mine, theirs = (statistics.median(found) * 1e6 for found in times)
    return mine, theirs, mine / theirs


def main(count: int) -> None:
    """Fill two files, and print a line per query."""
    assert gc.isenabled()
    rows = texts(count)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        with Store(SQLiteBackend(path / "ours.db", durability="normal")) as store:
            chats = [store.conversation(f"s{i}", user_id="ada") for i in range(100)]
            share = -(-count // len(chats))
            for i, chat in enumerate(chats):
                chat.append([Message.user(text) for text in rows[i * share : (i + 1) * share]])
            db = by_hand(path / "floor.db", rows)
            print(f"{count:,} messages, {sum(map(len, rows)):,} bytes of text")
            size = os.path.getsize(path / "ours.db")
            print(f"the file: {size:,} bytes; by hand {os.path.getsize(path / 'floor.db'):,}")
            print("query            hits   ours µs  by hand µs  ratio")
            queries = [*_RARE, '"word3 word5"', "word1 word2", "wor*", "word9999"]
            for text in queries:
                hits = len(store.search_messages(text, user_id="ada", limit=20))
                plain = text.replace("wor*", "wor *")

                def search(text: str = text) -> object:
                    return store.search_messages(text, user_id="ada", limit=20)

                def floor(plain: str = plain) -> object:
                    return ask(db, plain)

                mine, theirs, ratio = paired(search, floor)
                print(f"{text:16} {hits:4}  {mine:8.0f}  {theirs:10.0f}  {ratio:5.2f}")
            db.close()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)
