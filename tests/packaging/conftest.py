"""The distributions, built once by the locked hatchling, and fresh environments to put them in."""

from __future__ import annotations

import csv
import functools
import os
import re
import subprocess
import sys
import venv
import zipfile
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


@pytest.fixture(scope="session")
def unpacked(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel's files, as an installer lays them out; environments link them."""
    folder = tmp_path_factory.mktemp("wheel")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def normal(name: str) -> str:
    """A distribution's name as an index has it."""
    return re.sub(r"[-_.]+", "-", name).lower()


@functools.cache
def _installed(name: str) -> tuple[metadata.Distribution, str, tuple[Requirement, ...]]:
    """One of this environment: itself, its version, and what it asks for."""
    found = metadata.distribution(name)
    return found, found.version, tuple(map(Requirement, found.requires or ()))


def brought(unpacked: Path, extra: str | None) -> set[str]:
    """The names of all distributions that an installer brings for the wheel with an extra.

    They are those of the environment that runs the tests, so these are the locked versions, and
    no index is asked.
    """
    (info,) = unpacked.glob("tsmemory-*.dist-info")
    own = tuple(map(Requirement, metadata.Distribution.at(info).requires or ()))
    seen: set[tuple[str, frozenset[str]]] = set()
    open_ends = [(own, frozenset({extra} if extra else ()))]
    while open_ends:
        requirements, extras = open_ends.pop()
        for wanted in requirements:
            marker = wanted.marker
            if marker and not any(marker.evaluate({"extra": e}) for e in (*extras, "")):
                continue
            name, asked = normal(wanted.name), frozenset(wanted.extras)
            if (name, asked) in seen:
                continue
            seen.add((name, asked))
            if name == "tsmemory":
                open_ends.append((own, asked))
                continue
            _, version, further = _installed(name)
            assert version in wanted.specifier, f"{wanted}: {version} is installed"
            open_ends.append((further, asked))
    return {name for name, _ in seen}


@functools.cache
def _links(name: str) -> tuple[tuple[str, Path], ...]:
    """The places of a distribution's files in a folder of packages, and what they lead to."""
    distribution, _, _ = _installed(name)
    source = Path(str(distribution.locate_file("")))
    record = distribution.read_text("RECORD") or ""
    links: dict[str, Path] = {}
    for file, *_ in csv.reader(record.splitlines()):
        top = file.split("/")[0]
        if top in ("..", "__pycache__") or top in links:
            continue  # scripts; what is linked whole
        # A package is linked whole, which brings its compiled files; a namespace is shared.
        whole = top.endswith(".dist-info") or (source / top / "__init__.py").exists()
        place = top if whole else file
        links[place] = source / place
    return tuple(links.items())


class Environment:
    """A fresh environment with the wheel, one of its extras, and nothing else.

    Each distribution's files are linked, with their compiled ones; those of the wheel are compiled
    by the first that needs them. An import of something that no requirement names fails, as it
    would for a user.
    """

    def __init__(self, folder: Path, unpacked: Path, extra: str | None) -> None:
        venv.create(folder, with_pip=False)
        self.python = folder / "bin" / "python"
        version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
        packages = folder / "lib" / version / "site-packages"
        for path in unpacked.iterdir():
            (packages / path.name).symlink_to(path)
        for name in brought(unpacked, extra) - {"tsmemory"}:
            for place, source in _links(name):
                target = packages / place
                if not target.is_symlink():
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.symlink_to(source)

    def run(self, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        """Python with `arguments`, in `cwd`, with nothing of the checkout on its path."""
        apart = ("PYTHONPATH", "PYTHONHOME", "PYTHONDONTWRITEBYTECODE")
        return subprocess.run(
            [str(self.python), "-W", "error", *arguments],
            capture_output=True,
            text=True,
            cwd=cwd,
            env={k: v for k, v in os.environ.items() if k not in apart},
        )
