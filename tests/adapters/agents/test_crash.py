"""A process that dies in a tool loop: nothing is lost, nothing doubled, and the agent goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests._chat_api import refusal
from tests.adapters._processes import exit_code
from tests.adapters.agents._worker import DIED, STEPS, main
from tsmemory import Message, open_store


def stored(folder: Path) -> list[Message]:
    with open_store(f"sqlite:///{folder / 'c.db'}") as store:
        return list(store.conversation("s").iter_messages())


def executed(folder: Path) -> list[str]:
    return (folder / "steps.txt").read_text().split()


POINTS = [f"{kind}-{number}" for number in range(1, STEPS + 1) for kind in ("tool", "behind")]


@pytest.mark.parametrize("point", POINTS)
def test_a_crash_without_a_checkpointer(tmp_path: Path, point: str) -> None:
    """It dies in a tool, or right behind it, and is asked the same again."""
    number = int(point[-1])
    assert exit_code(main, tmp_path, "plain", point) == DIED
    before = stored(tmp_path)
    # The question, and for each step its call and its result. A result is stored with the next
    # model call, so the last step's is lost, wherever it died.
    results = number - 1
    assert [m.role for m in before] == (
        ["user"] + ["assistant", "tool"] * results + ["assistant"] * (number - results)
    )
    assert exit_code(main, tmp_path, "plain", "never") == 0
    assert (
        tmp_path / "answer.txt"
    ).read_text() == f"{STEPS} steps done"  # each request was accepted
    after = stored(tmp_path)
    assert after[: len(before)] == before
    assert len({m.message_id for m in after}) == len(after)
    assert [m.text for m in after if m.role == "user"] == ["go"]
    assert [m.text for m in after if m.role == "tool"] == [f"did {i + 1}" for i in range(STEPS)]
    # A call that died has no result, so the model made it again: once.
    died = number - results
    assert len([m for m in after if m.tool_calls]) == STEPS + died
    steps = executed(tmp_path)
    assert steps == sorted([*"12345", *(str(number) for _ in range(died))])
    with open_store(f"sqlite:///{tmp_path / 'c.db'}") as store:
        view = store.conversation("s").window()
    assert refusal(view) is None
    assert [m.text for m in view if m.role == "tool"] == [f"did {i + 1}" for i in range(STEPS)]


@pytest.mark.parametrize("point", ["tool-1", "behind-3", "tool-5"])
def test_a_crash_with_a_checkpointer(tmp_path: Path, point: str) -> None:
    """It is resumed from its checkpoint: a tool that ran again has one result all the same."""
    assert exit_code(main, tmp_path, "checkpoint", point) == DIED
    assert exit_code(main, tmp_path, "checkpoint", "never") == 0
    assert (tmp_path / "answer.txt").read_text() == f"{STEPS} steps done"
    after = stored(tmp_path)
    assert [m.role for m in after] == ["user", *["assistant", "tool"] * STEPS, "assistant"]
    assert refusal(after) is None
