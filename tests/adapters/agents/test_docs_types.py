"""The frameworks' pages pass mypy --strict. That they run, tests/docs has checked."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.test_docs import NOT_RUN, ROOT, blocks

pytest.importorskip("mypy")


_AGENTS_TYPED = pytest.mark.skipif(
    sys.version_info < (3, 11), reason="LangGraph's types do not take a dict of messages there"
)


@pytest.mark.parametrize("page", [pytest.param("langchain", marks=_AGENTS_TYPED), "llamaindex"])
def test_the_examples_are_typed(page: str, tmp_path: Path) -> None:
    code = [b for b in blocks(ROOT / "docs" / f"{page}.md") if NOT_RUN not in b]
    script = tmp_path / f"{page}_page.py"
    script.write_text("\n".join(code), encoding="utf-8")
    done = subprocess.run(
        # The project's own configuration, so that what `make lint` has read is not read again.
        [sys.executable, "-m", "mypy", str(script)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
