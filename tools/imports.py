"""The package's imports: how many modules and arrows, which circles, which arrows up.

    python -m tools.imports            prints the figures
    python -m tools.imports --mermaid  prints the picture in ARCHITECTURE.md

Imports under ``if TYPE_CHECKING`` point nowhere up either, but make no circle: nothing runs them.
A module's layer is that of the first line of
`LAYERS` that is its name or a package it is in.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGES = {
    "tsmemory": ROOT / "core" / "tsmemory",
    "langchain_tsmemory": ROOT / "langchain_tsmemory",
    "llamaindex_tsmemory": ROOT / "llamaindex_tsmemory",
    "openai_agents_tsmemory": ROOT / "openai_agents_tsmemory",
}
LAYERS: dict[str, tuple[str, ...]] = {
    "program": ("tsmemory.cli", "tsmemory.web", "tsmemory.__main__"),
    "demo": ("tsmemory.demo",),
    "adapters": ("langchain_tsmemory", "llamaindex_tsmemory", "openai_agents_tsmemory"),
    "tools": (
        "tsmemory.testing", "tsmemory.transfer", "tsmemory.otel",
    ),
    "public": ("tsmemory.__init__", "tsmemory.adapters", "tsmemory.registry"),
    "store": (
        "tsmemory.store", "tsmemory.conversation", "tsmemory.conversation_async",
        "tsmemory.searching", "tsmemory.runner",
    ),
    "use cases": ("tsmemory.usecases",),
    "views": ("tsmemory.window", "tsmemory.search", "tsmemory.checks"),
    "backends": ("tsmemory.backends",),
    "engine": ("tsmemory.engine",),
    "records": ("tsmemory",),
}  # fmt: skip
"""From top to bottom. An import goes down, or stays in its layer. Use cases reach backends only
through the engine's contract, backends know nothing of what is above them."""


def modules() -> dict[str, Path]:
    """Every module of the packages, by name; a package's own is its ``__init__``."""
    found = {}
    for package, folder in PACKAGES.items():
        for path in sorted(folder.rglob("*.py")):
            found[".".join((package, *path.relative_to(folder).with_suffix("").parts))] = path
    return found


def arrows(known: Mapping[str, Path], *, types: bool = False) -> dict[str, set[str]]:
    """For each module, those that it imports (`types`: for a type checker alone, too)."""
    return {name: set(_imported(path, known, types)) - {name} for name, path in known.items()}


def _imported(path: Path, known: Mapping[str, Path], types: bool) -> Iterator[str]:
    nodes: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while nodes:
        node = nodes.pop()
        if types or not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)):
            children = ast.iter_child_nodes(node)
            nodes.extend(child for child in children if not isinstance(child, ast.expr))
        if isinstance(node, ast.Import):
            yield from (m for alias in node.names if (m := _module(alias.name, known)))
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            for alias in node.names:
                target = _module(f"{node.module}.{alias.name}", known) or _module(
                    node.module, known
                )
                if target:
                    yield target


def _module(name: str, known: Mapping[str, Path]) -> str | None:
    return name if name in known else next((m for m in (f"{name}.__init__",) if m in known), None)


def circles(graph: Mapping[str, Iterable[str]]) -> list[list[str]]:
    """The strongly connected parts of more than one module (Tarjan's algorithm)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for target in graph[name]:
            if target not in index:
                visit(target)
                low[name] = min(low[name], low[target])
            elif target in stack:
                low[name] = min(low[name], index[target])
        if low[name] == index[name]:
            part = stack[stack.index(name) :]
            del stack[stack.index(name) :]
            if len(part) > 1:
                found.append(sorted(part))

    for name in graph:
        if name not in index:
            visit(name)
    return found


def layer(module: str) -> str:
    """The layer that a module is in."""
    for name, members in LAYERS.items():
        if any(module == m or module.startswith(f"{m}.") for m in members):
            return name
    raise LookupError(module)


def upward(graph: Mapping[str, Iterable[str]]) -> list[tuple[str, str]]:
    """The arrows that point from a layer to one above it."""
    order = list(LAYERS)
    return [
        (source, target)
        for source, targets in graph.items()
        for target in sorted(targets)
        if order.index(layer(target)) < order.index(layer(source))
    ]


def mermaid(graph: Mapping[str, Iterable[str]]) -> str:
    """The layers, and how many imports go from each to each, as a Mermaid flowchart."""
    counts: dict[tuple[str, str], int] = {}
    sizes = dict.fromkeys(LAYERS, 0)
    for source, targets in graph.items():
        sizes[layer(source)] += 1
        for target in targets:
            pair = layer(source), layer(target)
            counts[pair] = counts.get(pair, 0) + 1
    names = {name: name.replace(" ", "") for name in LAYERS}
    lines = ["flowchart TD"]
    lines += [f'    {names[n]}["{n}<br/>{size} modules"]' for n, size in sizes.items()]
    lines += [
        f"    {names[a]} -->|{counts[a, b]}| {names[b]}"
        for a in LAYERS
        for b in LAYERS
        if a != b and (a, b) in counts
    ]
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    """Print the figures, or the picture. Exits with 1 where there is a circle or an arrow up."""
    graph = arrows(modules())
    if "--mermaid" in arguments:
        print(mermaid(graph))
        return 0
    found, wrong = circles(graph), upward(arrows(modules(), types=True))
    print(f"{len(graph)} modules, {sum(map(len, graph.values()))} arrows")
    print(f"{len(found)} circles", *(" · ".join(part) for part in found), sep="\n    ")
    print(f"{len(wrong)} arrows up", *(f"{a} → {b}" for a, b in wrong), sep="\n    ")
    return 1 if found or wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
