"""Wait for conditions."""

from __future__ import annotations

import time
from collections.abc import Callable


def eventually(condition: Callable[[], object], what: str, timeout_s: float = 10.0) -> float:
    """Wait until the condition returns a true value; return the seconds it took. A failure names `what`."""
    begin = time.monotonic()
    while not condition():
        assert time.monotonic() < begin + timeout_s, f"not within {timeout_s:g} s: {what}"
        time.sleep(0.02)
    return time.monotonic() - begin
