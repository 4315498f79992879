"""A log filter that keeps repeated lines from filling the disk: a peer or client can cause a line per message."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

WINDOW_S = 10.0
"""Length of a window."""
LINES = 5
"""Maximum number of lines written per window from one place in the code."""


class RepeatFilter(logging.Filter):
    """Filter that passes the first LINES records of each place per window.

    The first record of a later window reports how many were suppressed. Critical records always pass.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._now = now
        self._seen: dict[tuple[str, int], tuple[float, int]] = {}
        """Start of the current window and number of records in it, by place."""

    def filter(self, record: logging.LogRecord) -> bool:
        """As in logging.Filter."""
        if record.levelno >= logging.CRITICAL:
            return True
        place, now = (record.pathname, record.lineno), self._now()
        began, count = self._seen.get(place, (now, 0))
        if now - began >= WINDOW_S:
            if count > LINES:
                record.msg, record.args = f"{record.getMessage()} (and {count - LINES} more like it before)", None
            began, count = now, 0
        self._seen[place] = began, count + 1
        return count < LINES
