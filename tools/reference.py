"""The site's pages that are made from the code: the API reference, backends, formats on disk.

A hook of MkDocs (see mkdocs.yml). The start pages are the READMEs. ``python -m tools.reference``
prints the names of the pages.
"""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import itertools
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, TypeGuard

__all__ = ["REPOSITORY", "index", "pages"]

ROOT = Path(__file__).parents[1]
REPOSITORY = "https://github.com/tsmemory/tsmemory"
MODULES = {
    "tsmemory": "The core",
    "tsmemory.blocks": "Content blocks",
    "langchain_tsmemory": "LangChain",
    "llamaindex_tsmemory": "LlamaIndex",
    "openai_agents_tsmemory": "OpenAI Agents SDK",
    "tsmemory.responses_format": "Items of the Responses API",
    "tsmemory.transfer": "Moving conversations",
    "tsmemory.engine": "For authors of backends",
    "tsmemory.testing": "Testing backends",
    "tsmemory.adapters": "For authors of adapters",
    "tsmemory.mapping": "For authors of mappings",
    "tsmemory.otel": "Telemetry",
}
BACKENDS = {
    "tsmemory.backends.sqlite": "SQLiteBackend",
    "tsmemory.backends.memory": "MemoryBackend",
    "tsmemory.backends.jsonl": "JSONLBackend",
    "tsmemory.backends.postgres": "PostgresBackend",
    "tsmemory.backends.redis": "RedisBackend",
    "tsmemory.backends.tablestore": "TablestoreBackend",
    "tsmemory.backends.zerodb": "ZeroDBBackend",
}
_SECTION = re.compile(r"^(Args|Returns|Raises|Yields|Attributes):$")
_ENTRY = re.compile(r"^(\s*)([\w.*`]+(?: \([^)]*\))?): (.*)$")


def pages() -> dict[str, str]:
    """Every generated page, by its path in the site."""
    made = {f"reference/{name}.md": _module(name, title) for name, title in MODULES.items()}
    made["reference/backends.md"] = _backends()
    made["reference/formats.md"] = _formats()
    return made


START = {"README.md": "index.md", "README.zh-CN.md": "zh/index.md"}
"""The start pages of the site, and where they are in it."""


def index(readme: str = "README.md") -> str:
    """A README as a start page of the site."""
    text = (ROOT / readme).read_text(encoding="utf-8")
    up = "../" * START[readme].count("/")

    def target(match: re.Match[str]) -> str:
        path = match[1]
        if path.startswith(("http://", "https://", "#")):
            return f"]({path})"
        if path in START:
            return f"]({up}{START[path]})"
        if path.startswith("docs/"):
            return f"]({up}{path.removeprefix('docs/')})"
        return f"]({REPOSITORY}/blob/main/{path})"

    return re.sub(r"\]\(([^)\s]+)\)", target, text)


def _module(name: str, title: str) -> str:
    module = importlib.import_module(name)
    lead = (module.__doc__ or "").strip().split("\n\n")[0]
    parts = [f"# {title}: `{name}`", lead if "    " not in lead else ""]
    for public in sorted(module.__all__, key=str.lower):
        if public != "__version__":
            parts += _entry(public, getattr(module, public), name)
    return "\n\n".join(part for part in parts if part) + "\n"


def _entry(name: str, value: Any, module: str) -> Iterator[str]:
    yield f"## {name}"
    if inspect.isclass(value) and value.__module__.split(".")[0] == module.split(".")[0]:
        yield _code(name, value)
        yield _doc(value.__doc__)
        yield from _fields(value)
        yield from _methods(value)
    elif inspect.isroutine(value):
        yield _code(name, value)
        yield _doc(inspect.getdoc(value))
    else:
        yield f"```python\n{name} = {_value(value)}\n```"
        yield _attribute_doc(importlib.import_module(module), name)


def _value(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 200 and " at 0x" not in text else f"...  # {type(value).__name__}"


def _code(name: str, value: Any) -> str:
    try:
        signature = str(inspect.signature(value))
    except (TypeError, ValueError):
        return ""
    if " at 0x" in signature:  # of a default that is a function
        signature = re.sub(r"<function (\w+) at 0x[0-9a-f]+>", r"\1", signature)
    signature = re.sub(r"(: |-> )'([^']*)'", r"\1\2", signature)  # annotations are strings
    signature = re.sub(r"^\((?:self|cls)(?:, )?", "(", signature)
    signature = re.sub(r"\btyping\.|collections\.abc\.", "", signature)
    if len(name) + len(signature) > 90:
        inner = re.split(
            r", (?=\*?\*?\w+(?::|=|,|\)|$)|\*, |/, )", signature[1 : signature.rfind(")")]
        )
        signature = (
            "(\n" + "".join(f"    {part},\n" for part in inner) + signature[signature.rfind(")") :]
        )
    return f"```python\n{name}{signature}\n```"


def _doc(text: str | None) -> str:
    """A docstring as Markdown: sections as headings, what they list as a list."""
    lines: list[str] = []
    section = False
    for line in inspect.cleandoc(text or "").splitlines():
        heading = _SECTION.match(line)
        entry = _ENTRY.match(line) if section else None
        if heading:
            lines += ["", f"**{heading[1]}**", ""]
            section = True
        elif entry and len(entry[1]) <= 4:
            lines.append(f"- `{entry[2].strip('`')}`: {entry[3]}")
        elif section and line.startswith("    "):
            lines.append(f"  {line.strip()}")
        else:
            section = section and not line.strip()
            lines.append(line)
    return "\n".join(lines).replace("``", "`")


def _fields(kind: type) -> Iterator[str]:
    names = getattr(kind, "__struct_fields__", None) or getattr(kind, "_fields", None)
    if not names:
        return
    rows = [f"| `{name}` | {_attribute_doc(kind, name).replace(chr(10), ' ')} |" for name in names]
    yield "| field | |\n|---|---|\n" + "\n".join(rows)


def _attribute_doc(owner: type | ModuleType, name: str) -> str:
    """The string below an attribute."""
    for statement, below in itertools.pairwise(_body(owner)):
        targets = statement.targets if isinstance(statement, ast.Assign) else []
        if isinstance(statement, ast.AnnAssign):
            targets = [statement.target]
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            text = ast.literal_eval(below.value) if _is_text(below) else ""
            return inspect.cleandoc(text).replace("``", "`")
    return ""


@functools.cache
def _body(owner: type | ModuleType) -> list[ast.stmt]:
    """What stands in a class or a module; nothing for one without source."""
    try:
        source = inspect.getsource(owner)
    except (OSError, TypeError):
        return []
    body = ast.parse(textwrap.dedent(source)).body
    if isinstance(body[0], ast.ClassDef) and isinstance(owner, type):
        return body[0].body
    return body


def _is_text(statement: ast.stmt) -> TypeGuard[ast.Expr]:
    value = statement.value if isinstance(statement, ast.Expr) else None
    return isinstance(value, ast.Constant) and isinstance(value.value, str)


def _methods(kind: type) -> Iterator[str]:
    own = [
        (name, getattr(kind, name))
        for name in dir(kind)
        if not name.startswith("_")
        and (getattr(getattr(kind, name), "__module__", None) or "").startswith(
            ("tsmemory", "langchain_tsmemory", "llamaindex_tsmemory", "openai_agents_tsmemory")
        )
        if inspect.isroutine(getattr(kind, name))
    ]
    names = {name for name, _ in own}
    for name, method in own:
        if name.startswith("a") and name[1:] in names:
            continue  # the async version, named with the sync one
        async_name = f" · `await a{name}`" if f"a{name}" in names else ""
        yield f"### `{name}`{async_name}"
        yield _code(name, method)
        yield _doc(inspect.getdoc(method))


def _backends() -> str:
    from tsmemory.engine import Searchable
    from tsmemory.registry import SCHEMES

    rows = []
    for module, name in BACKENDS.items():
        kind = getattr(importlib.import_module(module), name)
        schemes = [scheme for scheme, found in SCHEMES.items() if found[1] == name]
        extra = next(found[2] for found in SCHEMES.values() if found[1] == name)
        largest = kind.capabilities.max_message_bytes
        rows.append(
            f"| `{name}` | {', '.join(f'`{s}`' for s in schemes)} | "
            f"{f'`tsmemory[{extra}]`' if extra else ''} | "
            f"{'yes' if kind.capabilities.atomic else 'no: see its page'} | "
            f"{f'{largest:,}' if largest else 'memory'} | "
            f"{'an index' if issubclass(kind, Searchable) else 'reads the messages'} |"
        )
    parts = [
        "# Backends, as the code declares them",
        "| backend | URL schemes | extra | a batch is atomic | largest message, bytes encoded | "
        "search |\n|---|---|---|---|---|---|\n" + "\n".join(rows),
    ]
    for module, name in BACKENDS.items():
        kind = getattr(importlib.import_module(module), name)
        parts += [f"## {name}", f"`{module}`", _code(name, kind), _doc(kind.__doc__)]
    return "\n\n".join(parts) + "\n"


def _formats() -> str:
    from tsmemory.backends.postgres.layout import MIGRATIONS, Layout
    from tsmemory.backends.sqlite import SCHEMA

    layout = Layout.named("public", "tsmemory_")
    tables = [
        statement
        for number in range(len(MIGRATIONS))
        for statement in layout.migration(number, partitions=0, server_version=180_000)
    ]
    return (
        "# Formats on disk, as the code makes them\n\n"
        "The words to them are on the backends' pages: [SQLite](../sqlite.md#the-format), "
        "[PostgreSQL](../postgres.md#the-tables), [Redis](../redis.md#the-keys), "
        "[JSONL](../jsonl-format.md), [Tablestore](../tablestore.md#where-rows-are), "
        "[ZeroDB](../zerodb.md#what-is-kept-where).\n\n"
        f"## SQLite\n\n```sql\n{SCHEMA.strip()}\n```\n\n"
        f"## PostgreSQL\n\n```sql\n{_statements(tables)}\n```\n"
    )


def _statements(statements: list[str]) -> str:
    return "\n\n".join(f"{inspect.cleandoc(statement)};" for statement in statements)


# -- the hook ---------------------------------------------------------------------------------


def on_files(files: Any, config: Any) -> Any:
    """MkDocs asks for the site's files."""
    from mkdocs.structure.files import File

    starts = {path: index(readme) for readme, path in START.items()}
    for path, text in {**starts, **pages()}.items():
        files.append(File.generated(config, path, content=text))
    return files


if __name__ == "__main__":
    print(*pages(), sep="\n")
