"""No interrupt leaves a lock held: the mechanism, and that every module uses it."""

from __future__ import annotations

import ast
import itertools
import random
import signal
import threading
from pathlib import Path

import pytest

import tsmemory
from tsmemory.engine.locks import releasing

PACKAGE = Path(tsmemory.__file__).parent
ROOT = Path(__file__).parents[2]
ADAPTERS = ("langchain_tsmemory", "llamaindex_tsmemory", "openai_agents_tsmemory")
LOCKS = {"Lock", "RLock"}


class Interrupt(BaseException):
    pass


def _interrupt(*_: object) -> None:
    raise Interrupt


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timer signals here")
def test_an_interrupt_leaves_the_lock_free() -> None:
    lock = threading.RLock()
    rng = random.Random(1)
    before = signal.signal(signal.SIGALRM, _interrupt)
    interrupted = 0
    try:
        for _ in range(300):  # a plain `with lock` is left held in every second on CPython 3.14
            try:
                try:
                    signal.setitimer(signal.ITIMER_REAL, rng.uniform(0.00005, 0.001), 5)
                    while True:
                        with releasing(lock), lock:
                            with releasing(lock), lock:
                                pass
                finally:
                    signal.setitimer(signal.ITIMER_REAL, 0)
            except Interrupt:
                interrupted += 1
            assert not lock._is_owned()
    finally:
        signal.signal(signal.SIGALRM, before)
    assert interrupted == 300


def test_an_error_inside_leaves_the_outer_hold() -> None:
    lock = threading.RLock()
    with releasing(lock), lock:
        with pytest.raises(ValueError, match="inside"), releasing(lock), lock:
            raise ValueError("inside")
        assert lock._is_owned()
    assert not lock._is_owned()


Nodes = dict[Path, list[ast.AST]]
"""All the nodes of each module."""


@pytest.fixture(scope="module")
def nodes() -> Nodes:
    # The servers of `tsmemory.testing` run in processes and threads that nothing interrupts.
    files = [p for p in PACKAGE.rglob("*.py") if "testing" not in p.relative_to(PACKAGE).parts]
    files += [path for name in ADAPTERS for path in (ROOT / name).rglob("*.py")]
    return {path: list(ast.walk(ast.parse(path.read_text(encoding="utf-8")))) for path in files}


def _names(nodes: Nodes) -> set[str]:
    """What locks are assigned to."""
    names = set()
    for node in itertools.chain(*nodes.values()):
        if not isinstance(node, ast.Assign) or not any(
            isinstance(part, ast.Attribute) and part.attr in LOCKS for part in ast.walk(node.value)
        ):
            continue
        for target in node.targets:
            for part in ast.walk(target):
                if isinstance(part, ast.Attribute | ast.Name) and isinstance(part.ctx, ast.Store):
                    names.add(part.attr if isinstance(part, ast.Attribute) else part.id)
    return names


def test_every_lock_is_taken_so(nodes: Nodes) -> None:
    names = _names(nodes)
    assert {"OPENING", "_guard", "_lock", "guard"} <= names
    plain, used = [], 0
    for path, node in ((path, node) for path, found in nodes.items() for node in found):
        if not isinstance(node, ast.With):
            continue
        for i, item in enumerate(node.items):
            if isinstance(item.context_expr, ast.Call):
                continue  # of no name, so no lock
            lock = ast.unparse(item.context_expr)
            if lock.rpartition(".")[2] in names:
                used += 1
                if i == 0 or ast.unparse(node.items[i - 1].context_expr) != f"releasing({lock})":
                    plain.append(f"{path.name}:{node.lineno}: with {lock}")
    assert used > 40
    assert plain == []


def test_none_waits_by_what_has_a_lock_inside(nodes: Nodes) -> None:
    """`threading.Event` and its like take a lock of theirs without `releasing`."""
    found = [
        f"{path.name}:{node.lineno}: {node.attr}"
        for path in nodes
        for node in nodes[path]
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "threading"
        and node.attr in {"Barrier", "BoundedSemaphore", "Condition", "Event", "Semaphore"}
    ]
    assert found == []
