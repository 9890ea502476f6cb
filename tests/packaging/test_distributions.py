"""The wheel and the source distribution, as a user gets them."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import zipfile
from email import message_from_string
from pathlib import Path

import pytest

from tests.docs.test_docs import blocks
from tests.packaging.conftest import ROOT, Environment

MODULES = {
    None: ["tsmemory.backends.sqlite", "tsmemory.backends.memory"],
    "cli": ["tsmemory.cli.app"],
    "demo": ["tsmemory.demo._first", "tsmemory.demo._second"],
    "langchain": ["langchain_tsmemory", "langchain_tsmemory.importers"],
    "langchain-agents": ["langchain_tsmemory.middleware"],
    "llamaindex": ["llamaindex_tsmemory", "llamaindex_tsmemory.importers"],
    "notebook": ["ipykernel"],
    "openai-agents": ["openai_agents_tsmemory"],
    "otel": ["tsmemory.otel"],
    "postgres": ["tsmemory.backends.postgres"],
    "redis": ["tsmemory.backends.redis"],
    "tablestore": ["tsmemory.backends.tablestore"],
    "web": ["tsmemory.cli.app", "starlette"],
    "testing": ["tsmemory.testing.conformance"],
    "zerodb": ["tsmemory.backends.zerodb"],
}
"""Of each extra, what needs it, less what the extras that it consists of are for."""
WHOLES = {
    "notebook": ["langchain-agents", "llamaindex", "tablestore"],
    "all": ["postgres", "redis", "tablestore", "zerodb", "cli", "langchain-agents", "llamaindex"],
}
"""Extras that consist of others."""
LOUD = {
    # At import, where it has no build of its C++ codec: an ImportWarning.
    "tablestore": "-Wignore:OTS C++ SDK extension:ImportWarning",
}


def metadata_of(wheel: Path) -> str:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        return archive.read(name).decode()


def test_the_wheel_holds_the_packages_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    packages = {"tsmemory", "langchain_tsmemory", "llamaindex_tsmemory", "openai_agents_tsmemory"}
    assert {top for top in tops if not top.endswith(".dist-info")} == packages
    assert {f"{package}/py.typed" for package in packages} <= set(names)
    assert "tsmemory/testing/conformance.py" in names


def test_the_source_distribution_builds_the_same_wheel(
    dist: Path, wheel: Path, tmp_path: Path
) -> None:
    """It carries no tests: they need the checkout's documentation, notebooks and servers."""
    (source,) = dist.glob("*.tar.gz")
    with tarfile.open(source) as archive:
        archive.extractall(tmp_path, filter="data")
    (tree,) = tmp_path.iterdir()
    assert not (tree / "tests").exists()
    assert {"README.md", "CHANGELOG.md", "LICENSE"} <= {path.name for path in tree.iterdir()}
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path / "out")],
        cwd=tree,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    (again,) = (tmp_path / "out").glob("*.whl")
    assert sorted(zipfile.ZipFile(again).namelist()) == sorted(zipfile.ZipFile(wheel).namelist())


def test_links_of_the_published_readme_lead_somewhere(wheel: Path) -> None:
    """A package index shows the README without the repository around it."""
    text = metadata_of(wheel)
    targets = re.findall(r"\]\(([^)\s]+)\)", text)
    assert targets
    repository = dict(
        url.split(", ") for url in message_from_string(text).get_all("Project-URL", ())
    )["Repository"]
    for target in targets:
        assert target.startswith("https://"), target
        if target.startswith(repository):
            path = re.sub(r"^/(blob|tree)/main/", "", target[len(repository) :])
            assert (ROOT / path.split("#")[0]).exists(), target


def test_every_extra_is_tested(wheel: Path) -> None:
    declared = set(message_from_string(metadata_of(wheel)).get_all("Provides-Extra", ()))
    assert declared == {extra for extra in (*MODULES, *WHOLES) if extra}


@pytest.mark.parametrize("extra", WHOLES)
def test_an_extra_brings_what_its_parts_bring(wheel: Path, tmp_path: Path, extra: str) -> None:
    whole = Environment(tmp_path / "env", wheel, extra).names
    for part in WHOLES[extra]:
        assert Environment(tmp_path / part, wheel, part).names <= whole


def test_all_brings_no_test_tools(wheel: Path, tmp_path: Path) -> None:
    environment = Environment(tmp_path / "env", wheel, "all")
    assert environment.names.isdisjoint({"pytest", "hypothesis", "ipykernel", "mypy", "hatchling"})


@pytest.mark.slow
@pytest.mark.parametrize("extra", MODULES, ids=str)
def test_an_extra_alone(wheel: Path, tmp_path: Path, extra: str | None) -> None:
    """The README's first block runs without a warning, and what the extra is for imports."""
    environment = Environment(tmp_path / "env", wheel, extra)
    first = f"{blocks(ROOT / 'README.md')[0]}\nstore.close()\n"  # the page's last block does
    (tmp_path / "first.py").write_text(first, encoding="utf-8")
    done = environment.run("first.py", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    script = "\n".join(f"import {module}" for module in MODULES[extra])
    quiet = [LOUD[extra]] if extra in LOUD else []
    done = environment.run(*quiet, "-c", script, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_without_extras_each_part_names_its_own(wheel: Path, tmp_path: Path) -> None:
    environment = Environment(tmp_path / "env", wheel, None)

    def last_line(*arguments: str) -> str:
        done = environment.run(*arguments, cwd=tmp_path)
        assert done.returncode == 1, done
        return done.stderr.strip().splitlines()[-1]

    for extra in ("langchain", "llamaindex", "openai-agents"):
        line = last_line("-c", f"import {extra.replace('-', '_')}_tsmemory")
        assert line.startswith("tsmemory.errors.MissingDependencyError")
        assert f"tsmemory[{extra}]" in line
    for url, extra in (
        ("postgresql://host/db", "postgres"),
        ("redis://host", "redis"),
        ("tablestore+https://i.r.ots.aliyuncs.com/", "tablestore"),
        ("zerodb://p", "zerodb"),
    ):
        line = last_line("-c", f"import tsmemory; tsmemory.open_store({url!r})")
        assert f"tsmemory[{extra}]" in line
    assert "tsmemory[demo]" in last_line("-m", "tsmemory.demo")
    assert "tsmemory[cli]" in last_line("-m", "tsmemory", "--help")


def test_the_command_runs_as_a_module(wheel: Path, tmp_path: Path) -> None:
    environment = Environment(tmp_path / "env", wheel, "cli")
    done = environment.run("-m", "tsmemory", "--version", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("tsmemory ")
