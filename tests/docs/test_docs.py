"""README and docs run: every Python block of a page, in order, in one namespace."""

from __future__ import annotations

import contextlib
import importlib
import io
import re
import sys
import tempfile
import types
from pathlib import Path

import pytest

from tools import overview, reference

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
SHOWN = re.compile(r"\n```output\n(.*?)^```", re.MULTILINE | re.DOTALL)
"""What a page says that the block just before it prints."""
NOT_RUN = "# not run:"
TRANSLATED = {
    "README.md": "README.zh-CN.md",
    "docs/tablestore.md": "docs/zh/tablestore.md",
    "docs/coming-from-agent-memory.md": "docs/zh/coming-from-agent-memory.md",
}
RUN_ELSEWHERE = {"coming-from-agent-memory.md": "tests/backends/tablestore/test_coming_from.py"}
"""Pages whose blocks need a server of their own, and the test that runs them."""


def blocks(page: Path) -> list[str]:
    return BLOCK.findall(page.read_text(encoding="utf-8"))


# LlamaIndex's workflows look at every attribute of a model, pydantic's deprecated ones included.
@pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecationWarning")
@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_the_blocks_of_a_page_run(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if page.name in RUN_ELSEWHERE:
        assert page.name in (ROOT / RUN_ELSEWHERE[page.name]).read_text(encoding="utf-8")
        return
    text = page.read_text(encoding="utf-8")
    found = [match for match in BLOCK.finditer(text) if NOT_RUN not in match[1]]
    if not found:
        pytest.skip("no Python on this page")
    monkeypatch.chdir(tmp_path)
    module = types.ModuleType("__docs__")
    monkeypatch.setitem(sys.modules, "__docs__", module)
    for number, match in enumerate(found):
        script = tmp_path / f"{page.stem}_{number}.py"  # tools are read from their source
        script.write_text(match[1], encoding="utf-8")
        code = compile(match[1], str(script), "exec", dont_inherit=True)
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(code, module.__dict__)
        shown = SHOWN.match(text, match.end())
        if shown:
            assert printed.getvalue() == shown[1]


def test_what_is_not_run_says_why() -> None:
    for page in PAGES:
        for block in blocks(page):
            for line in block.splitlines():
                if NOT_RUN in line:
                    assert line.split(NOT_RUN)[1].strip(), page.name


ADAPTERS = ("langchain_tsmemory", "llamaindex_tsmemory", "openai_agents_tsmemory")


def test_every_public_name_is_in_the_docs() -> None:
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    for package in ("tsmemory", *ADAPTERS):
        for name in importlib.import_module(package).__all__:
            assert re.search(rf"\b{name}\b", text), f"{package}.{name}"


def test_links_lead_somewhere() -> None:
    pages = [*PAGES, *(ROOT / name for name in ("CONTRIBUTING.md", "CHANGELOG.md"))]
    pages += [ROOT / name for name in TRANSLATED.values()]
    for page in pages:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            if not target.startswith(("http://", "https://")):
                assert (page.parent / target).exists(), f"{page.name} → {target}"


def test_the_make_targets_of_the_readme_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md"):
        for target in re.findall(r"\bmake ([a-z]+)\b", page.read_text(encoding="utf-8")):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_the_picture_of_the_readme_is_the_one_that_is_drawn() -> None:
    assert overview.PICTURE.read_text(encoding="utf-8") == overview.draw(), (
        "python -m tools.overview"
    )
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for _, text, _ in overview.TRANSCRIPT[:4]:
        assert text in readme


def test_each_guarantee_names_a_test_that_exists() -> None:
    text = (ROOT / "docs" / "guarantees.md").read_text(encoding="utf-8")
    named = re.findall(rf"\[`(test_\w+)`\]\({reference.REPOSITORY}/blob/main/([^)]+)\)", text)
    assert len(named) > 25
    for name, path in named:
        assert f"def {name}(" in (ROOT / path).read_text(encoding="utf-8"), name


def test_each_error_of_troubleshooting_is_raised_somewhere() -> None:
    text = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    shown = re.findall(r"^\| `([^`]+)` \|", text, re.MULTILINE)
    assert len(shown) > 20
    sources = (
        path.read_text(encoding="utf-8")
        for package in ("core/tsmemory", *ADAPTERS)
        for path in (ROOT / package).rglob("*.py")
    )
    source = re.sub(r'"\s*\n\s*f?"', "", "\n".join(sources))  # texts over several lines
    for error in shown:
        assert error in source, error


def test_the_reference_says_of_each_name_what_stands_below_it() -> None:
    pages = reference.pages()
    fields = pages["reference/tsmemory.md"]
    assert "| `message_id` | Unique in its session; 1 to 255 bytes of UTF-8. |" in fields
    assert "| `name` |  |" in fields
    assert "The content of a message" in pages["reference/tsmemory.blocks.md"]
    assert "Stands for a value that cannot be kept." in pages["reference/tsmemory.mapping.md"]


def test_the_site_has_every_page_and_builds() -> None:
    site = pytest.importorskip("mkdocs.config", reason="mkdocs is not installed")
    from mkdocs.commands.build import build

    config = site.load_config(str(ROOT / "mkdocs.yml"))
    with tempfile.TemporaryDirectory() as out:
        config.site_dir = out
        build(config)  # strict: a warning is an error
        pages = {path.parent.name for path in Path(out).rglob("index.html")}
    assert {page.stem for page in PAGES if page.name != "README.md"} <= pages


@pytest.mark.parametrize("page", TRANSLATED)
def test_a_translation_keeps_up(page: str) -> None:
    """The same headings in their order, the same code, and as many rows and points."""
    original, translated = (
        (ROOT / name).read_text(encoding="utf-8") for name in (page, TRANSLATED[page])
    )
    fence = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
    assert fence.findall(original) == fence.findall(translated)
    for line in (r"#+(?= )", r"[|](?= )", r"-(?= )"):
        marks = re.compile(rf"^{line}", re.MULTILINE)
        assert marks.findall(fence.sub("", original)) == marks.findall(fence.sub("", translated))
