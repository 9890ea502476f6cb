"""For those who test a backend, ours or their own. Needs ``tsmemory[testing]``.

    from tsmemory.testing import BackendConformance, Engine

    class TestMyBackend(BackendConformance):
        @pytest.fixture
        def engine(self, tmp_path):
            return Engine(open=lambda: MyBackend(tmp_path / "data"))

runs every line of the contract over it, sync and async. `run_against_oracle` adds random
operations, compared with a plain dict.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tsmemory.testing._harness import Engine, Mode
    from tsmemory.testing.conformance import BackendConformance
    from tsmemory.testing.oracle import run_against_oracle

__all__ = ["BackendConformance", "Engine", "Mode", "run_against_oracle"]

_MODULES = {
    "BackendConformance": "conformance",
    "Mode": "_harness",
    "Engine": "_harness",
    "run_against_oracle": "oracle",
}


def __getattr__(name: str) -> Any:
    # Lazy: the local servers beside these run where pytest and hypothesis are not installed.
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
