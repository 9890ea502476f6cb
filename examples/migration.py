"""From ``SQLChatMessageHistory`` to tsmemory: ``python migration.py old.db [new store's URL]``.

An import is a merge, so this runs again as often as you like while the application still writes to
the old database: what is new is added, nothing is duplicated. Switch when you are ready, run it
once more, and keep the old file until `verify` reports no problem.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from tsmemory import TSMemoryError, open_store
from tsmemory.transfer import import_from


def main(arguments: Sequence[str]) -> int:
    """Import the first of `arguments` into the second, and say what happened."""
    source, target = arguments[0], arguments[1] if len(arguments) > 1 else "sqlite:///chat.db"
    with open_store(target) as store:
        store.setup()
        report = import_from(store, source, format="langchain-sql", user_id="ada")
        print(f"{report.sessions} sessions, {report.messages} messages, {report.written} written")
        problems = [*report.problems, *store.verify()]
        for problem in problems:
            print(f"{problem.session_id} {problem.message_id}: {problem.what}")
    return 1 if problems else 0


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    try:
        sys.exit(main(sys.argv[1:]))
    except TSMemoryError as error:  # no such file, or not such a database: it says which
        sys.exit(str(error))
