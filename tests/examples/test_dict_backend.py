"""A third party's backend, installed as its own distribution, opened by its URL."""

from __future__ import annotations

import ast
import importlib
import itertools
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import tsmemory
import tsmemory.engine
from tsmemory import InvalidInputError, open_store
from tsmemory.engine import Key
from tsmemory.testing import BackendConformance, Engine, run_against_oracle

PROJECT = Path(__file__).parents[2] / "examples" / "tsmemory-dict"
# What docs/writing-an-engine.md tells of.
_PUBLIC = ("tsmemory", "tsmemory.engine", "tsmemory.engine.commit", "tsmemory.engine.locks")
_names = (f"space{i}" for i in itertools.count())


@pytest.fixture(scope="module", autouse=True)
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The distribution as an installer leaves it: its module, and its metadata with the entry
    point of its pyproject.toml."""
    site = tmp_path_factory.mktemp("site")
    (site / "tsmemory_dict.py").write_bytes((PROJECT / "tsmemory_dict.py").read_bytes())
    metadata = site / "tsmemory_dict-0.1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: tsmemory-dict\nVersion: 0.1.0\n"
    )
    (metadata / "entry_points.txt").write_text(
        "[tsmemory.backends]\ndict = tsmemory_dict:DictBackend\n"
    )
    sys.path.insert(0, str(site))
    yield
    sys.path.remove(str(site))
    sys.modules.pop("tsmemory_dict", None)


class TestDict(BackendConformance):
    @pytest.fixture
    def engine(self) -> Engine:
        url = f"dict://{next(_names)}"

        def damage(user_id: str, session_id: str, message_id: str | None) -> None:
            sessions = open_store(url).backend._space.sessions  # type: ignore[attr-defined]
            key = Key(user_id, session_id)
            stored = sessions[key]
            if message_id is None:
                sessions[key] = stored._replace(record=b"{")
            else:
                time, _ = stored.messages[message_id]
                stored.messages[message_id] = (time, b'{"role":')

        return Engine(open=lambda: open_store(url).backend, damage=damage)


def test_random_operations() -> None:
    run_against_oracle(lambda: open_store(f"dict://{next(_names)}").backend, examples=10)


def test_it_imports_public_names_alone() -> None:
    tree = ast.parse((PROJECT / "tsmemory_dict.py").read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("tsmemory"):
            assert node.module in _PUBLIC
            public = importlib.import_module(node.module).__all__
            assert {alias.name for alias in node.names} <= set(public)


def test_its_entry_point_is_the_projects() -> None:
    assert 'dict = "tsmemory_dict:DictBackend"' in (PROJECT / "pyproject.toml").read_text()


def test_a_scheme_that_nobody_registered_names_those_there_are() -> None:
    with pytest.raises(InvalidInputError, match=r"no backend for .*'other'; one of dict, jsonl"):
        open_store("other://x")


def test_every_name_of_the_kit_is_there() -> None:
    for name in tsmemory.engine.__all__:
        assert getattr(tsmemory.engine, name) is not None
    with pytest.raises(AttributeError):
        tsmemory.engine.nothing  # noqa: B018
