"""The package's imports: no circle, no arrow up, and a light ``import tsmemory``."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tools.imports import arrows, circles, modules, upward

Graph = dict[str, set[str]]
_ENGINE_AND_RECORDS = (
    "tsmemory.__init__", "tsmemory.engine.", "tsmemory.errors", "tsmemory.filters",
    "tsmemory.model", "tsmemory.times", "tsmemory.values",
)  # fmt: skip


@pytest.fixture(scope="module")
def graph() -> Graph:
    return arrows(modules())


def test_there_is_no_circle(graph: Graph) -> None:
    assert circles(graph) == []


def test_no_import_points_up() -> None:
    assert upward(arrows(modules(), types=True)) == []


def test_a_backend_imports_the_engine_and_its_own_package(graph: Graph) -> None:
    wrong = []
    for name, targets in graph.items():
        if not name.startswith("tsmemory.backends."):
            continue
        own = ".".join(name.split(".")[:3])
        allowed = (*_ENGINE_AND_RECORDS, own)
        wrong += [
            (name, t) for t in targets if not t.startswith(allowed) and t != "tsmemory.__init__"
        ]
    assert wrong == []


@pytest.mark.parametrize(
    "adapter", ["langchain_tsmemory", "llamaindex_tsmemory", "openai_agents_tsmemory"]
)
def test_an_adapter_imports_no_backend_and_no_engine_part_but_records(
    graph: Graph, adapter: str
) -> None:
    wrong = [
        (name, target)
        for name, targets in graph.items()
        if name.startswith(adapter)
        for target in targets
        if target.startswith(("tsmemory.backends", "tsmemory.store", "tsmemory.usecases"))
    ]
    assert wrong == []


def test_importing_the_package_loads_no_engine_driver_and_no_asyncio() -> None:
    program = "import sys, tsmemory; print(*sorted(sys.modules))"
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    loaded = set(ran.stdout.split())
    heavy = {"asyncio", "sqlite3", "redis", "psycopg", "httpx", "tablestore", "langchain_core",
             "llama_index", "pydantic", "logging", "http", "ssl", "typer", "rich"}  # fmt: skip
    assert not heavy & loaded
    assert not {name for name in loaded if name.startswith("tsmemory.backends.")}
