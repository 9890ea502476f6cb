"""Run the adapters' tests on the oldest supported frameworks, and on the newest there are.

``python -m tests.versions [NAME …] [-- pytest's arguments]``; the names are those of `VERSIONS`,
and without one, all run. Each gets an environment of its own, installed with uv where that is
found, which takes a minute or two: so this is no part of ``make test``. TSMEMORY_VERSIONS names a
folder to keep the environments in.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
TOOLS = ("pytest>=8", "pytest-timeout>=2.3", "hypothesis>=6.100")
HISTORIES = ("tests/adapters/langchain", "tests/adapters/llamaindex", "tests/adapters/cross")
ALL = (*HISTORIES, "tests/adapters/agents")


class Environment(NamedTuple):
    """What is installed, and which tests run on it."""

    requirements: tuple[str, ...]
    tests: tuple[str, ...]
    options: tuple[str, ...] = ()


VERSIONS = {
    "oldest": Environment(("langchain-core==1.0.0", "llama-index-core==0.14.16"), HISTORIES),
    # SummarizationMiddleware marks its summaries since langchain 1.2.5, which asks for a langgraph
    # that it does not run on; 1.2.7 asks for one that it does. Memory takes any store
    # since llama-index-core 0.14.24.
    "oldest-agents": Environment(
        (
            "langchain==1.2.7",
            "langchain-core==1.2.7",
            "langgraph==1.0.7",
            "langgraph-prebuilt==1.0.7",
            "llama-index-core==0.14.24",
        ),
        ALL,
        ("-W", "ignore::DeprecationWarning"),  # these releases import what they deprecate
    ),
    "newest": Environment(
        ("langchain-core<2", "langchain<2", "langgraph<2", "llama-index-core<0.15"), ALL
    ),
}
SHOWN = ("langchain-core", "langchain", "langgraph", "llama-index-core", "pydantic")
REPORT = """
import sys
from importlib.metadata import distributions

there = {d.metadata["Name"]: d.version for d in distributions()}
print(f"{sys.argv[1]}:", ", ".join(f"{n} {there[n]}" for n in sys.argv[2:] if n in there))
"""


def install(folder: Path, requirements: tuple[str, ...]) -> Path:
    """Make an environment in `folder`; its Python."""
    python = folder / "bin" / "python"
    wanted = [*requirements, *TOOLS, "--editable", str(ROOT)]
    uv = shutil.which("uv")
    if uv is not None:
        subprocess.run(
            [uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(folder)], check=True
        )
        command = [uv, "pip", "install", "--quiet", "--upgrade", "--python", str(python)]
    else:
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        command = [str(python), "-m", "pip", "install", "--quiet", "--upgrade"]
    subprocess.run([*command, *wanted], check=True)
    return python


def main(arguments: list[str]) -> int:
    """Run what is asked for. Returns how many of the environments failed."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    names, options = arguments[:end], arguments[end + 1 :]
    unknown = set(names) - set(VERSIONS)
    if unknown:
        raise SystemExit(f"no versions {unknown.pop()!r}; one of {', '.join(VERSIONS)}")
    failed = 0
    with tempfile.TemporaryDirectory() as scratch:
        base = Path(os.environ.get("TSMEMORY_VERSIONS") or scratch)
        for name in names or VERSIONS:
            wanted = VERSIONS[name]
            python = install(base / name, wanted.requirements)
            subprocess.run([str(python), "-c", REPORT, name, *SHOWN], check=True)
            done = subprocess.run(
                [str(python), "-m", "pytest", "-q", *wanted.tests, *wanted.options, *options],
                cwd=ROOT,
            )
            failed += done.returncode != 0
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
