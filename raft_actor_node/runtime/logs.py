"""Keeps what is said again and again from filling the disk: a peer or a client can cause a line with each message."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

WINDOW_S = 10.0
LINES = 5
"""Lines from one place of the code that are written in a window."""


class RepeatFilter(logging.Filter):
    """Lets the first LINES records from one place pass in each window; the next one says how many are missing.

    Critical records always pass.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._now = now
        self._seen: dict[tuple[str, int], tuple[float, int]] = {}
        """By place: when its window began, and the records since."""

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
