"""Bounds on the time and memory of a check."""

from __future__ import annotations

import math
import time
from typing import Literal

PAUSE_S = 5.0
"""A longer gap between two looks at the clock means that this process was stopped; it does not count as check time."""


class OutOfBounds(Exception):
    """Time or memory ran out: the verdict is unknown."""

    def __init__(self, what: Literal["time", "memory"]) -> None:
        super().__init__(what)
        self.what = what


class Bounds:
    """The time and memory that a check may still use.

    The check calls `look` or `room` after each step that may take 0.1 s or some MB.
    """

    def __init__(self, end: float = math.inf, most_bytes: float = math.inf) -> None:
        self.end = end
        """On the monotonic clock, in seconds."""
        self.most_bytes = most_bytes
        self._looked = time.monotonic()

    def room(self, occupied: float) -> float:
        """Check the clock; return how many bytes are free when `occupied` bytes are in use. Raises OutOfBounds."""
        self.look()
        if occupied >= self.most_bytes:
            raise OutOfBounds("memory")
        return self.most_bytes - occupied

    def look(self) -> None:
        """Check the clock. Raises OutOfBounds."""
        now = time.monotonic()
        if now - self._looked > PAUSE_S:
            self.end += now - self._looked
        self._looked = now
        if now >= self.end:
            raise OutOfBounds("time")
