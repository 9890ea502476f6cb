"""Processes of their own, forked from one that has imported what takes long and nothing more."""

from __future__ import annotations

import multiprocessing

__all__ = ["FORKS"]

FORKS = multiprocessing.get_context("forkserver")
# A process that runs tests has one such server, and one list of what it imports: the last that was
# set. What is not installed is passed over.
FORKS.set_forkserver_preload(
    [
        "llamaindex_tsmemory",
        "tests.adapters.agents._worker",
        "tests.backends.tablestore._writer",
    ]
)
