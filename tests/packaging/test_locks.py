"""The locks: current, hashed, and without an index's address."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.packaging.conftest import ROOT, normal

try:
    import tomllib
except ModuleNotFoundError:
    import tomli as tomllib

LOCKS = sorted((ROOT / "requirements").glob("*.txt"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def locked(path: Path) -> dict[str, list[str]]:
    """The versions of each distribution."""
    pins: dict[str, list[str]] = {}
    for name, version in re.findall(r"^([\w.-]+)==(\S+)", path.read_text(), re.MULTILINE):
        pins.setdefault(normal(name), []).append(version)
    return pins


def direct() -> list[Requirement]:
    """Everything that pyproject.toml names."""
    project = PROJECT["project"]
    groups = (*project["optional-dependencies"].values(), *PROJECT["dependency-groups"].values())
    texts = [*project["dependencies"], *(text for group in groups for text in group)]
    wanted = [Requirement(text) for text in texts if isinstance(text, str)]
    return [requirement for requirement in wanted if requirement.name != "tsmemory"]


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_a_lock_is_hashed_and_names_no_index(lock: Path) -> None:
    text = lock.read_text()
    assert "://" not in text
    assert "--index" not in text
    assert "--find-links" not in text
    for entry in re.split(r"^(?=\S+==)", text, flags=re.MULTILINE)[1:]:
        assert "--hash=sha256:" in entry, entry.splitlines()[0]


def test_the_development_lock_is_current() -> None:
    """`make lock` was run after pyproject.toml changed."""
    pins = locked(ROOT / "requirements" / "dev.txt")
    for requirement in direct():
        versions = pins.get(normal(requirement.name))
        assert versions, f"{requirement.name} is not locked; run make lock"
        fits = [version in requirement.specifier for version in versions]
        # One with a marker is for some of the versions: those of its Pythons.
        enough = any(fits) if requirement.marker else all(fits)
        assert enough, f"{requirement}: {versions}; run make lock"


def test_the_demo_s_lock_is_a_part_of_it() -> None:
    whole = locked(ROOT / "requirements" / "dev.txt")
    for name, versions in locked(ROOT / "requirements" / "demo.txt").items():
        assert set(versions) <= set(whole[name]), name
