"""Windows: what a model is shown of a conversation. They read, and never write.

A chat API refuses a tool result without its call, a call without its results right behind it, and
often a conversation that does not begin with the user. A stored conversation can be all of that: a
process died in a tool loop, two requests ran at once, the cut fell in a bad place. So a window is
not the last n records but the view that these rules make of them:

1. **Groups** (`groups`). A message with calls and the results that answer them are one group, shown
   where it became complete. All stay or all go. A result answers the nearest call before it that
   has its id and no result yet. What a call is, `calls` knows of every provider.
2. **Orphans.** A result whose call is not there, or a second result, is left out of the view; so
   is a call without a result, with the reasoning that led to it (its message stays if it says
   anything else), unless ``unanswered="error"`` asks for a result that says so.
3. **The cut** (`cut`). The newest `last` messages are in the view, the groups that they complete
   whole. With `step` the cut lies on every `step`-th message, counted from the session's first.
4. **The start.** The view begins at a user message, found by walking back from the cut, however
   far. If none stands before the cut, at the first one behind it; if there is none at all, at the
   cut. ``start="any"`` leaves this out, and so does ``last=None`` without `max_tokens`.
5. **Instructions** (`roles`). System and developer messages are kept wherever they stand, and lead
   the view (`Window.system`). A summary follows them.
6. **Tokens** (`fit`, `tokens`). With `max_tokens` the view begins at the oldest start from which
   everything fits. If the newest turn alone is too long (a tool loop), its user message and as many
   of its newest groups as fit stay, one at the least, its results shortened where they are too long
   by themselves: a view is never cut to nothing.

Rules 1 to 4 read the transcript forward and never take back what they gave. So while the cut does
not move, the view of a conversation is a prefix of its view after the next append.

In most conversations these rules change nothing, which `plain` tells in one pass.
"""

from __future__ import annotations

from tsmemory.window.cut import ORPHAN_REACH, cut
from tsmemory.window.plain import opens
from tsmemory.window.policy import Window, as_window
from tsmemory.window.tokens import UNDER_COUNT, count_text, count_tokens, token_counter

__all__ = [
    "ORPHAN_REACH",
    "UNDER_COUNT",
    "Window",
    "as_window",
    "count_text",
    "count_tokens",
    "cut",
    "opens",
    "token_counter",
]
