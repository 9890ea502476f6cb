"""A run of one engine without its peers, and the page that is made of figures."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from benchmarks import comparison, contenders, report
from benchmarks.comparison import Effort
from benchmarks.contenders import FLOOR, OURS
from benchmarks.process import ContenderError, Process

TINY = Effort(seconds=0, least=0, history=50, blocks=1, held=2, starts=1, peers_start=False)


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files alone: the floor, ours, and a contender that fails at once."""
    cases = {FLOOR: "files:floor", OURS: "files:ours", "broken": "files:missing"}
    monkeypatch.setattr(comparison, "ENGINES", {"jsonl": cases})
    monkeypatch.setattr(comparison, "FULL", TINY)
    monkeypatch.setattr(comparison, "_LEAST_TIMED", 0.01)
    monkeypatch.setattr(comparison, "_LEAST_SERVED", 0.01)


def test_a_run_writes_its_figures_and_names_what_fails(brief: None, tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    page, figures = tmp_path / "benchmarks.md", tmp_path / "figures.json"
    comparison.main(["jsonl", "--json", str(figures), "--report", str(page)])
    found = json.loads(figures.read_text())["engines"]["jsonl"]
    assert set(found["operations"]) == set(comparison._OPERATIONS)
    for cases in found["operations"].values():
        assert list(cases) == [FLOOR, OURS]
        assert all(case["calls"] and case["p50"] <= case["p99"] for case in cases.values())
    assert list(found["async"]) == ["1", "10", "100"]
    assert found["cold start ms"][OURS]
    assert found["bytes per message"][OURS]
    assert "opening: " in found["left out"]["broken"]
    assert "broken, `opening: " in page.read_text()
    assert (tmp_path / "pictures" / "benchmarks.svg").read_text().startswith("<svg")


def test_a_contender_that_dies_is_an_error_with_its_last_words(tmp_path: Path) -> None:
    process = Process("sqlite", "nobody", tmp_path)
    with pytest.raises(ContenderError, match="KeyError: 'nobody'"):
        process.wait()
    process.close()


def case(p50: float) -> dict[str, float]:
    return {"p50": p50, "p99": p50, "cpu": p50, "calls": 1}


def test_what_is_missed_is_marked_with_what_it_costs() -> None:
    operations = {"window of 20": {FLOOR: case(100), OURS: case(190), "peer": case(50)}}
    empty: dict[str, Any] = {
        "async": {}, "left out": {}, "bytes per message": {OURS: 5, "peer": 10}
    }  # fmt: skip
    figures = {"engines": {"sqlite": {"operations": operations, **empty}}}
    assert report.missed(figures) == [
        "SQLite, window of 20: 1.90 × the floor (target 1.5)",
        "SQLite, window of 20: 3.80 × the best peer (target 1)",
    ]
    text = "\n".join(report._targets(figures["engines"]))
    assert "| window of 20 | **missed: 1.90**, 40 µs over |" in text
    assert "| window of 20 | **missed: 3.80**, 140 µs over |" in text
    assert "| stored per message | 0.50 |" in text


def test_every_contender_is_a_function_that_is_there() -> None:
    for engine, cases in contenders.ENGINES.items():
        assert list(cases)[:2] == [FLOOR, OURS], engine
        for where in cases.values():
            module, _, function = where.partition(":")
            source = Path(contenders.__file__).with_name(f"{module}.py").read_text()
            assert re.search(rf"^def {function}\(", source, re.MULTILINE), where
