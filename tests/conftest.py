"""What every test may rely on, however the run was started."""

from __future__ import annotations

import signal

# A program started in the background by a shell ignores Ctrl-C, and hands that on to its children.
# Tests that interrupt a child need the default; a handler of Python's becomes that in a child.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
