"""The notebooks run from top to bottom, and those in the repository have their outputs."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from pathlib import Path

import nbformat
import pytest

from notebooks.run import NOTEBOOKS, execute
from tests.adapters._python import CONFIGURED_IN_ASYNCIO
from tsmemory.testing.servers.postgres import find_postgres
from tsmemory.testing.servers.redis import find_server

STARTUP = """
import atexit, gc
gc.disable()
atexit.register(gc.freeze)
del atexit, gc
"""
"""A third of a kernel's time: looking through the frameworks' objects, also when it ends."""


@pytest.fixture(autouse=True)
def a_kernel_s_surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No notices of the kernel's, no garbage collector, and nothing of who runs the tests."""
    startup = tmp_path / "profile_default" / "startup"
    startup.mkdir(parents=True)
    (startup / "collector.py").write_text(STARTUP, encoding="utf-8")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    monkeypatch.delenv("PYTHONWARNINGS", raising=False)  # as a reader's kernel has it


def shown(cell: nbformat.NotebookNode) -> list[str]:
    """The kinds of a cell's outputs, less what others' packages warn of on standard error."""
    return [o.output_type for o in cell.outputs if o.get("name") != "stderr"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Jupyter's packages, in this process
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_runs(path: Path) -> None:
    if path.stem.startswith("6_") and not (find_server("valkey-server") and find_postgres()):
        pytest.skip("needs the servers of the development environment")
    if path.stem.startswith("2_") and sys.version_info < (3, 11):
        pytest.skip(CONFIGURED_IN_ASYNCIO.kwargs["reason"])
    if path.stem.startswith("8_") and not os.environ.get("TSMEMORY_SOAK"):
        pytest.skip("measures for many seconds; TSMEMORY_SOAK=1 and `make notebooks` run it")
    fresh = execute(path)
    kept = nbformat.read(path, as_version=4)
    for ours, theirs in zip(fresh.cells, kept.cells, strict=True):
        assert ours.source == theirs.source
        if ours.cell_type == "code":
            assert shown(ours) == shown(theirs)
            assert theirs.execution_count == ours.execution_count, "run `make notebooks`"


def test_the_notebooks_are_there_and_tell_nothing_of_a_machine() -> None:
    assert len(NOTEBOOKS) >= 9
    for path in NOTEBOOKS:
        text = path.read_text(encoding="utf-8")
        assert os.path.expanduser("~") + "/" not in text.replace("http://", "")
        assert "/home/" not in text
        for temporary in ("/tmp", tempfile.gettempdir()):
            assert temporary + "/" not in text, "run `make notebooks`"
        assert '"outputs": []' not in text or '"output_type"' in text
        assert not re.search(r"(from|import) [\w.]*\b_[a-z]\w*", text), "a private import"
