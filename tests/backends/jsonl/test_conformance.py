"""The contract, on the JSONL backend."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import pytest

from tsmemory.backends.jsonl import JSONLBackend
from tsmemory.backends.jsonl.layout import file_name
from tsmemory.testing import BackendConformance, Engine, run_against_oracle

from ._edits import overwrite


class TestJSONL(BackendConformance):
    @pytest.fixture
    def engine(self, tmp_path: Path) -> Engine:
        directory = tmp_path / "chats"

        def damage(user_id: str, session_id: str, message_id: str | None) -> None:
            path = directory / file_name(user_id) / f"{file_name(session_id)}.jsonl"
            lines = path.read_bytes().splitlines(keepends=True)
            if message_id is None:
                lines[0] = b"x" * (len(lines[0]) - 1) + b"\n"
            else:
                mark = b'"message_id":"%s"' % message_id.encode()
                (i,) = (i for i, line in enumerate(lines) if mark in line)
                lines[i] = re.sub(rb'"content":".', b'"content":[!', lines[i])
            overwrite(path, b"".join(lines))

        return Engine(open=lambda: JSONLBackend(directory, durability="normal"), damage=damage)


def test_random_operations() -> None:
    with tempfile.TemporaryDirectory() as directory:
        names = (Path(directory) / str(i) for i in range(10**9))
        run_against_oracle(lambda: JSONLBackend(next(names), durability="normal"))


class Forgetful(JSONLBackend):
    """Remembers nothing between operations, as if each were the first of a new process."""

    def run(self, steps):
        self._begin()
        return super().run(steps)


def test_random_operations_of_new_processes() -> None:
    with tempfile.TemporaryDirectory() as directory:
        names = (Path(directory) / str(i) for i in range(10**9))
        run_against_oracle(lambda: Forgetful(next(names), durability="normal"), examples=25)


class Rebuilding(Forgetful):
    """Finds no meta file and no list of sessions either: everything comes from the logs."""

    def run(self, steps):
        directory = Path(self.directory)
        for file in (*directory.glob("*/*.meta.json"), *directory.glob(".tsmemory/*.jsonl")):
            file.unlink()
        return super().run(steps)


def test_random_operations_without_meta_files() -> None:
    with tempfile.TemporaryDirectory() as directory:
        names = (Path(directory) / str(i) for i in range(10**9))
        run_against_oracle(lambda: Rebuilding(next(names), durability="normal"), examples=15)
