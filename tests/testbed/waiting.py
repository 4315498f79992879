"""Waiting for what will come true."""

from __future__ import annotations

import time
from collections.abc import Callable


def eventually(condition: Callable[[], object], what: str, timeout_s: float = 10.0) -> float:
    """Wait until the condition returns something true; after how many seconds. Fails with `what` it waited for."""
    begin = time.monotonic()
    while not condition():
        assert time.monotonic() < begin + timeout_s, f"not within {timeout_s:g} s: {what}"
        time.sleep(0.02)
    return time.monotonic() - begin
