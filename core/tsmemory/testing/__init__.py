"""For those who test a backend, ours or their own. Needs ``tsmemory[testing]``.

    from tsmemory.testing import BackendConformance, Engine

    class TestMyBackend(BackendConformance):
        @pytest.fixture
        def engine(self, tmp_path):
            return Engine(open=lambda: MyBackend(tmp_path / "data"))

runs every line of the law over it, in both colours. `run_against_oracle` adds random operations,
compared with a plain dict.
"""

from __future__ import annotations

from tsmemory.testing._harness import Colour, Engine
from tsmemory.testing.conformance import BackendConformance
from tsmemory.testing.oracle import run_against_oracle

__all__ = ["BackendConformance", "Colour", "Engine", "run_against_oracle"]
