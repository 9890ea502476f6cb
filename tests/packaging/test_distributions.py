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
from tests.packaging.conftest import ROOT, Environment, brought
from tsmemory import Message, open_store

MODULES = {
    None: ["tsmemory.backends.sqlite", "tsmemory.backends.memory"],
    "cli": ["tsmemory.cli.app"],
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
"""Of each extra, what needs it, less what the extras that it consists of are for.

That of the demo is tested by running the demo.
"""
WHOLES = {
    "demo": ["langchain", "llamaindex"],
    "notebook": ["langchain-agents", "llamaindex", "tablestore"],
    "all": ["postgres", "redis", "tablestore", "zerodb", "cli", "langchain-agents", "llamaindex"],
}
"""Extras that consist of others."""
LOUD = {
    # At import, where it has no build of its C++ codec: an ImportWarning.
    "tablestore": "-Wignore:OTS C++ SDK extension:ImportWarning",
    # At import on Python 3.14, by langsmith.
    "langchain-agents": "-Wignore:'asyncio.iscoroutinefunction' is deprecated:DeprecationWarning",
}

IMPORTS = """
import gc, importlib, os, runpy

runpy.run_path("first.py")  # what it leaves open is told of when its names go
gc.collect()
gc.disable()
for module in {modules}:
    importlib.import_module(module)
print("imported", flush=True)
os._exit(0)
"""
"""Looking for garbage and taking an interpreter down are a third of a framework's import."""


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
def test_an_extra_brings_what_its_parts_bring(unpacked: Path, extra: str) -> None:
    whole = brought(unpacked, extra)
    for part in WHOLES[extra]:
        assert brought(unpacked, part) <= whole


def test_all_brings_no_test_tools(unpacked: Path) -> None:
    tools = {"pytest", "hypothesis", "ipykernel", "mypy", "hatchling"}
    assert brought(unpacked, "all").isdisjoint(tools)


@pytest.mark.slow
@pytest.mark.parametrize("extra", MODULES, ids=str)
def test_an_extra_alone(unpacked: Path, tmp_path: Path, extra: str | None) -> None:
    """The README's first block runs without a warning, and what the extra is for imports."""
    environment = Environment(tmp_path / "env", unpacked, extra)
    first = f"{blocks(ROOT / 'README.md')[0]}\nstore.close()\n"  # the page's last block does
    (tmp_path / "first.py").write_text(first, encoding="utf-8")
    (tmp_path / "imports.py").write_text(IMPORTS.format(modules=MODULES[extra]), encoding="utf-8")
    quiet = [LOUD[extra]] if extra in LOUD else []
    done = environment.run(*quiet, "imports.py", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("imported\n")


def test_the_demo_s_second_process_knows_what_the_first_was_told(
    unpacked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a new user runs it: with the extra that it names, and nothing else."""
    environment = Environment(tmp_path / "env", unpacked, "demo")
    monkeypatch.setenv("COLUMNS", "100")
    url = f"sqlite:///{tmp_path / 'demo.db'}"
    with open_store(url) as store:
        store.conversation("other", user_id="ada").append(Message.user("not the demo's"))
    done = environment.run("-m", "tsmemory.demo", "--store", url, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    second = done.stdout.split("That process has ended")[1]
    assert "allergic to peanuts" in second
    assert "in June" in second
    assert "nothing that I was shown says so" in second
    assert "left out" in second
    with open_store(url) as store:
        roles = [m.role for m in store.conversation("trip-to-bergen", user_id="ada").window(None)]
        assert roles == ["system", *["user", "assistant"] * 7]
        assert store.conversation("other", user_id="ada").count() == 1


def test_without_extras_each_part_names_its_own(unpacked: Path, tmp_path: Path) -> None:
    environment = Environment(tmp_path / "env", unpacked, None)

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


def test_the_command_runs_as_a_module(unpacked: Path, tmp_path: Path) -> None:
    environment = Environment(tmp_path / "env", unpacked, "cli")
    done = environment.run("-m", "tsmemory", "--version", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("tsmemory ")
