"""The adapters' tests on other releases of the frameworks than the locked ones.

    python -m tests.versions [NAME …] [-- pytest's arguments]

``oldest`` and ``oldest-agents`` have the lowest releases that pyproject.toml allows. ``newest`` has
today's newest of everything that it names, and reports first what these added to the types, fields
and methods that the adapters depend on, or took away. Without a name: the oldest ones. Each gets an
environment of its own, installed with uv where that is found, which takes minutes: so this is no
part of ``make test``. TSMEMORY_VERSIONS names a folder to keep the environments in.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

try:
    import tomllib
except ModuleNotFoundError:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
TOOLS = ("pytest>=8", "pytest-timeout>=2.3", "pytest-xdist>=3.6", "hypothesis>=6.100")
HISTORIES = ("tests/adapters/langchain", "tests/adapters/llamaindex", "tests/adapters/cross")


class Environment(NamedTuple):
    """What is installed, and which tests run on it."""

    requirements: tuple[str, ...]
    tests: tuple[str, ...]
    options: tuple[str, ...] = ()


def named_in_pyproject() -> tuple[str, ...]:
    """Every requirement of the package, its extras and its development, without versions pinned."""
    tables = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    extras = tables["project"]["optional-dependencies"].values()
    groups = (*extras, *tables["dependency-groups"].values())
    return tuple(
        text
        for group in groups
        for text in group
        if isinstance(text, str) and not text.startswith("tsmemory")
    )


VERSIONS = {
    "oldest": Environment(("langchain-core==1.0.0", "llama-index-core==0.14.16"), HISTORIES),
    # SummarizationMiddleware marks its summaries since langchain 1.2.5, which asks for a langgraph
    # that it does not run on; 1.2.7 asks for one that it does. Memory takes any store
    # since llama-index-core 0.14.24. openai-agents 0.8 does not run on the newest openai.
    "oldest-agents": Environment(
        (
            "langchain==1.2.7",
            "langchain-core==1.2.7",
            "langgraph==1.0.7",
            "langgraph-prebuilt==1.0.7",
            "llama-index-core==0.14.24",
            "openai-agents==0.8.0",
            "openai==2.9.0",
        ),
        ("tests/adapters",),
        ("-W", "ignore::DeprecationWarning"),  # these releases import what they deprecate
    ),
    "newest": Environment(named_in_pyproject(), ("tests/adapters", "tests/transfer", "tests/docs")),
}
OLDEST = ("oldest", "oldest-agents")
SHOWN = (
    "langchain-core", "langchain", "langgraph", "llama-index-core", "openai-agents", "pydantic"
)  # fmt: skip


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


def surface(python: Path | str) -> dict[str, dict[str, list[str]]]:
    """What `_surface` finds in the environment of `python`."""
    script = Path(__file__).with_name("_surface.py")
    done = subprocess.run([str(python), str(script)], stdout=subprocess.PIPE, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def changes(
    before: dict[str, dict[str, list[str]]], after: dict[str, dict[str, list[str]]]
) -> list[str]:
    """Lines that say what `after` has and `before` has not, and the reverse."""
    lines = []
    for part in sorted({*before, *after}):
        old, new = before.get(part, {}), after.get(part, {})
        for name in sorted({*old, *new}):
            if part == "versions":
                if name in old and name in new and old[name] != new[name]:
                    lines.append(f"{name}: {old[name][0]} → {new[name][0]}")
                continue
            if name not in old or name not in new:
                lines.append(f"{part}: {name} is {'new' if name in new else 'gone'}")
            else:
                lines += [f"{part}: {name}: + {x}" for x in new[name] if x not in old[name]]
                lines += [f"{part}: {name}: - {x}" for x in old[name] if x not in new[name]]
    return lines


def report(name: str, python: Path) -> None:
    """Print the versions; for the newest, also what they changed."""
    found = surface(python)
    there = found["versions"]
    print(f"{name}:", ", ".join(f"{n} {there[n][0]}" for n in SHOWN if n in there), flush=True)
    if name == "newest":
        lines = changes(surface(sys.executable), found)
        print("Changed since the lock:" if lines else "Nothing changed since the lock.")
        print("".join(f"  {line}\n" for line in lines), end="", flush=True)


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
        for name in names or OLDEST:
            wanted = VERSIONS[name]
            python = install(base / name, wanted.requirements)
            report(name, python)
            command = [str(python), "-m", "pytest", "-q", "--numprocesses", "auto"]
            done = subprocess.run([*command, *wanted.tests, *wanted.options, *options], cwd=ROOT)
            failed += done.returncode != 0
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
