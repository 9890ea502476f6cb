"""Execute the notebooks and keep their outputs: ``python -m notebooks.run [NAME …]``."""

from __future__ import annotations

import asyncio
import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

__all__ = ["NOTEBOOKS", "execute", "main"]

_TEMPORARY = re.compile(rf"{re.escape(tempfile.gettempdir())}/[\w.-]+/")
"""A temporary directory in an output: another one in each run."""

NOTEBOOKS = sorted(Path(__file__).parent.glob("*.ipynb"))


def execute(path: Path) -> NotebookNode:
    """The notebook at `path` with the outputs of a fresh run.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell failed.
    """
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=120,
        kernel_name="python3",
        coalesce_streams=True,  # how often a kernel flushes is chance
        resources={"metadata": {"path": str(path.parent)}},
    )
    asyncio.run(client.async_execute())
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # the time of each run: noise in every diff
    notebook.metadata["language_info"] = {"name": "python"}
    return nbformat.reads(_TEMPORARY.sub("", nbformat.writes(notebook)), as_version=4)


def main(names: Sequence[str]) -> None:
    """Run those named (or all) and write them back."""
    for path in NOTEBOOKS:
        if not names or path.stem in names or path.name in names:
            nbformat.write(execute(path), path)
            print(f"ran {path.name}")


if __name__ == "__main__":
    main(sys.argv[1:])
