"""The distributions, built once by the locked hatchling, and fresh environments to put them in."""

from __future__ import annotations

import csv
import os
import re
import subprocess
import sys
import venv
import zipfile
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the source distribution."""
    folder = tmp_path_factory.mktemp("dist")
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-d", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="session")
def wheel(dist: Path) -> Path:
    (path,) = dist.glob("*.whl")
    return path


def _files(distribution: metadata.Distribution) -> list[str]:
    record = distribution.read_text("RECORD") or ""
    return [row[0] for row in csv.reader(record.splitlines())]


class Environment:
    """A fresh environment with the wheel, one of its extras, and nothing else.

    What the extra asks for is taken from the environment that runs the tests, so these are the
    locked versions, and no index is asked: each distribution's files are linked. An import of
    something that no requirement names fails, as it would for a user.
    """

    def __init__(self, folder: Path, wheel: Path, extra: str | None) -> None:
        venv.create(folder, with_pip=False)
        self.python = folder / "bin" / "python"
        version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
        self._packages = folder / "lib" / version / "site-packages"
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(self._packages)
        self.names: set[str] = set()
        self._seen: set[tuple[str, frozenset[str]]] = set()
        (info,) = self._packages.glob("tsmemory-*.dist-info")
        own = metadata.Distribution.at(info)
        self._require(own.requires or (), frozenset({extra} if extra else ()))

    def _require(self, requirements: Iterable[str], extras: frozenset[str]) -> None:
        for text in requirements:
            wanted = Requirement(text)
            marker = wanted.marker
            if marker and not any(marker.evaluate({"extra": e}) for e in (*extras, "")):
                continue
            asked = frozenset(wanted.extras)
            name = re.sub(r"[-_.]+", "-", wanted.name).lower()
            if (name, asked) in self._seen:
                continue
            self._seen.add((name, asked))
            self.names.add(name)
            if name == "tsmemory":
                (info,) = self._packages.glob("tsmemory-*.dist-info")
                found = metadata.Distribution.at(info)
            else:
                found = metadata.distribution(name)
                assert found.version in wanted.specifier, f"{text}: {found.version} is installed"
                self._link(found)
            self._require(found.requires or (), asked)

    def _link(self, distribution: metadata.Distribution) -> None:
        source = Path(str(distribution.locate_file("")))
        linked: set[str] = set()
        for file in _files(distribution):
            top = file.split("/")[0]
            if top in ("..", "__pycache__") or top in linked:
                continue  # scripts; what is linked whole
            # A package is linked whole, which brings its compiled files; a namespace is shared.
            folder = source / top
            whole = (folder / "__init__.py").exists() or top.endswith(".dist-info")
            name = top if whole else file
            linked.add(name)
            target = self._packages / name
            if not target.is_symlink():
                target.parent.mkdir(parents=True, exist_ok=True)
                target.symlink_to(source / name)

    def run(self, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        """Python with `arguments`, in `cwd`, with nothing of the checkout on its path."""
        environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
        return subprocess.run(
            [str(self.python), "-W", "error", *arguments],
            capture_output=True,
            text=True,
            cwd=cwd,
            env=environment | {"PYTHONDONTWRITEBYTECODE": "1"},
        )
